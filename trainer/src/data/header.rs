//! The header of delimited text: which column is which, and what to say when one isn't there.
//!
//! Knows nothing of rows.

use super::delimited::{Delimited, MAX_ROW_BYTES, Step};
use super::error::{DataError, Place};
use super::source::Source;
use super::words::closest;

/// The names of the columns, without the white space around them.
pub(super) fn read_header(
    file: &str,
    records: &mut Delimited<Source>,
) -> Result<Vec<String>, DataError> {
    let step = records.next().map_err(|error| records.input.error(file, 0, error))?;
    match step {
        Step::End => Err(DataError::EmptyFile { file: file.to_string() }),
        Step::UnclosedQuote { line, lines } => {
            let place = Place { file: file.to_string(), row: 0, line };
            Err(DataError::UnclosedQuote { place, lines })
        }
        Step::TooLong { line } => {
            let place = Place { file: file.to_string(), row: 0, line };
            Err(DataError::RowTooLong { place, limit_bytes: MAX_ROW_BYTES })
        }
        // Columns with a broken name may be there so long as nobody wants them.
        Step::Record { .. } => Ok(records
            .fields()
            .map(|name| String::from_utf8_lossy(name).trim().to_string())
            .collect()),
    }
}

/// The position of a column. `flag` is the one that chooses it.
pub(super) fn find_column(
    file: &str,
    header: &[String],
    name: &str,
    flag: &str,
) -> Result<usize, DataError> {
    let mut found = header.iter().enumerate().filter(|(_, column)| *column == name);
    match (found.next(), found.next()) {
        (Some((index, _)), None) => Ok(index),
        (Some((first, _)), Some((second, _))) => Err(DataError::DuplicateColumn {
            file: file.to_string(),
            name: name.to_string(),
            first: first + 1,
            second: second + 1,
        }),
        (None, _) => {
            let only = (header.len() == 1).then(|| header[0].as_str());
            Err(missing_column(file, name, header.to_vec(), flag, only))
        }
    }
}

/// The error of a column that isn't there. `only` is the header where it is a single column: the
/// delimiter may be another one.
pub(super) fn missing_column(
    file: &str,
    wanted: &str,
    existing: Vec<String>,
    flag: &str,
    only: Option<&str>,
) -> DataError {
    let other =
        only.and_then(|header| [';', '\t', '|', ','].into_iter().find(|c| header.contains(*c)));
    let way_out = match (closest(wanted, existing.iter().map(String::as_str)), other) {
        (Some(similar), _) => format!(" Did you mean {flag} {similar}?"),
        (None, Some('\t')) => " Are they separated by tabs? Then give --delimiter tab".to_string(),
        (None, Some(c)) => format!(" Are they separated by `{c}`? Then give --delimiter '{c}'"),
        (None, None) => format!(" Choose one with {flag}; the first line must name the columns"),
    };
    DataError::MissingColumn {
        file: file.to_string(),
        wanted: wanted.to_string(),
        existing,
        way_out,
    }
}
