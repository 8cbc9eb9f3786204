//! What was found: the fields of the JSON, which are described in the module above.

use serde::Serialize;

use super::LISTED;
use crate::data::{Place, RowProblem, SideCounts};

/// Everything about a file.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // Described in the module's documentation, as users see them.
pub struct Findings {
    pub data: String,
    pub sha256: String,
    pub rows: u64,
    pub good_rows: usize,
    pub labels: Vec<LabelCount>,
    pub characters: Option<Lengths>,
    pub words: Option<Lengths>,
    pub tokens: Option<Lengths>,
    pub max_tokens: Option<usize>,
    pub over_max_tokens: Option<usize>,
    pub windows: Option<usize>,
    pub distinct_texts: usize,
    pub duplicate_rows: usize,
    pub most_repeated: Option<Repeated>,
    pub conflicting_texts: usize,
    pub conflicts: Vec<Conflict>,
    pub bad_rows: BadRows,
    pub split: SideCounts,
    pub valid_file: Option<HeldOutFile>,
    pub test_file: Option<HeldOutFile>,
    pub texts_in_both_files: usize,
    pub hints: Vec<String>,
    pub training_refuses: Vec<String>,
}

/// A label and its rows.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs)] // The names say it.
pub struct LabelCount {
    pub label: String,
    pub rows: usize,
    pub share: f64,
    pub first_row: u64,
}

/// Quantiles of lengths.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)] // The names say it.
pub struct Lengths {
    pub shortest: u32,
    pub median: u32,
    pub p90: u32,
    pub p99: u32,
    pub longest: u32,
    pub mean: f64,
    pub total: u64,
}

impl Lengths {
    /// Nearest-rank quantiles; `None` of nothing.
    pub fn of(mut lengths: Vec<u32>) -> Option<Lengths> {
        lengths.sort_unstable();
        let (shortest, longest) = (*lengths.first()?, *lengths.last()?);
        let at = |part: f64| {
            let rank = (part * lengths.len() as f64).ceil() as usize;
            lengths[rank.clamp(1, lengths.len()) - 1]
        };
        let total: u64 = lengths.iter().map(|n| u64::from(*n)).sum();
        let mean = total as f64 / lengths.len() as f64;
        let (median, p90, p99) = (at(0.5), at(0.9), at(0.99));
        Some(Lengths { shortest, median, p90, p99, longest, mean, total })
    }
}

/// The text that is there most often.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // The names say it.
pub struct Repeated {
    pub rows: u64,
    pub first_row: u64,
    pub text: String,
}

/// One text with two labels.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // The names say it.
pub struct Conflict {
    pub rows: [u64; 2],
    pub labels: [String; 2],
    pub text: String,
}

/// A file in the place of a side.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // Described in the module's documentation.
pub struct HeldOutFile {
    pub file: String,
    pub rows: usize,
    pub good_rows: usize,
    pub bad_rows: BadRows,
    pub also_in_data: usize,
}

/// Kinds of bad rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // The names say it.
pub enum BadKind {
    EmptyText,
    EmptyLabel,
    FieldCount,
    InvalidUtf8,
    Json,
    RareLabel,
    UnknownLabel,
}

impl BadKind {
    fn of(problem: &RowProblem) -> BadKind {
        match problem {
            RowProblem::EmptyText { .. } => BadKind::EmptyText,
            RowProblem::EmptyLabel { .. } => BadKind::EmptyLabel,
            RowProblem::FieldCount { .. } => BadKind::FieldCount,
            RowProblem::InvalidUtf8 { .. } => BadKind::InvalidUtf8,
            RowProblem::RareLabel { .. } => BadKind::RareLabel,
            RowProblem::UnknownLabel { .. } => BadKind::UnknownLabel,
            RowProblem::InvalidJson { .. }
            | RowProblem::NotAnObject { .. }
            | RowProblem::MissingField { .. }
            | RowProblem::DuplicateField { .. }
            | RowProblem::FieldType { .. } => BadKind::Json,
        }
    }
}

/// Bad rows by kind.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub struct BadRows {
    kinds: Vec<BadRowsOfKind>,
}

/// Bad rows of one kind.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // Described in the module's documentation.
pub struct BadRowsOfKind {
    pub kind: BadKind,
    pub count: usize,
    pub first: Vec<BadRow>,
}

/// One bad row.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // The names say it.
pub struct BadRow {
    pub row: u64,
    pub line: u64,
    pub reason: String,
}

impl BadRows {
    /// One more.
    pub fn add(&mut self, place: &Place, problem: &RowProblem) {
        let kind = BadKind::of(problem);
        let index = match self.kinds.binary_search_by_key(&kind, |bad| bad.kind) {
            Ok(index) => index,
            Err(index) => {
                self.kinds.insert(index, BadRowsOfKind { kind, count: 0, first: Vec::new() });
                index
            }
        };
        let bad = &mut self.kinds[index];
        bad.count += 1;
        if bad.first.len() < LISTED {
            let reason = problem.to_string();
            bad.first.push(BadRow { row: place.row, line: place.line, reason });
        }
    }

    /// All of them, by kind.
    pub fn kinds(&self) -> &[BadRowsOfKind] {
        &self.kinds
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.kinds.iter().map(|bad| bad.count).sum()
    }

    /// The first bad row of the file.
    pub fn first(&self) -> Option<&BadRow> {
        self.kinds.iter().filter_map(|bad| bad.first.first()).min_by_key(|bad| bad.row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_are_there() {
        assert_eq!(Lengths::of(Vec::new()), None);
        let one = Lengths::of(vec![7]).unwrap();
        assert_eq!((one.shortest, one.median, one.p99, one.longest), (7, 7, 7, 7));
        let hundred = Lengths::of((1..=100).rev().collect()).unwrap();
        assert_eq!((hundred.median, hundred.p90, hundred.p99, hundred.longest), (50, 90, 99, 100));
        assert_eq!(hundred.mean, 50.5);
    }
}
