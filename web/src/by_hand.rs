//! What the kernels have by hand, which goes into the engine as a whole: kernels/src/cpu/int8/by_spans.rs says why.

#[cfg(target_feature = "relaxed-simd")]
std::arch::global_asm!(include_str!("../../kernels/src/cpu/int8/by_spans.s"), options(raw));
#[cfg(not(target_feature = "relaxed-simd"))]
std::arch::global_asm!(include_str!("../../kernels/src/cpu/int8/simd128.s"), options(raw));
std::arch::global_asm!(include_str!("../../kernels/src/cpu/lanes/gelu.s"), options(raw));
std::arch::global_asm!(include_str!("../../kernels/src/cpu/lanes/probabilities.s"), options(raw));
