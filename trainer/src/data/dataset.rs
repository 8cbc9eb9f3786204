//! All rows of a file, checked for training, with labels as class ids.
//!
//! Owns which labels there are and their order. Knows nothing of sides or of duplicates.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::{DataError, Place};
use super::labels::Labels;
use super::problem::RowProblem;
use super::reader::{ReadOptions, RowReader};

/// How a file becomes a [`Dataset`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataOptions {
    /// Which columns, and the delimiter.
    pub read: ReadOptions,
    /// Leaves bad rows out and lists them, where the default is to stop at the first.
    pub skip_bad_rows: bool,
    /// The labels that there are, in class id order, for data to be read beside a model or a first
    /// file: any other label makes a row bad. `None` takes the labels from the file.
    pub labels: Option<Vec<String>>,
}

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

/// A row that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BadRow {
    /// The row number, from 1.
    pub row: u64,
    /// The line on which it starts, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
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
        let file = path.display().to_string();
        let mut reader = RowReader::labelled(path, &options.read)?;
        let mut classes = Labels::new(options.labels.as_deref());
        let mut rows = Vec::new();
        let mut bad_rows = Vec::new();
        for row in reader.by_ref() {
            let checked = row.and_then(|row| {
                let name = row.label.unwrap_or_default();
                let label = classes.id(&name, row.row, row.line).map_err(|problem| {
                    let place = Place { file: file.clone(), row: row.row, line: row.line };
                    DataError::Row { place, problem }
                })?;
                Ok(Example { row: row.row, text: row.text, label })
            });
            match checked {
                Ok(example) => rows.push(example),
                Err(DataError::Row { place, problem }) if options.skip_bad_rows => {
                    bad_rows.push(BadRow::new(&place, &problem));
                }
                Err(error) => return Err(error),
            }
        }
        let sha256 = reader.finish()?;

        let free = options.labels.is_none();
        if let [only] = classes.seen()
            && free
        {
            let (label, column) = (only.name.clone(), options.read.label_column.clone());
            return Err(DataError::OneClass { file, label, column });
        }
        if free {
            for (seen, problem) in classes.rare() {
                let place = Place { file: file.clone(), row: seen.row, line: seen.line };
                if !options.skip_bad_rows {
                    return Err(DataError::Row { place, problem });
                }
                bad_rows.push(BadRow::new(&place, &problem));
            }
            bad_rows.sort_by_key(|bad| bad.row);
        }
        let (labels, ids) = classes.into_classes();
        rows.retain_mut(|example| match ids[example.label as usize] {
            Some(id) => {
                example.label = id;
                true
            }
            None => false,
        });
        match (rows.is_empty(), bad_rows.first()) {
            (false, _) => {}
            (true, None) => return Err(DataError::NoRows { file }),
            (true, Some(first)) => {
                let (bad, row, problem) = (bad_rows.len(), first.row, first.reason.clone());
                return Err(DataError::NoUsableRows { file, bad, row, problem });
            }
        }
        if let [only] = labels.as_slice()
            && free
        {
            let (label, column) = (only.clone(), options.read.label_column.clone());
            return Err(DataError::OneClass { file, label, column });
        }
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

impl BadRow {
    pub(crate) fn new(place: &Place, problem: &RowProblem) -> BadRow {
        BadRow { row: place.row, line: place.line, reason: problem.to_string() }
    }
}
