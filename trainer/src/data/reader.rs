//! Rows, streamed: the chosen columns of any format, in constant memory.
//!
//! Knows which column is the text and which the label, and refuses rows without them. It must not
//! know what the labels of other rows are: that is `scan`'s.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use super::delimited::{self, Delimited, MAX_ROW_BYTES};
use super::error::{DataError, Place};
use super::header::{find_column, missing_column, read_header};
use super::json_lines::{self, JsonLines};
use super::problem::RowProblem;
use super::source::{Format, Source};

/// Which columns make a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOptions {
    /// Columns that make the text, at least one. Several are joined with a line break, blank ones
    /// left out: a title stands above its body, and for BERT a line break is a space.
    pub text_columns: Vec<String>,
    /// The column of the label; not looked at in unlabelled reading.
    pub label_column: String,
    /// Overrides the delimiter that the file's ending means; of no effect on JSON Lines.
    pub delimiter: Option<u8>,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions {
            text_columns: vec!["text".to_string()],
            label_column: "label".to_string(),
            delimiter: None,
        }
    }
}

/// One row of data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The row number, from 1.
    pub row: u64,
    /// The line on which it starts, from 1.
    pub line: u64,
    /// The text as it stands in the file; never blank.
    pub text: String,
    /// The label without white space around it, never empty; `None` in unlabelled reading.
    /// Integers and booleans of JSON are written out: `1`, `true`.
    pub label: Option<String>,
}

/// An iterator over the rows of a file, in order.
///
/// A bad row comes as [`DataError::Row`], and the next call goes on after it. After any other error
/// the iterator ends.
pub struct RowReader {
    file: String,
    records: Records,
    text_columns: Vec<String>,
    label_column: Option<String>,
    row: u64,
    ended: bool,
}

enum Records {
    /// With the positions of the wanted columns, text first, and the number of columns.
    Delimited(Box<Delimited<Source>>, Vec<usize>, usize),
    JsonLines(Box<JsonLines<Source>>),
}

/// A row's number and line, and its fields or what is wrong with it.
struct Fields {
    line: u64,
    values: Result<(String, Option<String>), RowProblem>,
}

impl RowReader {
    /// Reads texts with labels; a row without a label is bad.
    pub fn labelled(path: &Path, options: &ReadOptions) -> Result<RowReader, DataError> {
        RowReader::labelled_at(path, path, options)
    }

    /// The same, from a copy at another place: messages name the path, and its ending counts.
    pub(super) fn labelled_at(
        path: &Path,
        place: &Path,
        options: &ReadOptions,
    ) -> Result<RowReader, DataError> {
        RowReader::open(path, place, options, Some(options.label_column.clone()))
    }

    /// Reads texts alone; there need be no label column.
    pub fn unlabelled(path: &Path, options: &ReadOptions) -> Result<RowReader, DataError> {
        RowReader::open(path, path, options, None)
    }

    /// Reads texts alone from any reader, such as the standard input. `name` stands for the file in
    /// messages.
    pub fn unlabelled_from(
        name: &str,
        reader: Box<dyn Read + Send>,
        format: Format,
        options: &ReadOptions,
    ) -> Result<RowReader, DataError> {
        let source = Source::new(name, reader, false)?;
        RowReader::new(name.to_string(), source, format, options, None)
    }

    fn open(
        path: &Path,
        place: &Path,
        options: &ReadOptions,
        label_column: Option<String>,
    ) -> Result<RowReader, DataError> {
        let known = Format::of(path, options.delimiter);
        // That there is no such file is more to the point than its ending.
        let file = path.display().to_string();
        let source = Source::open(&file, place, known.as_ref().is_ok_and(|(_, gzip)| *gzip))?;
        let (format, _) = known?;
        RowReader::new(file, source, format, options, label_column)
    }

    fn new(
        file: String,
        source: Source,
        format: Format,
        options: &ReadOptions,
        label_column: Option<String>,
    ) -> Result<RowReader, DataError> {
        let mut seen = HashSet::new();
        if let Some(twice) =
            options.text_columns.iter().chain(&label_column).find(|name| !seen.insert(*name))
        {
            return Err(DataError::ColumnChosenTwice { name: twice.clone() });
        }
        let records = match format {
            Format::JsonLines => Records::JsonLines(Box::new(JsonLines::new(source))),
            Format::Delimited { delimiter } => {
                let mut records = Box::new(Delimited::new(source, delimiter));
                let header = read_header(&file, &mut records)?;
                let text = options.text_columns.iter().map(|name| (name, "--text-column"));
                let label = label_column.iter().map(|name| (name, "--label-column"));
                let positions = text
                    .chain(label)
                    .map(|(name, flag)| find_column(&file, &header, name, flag))
                    .collect::<Result<_, _>>()?;
                Records::Delimited(records, positions, header.len())
            }
        };
        let text_columns = options.text_columns.clone();
        Ok(RowReader { file, records, text_columns, label_column, row: 0, ended: false })
    }

    /// How many rows have been given so far, bad ones included.
    pub fn rows_read(&self) -> u64 {
        self.row
    }

    /// How many bytes of the file have been read so far: for progress against the file's size.
    pub fn bytes_read(&self) -> u64 {
        self.source().bytes_read()
    }

    /// Reads what is left, and gives the SHA-256 of the file's bytes (compressed ones, if it is
    /// compressed) in hex.
    pub fn finish(self) -> Result<String, DataError> {
        let RowReader { file, records, row, .. } = self;
        let source = match records {
            Records::Delimited(records, ..) => records.input,
            Records::JsonLines(records) => records.input,
        };
        source.finish(&file, row)
    }

    fn source(&self) -> &Source {
        match &self.records {
            Records::Delimited(records, ..) => &records.input,
            Records::JsonLines(records) => &records.input,
        }
    }

    fn place(&self, line: u64) -> Place {
        Place { file: self.file.clone(), row: self.row, line }
    }

    fn too_long(&self, line: u64) -> DataError {
        DataError::RowTooLong { place: self.place(line), limit_bytes: MAX_ROW_BYTES }
    }

    fn read(&mut self) -> Result<Option<Row>, DataError> {
        let fields = match &mut self.records {
            Records::Delimited(..) => self.read_delimited()?,
            Records::JsonLines(..) => self.read_json()?,
        };
        let Some(Fields { line, values }) = fields else { return Ok(None) };
        let problem = match values {
            Ok((text, _)) if text.trim().is_empty() => {
                RowProblem::EmptyText { columns: self.text_columns.clone() }
            }
            Ok((_, Some(label))) if label.trim().is_empty() => {
                RowProblem::EmptyLabel { column: self.label_column.clone().unwrap_or_default() }
            }
            Ok((text, label)) => {
                let label = label.map(|label| label.trim().to_string());
                return Ok(Some(Row { row: self.row, line, text, label }));
            }
            Err(problem) => problem,
        };
        Err(DataError::Row { place: self.place(line), problem })
    }

    fn read_delimited(&mut self) -> Result<Option<Fields>, DataError> {
        let Records::Delimited(records, positions, columns) = &mut self.records else {
            return Ok(None);
        };
        let step =
            records.next().map_err(|error| records.input.error(&self.file, self.row, error))?;
        let (line, lines) = match step {
            delimited::Step::End => return Ok(None),
            delimited::Step::Record { line, lines } => (line, lines),
            delimited::Step::UnclosedQuote { line, lines } => {
                self.row += 1;
                return Err(DataError::UnclosedQuote { place: self.place(line), lines });
            }
            delimited::Step::TooLong { line } => {
                self.row += 1;
                return Err(self.too_long(line));
            }
        };
        self.row += 1;
        let found = records.fields().len();
        if found != *columns {
            let problem = RowProblem::FieldCount { found, expected: *columns, lines };
            return Ok(Some(Fields { line, values: Err(problem) }));
        }
        let names = self.text_columns.iter().chain(&self.label_column);
        let values = positions
            .iter()
            .zip(names)
            .map(|(position, name)| utf8(records.field(*position), name))
            .collect::<Result<Vec<_>, _>>()
            .map(|mut values| {
                let label = self.label_column.as_ref().and_then(|_| values.pop());
                (join(&values), label.map(str::to_string))
            });
        Ok(Some(Fields { line, values }))
    }

    fn read_json(&mut self) -> Result<Option<Fields>, DataError> {
        let Records::JsonLines(records) = &mut self.records else { return Ok(None) };
        let step =
            records.next().map_err(|error| records.input.error(&self.file, self.row, error))?;
        let line = match step {
            json_lines::Step::End if self.row == 0 => {
                return Err(DataError::EmptyFile { file: self.file.clone() });
            }
            json_lines::Step::End => return Ok(None),
            json_lines::Step::Line { line } => line,
            json_lines::Step::TooLong { line } => {
                self.row += 1;
                return Err(self.too_long(line));
            }
        };
        self.row += 1;
        let bytes = records.line();
        if self.row == 1 && bytes.starts_with(b"[") {
            return Err(DataError::NotText {
                file: self.file.clone(),
                kind: "a JSON array",
                way_out: "Write one object a line (`jq -c '.[]'` does), ending .jsonl",
            });
        }
        let wanted: Vec<&str> =
            self.text_columns.iter().chain(&self.label_column).map(String::as_str).collect();
        let values = match json_lines::wanted_fields(bytes, &wanted) {
            Ok(values) => values,
            Err(problem) => return Ok(Some(Fields { line, values: Err(problem) })),
        };
        // The first row shows which fields there are: a name that it lacks was mistyped, and there
        // is no use in finding every row bad.
        if self.row == 1
            && let Some(index) = values.iter().position(Option::is_none)
            && let Some(name) = self.text_columns.get(index)
        {
            let existing = json_lines::field_names(bytes);
            return Err(missing_column(&self.file, name, existing, "--text-column", None));
        }
        let label_column = self.label_column.as_deref();
        let values = json_lines::text_and_label(bytes, values, &self.text_columns, label_column)
            .map(|(texts, label)| (join(&texts), label));
        Ok(Some(Fields { line, values }))
    }
}

impl Iterator for RowReader {
    type Item = Result<Row, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.read().transpose();
        self.ended = !matches!(row, Some(Ok(_) | Err(DataError::Row { .. })));
        row
    }
}

fn utf8<'a>(bytes: &'a [u8], column: &str) -> Result<&'a str, RowProblem> {
    std::str::from_utf8(bytes).map_err(|error| RowProblem::InvalidUtf8 {
        byte: error.valid_up_to() + 1,
        value: bytes[error.valid_up_to()],
        within: format!("column `{column}`"),
    })
}

fn join<S: AsRef<str>>(texts: &[S]) -> String {
    match texts {
        [text] => text.as_ref().to_string(),
        _ => texts
            .iter()
            .map(AsRef::as_ref)
            .filter(|text| !text.trim().is_empty())
            .collect::<Vec<_>>()
            .join("\n"),
    }
}
