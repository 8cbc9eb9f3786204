//! Fused tensor operations for training and running transformer encoders, with gradients.
//!
//! This crate knows tensors and packed sequences, not checkpoints, files or text. Every operation
//! has a plain twin in [`mod@reference`], made of ordinary candle operations: the oracle in tests,
//! and the implementation on devices for which there is no fused one.

// Not stable yet; what has threads asks for that anyway, as it compiles the standard library.
#![cfg_attr(
    all(target_family = "wasm", target_feature = "atomics"),
    feature(stdarch_wasm_atomic_wait)
)]

pub mod adamw;
pub mod coding;
mod cpu;
pub mod device;
pub mod dropout;
pub mod encoder;
pub mod gradients;
pub mod head;
pub mod int8;
mod linear;
pub mod reference;
mod sequences;

pub use adamw::{AdamW, AdamWConfig};
pub use cpu::encoder::LayerDropout;
pub use cpu::encoder::Queries;
#[cfg(feature = "checks")]
pub use cpu::int8::checks::{
    every_tile_gives_the_same_integers, vectors_give_the_bits_of_single_numbers,
};
pub use cpu::isa;
#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
pub use cpu::parallel::bell;
pub use dropout::{Dropout, DropoutKey};
pub use encoder::{
    Encoder, EncoderDropout, EncoderInput, EncoderOptions, EncoderParameters, LayerParameters,
    LinearParameters, LinearWeight, NormParameters, Parameter, Precision, WordTable,
};
pub use gradients::Gradients;
pub use linear::Activation;
pub use reference::{cross_entropy, dropout};
pub use sequences::Sequences;
