//! One JSON object a line: lines with their numbers, and the wanted fields of one.
//!
//! Other fields are skipped without being built. Knows nothing of labels as classes.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead};

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::delimited::{MAX_ROW_BYTES, fill};
use super::problem::RowProblem;
use super::words::{closest, names};

/// One step of the reader. The bytes of a `Line` lie in the reader until the next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Line { line: u64 },
    TooLong { line: u64 },
    End,
}

pub(super) struct JsonLines<R> {
    pub input: R,
    buffer: Vec<u8>,
    line: u64,
}

impl<R: BufRead> JsonLines<R> {
    pub fn new(input: R) -> JsonLines<R> {
        JsonLines { input, buffer: Vec::new(), line: 0 }
    }

    /// The last line, without the white space around it.
    pub fn line(&self) -> &[u8] {
        self.buffer.trim_ascii()
    }

    /// Goes to the next line that isn't blank.
    pub fn next(&mut self) -> io::Result<Step> {
        loop {
            self.buffer.clear();
            self.line += 1;
            loop {
                let input = fill(&mut self.input)?;
                if input.is_empty() {
                    break;
                }
                let end = input.iter().position(|byte| *byte == b'\n');
                let taken = end.unwrap_or(input.len());
                self.buffer.extend_from_slice(&input[..taken]);
                self.input.consume(end.map_or(taken, |end| end + 1));
                if end.is_some() {
                    break;
                }
                if self.buffer.len() > MAX_ROW_BYTES {
                    return Ok(Step::TooLong { line: self.line });
                }
            }
            if !self.line().is_empty() {
                return Ok(Step::Line { line: self.line });
            }
            if fill(&mut self.input)?.is_empty() {
                return Ok(Step::End);
            }
        }
    }
}

/// The values of the wanted fields of one line, in the order wanted. A field that is missing is
/// `None`: whether that matters is the caller's to say.
pub(super) fn wanted_fields(
    line: &[u8],
    wanted: &[&str],
) -> Result<Vec<Option<Value>>, RowProblem> {
    let text = std::str::from_utf8(line).map_err(|error| RowProblem::InvalidUtf8 {
        byte: error.valid_up_to() + 1,
        value: line[error.valid_up_to()],
        within: "the line".to_string(),
    })?;
    if !text.starts_with('{') {
        let value: Value = serde_json::from_str(text).map_err(invalid)?;
        return Err(RowProblem::NotAnObject { found: type_name(&value) });
    }
    let mut twice = None;
    let mut parser = serde_json::Deserializer::from_str(text);
    let fields = Fields { wanted, twice: &mut twice };
    let values = fields.deserialize(&mut parser).and_then(|v| parser.end().map(|()| v));
    match (values, twice) {
        (_, Some(field)) => Err(RowProblem::DuplicateField { field }),
        (Ok(values), None) => Ok(values),
        (Err(error), None) => Err(invalid(error)),
    }
}

/// The texts and the label of a line whose wanted fields are these, the label last.
pub(super) fn text_and_label(
    line: &[u8],
    mut values: Vec<Option<Value>>,
    text_columns: &[String],
    label_column: Option<&str>,
) -> Result<(Vec<String>, Option<String>), RowProblem> {
    let label = match label_column {
        None => None,
        Some(field) => Some(match values.pop().flatten() {
            None => return Err(missing_field(line, field)),
            Some(Value::String(label)) => label,
            Some(Value::Null) => String::new(),
            Some(Value::Bool(label)) => label.to_string(),
            Some(Value::Number(label)) if !label.is_f64() => label.to_string(),
            Some(other) => {
                return Err(RowProblem::FieldType {
                    field: field.to_string(),
                    found: type_name(&other),
                    wanted: "a string, an integer or a boolean",
                });
            }
        }),
    };
    let mut texts = Vec::with_capacity(text_columns.len());
    for (field, value) in text_columns.iter().zip(values) {
        texts.push(match value {
            None => return Err(missing_field(line, field)),
            Some(Value::String(text)) => text,
            Some(Value::Null) => String::new(),
            Some(other) => {
                return Err(RowProblem::FieldType {
                    field: field.clone(),
                    found: type_name(&other),
                    wanted: "a string",
                });
            }
        });
    }
    Ok((texts, label))
}

/// The names of a line's fields: for messages only, it builds the whole object.
pub(super) fn field_names(line: &[u8]) -> Vec<String> {
    match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(fields)) => fields.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

/// The problem of a line that lacks a wanted field.
pub(super) fn missing_field(line: &[u8], field: &str) -> RowProblem {
    let existing = field_names(line);
    RowProblem::MissingField {
        field: field.to_string(),
        existing: if existing.is_empty() { "none".to_string() } else { names(&existing) },
        similar: closest(field, existing.iter().map(String::as_str)),
    }
}

/// A JSON type as a sentence has it.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn invalid(error: serde_json::Error) -> RowProblem {
    let (column, message) = (error.column(), error.to_string());
    // "… at line 1 column 9": the line is always the first of one.
    let what = message.rsplit_once(" at line").map_or(message.as_str(), |(what, _)| what);
    RowProblem::InvalidJson { detail: format!("{what} (column {column})") }
}

struct Fields<'a> {
    wanted: &'a [&'a str],
    twice: &'a mut Option<String>,
}

impl<'de> DeserializeSeed<'de> for Fields<'_> {
    type Value = Vec<Option<Value>>;

    fn deserialize<D: serde::Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_> {
    type Value = Vec<Option<Value>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut values = vec![None; self.wanted.len()];
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let mut indexes = self.wanted.iter().enumerate().filter(|(_, name)| **name == key);
            let Some((index, _)) = indexes.next() else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if values[index].is_some() {
                *self.twice = Some(key.into_owned());
                return Err(M::Error::custom("field given twice"));
            }
            values[index] = Some(map.next_value::<Value>()?);
        }
        Ok(values)
    }
}
