//! One pass over a file: every row checked, labels numbered, the hash taken.
//!
//! Owns which rows are good. What is kept of them is the caller's choice: a [`super::Dataset`] keeps
//! their texts, an [`super::Index`] only what tells them apart.

use std::path::Path;

use serde::Serialize;

use super::error::{DataError, Place};
use super::labels::Labels;
use super::problem::RowProblem;
use super::reader::{ReadOptions, Row, RowReader};

/// Which rows of a file are taken, and what their labels mean.
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

impl BadRow {
    pub(crate) fn new(place: &Place, problem: &RowProblem) -> BadRow {
        BadRow { row: place.row, line: place.line, reason: problem.to_string() }
    }
}

/// What is known of a file at its end.
pub(super) struct Scanned {
    /// The labels by class id. In numeric order if all are integers, else in that of their bytes;
    /// or as [`DataOptions::labels`] has them.
    pub labels: Vec<String>,
    /// The class id of each number that rows were taken with; `None` makes such rows bad.
    pub ids: Vec<Option<u32>>,
    /// The rows left out, by row number; empty unless `skip_bad_rows`.
    pub bad_rows: Vec<BadRow>,
    /// SHA-256 of the file's bytes, in hex.
    pub sha256: String,
}

/// Reads and checks all rows. `take` has each with a number for its label, whose class id is known
/// at the end.
///
/// With the labels taken from the file there must be two or more, and a label that a single row has
/// makes that row bad.
pub(super) fn scan(
    path: &Path,
    mut reader: RowReader,
    options: &DataOptions,
    mut take: impl FnMut(Row, u32),
) -> Result<Scanned, DataError> {
    let file = path.display().to_string();
    let mut classes = Labels::new(options.labels.as_deref());
    let mut bad_rows = Vec::new();
    for row in reader.by_ref() {
        let checked = row.and_then(|mut row| {
            let name = row.label.take().unwrap_or_default();
            let label = classes.id(&name, row.row, row.line).map_err(|problem| {
                let place = Place { file: file.clone(), row: row.row, line: row.line };
                DataError::Row { place, problem }
            })?;
            Ok((row, label))
        });
        match checked {
            Ok((row, label)) => take(row, label),
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
    let rows: Vec<usize> = classes.seen().iter().map(|seen| seen.count).collect();
    let (labels, ids) = classes.into_classes();
    let good: usize = rows.iter().zip(&ids).filter(|(_, id)| id.is_some()).map(|(n, _)| n).sum();
    match (good, bad_rows.first()) {
        (1.., _) => {}
        (0, None) => return Err(DataError::NoRows { file }),
        (0, Some(first)) => {
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
    Ok(Scanned { labels, ids, bad_rows, sha256 })
}
