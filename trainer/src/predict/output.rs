//! Answers as JSON Lines or CSV, to a file or stdout.
//!
//! Owns their columns. A file is written under a temporary name, and takes its own when complete.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use pagebert_model::classify::Prediction;
use serde::Serialize;
use tempfile::NamedTempFile;

use super::{ending, unknown_ending};
use crate::UsageError;
use crate::checkpoint::temporary_beside;

/// What is written of one text.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// What the model says.
    Prediction(Prediction),
    /// Why the row could not be classified.
    Error {
        /// The reason.
        error: String,
    },
}

/// The form of the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line.
    JsonLines,
    /// A header, and one record a text.
    Csv,
}

impl Form {
    /// By the file's ending; JSON Lines on stdout.
    ///
    /// # Errors
    /// For another ending.
    pub fn of(path: Option<&Path>) -> Result<Form, UsageError> {
        let Some(path) = path else { return Ok(Form::JsonLines) };
        match ending(path).as_str() {
            "jsonl" | "ndjson" => Ok(Form::JsonLines),
            "csv" => Ok(Form::Csv),
            _ => Err(unknown_ending(path)),
        }
    }
}

enum Target {
    Stdout,
    File { temporary: NamedTempFile, path: PathBuf },
}

/// Where answers go.
pub struct Output {
    form: Form,
    labels: Vec<String>,
    buffer: BufWriter<Box<dyn Write>>,
    target: Target,
    answered: u64,
}

impl Output {
    /// Opens the file, or stdout without one.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn create(path: Option<&Path>, form: Form, labels: &[String]) -> Result<Output> {
        let (raw, target): (Box<dyn Write>, Target) = match path {
            None => (Box::new(stdout()), Target::Stdout),
            Some(path) => {
                let (temporary, path) = temporary_beside(path)?;
                let file: File = temporary.reopen()?;
                (Box::new(file), Target::File { temporary, path })
            }
        };
        let labels = labels.to_vec();
        let mut output = Output { form, labels, buffer: BufWriter::new(raw), target, answered: 0 };
        if form == Form::Csv {
            let header = output.header();
            output.record(&header)?;
        }
        Ok(output)
    }

    /// Writes one answer.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&mut self, answer: &Answer) -> Result<()> {
        self.answered += 1;
        match (self.form, answer) {
            (Form::JsonLines, answer) => {
                serde_json::to_writer(&mut self.buffer, answer)?;
                self.buffer.write_all(b"\n")?;
                Ok(())
            }
            (Form::Csv, answer) => {
                let record = self.cells(answer);
                self.record(&record)
            }
        }
    }

    /// Hands on what was written so far, so that a reader of stdout sees it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.buffer.flush()?)
    }

    /// Gives the file its name; the number of answers.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(mut self) -> Result<u64> {
        self.buffer.flush()?;
        if let Target::File { temporary, path } = self.target {
            temporary.as_file().sync_all()?;
            temporary
                .persist(&path)
                .map_err(|error| error.error)
                .with_context(|| format!("{} can't be written", path.display()))?;
        }
        Ok(self.answered)
    }

    /// `label,score,unsure,tokens,windows,error`, then for each class `score:NAME` and
    /// `logit:NAME`, in label order.
    fn header(&self) -> Vec<String> {
        let fixed = ["label", "score", "unsure", "tokens", "windows", "error"];
        let mut header: Vec<String> = fixed.map(String::from).to_vec();
        header.extend(self.labels.iter().map(|label| format!("score:{label}")));
        header.extend(self.labels.iter().map(|label| format!("logit:{label}")));
        header
    }

    fn cells(&self, answer: &Answer) -> Vec<String> {
        match answer {
            Answer::Error { error } => {
                let mut cells = vec![String::new(); 6 + 2 * self.labels.len()];
                cells[5].clone_from(error);
                cells
            }
            Answer::Prediction(prediction) => {
                let mut cells = vec![
                    prediction.label.clone(),
                    prediction.score.to_string(),
                    prediction.unsure.to_string(),
                    prediction.tokens.to_string(),
                    prediction.windows.to_string(),
                    String::new(),
                ];
                cells.extend(self.labels.iter().map(|label| {
                    let score = prediction.scores.iter().find(|score| score.label == *label);
                    score.map(|score| score.score.to_string()).unwrap_or_default()
                }));
                cells.extend(prediction.logits.iter().map(f32::to_string));
                cells
            }
        }
    }

    fn record(&mut self, cells: &[String]) -> Result<()> {
        let mut record = csv::Writer::from_writer(Vec::new());
        record.write_record(cells)?;
        let bytes = record.into_inner().map_err(|error| error.into_error())?;
        self.buffer.write_all(&bytes)?;
        Ok(())
    }
}
