//! `run.toml`: what a run was made of.
//!
//! Owns its fields. Everything in it was resolved: no defaults are left to look up.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use pagebert_kernels::Precision as Products;
use serde::{Deserialize, Serialize};

use crate::data::{DataOptions, ReadOptions};
use crate::settings::Settings;

/// The file's name in a run's folder.
pub const FILE: &str = "run.toml";

/// `run.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The version of Pagebert that trained.
    pub pagebert: String,
    /// When it began, UTC, RFC 3339.
    pub started: String,
    /// What it began from: a folder, or `hf:org/name@commit`.
    pub base: String,
    /// SHA-256 of the base's weights.
    pub base_sha256: String,
    /// What it computed on: `cpu`, `cuda:0`.
    pub device: String,
    /// `f32`, `bf16` or `int8`, once `auto` was decided.
    pub computed_in: String,
    /// The data.
    pub data: DataRecord,
    /// The file that is the valid side, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<HeldOutRecord>,
    /// The file that is the test side, if one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<HeldOutRecord>,
    /// Every setting.
    pub settings: Settings,
}

/// The data file and how it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Its absolute path.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Columns that make the text.
    pub text_columns: Vec<String>,
    /// The column of the label.
    pub label_column: String,
    /// The delimiter, where it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<u8>,
    /// Whether bad rows were left out.
    pub skip_bad_rows: bool,
}

/// A file in place of a side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldOutRecord {
    /// Its absolute path.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

impl DataRecord {
    /// How the file is read again; `labels` are the run's.
    pub fn options(&self, labels: Option<Vec<String>>) -> DataOptions {
        DataOptions {
            read: ReadOptions {
                text_columns: self.text_columns.clone(),
                label_column: self.label_column.clone(),
                delimiter: self.delimiter,
            },
            skip_bad_rows: self.skip_bad_rows,
            labels,
        }
    }
}

impl RunRecord {
    /// The name of a precision in a record.
    pub fn name_products(precision: Products) -> &'static str {
        match precision {
            Products::F32 => "f32",
            Products::Bf16 => "bf16",
            Products::Int8 => "int8",
        }
    }

    /// What the operands of products were kept in.
    ///
    /// # Errors
    /// When the record names something else.
    pub fn products(&self) -> Result<Products> {
        [Products::F32, Products::Bf16, Products::Int8]
            .into_iter()
            .find(|precision| Self::name_products(*precision) == self.computed_in)
            .with_context(|| {
                format!(
                    "run.toml: computed_in = \"{}\" is none of f32, bf16 and int8: start anew with \
                     --force",
                    self.computed_in
                )
            })
    }

    /// Reads the record of a run; `None` where the folder has none, as other checkpoints.
    pub fn read(run: &Path) -> Result<Option<RunRecord>> {
        let path = run.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let record = toml::from_str(&text).with_context(|| {
            format!("{} is not a record that this version of pagebert reads", path.display())
        })?;
        Ok(Some(record))
    }

    /// The text of `run.toml`.
    pub fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

/// The time, UTC, RFC 3339; `SOURCE_DATE_EPOCH` stands in for the clock where it is set.
pub fn now() -> String {
    let fixed = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let time = fixed
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .unwrap_or_else(SystemTime::now);
    humantime::format_rfc3339_seconds(time).to_string()
}
