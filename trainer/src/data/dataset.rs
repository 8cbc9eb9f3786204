//! All rows of a file with their texts, for what is measured at once. Training has an
//! [`super::Index`] in its place, which holds no texts.
//!
//! Knows nothing of sides or of duplicates.

use std::path::{Path, PathBuf};

use super::error::DataError;
use super::reader::RowReader;
use super::scan::{BadRow, DataOptions, Scanned, scan};

/// One text with its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The row number in the file, from 1.
    pub row: u64,
    /// The text.
    pub text: String,
    /// The class id: an index into [`Dataset::labels`].
    pub label: u32,
}

/// The rows of one file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// The file.
    pub path: PathBuf,
    /// The good rows.
    pub rows: Vec<Example>,
    /// The labels by class id. In numeric order if all are integers, else in that of their bytes;
    /// or as [`DataOptions::labels`] has them.
    pub labels: Vec<String>,
    /// The rows left out, by row number; empty unless `skip_bad_rows`.
    pub bad_rows: Vec<BadRow>,
    /// SHA-256 of the file's bytes, in hex.
    pub sha256: String,
}

impl Dataset {
    /// Reads and checks a file.
    ///
    /// With the labels taken from the file there must be two or more, and a label that a single row
    /// has makes that row bad.
    pub fn load(path: &Path, options: &DataOptions) -> Result<Dataset, DataError> {
        let reader = RowReader::labelled(path, &options.read)?;
        let mut rows = Vec::new();
        let Scanned { labels, ids, bad_rows, sha256 } =
            scan(path, reader, options, |row, label| {
                rows.push(Example { row: row.row, text: row.text, label });
            })?;
        rows.retain_mut(|example| match ids[example.label as usize] {
            Some(id) => {
                example.label = id;
                true
            }
            None => false,
        });
        Ok(Dataset { path: path.to_path_buf(), rows, labels, bad_rows, sha256 })
    }

    /// How many rows each class has, by class id.
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.labels.len()];
        for example in &self.rows {
            counts[example.label as usize] += 1;
        }
        counts
    }
}
