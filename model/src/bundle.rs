//! The bundle: what a page downloads. docs/bundle-format.md is its specification.
//!
//! Owns the manifest and the checks of a bundle's files against it. Knows bytes by their names,
//! not where they come from.

mod arrival;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use arrival::Arrival;

use crate::{BertConfig, ModelError};

/// The version of the format that this crate writes, and the only one that it reads.
pub const VERSION: u64 = 3;
/// What `format` says in every manifest.
pub const FORMAT: &str = "pagebert-bundle";
/// The entry of the weights in [`Manifest::files`].
pub const MODEL: &str = "model";
/// The entry of the tokenizer in [`Manifest::files`].
pub const TOKENIZER: &str = "tokenizer";

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u64,
    /// The classes, in the order of the logits.
    pub labels: Vec<String>,
    /// The model's shape.
    pub config: BertConfig,
    /// Tokens of a window, its two special tokens included.
    pub max_tokens: usize,
    /// Tokens that neighbouring windows of a long text share.
    pub stride: usize,
    /// Logits are divided by it before they become probabilities.
    pub temperature: f64,
    /// A label whose probability is below it is reported as unsure.
    pub threshold: f64,
    /// How weights are stored: `f32`, `f16` or `int8`.
    pub precision: String,
    /// The other files, by what they are: [`MODEL`] and [`TOKENIZER`].
    pub files: BTreeMap<String, FileEntry>,
    /// Figures on the test side, where they were measured.
    #[serde(default)]
    pub metrics: Option<Metrics>,
    /// Where the model comes from: base, data hash, versions, date.
    #[serde(default)]
    pub provenance: serde_json::Map<String, Value>,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its name, beside the manifest.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its contents, in lower-case hex.
    pub sha256: String,
}

impl FileEntry {
    /// Describes a file.
    pub fn of(path: impl Into<String>, contents: &[u8]) -> Self {
        Self { path: path.into(), bytes: contents.len() as u64, sha256: sha256_hex(contents) }
    }
}

/// What was measured on a side of the data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // The names are those of `pagebert evaluate --json`.
pub struct Metrics {
    pub split: String,
    pub rows: usize,
    pub accuracy: f64,
    pub macro_f1: f64,
    pub loss: f64,
}

/// What is wrong with a bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The bundle was written by a version of Pagebert whose format is another.
    #[error(
        "the bundle's format is version {found}, but this Pagebert reads version {VERSION}. Export \
         the model again, or use the page that came with the Pagebert that exported it"
    )]
    Version {
        /// The version that the manifest names.
        found: u64,
    },
    /// A file that the manifest names is not there.
    #[error("the bundle's {name} file ({path}) is missing")]
    MissingFile {
        /// Its entry in the manifest.
        name: String,
        /// Its name.
        path: String,
    },
    /// A file has another size than the manifest says.
    #[error(
        "{path} has {found} bytes, but manifest.json says {expected}: it is cut off or mixed up"
    )]
    Size {
        /// Its name.
        path: String,
        /// The manifest's size.
        expected: u64,
        /// The size found.
        found: u64,
    },
    /// A file has other contents than the manifest says.
    #[error("{path} is damaged: its SHA-256 is not the one in manifest.json")]
    Hash {
        /// Its name.
        path: String,
    },
    /// There is no room for a file.
    #[error("{path} needs {bytes} bytes of memory, which this device does not give")]
    Memory {
        /// Its name.
        path: String,
        /// Its size, by the manifest.
        bytes: u64,
    },
    /// A file is not what it should be.
    #[error("{0}")]
    Format(String),
    /// The weights are not those of the model that the manifest describes.
    #[error("wrong tensor shape: {0}")]
    Shape(String),
}

impl BundleError {
    /// A stable name for the kind of error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Version { .. } => "version",
            Self::MissingFile { .. } => "missing_file",
            Self::Size { .. } => "size",
            Self::Hash { .. } => "hash",
            Self::Memory { .. } => "memory",
            Self::Format(_) => "format",
            Self::Shape(_) => "shape",
        }
    }
}

impl From<ModelError> for BundleError {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Shape(message) => Self::Shape(message),
            ModelError::Memory(bytes) => Self::Memory { path: "model.safetensors".into(), bytes },
            other => Self::Format(other.to_string()),
        }
    }
}

impl Manifest {
    /// Reads and checks `manifest.json`. The version comes first: what else a manifest of another
    /// version holds is not this crate's to judge.
    ///
    /// # Errors
    /// `version`, `missing_file` for a manifest that names too few files, `format` for all else.
    pub fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        let malformed = |detail: String| BundleError::Format(format!("manifest.json: {detail}"));
        let value: Value = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(malformed(format!("its `format` is not \"{FORMAT}\"")));
        }
        match value.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(found) => return Err(BundleError::Version { found }),
            None => return Err(malformed("it has no `version` number".into())),
        }
        // From the bytes, so that the message has a line and a column.
        let manifest: Self = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The text of `manifest.json`.
    ///
    /// # Errors
    /// `format` when a field cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, BundleError> {
        self.check()?;
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|e| BundleError::Format(format!("manifest.json: {e}")))
    }

    fn check(&self) -> Result<(), BundleError> {
        let fail = |detail: String| Err(BundleError::Format(format!("manifest.json: {detail}")));
        self.config.check().map_err(|e| BundleError::Format(format!("manifest.json: {e}")))?;
        match self.config.labels() {
            Ok(labels) if labels == self.labels => {}
            _ => return fail("`labels` are not those of config.id2label".into()),
        }
        let longest = self.config.max_position_embeddings;
        if !(3..=longest).contains(&self.max_tokens) {
            return fail(format!(
                "max_tokens is {}; the model takes 3 to {longest}",
                self.max_tokens
            ));
        }
        if self.stride >= self.max_tokens - 2 {
            return fail(format!(
                "stride {} leaves nothing of a window of {} tokens",
                self.stride, self.max_tokens
            ));
        }
        // Written so that NaN fails.
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            return fail(format!("temperature is {}", self.temperature));
        }
        if !(0.0..=1.0).contains(&self.threshold) {
            return fail(format!("threshold is {}", self.threshold));
        }
        if !["f32", "f16", "int8"].contains(&self.precision.as_str()) {
            return fail(format!("precision {:?} is unknown", self.precision));
        }
        for name in [MODEL, TOKENIZER] {
            let entry = self.entry(name)?;
            // A name beside the manifest, never a way out of its folder or to another origin.
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            if entry.path.is_empty()
                || entry.path.starts_with('.')
                || !entry.path.chars().all(plain)
            {
                return fail(format!("{:?} is not a file name", entry.path));
            }
        }
        Ok(())
    }

    /// A file's description.
    ///
    /// # Errors
    /// `missing_file` when the manifest does not name it.
    pub fn entry(&self, name: &str) -> Result<&FileEntry, BundleError> {
        self.files.get(name).ok_or_else(|| BundleError::MissingFile {
            name: name.into(),
            path: "not in manifest.json".into(),
        })
    }

    /// Takes a file out of those that have arrived, and checks its size and contents.
    ///
    /// # Errors
    /// `missing_file`, `size` or `hash`.
    pub fn take(
        &self,
        name: &str,
        files: &mut HashMap<String, Vec<u8>>,
    ) -> Result<Vec<u8>, BundleError> {
        let FileEntry { path, bytes, sha256 } = self.entry(name)?;
        let contents = files
            .remove(name)
            .ok_or_else(|| BundleError::MissingFile { name: name.into(), path: path.clone() })?;
        let found = contents.len() as u64;
        if found != *bytes {
            return Err(BundleError::Size { path: path.clone(), expected: *bytes, found });
        }
        if !sha256_hex(&contents).eq_ignore_ascii_case(sha256) {
            return Err(BundleError::Hash { path: path.clone() });
        }
        Ok(contents)
    }
}

/// SHA-256 in lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
