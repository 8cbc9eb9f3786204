//! What can be wrong with data, said so that the reader can act: what, where, and the way out.
//!
//! Two levels: a [`RowProblem`] spoils one row and may be skipped; any other [`DataError`] spoils
//! the file. Nothing here reads anything.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use super::problem::RowProblem;
use super::split::Side;
use super::words::{labels, names};

/// A row of a file, as messages name it: `news.csv, row 17 (line 23)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file as the user named it.
    pub file: String,
    /// The data row, from 1 (header and blank lines not counted); 0 is the header.
    pub row: u64,
    /// The line of the file on which the row starts, from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            0 => write!(f, "{}, the header (line {})", self.file, self.line),
            row => write!(f, "{}, row {row} (line {})", self.file, self.line),
        }
    }
}

/// Data that can't be used, or a split that can't be made.
#[derive(Debug, Error)]
pub enum DataError {
    /// There is no file at the path.
    #[error("{file}: no such file. Check the path; relative paths start at the current folder")]
    NotFound {
        /// The path as given.
        file: String,
    },
    /// The path is a folder or a device.
    #[error("{file} is not a file. Give the path of a .csv, .tsv or .jsonl file, plain or .gz")]
    NotAFile {
        /// The path as given.
        file: String,
    },
    /// The operating system failed to read or write.
    #[error("{file}: {source}")]
    Io {
        /// The path as given.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file's ending names no known format.
    #[error(
        "{file}: the ending doesn't tell the format. Known are .csv, .tsv, .jsonl, .ndjson and \
         .json (one object a line), each plain or .gz; for other delimited text give --delimiter"
    )]
    UnknownFormat {
        /// The path as given.
        file: String,
    },
    /// A delimiter that can't be one.
    #[error(
        "`{given}` can't be a delimiter. Give one ASCII character that is no quote and no line \
         break, such as ';', or the word tab"
    )]
    Delimiter {
        /// What was given.
        given: String,
    },
    /// The first bytes are those of another kind of file.
    #[error("{file} is {kind}, not UTF-8 text. {way_out}")]
    NotText {
        /// The path as given.
        file: String,
        /// What the file is instead.
        kind: &'static str,
        /// How to make it readable.
        way_out: &'static str,
    },
    /// A file whose name ends in .gz and that isn't compressed.
    #[error("{file} is not gzip data. If it is plain text, take the .gz off its name")]
    NotGzip {
        /// The path as given.
        file: String,
    },
    /// A .gz file is cut short or damaged.
    #[error(
        "{file}: the gzip data is damaged or cut short after row {rows} ({detail}). \
         Fetch or compress the file again; `gzip -t` checks it"
    )]
    CorruptGzip {
        /// The path as given.
        file: String,
        /// How many rows were read before the damage.
        rows: u64,
        /// What the decoder said.
        detail: String,
    },
    /// The file holds nothing but blank lines.
    #[error("{file} is empty. It needs a header line and at least one row")]
    EmptyFile {
        /// The path as given.
        file: String,
    },
    /// There is a header and nothing after it.
    #[error("{file} has a header but no rows. Add rows below it, each with a text and a label")]
    NoRows {
        /// The path as given.
        file: String,
    },
    /// Bad rows were left out, and none remained.
    #[error(
        "{file}: all {bad} rows are bad; the first, row {row}: {problem}. Is it the right file, and \
         are --text-column, --label-column and --delimiter right?"
    )]
    NoUsableRows {
        /// The path as given.
        file: String,
        /// How many rows were left out.
        bad: usize,
        /// The first bad row.
        row: u64,
        /// What is wrong with the first bad row.
        problem: String,
    },
    /// A wanted column isn't there.
    #[error("{file} has no column `{wanted}`. Its columns: {}.{way_out}", names(.existing))]
    MissingColumn {
        /// The path as given.
        file: String,
        /// The column looked for.
        wanted: String,
        /// The columns that exist.
        existing: Vec<String>,
        /// The flag to use, and the column perhaps meant; starts with a space.
        way_out: String,
    },
    /// A wanted column's name occurs twice in the header.
    #[error(
        "{file}: the header names `{name}` twice (columns {first} and {second}). Rename one of them"
    )]
    DuplicateColumn {
        /// The path as given.
        file: String,
        /// The name.
        name: String,
        /// Its first position, from 1.
        first: usize,
        /// Its second position, from 1.
        second: usize,
    },
    /// A column is wanted for two things.
    #[error(
        "the column `{name}` is chosen twice. Choose different columns with --text-column and \
         --label-column: a text that holds its label teaches nothing"
    )]
    ColumnChosenTwice {
        /// The column.
        name: String,
    },
    /// A quote was opened and the file ended before it was closed.
    #[error(
        "{place}: a quote opened in this row is never closed, so the rest of the file ({lines} \
         lines) would be one row. Close it, or write a quote inside a field as \"\""
    )]
    UnclosedQuote {
        /// The row in which the quote opened.
        place: Place,
        /// How many lines it swallows.
        lines: u64,
    },
    /// A row is longer than any text can be.
    #[error(
        "{place}: the row is over {} MiB long. Is a quote left open, or is this not a text file?",
        .limit_bytes >> 20
    )]
    RowTooLong {
        /// The row.
        place: Place,
        /// The limit that it passes.
        limit_bytes: usize,
    },
    /// One row is bad. The only error that `skip_bad_rows` leaves out.
    #[error("{place}: {problem}. {}", .problem.way_out())]
    Row {
        /// The row.
        place: Place,
        /// What is wrong with it.
        problem: RowProblem,
    },
    /// Every row has the same label.
    #[error(
        "{file}: every row has the label `{label}`, and there is nothing to tell apart. Training \
         needs two labels or more; is `{column}` the right --label-column?"
    )]
    OneClass {
        /// The path as given.
        file: String,
        /// The label.
        label: String,
        /// The column it came from.
        column: String,
    },
    /// Fractions that leave nothing to train on, or aren't fractions.
    #[error(
        "valid_fraction={valid} and test_fraction={test} don't work: each must be 0 or more, and \
         together they must stay under 1"
    )]
    Fractions {
        /// The `valid_fraction` given.
        valid: f64,
        /// The `test_fraction` given.
        test: f64,
    },
    /// A class has no row on a side of the split.
    #[error("{file}: no row of {} is on the {side} side of the split. {way_out}", labels(.missing))]
    MissingClass {
        /// The path as given.
        file: String,
        /// The side.
        side: Side,
        /// The labels that are missing there.
        missing: Vec<String>,
        /// Which settings would help.
        way_out: String,
    },
    /// A `split.csv` that isn't one.
    #[error("{file}: {detail}. The run's split is recorded there; restore the file or train again")]
    SplitFile {
        /// The file.
        file: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The file is not what it was when its rows were checked.
    #[error("{file} changed while it was being read. Start again once nothing writes to it")]
    Changed {
        /// The path as given.
        file: String,
    },
    /// The data is not the data that was split.
    #[error(
        "{data} has changed since it was split: {detail}. Restore the file, or measure the changed \
         one with --data"
    )]
    SplitMismatch {
        /// The data file.
        data: String,
        /// The first difference.
        detail: String,
    },
}

impl DataError {
    /// Whether the data or the wish is wrong (exit code 2), rather than the machine (1).
    pub fn is_wrong_input(&self) -> bool {
        !matches!(self, DataError::Io { .. })
    }
}
