//! The files of a RUN that training writes, but for `last/`.
//!
//! Owns their names and when a folder may be replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pagebert_model::tokenize::CompactTokenizer;
use pagebert_model::{BertConfig, Weights};
use serde_json::{Value, json};

use crate::UsageError;
use crate::base::{BaseFiles, TokenizerFile};
use crate::checkpoint::{lowercases, read, write_atomically};
use crate::run_record::{self, RunRecord};
use crate::tensor_file;

/// The best checkpoint's weights.
pub const WEIGHTS: &str = "model.safetensors";
const METRICS: &str = "metrics.jsonl";
/// All that a run may hold.
const OURS: [&str; 10] = [
    "config.json",
    WEIGHTS,
    "tokenizer.json",
    "tokenizer_config.json",
    run_record::FILE,
    METRICS,
    "split.csv",
    "report.html",
    "bad_rows.csv",
    super::state::FOLDER,
];

/// A run's folder.
#[derive(Debug, Clone)]
pub struct RunFolder {
    /// Where it is.
    pub path: PathBuf,
}

impl RunFolder {
    /// Looks whether a new run may go there. Writes nothing.
    ///
    /// # Errors
    /// [`UsageError`] when something is there, and with `force` when that is no run.
    pub fn check_new(path: &Path, force: bool) -> Result<RunFolder, UsageError> {
        let shown = path.display();
        let folder = RunFolder { path: path.to_path_buf() };
        if !path.exists() {
            return Ok(folder);
        }
        let Ok(entries) = fs::read_dir(path) else {
            return Err(UsageError(format!("{shown} is no folder. Give --out another name")));
        };
        let names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into()).collect();
        if names.is_empty() {
            return Ok(folder);
        }
        if !path.join(run_record::FILE).is_file() {
            return Err(UsageError(format!(
                "{shown} holds files that pagebert did not write. Give --out another name"
            )));
        }
        if !force {
            let interrupted = path.join(super::state::FOLDER).join("state.json").is_file();
            let way_out = if interrupted {
                "--resume goes on with it, --force starts anew"
            } else {
                "--force starts anew, or give --out another name"
            };
            return Err(UsageError(format!("{shown} holds a run already. {way_out}")));
        }
        match names.iter().find(|name| !OURS.contains(&name.as_str())) {
            Some(foreign) => Err(UsageError(format!(
                "{shown} holds {foreign}, which pagebert did not write. Move it, or give --out \
                 another name"
            ))),
            None => Ok(folder),
        }
    }

    /// Makes the folder, empties it of an earlier run, and writes all that is known before the
    /// first step.
    ///
    /// # Errors
    /// When something can't be read or written.
    pub fn create(&self, record: &RunRecord, config: &BertConfig, base: &BaseFiles) -> Result<()> {
        let tokenizer = tokenizer_json(base)?;
        let tokenizer_config = tokenizer_config(base, record.settings.max_tokens)?;
        fs::create_dir_all(&self.path)
            .with_context(|| format!("{} can't be made", self.path.display()))?;
        for name in OURS {
            let path = self.path.join(name);
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else if path.exists() {
                fs::remove_file(&path)
            } else {
                Ok(())
            };
            removed.with_context(|| format!("{} can't be removed", path.display()))?;
        }
        self.write(run_record::FILE, record.to_toml()?.as_bytes())?;
        self.write("config.json", config.to_json()?.as_bytes())?;
        self.write("tokenizer.json", tokenizer.as_bytes())?;
        self.write("tokenizer_config.json", tokenizer_config.as_bytes())?;
        self.write(METRICS, b"")
    }

    /// Writes one file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, name: &str, contents: &[u8]) -> Result<()> {
        write_atomically(&self.path.join(name), contents)
    }

    /// Writes the best checkpoint so far.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write_weights(&self, weights: &Weights) -> Result<()> {
        tensor_file::write(&self.path.join(WEIGHTS), &weights.to_checkpoint()?)
    }

    /// Opens the log, and drops the lines of steps after `step`: a resumed run writes them again.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn log(&self, step: usize) -> Result<Log> {
        let path = self.path.join(METRICS);
        let mut lines = Vec::new();
        if path.is_file() {
            for line in BufReader::new(File::open(&path)?).lines() {
                // A last line may be cut off by what interrupted the run.
                let Ok(value) = serde_json::from_str::<Value>(&line?) else { continue };
                if value["step"].as_u64().is_some_and(|of| of <= step as u64) {
                    lines.push(value);
                }
            }
        }
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        write_atomically(&path, text.as_bytes())?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .with_context(|| format!("{} can't be written", path.display()))?;
        Ok(Log { file, path, lines })
    }
}

/// `metrics.jsonl`.
pub struct Log {
    file: File,
    path: PathBuf,
    /// All lines of the run.
    pub lines: Vec<Value>,
}

impl Log {
    /// Adds a line.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn add(&mut self, line: Value) -> Result<()> {
        writeln!(self.file, "{line}")
            .with_context(|| format!("{} can't be written", self.path.display()))?;
        self.lines.push(line);
        Ok(())
    }
}

/// The base's `tokenizer.json` without a truncation or padding of its own, which are the caller's
/// business; or one made of its `vocab.txt`.
fn tokenizer_json(base: &BaseFiles) -> Result<String> {
    match &base.tokenizer {
        TokenizerFile::Json(path) => {
            let mut json: Value =
                serde_json::from_slice(&read(path)?).with_context(|| path.display().to_string())?;
            json["truncation"] = Value::Null;
            json["padding"] = Value::Null;
            Ok(serde_json::to_string_pretty(&json)? + "\n")
        }
        TokenizerFile::Vocab(path) => {
            let compact = CompactTokenizer::from_vocab_txt(&read(path)?, lowercases(base)?)?;
            Ok(compact.to_tokenizer_json()? + "\n")
        }
    }
}

/// What Transformers needs to load the tokenizer: the base's own, or BERT's.
fn tokenizer_config(base: &BaseFiles, max_tokens: usize) -> Result<String> {
    let mut config = match &base.tokenizer_config {
        Some(path) => {
            serde_json::from_slice(&read(path)?).with_context(|| path.display().to_string())?
        }
        None => json!({
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": true,
            "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]",
            "unk_token": "[UNK]", "mask_token": "[MASK]",
        }),
    };
    config["model_max_length"] = max_tokens.into();
    Ok(serde_json::to_string_pretty(&config)? + "\n")
}
