//! Where a base comes from: a folder, or a model of the Hugging Face Hub.
//!
//! Owns `--base`: what names are valid, which files make a base, and what to say when some are
//! missing. Returns paths; must not know what is in the files. The way over the network is in
//! `hub`.

mod arrival;
mod hub;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::UsageError;
use crate::progress::Console;

pub use hub::Hub;

/// A base's files, on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseFiles {
    /// What they are, for records: the folder as given, or `hf:org/name@commit`.
    pub name: String,
    /// `config.json`.
    pub config: PathBuf,
    /// `model.safetensors`.
    pub weights: PathBuf,
    /// The tokenizer.
    pub tokenizer: TokenizerFile,
    /// `tokenizer_config.json`, which some bases lack.
    pub tokenizer_config: Option<PathBuf>,
}

/// A tokenizer in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerFile {
    /// `tokenizer.json`: complete.
    Json(PathBuf),
    /// `vocab.txt` of an old checkpoint: WordPieces alone; whether to lowercase is in
    /// `tokenizer_config.json`.
    Vocab(PathBuf),
}

/// Finds a base: `hf:org/name[@revision]` or a folder.
pub fn resolve(base: &str, console: &Console) -> Result<BaseFiles> {
    Hub::from_env().resolve(base, console)
}

/// The files of a checkpoint folder.
pub fn resolve_folder(folder: &Path) -> Result<BaseFiles, UsageError> {
    let shown = folder.display();
    if !folder.is_dir() {
        let text = folder.to_string_lossy();
        let hint = match HubModel::parse(&text) {
            Ok(model) if !text.starts_with(['.', '/']) => {
                format!("For a model of the Hugging Face Hub write {model}")
            }
            _ => "Give a folder with config.json, model.safetensors and tokenizer.json, or \
                  hf:org/name"
                .to_string(),
        };
        return Err(UsageError(format!("{shown}: there is no such folder. {hint}")));
    }
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    let Some(config) = file("config.json") else {
        let hint = if file("manifest.json").is_some() {
            "It is a bundle, which can't be trained on: give the RUN it was exported from"
        } else {
            "Give the folder of a Hugging Face BERT checkpoint"
        };
        return Err(UsageError(format!("{shown} has no config.json. {hint}")));
    };
    let tokenizer = file("tokenizer.json")
        .map(TokenizerFile::Json)
        .or_else(|| file("vocab.txt").map(TokenizerFile::Vocab))
        .ok_or_else(|| no_tokenizer(&shown.to_string()))?;
    let weights = file("model.safetensors").ok_or_else(|| {
        no_weights(
            &shown.to_string(),
            OTHER_WEIGHTS.iter().copied().find(|name| file(name).is_some()),
        )
    })?;
    Ok(BaseFiles {
        name: shown.to_string(),
        config,
        weights,
        tokenizer,
        tokenizer_config: file("tokenizer_config.json"),
    })
}

/// Weights in forms that are not read, most likely first.
const OTHER_WEIGHTS: [&str; 4] =
    ["pytorch_model.bin", "model.safetensors.index.json", "tf_model.h5", "flax_model.msgpack"];

fn no_weights(base: &str, other: Option<&str>) -> UsageError {
    let source = base.strip_prefix("hf:").unwrap_or(base);
    UsageError(match other {
        Some(other) => format!(
            "{base} has its weights as {other}, and pagebert reads model.safetensors alone. Convert \
             once (needs Python with transformers and torch), then give ./converted as the base:\n  \
             python -c \"from transformers import AutoModel as M, AutoTokenizer as T; \
             n, d = '{source}', 'converted'; \
             M.from_pretrained(n).save_pretrained(d, max_shard_size='100GB'); \
             T.from_pretrained(n).save_pretrained(d)\""
        ),
        None => format!("{base} has no model.safetensors. Is it a complete BERT checkpoint?"),
    })
}

fn no_tokenizer(base: &str) -> UsageError {
    UsageError(format!(
        "{base} has neither tokenizer.json nor vocab.txt. Copy the tokenizer of the model that it \
         was made from beside the weights"
    ))
}

/// A model's name on the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// The organisation or user; empty for the oldest models.
    owner: String,
    name: String,
    revision: Option<String>,
}

impl HubModel {
    /// Reads `org/name[@revision]`, what stands behind `hf:`.
    pub fn parse(text: &str) -> Result<HubModel, UsageError> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let (owner, name) = id.split_once('/').unwrap_or(("", id));
        let word = |word: &str| {
            word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
                && !word.starts_with('.')
        };
        // A revision becomes a file name in the cache.
        let revision_fine = revision.is_none_or(|revision| {
            !revision.is_empty()
                && !revision.contains(['\\', ':'])
                && revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
        });
        if name.is_empty() || !word(owner) || !word(name) || !revision_fine {
            return Err(UsageError(format!(
                "hf:{text}: expected hf:org/name or hf:org/name@revision, like \
                 hf:google-bert/bert-base-uncased"
            )));
        }
        Ok(HubModel {
            owner: owner.to_string(),
            name: name.to_string(),
            revision: revision.map(str::to_string),
        })
    }

    fn id(&self) -> String {
        if self.owner.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.owner, self.name)
        }
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.id())?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
