//! `pagebert predict`: texts in, labels out, one answer a text, in order.
//!
//! Owns where texts come from and the form of the answers. Streams: memory does not grow with the
//! input.

mod output;

use std::io::{IsTerminal, stdin};
use std::path::Path;

use anyhow::{Result, bail};
use pagebert_model::classify::Prediction;

use crate::UsageError;
use crate::cli::PredictArgs;
use crate::data::{DataError, RowReader};
use crate::inference::{self, LoadedModel, document_logits, encode_all};
use crate::progress::{Bar, Console, Unit};

use output::{Answer, Output};

/// Texts classified at once: enough to find alike lengths.
const CHUNK: usize = 1024;

/// Runs the command.
///
/// # Errors
/// [`UsageError`] and `DataError` for what the user can set right; a failure, after everything else
/// was answered, when some rows could not be read.
pub fn run(args: &PredictArgs, console: &Console) -> Result<()> {
    let form = output::Form::of(args.out.as_deref())?;
    let options = args.read.options()?;
    // Before the model is loaded: a name that can't be written should not take that long to show.
    let reader = match &args.data {
        Some(path) => Some(RowReader::unlabelled(path, &options.read)?),
        None => None,
    };
    let model = inference::load(&args.model, &args.compute)?;
    let mut output = Output::create(args.out.as_deref(), form, model.classifier.labels())?;
    let bar = console.bar("classifying", 0, Unit::Items("texts"));
    let mut work =
        Work { model: &model, output: &mut output, bar: &bar, chunk: Vec::new(), bad: 0 };
    if let Some(reader) = reader {
        work.rows(reader)?;
    } else if args.texts.is_empty() {
        if stdin().is_terminal() {
            console.note("reading texts from the keyboard, one a line; Ctrl-D ends");
        }
        work.lines()?;
    } else {
        for text in &args.texts {
            work.text(text)?;
        }
    }
    work.flush()?;
    let bad = work.bad;
    let answered = output.finish()?;
    drop(bar);
    if bad > 0 {
        bail!("{bad} of {answered} rows could not be classified: see `error` in their answers");
    }
    if let Some(path) = &args.out {
        console.note(format!("{answered} answers are in {}", path.display()));
    }
    Ok(())
}

/// Texts on their way through the model.
struct Work<'a> {
    model: &'a LoadedModel,
    output: &'a mut Output,
    bar: &'a Bar,
    chunk: Vec<Result<String, String>>,
    bad: u64,
}

impl Work<'_> {
    fn rows(&mut self, reader: RowReader) -> Result<()> {
        for row in reader {
            match row {
                Ok(row) => self.push(Ok(row.text))?,
                Err(DataError::Row { place, problem }) => {
                    self.push(Err(format!("row {}: {problem}", place.row)))?;
                }
                // What came before is answered; then the message says where the file broke.
                Err(error) => {
                    self.flush()?;
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn lines(&mut self) -> Result<()> {
        use std::io::BufRead;
        let terminal = stdin().is_terminal();
        let mut input = stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            if input.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            while line.last().is_some_and(|byte| b"\r\n".contains(byte)) {
                line.pop();
            }
            match std::str::from_utf8(&line) {
                Ok(text) => self.text(text)?,
                Err(error) => {
                    let at = error.valid_up_to() + 1;
                    self.push(Err(format!("byte {at} of the line is not UTF-8")))?;
                }
            }
            // Somebody is waiting for the answer.
            if terminal {
                self.flush()?;
            }
        }
    }

    fn text(&mut self, text: &str) -> Result<()> {
        match text.trim().is_empty() {
            true => self.push(Err("the text is empty".to_string())),
            false => self.push(Ok(text.to_string())),
        }
    }

    fn push(&mut self, text: Result<String, String>) -> Result<()> {
        self.chunk.push(text);
        if self.chunk.len() == CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        let texts: Vec<&String> = chunk.iter().filter_map(|text| text.as_ref().ok()).collect();
        let mut predictions = predictions(self.model, &texts)?.into_iter();
        for text in &chunk {
            let answer = match text {
                Ok(_) => predictions.next().map(Answer::Prediction),
                Err(error) => {
                    self.bad += 1;
                    Some(Answer::Error { error: error.clone() })
                }
            };
            if let Some(answer) = answer {
                self.output.write(&answer)?;
            }
        }
        self.bar.add(chunk.len() as u64);
        self.output.flush()
    }
}

/// What a model says of some texts.
///
/// # Errors
/// When the model fails.
pub fn predictions<T: AsRef<str> + Sync>(
    model: &LoadedModel,
    texts: &[T],
) -> Result<Vec<Prediction>> {
    let classifier = &model.classifier;
    let documents = encode_all(classifier, texts)?;
    let logits = document_logits(classifier.model(), &documents, &mut |_| {})?;
    let mut predictions = Vec::with_capacity(texts.len());
    for (document, logits) in documents.iter().zip(logits) {
        predictions.push(classifier.prediction(
            logits,
            document.tokens(),
            document.windows.len(),
        )?);
    }
    Ok(predictions)
}

/// The form of an output by its name.
fn ending(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// What to say of an ending that names no form.
fn unknown_ending(path: &Path) -> UsageError {
    UsageError(format!(
        "--out {}: the ending names the form, and must be .jsonl or .csv",
        path.display()
    ))
}
