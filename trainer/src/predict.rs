//! `pagebert predict`: texts in, labels out, one answer a text, in order.
//!
//! Owns where texts come from and the form of the answers. Streams: memory does not grow with the
//! input.

mod output;

use std::io::{IsTerminal, stdin};
use std::path::Path;

use anyhow::{Context, Result, bail};
use pagebert_model::classify::Prediction;

use crate::UsageError;
use crate::checkpoint::check_writable;
use crate::cli::PredictArgs;
use crate::data::{DataError, RowReader};
use crate::inference::{self, LoadedModel, document_logits, encode_all};
use crate::progress::{Bar, Console, Unit};

use output::{Answer, Output};

/// Texts classified at once: enough to find alike lengths.
const CHUNK: usize = 1024;
/// And no more than this of them, for texts may be books.
const CHUNK_BYTES: usize = 4 << 20;

/// What some programs put before a file's first line, and terminals never do.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Runs the command.
///
/// # Errors
/// [`UsageError`] and `DataError` for what the user can set right; a failure, after everything else
/// was answered, when some rows could not be read.
pub fn run(args: &PredictArgs, console: &Console) -> Result<()> {
    let form = output::Form::of(args.out.as_deref())?;
    let options = args.read.options()?;
    // Before the model is loaded: a name that can't be written should not take that long to show.
    if let Some(out) = &args.out {
        check_writable(out)?;
        if args.data.as_ref().is_some_and(|data| is_same_file(data, out)) {
            return Err(UsageError(format!(
                "--out {} is the file of the texts, and would replace it. Give another name",
                out.display()
            ))
            .into());
        }
    }
    let reader = match &args.data {
        Some(path) => Some(RowReader::unlabelled(path, &options.read)?),
        None => None,
    };
    let model = inference::load(&args.model, &args.compute)?;
    let mut output = Output::create(args.out.as_deref(), form, model.classifier.labels())?;
    let bar = console.bar("classifying", 0, Unit::Items("texts"));
    let mut work = Work {
        model: &model,
        output: &mut output,
        bar: &bar,
        chunk: Vec::new(),
        chunk_bytes: 0,
        bad: 0,
    };
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
    chunk_bytes: usize,
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
        let mut first = true;
        loop {
            line.clear();
            if input.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if std::mem::take(&mut first) && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len());
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
        self.chunk_bytes += text.as_ref().map_or(0, String::len);
        self.chunk.push(text);
        let full = self.chunk.len() >= CHUNK || self.chunk_bytes >= CHUNK_BYTES;
        if full { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let chunk = std::mem::take(&mut self.chunk);
        self.chunk_bytes = 0;
        let texts: Vec<&String> = chunk.iter().filter_map(|text| text.as_ref().ok()).collect();
        let mut predictions = predictions(self.model, &texts)?.into_iter();
        for text in &chunk {
            let said = match text {
                Ok(_) => predictions.next().context("the model left a text out")?,
                Err(error) => Err(error.clone()),
            };
            self.bad += u64::from(said.is_err());
            self.output.write(&match said {
                Ok(prediction) => Answer::Prediction(prediction),
                Err(error) => Answer::Error { error },
            })?;
        }
        self.bar.add(chunk.len() as u64);
        self.output.flush()
    }
}

/// What a model says of some texts, or why it can't say anything of one.
///
/// # Errors
/// When the model fails.
fn predictions<T: AsRef<str> + Sync>(
    model: &LoadedModel,
    texts: &[T],
) -> Result<Vec<Result<Prediction, String>>> {
    let classifier = &model.classifier;
    let documents = encode_all(classifier, texts)?;
    let logits = document_logits(classifier.model(), &documents, &mut |_| {})?;
    let predictions = documents.iter().zip(logits).map(|(document, logits)| {
        classifier
            .prediction(logits, document.tokens(), document.windows.len())
            .map_err(|error| error.to_string())
    });
    Ok(predictions.collect())
}

/// Whether two names lead to one file.
fn is_same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
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
