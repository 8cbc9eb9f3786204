//! Hugging Face checkpoint folders: loading one, and writing files so that none is ever half there.
//!
//! Owns which file holds what, and `--precision` of a finished model. Must not know of training.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use candle_core::Device;
use pagebert_model::bundle::sha256_hex;
use pagebert_model::weights::{LoadReport, Missing};
use pagebert_model::{BertConfig, TextTokenizer, Weights};

use crate::UsageError;
use crate::base::{BaseFiles, TokenizerFile};

/// A checkpoint in memory.
pub struct Checkpoint {
    /// Its files.
    pub files: BaseFiles,
    /// `config.json`.
    pub config: BertConfig,
    /// `model.safetensors`.
    pub weights: Weights,
    /// What the weights lacked.
    pub report: LoadReport,
    /// SHA-256 of the weights' file, in hex.
    pub weights_sha256: String,
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
}

impl Checkpoint {
    /// Loads a finished model: one that lacks weights is refused.
    pub fn load(files: BaseFiles, device: &Device) -> Result<Checkpoint> {
        let config = read_config(&files.config)?;
        Checkpoint::with_config(files, config, Missing::Refuse, device)
    }

    /// Loads weights for a configuration that may have other labels than the file's.
    pub fn with_config(
        files: BaseFiles,
        config: BertConfig,
        missing: Missing,
        device: &Device,
    ) -> Result<Checkpoint> {
        let bytes = read(&files.weights)?;
        let (weights, report) = Weights::from_safetensors(&bytes, &config, missing, device)
            .map_err(|error| wrong(&files.weights, error))?;
        let weights_sha256 = sha256_hex(&bytes);
        let tokenizer = read_tokenizer(&files)?;
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(UsageError(format!(
                "{}: the tokenizer has {} tokens, but the model's vocabulary has {}. Take the \
                 tokenizer that the model was trained with",
                files.name,
                tokenizer.vocab_size(),
                config.vocab_size
            ))
            .into());
        }
        Ok(Checkpoint { files, config, weights, report, weights_sha256, tokenizer })
    }
}

/// Reads and checks `config.json`.
pub fn read_config(path: &Path) -> Result<BertConfig> {
    BertConfig::from_json(&read(path)?).map_err(|error| wrong(path, error))
}

/// Reads the tokenizer of a checkpoint, in either of its forms.
pub fn read_tokenizer(files: &BaseFiles) -> Result<TextTokenizer> {
    match &files.tokenizer {
        TokenizerFile::Json(path) => {
            TextTokenizer::from_tokenizer_json(&read(path)?).map_err(|error| wrong(path, error))
        }
        TokenizerFile::Vocab(path) => {
            TextTokenizer::from_vocab_txt(&read(path)?, lowercases(files)?)
                .map_err(|error| wrong(path, error))
        }
    }
}

/// Whether the tokenizer of a checkpoint with `vocab.txt` alone lowercases: Transformers' default
/// is that it does.
pub fn lowercases(files: &BaseFiles) -> Result<bool> {
    let Some(path) = &files.tokenizer_config else { return Ok(true) };
    let config: serde_json::Value = serde_json::from_slice(&read(path)?)
        .map_err(|error| UsageError(format!("{}: {error}", path.display())))?;
    Ok(config["do_lower_case"].as_bool().unwrap_or(true))
}

/// A file's bytes; an error names it.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} can't be read", path.display()))
}

/// What is wrong with a file that the user gave.
fn wrong(path: &Path, error: pagebert_model::ModelError) -> anyhow::Error {
    UsageError(format!("{}: {error}", path.display())).into()
}

/// Writes a file under a temporary name beside its place, then renames it: whoever looks finds the
/// old file or the new one, never half of it.
pub fn write_atomically(path: &Path, contents: &[u8]) -> Result<()> {
    let describe = || format!("{} can't be written", path.display());
    let (mut file, place) = temporary_beside(path)?;
    file.write_all(contents).with_context(describe)?;
    file.as_file().sync_all().with_context(describe)?;
    file.persist(place).map_err(|error| error.error).with_context(describe)?;
    Ok(())
}

/// Makes sure that a file can be written, before the work of hours that is to fill it. Nothing is
/// left behind: work that is interrupted should not leave an empty file either.
pub fn check_writable(path: &Path) -> Result<()> {
    temporary_beside(path).map(drop)
}

/// A temporary file beside a path that it is to take, and that path, for a link is followed and not
/// replaced. Removed unless it is persisted.
pub fn temporary_beside(path: &Path) -> Result<(tempfile::NamedTempFile, PathBuf)> {
    let shown = path.display();
    let place = if path.is_symlink() { path.canonicalize().ok() } else { None };
    let place = place.unwrap_or_else(|| path.to_path_buf());
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if !folder.is_dir() {
        let message = format!("{shown} can't be written: there is no folder {}", folder.display());
        return Err(UsageError(message).into());
    }
    if path.is_dir() {
        return Err(UsageError(format!("{shown} is a folder. Give the name of a file")).into());
    }
    // To take the name of /dev/null or of a pipe would be the end of it.
    if path.exists() && !path.is_file() {
        let message = format!("{shown} is no ordinary file. Give another name; - is stdout");
        return Err(UsageError(message).into());
    }
    let file = tempfile::Builder::new()
        .prefix(".pagebert-")
        .permissions(public_file())
        .tempfile_in(folder)
        .with_context(|| format!("{shown} can't be written"))?;
    Ok((file, place))
}

/// The permissions of an ordinary file (the process's umask still applies); temporary files are
/// private by default, and a model must be readable for whoever serves it.
fn public_file() -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(0o644)
}

/// Folders that hold a checkpoint or a bundle, told apart by their files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelFolder {
    /// A RUN or any Hugging Face checkpoint.
    Checkpoint(PathBuf),
    /// What `pagebert export` wrote.
    Bundle(PathBuf),
}

impl ModelFolder {
    /// Looks which it is.
    pub fn find(folder: &Path) -> Result<ModelFolder, UsageError> {
        if folder.join("manifest.json").is_file() {
            return Ok(ModelFolder::Bundle(folder.to_path_buf()));
        }
        if folder.join("config.json").is_file() {
            return Ok(ModelFolder::Checkpoint(folder.to_path_buf()));
        }
        let shown = folder.display();
        Err(UsageError(if folder.is_dir() {
            format!(
                "{shown} is neither a trained model (it has no config.json) nor a bundle (it has \
                 no manifest.json)"
            )
        } else {
            format!(
                "{shown}: there is no such folder. Give what `pagebert train --out` or \
                     `pagebert export --out` wrote"
            )
        }))
    }
}
