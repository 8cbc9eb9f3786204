//! Kernels over slices, for the processor. They know numbers, not tensors.
//!
//! Each is written once, in loops that the compiler turns into vectors, and compiled for several
//! instruction sets; the best that the processor has is chosen when it runs. No multiplication is
//! contracted with an addition, so every instruction set gives the same bits.

pub mod adamw;
pub mod attention;
pub mod bias_act;
mod isa;
pub mod math;
pub mod norm;
pub mod parallel;

pub(crate) use isa::dispatch;
