//! What can be wrong with data, said so that the reader can act: what, where, and the way out.
//!
//! Two levels: a [`RowProblem`] spoils one row and may be skipped; any other [`DataError`] spoils
//! the file. Nothing here reads anything.

use std::fmt;

use serde::Serialize;
use thiserror::Error;

use super::split::Side;

/// A row of a file, as messages name it: `news.csv, row 17 (line 23)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file as the user named it.
    pub file: String,
    /// The data row, from 1 (header and blank lines not counted).
    pub row: u64,
    /// The line of the file on which the row starts, from 1.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, row {} (line {})", self.file, self.row, self.line)
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
    #[error("{file} has a header but no rows")]
    NoRows {
        /// The path as given.
        file: String,
    },
    /// Bad rows were left out, and none remained.
    #[error("{file}: all {bad} rows are bad; the first, row {row}: {problem}")]
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
    #[error("no row of {} is on the {side} side of the split. {way_out}", labels(.missing))]
    MissingClass {
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

/// What is wrong with one row. Displayed without the place and without the way out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RowProblem {
    /// More or fewer fields than the header.
    #[error(
        "{found} fields where the header has {expected}{}",
        if *.lines > 1 { format!(", over {} lines", .lines) } else { String::new() }
    )]
    FieldCount {
        /// Fields in the row.
        found: usize,
        /// Fields in the header.
        expected: usize,
        /// Lines that the row spans.
        lines: u64,
    },
    /// Bytes that are not UTF-8.
    #[error("byte {byte} of {within} is 0x{value:02X}, which is not UTF-8")]
    InvalidUtf8 {
        /// Position of the first wrong byte, from 1.
        byte: usize,
        /// That byte.
        value: u8,
        /// What the position counts in: a column, or the line.
        within: String,
    },
    /// The text is empty or all white space.
    #[error("the text ({}) is empty", names(.columns))]
    EmptyText {
        /// The text columns.
        columns: Vec<String>,
    },
    /// The label is empty, all white space, or null.
    #[error("the label (`{column}`) is empty")]
    EmptyLabel {
        /// The label column.
        column: String,
    },
    /// A label that a fixed list of labels doesn't have.
    #[error("the label `{label}` is none of {known}{}", meant(.similar))]
    UnknownLabel {
        /// The label.
        label: String,
        /// The known labels, for reading.
        known: String,
        /// The known label perhaps meant.
        similar: Option<String>,
    },
    /// A label that no other row has: it can't be both learned and measured.
    #[error("no other row has the label `{label}`{}", meant(.similar))]
    RareLabel {
        /// The label.
        label: String,
        /// A frequent label perhaps meant.
        similar: Option<String>,
    },
    /// A line that is not JSON.
    #[error("not valid JSON: {detail}")]
    InvalidJson {
        /// What the parser said, with the column.
        detail: String,
    },
    /// A line of JSON that is not an object.
    #[error("the line is {found}, not an object like {{\"text\": …, \"label\": …}}")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// A JSON object without a wanted field.
    #[error("no field `{field}` (fields: {existing}){}", meant(.similar))]
    MissingField {
        /// The field looked for.
        field: String,
        /// The fields that exist, for reading.
        existing: String,
        /// The field perhaps meant.
        similar: Option<String>,
    },
    /// A JSON object that has a wanted field twice.
    #[error("the field `{field}` occurs twice")]
    DuplicateField {
        /// The field.
        field: String,
    },
    /// A JSON field of a type that can't be used.
    #[error("`{field}` is {found}; it must be {wanted}")]
    FieldType {
        /// The field.
        field: String,
        /// The type it has.
        found: &'static str,
        /// The types it may have.
        wanted: &'static str,
    },
}

impl DataError {
    /// Whether the data or the wish is wrong (exit code 2), rather than the machine (1).
    pub fn is_wrong_input(&self) -> bool {
        !matches!(self, DataError::Io { .. })
    }
}

impl RowProblem {
    /// What to do about it, as a sentence without its full stop.
    pub fn way_out(&self) -> &'static str {
        match self {
            RowProblem::FieldCount { lines, .. } if *lines > 1 => {
                "Is a quote left open? Fix the row, or leave bad rows out with --skip-bad-rows"
            }
            RowProblem::FieldCount { .. } => {
                "Put quotes around a text that contains the delimiter, or leave bad rows out with \
                 --skip-bad-rows"
            }
            RowProblem::InvalidUtf8 { .. } => {
                "Save the file as UTF-8 (`iconv -f latin1 -t utf-8` if it is Latin-1), or leave \
                 bad rows out with --skip-bad-rows"
            }
            RowProblem::UnknownLabel { .. } => {
                "The labels are fixed when a model is trained. Fix the label, or leave such rows \
                 out with --skip-bad-rows"
            }
            RowProblem::RareLabel { .. } => {
                "Fix its spelling, add rows, or leave it out with --skip-bad-rows"
            }
            RowProblem::MissingField { .. } => {
                "Choose fields with --text-column and --label-column, or leave bad rows out with \
                 --skip-bad-rows"
            }
            _ => "Fix the row, or leave bad rows out with --skip-bad-rows",
        }
    }
}

/// A text cut to `max` characters, on one line, without control characters: foreign data must not
/// move the cursor of the terminal that shows it.
pub fn excerpt(text: &str, max: usize) -> String {
    let clean: String = text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .map(|c| if c.is_control() { '\u{FFFD}' } else { c })
        .take(max + 1)
        .collect();
    if clean.chars().count() <= max {
        return clean;
    }
    let cut: String = clean.chars().take(max.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

/// `` `a`, `b` … and 3 more ``
pub(super) fn names(list: &[String]) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<_> = list.iter().take(SHOWN).map(|n| format!("`{}`", excerpt(n, 40))).collect();
    match list.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} … and {more} more", shown.join(", ")),
    }
}

fn labels(list: &[String]) -> String {
    format!("label{} {}", if list.len() == 1 { "" } else { "s" }, names(list))
}

fn meant(similar: &Option<String>) -> String {
    similar.as_ref().map(|s| format!("; did you mean `{}`?", excerpt(s, 40))).unwrap_or_default()
}

/// The candidate that `wanted` is most likely a slip of: another case, or a few letters off.
pub(super) fn closest<'a>(
    wanted: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let wanted = wanted.to_lowercase();
    // A third of the letters may differ: `lable` finds `label`, and `x` finds nothing.
    let allowed = wanted.chars().count() / 3;
    candidates
        .into_iter()
        .map(|c| (strsim::osa_distance(&wanted, &c.to_lowercase()), c))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c.to_string())
}
