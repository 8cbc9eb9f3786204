//! Kernels over slices, for the processor. They know numbers, not tensors.
//!
//! Elementwise work is written once, in loops that the compiler turns into vectors, and compiled
//! for several instruction sets; products have a file for each. The best that the processor has is
//! chosen when it runs.

pub mod adamw;
pub mod attention;
mod bf16;
pub mod buffer;
pub mod eight_bits;
pub mod element;
pub mod embeddings;
pub mod encoder;
mod exact;
pub mod gemm;
pub mod int8;
mod isa;
mod lanes;
pub mod math;
mod pack;
pub mod parallel;
mod transpose;

pub use buffer::Buffer;
pub use element::{Bf16, Element};
pub use gemm::Kernel;
pub(crate) use isa::dispatch;
pub use isa::{Isa, isa};
use transpose::transpose;
