//! The library behind the `pagebert` command: data, training, evaluation, export, site, preview.
//!
//! Each subcommand is a module with a `run`; what they share lies in the modules after them. The
//! model itself, and everything that the page computes too, is in `pagebert_model`.

pub mod cli;

pub mod devices;
pub mod evaluate;
pub mod export;
pub mod inspect;
pub mod predict;
pub mod selftest;
pub mod serve;
pub mod site;
pub mod train;

pub mod base;
pub mod checkpoint;
pub mod data;
pub mod inference;
pub mod metrics;
pub mod progress;
pub mod report;
pub mod run_record;
pub mod settings;
pub mod tensor_file;

/// Wrong usage: something that the user can set right in the command. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);
