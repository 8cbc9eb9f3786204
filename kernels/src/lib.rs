//! Fused tensor operations for training and running BERT, with gradients.
//!
//! This crate knows tensors and packed sequences, not BERT, files or text. Every operation has a
//! plain twin in [`mod@reference`], made of ordinary candle operations: the oracle in tests, and the
//! implementation on devices for which there is no fused one.

pub mod adamw;
mod cpu;
pub mod dropout;
mod linear;
mod ops;
pub mod reference;
mod sequences;

pub use adamw::{AdamW, AdamWConfig};
pub use dropout::{Dropout, DropoutKey};
pub use linear::Activation;
pub use ops::{attention, dropout_add_layer_norm, embeddings_layer_norm, linear};
pub use reference::{EmbeddingTables, LayerNorm, cross_entropy, dropout};
pub use sequences::Sequences;
