//! What can be wrong with one row, and what to do about it. Knows nothing of files or places.

use thiserror::Error;

use super::words::{meant, names};

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
            RowProblem::InvalidJson { .. } | RowProblem::NotAnObject { .. } => {
                "Each line must be one whole object (`jq -c .` writes them so). Fix the row, or \
                 leave bad rows out with --skip-bad-rows"
            }
            RowProblem::MissingField { .. } => {
                "Choose fields with --text-column and --label-column, or leave bad rows out with \
                 --skip-bad-rows"
            }
            _ => "Fix the row, or leave bad rows out with --skip-bad-rows",
        }
    }
}
