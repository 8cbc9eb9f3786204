//! What the kernels have by hand, which goes into the engine as a whole: kernels/src/cpu/int8/by_spans.rs says why.

std::arch::global_asm!(include_str!("../../kernels/src/cpu/int8/by_spans.s"), options(raw));
