//! BERT for sequence classification: the one definition that is trained natively and run in the
//! page.
//!
//! This crate owns the model, its weights' names, tokenizing, packing, prediction and the bundle
//! format. It handles bytes and tensors only: no files, arguments, clock, threads or network.

pub mod batch;
pub mod bert;
pub mod bundle;
pub mod classify;
pub mod config;
pub mod tokenize;
pub mod weights;

pub use batch::Batch;
pub use bert::BertForSequenceClassification;
pub use config::BertConfig;
pub use tokenize::TextTokenizer;
pub use weights::Weights;

/// What can be wrong with a checkpoint, or with what is asked of it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// `config.json` is not a configuration that this model can be built from.
    #[error("config.json: {0}")]
    Config(String),
    /// A weights file is not safetensors, or a tensor in it does not fit the configuration.
    #[error("model.safetensors: {0}")]
    Weights(String),
    /// A tensor is missing or has another shape than the configuration asks for.
    #[error("model.safetensors: {0}")]
    Shape(String),
    /// The device does not give as much memory.
    #[error(
        "model.safetensors: it needs {0} more bytes of memory, which this device does not give"
    )]
    Memory(u64),
    /// A tokenizer file is malformed, or of a kind that is not supported where it is used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// This crate's results.
pub type Result<T> = std::result::Result<T, ModelError>;
