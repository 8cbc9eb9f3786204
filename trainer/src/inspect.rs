//! `pagebert inspect`: what is in a file of texts, before anything is trained on it.
//!
//! One pass over the data; what is remembered of it are hashes and lengths, not texts. Bad rows,
//! leaks and all that training would stop at are findings, told at once, and no errors: the exit
//! code is 0 for every file that can be read to its end.
//!
//! The JSON of `--json` (row numbers count from 1, texts are excerpts of 80 characters, lists of
//! rows are cut after ten):
//!
//! ```text
//! data sha256         the file as given, and the SHA-256 of its bytes
//! rows good_rows      all rows, and those that training can use
//! labels              [{label, rows, share, first_row}…], the most frequent first
//! characters words    {shortest, median, p90, p99, longest, mean, total}: lengths of the texts
//! tokens              the same with --base, the two special tokens included; else null
//! max_tokens          the tokens of a window of that base
//! over_max_tokens     texts that are longer, and so are read in several windows
//! windows             windows of all texts, with the default `stride`
//! distinct_texts      texts that differ in more than case, width and white space
//! duplicate_rows      rows whose text was there before
//! most_repeated       {rows, first_row, text} or null
//! conflicting_texts   texts that have different labels in different rows
//! conflicts           [{rows: [a, b], labels: [x, y], text}…]
//! bad_rows            [{kind, count, first: [{row, line, reason}…]}…], kind one of empty_text,
//!                     empty_label, field_count, invalid_utf8, json, rare_label, unknown_label
//! split               {labels, train: [rows by label…], valid: […], test: […], left_out}
//! valid_file          {file, rows, good_rows, bad_rows, also_in_data} or null; the last counts
//! test_file           texts of the file that are in the data too, which training leaves out there
//! texts_in_both_files a leak from --valid to --test
//! hints               sentences: what looks like a mistake but may be none
//! training_refuses    sentences: what `pagebert train` would stop at, and the way out
//! ```

mod advice;
mod display;
mod findings;
mod pass;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use pagebert_model::TextTokenizer;
use pagebert_model::batch::windows;

use crate::base;
use crate::checkpoint::{read_config, read_tokenizer, write_atomically};
use crate::cli::InspectArgs;
use crate::data::{DataError, Row, RowReader, SplitOptions};
use crate::progress::{Console, Unit};
use crate::settings::Settings;

use pass::{Given, Pass};

/// Examples listed of each finding.
const LISTED: usize = 10;
/// Rows handled at once: enough for every thread.
const CHUNK: usize = 4096;

/// Runs the command.
///
/// # Errors
/// `DataError` when the file can't be read as data at all.
pub fn run(args: &InspectArgs, console: &Console) -> Result<()> {
    let options = args.read.options()?;
    let split = SplitOptions {
        split_seed: args.split_seed,
        valid_fraction: args.valid_fraction,
        test_fraction: args.test_fraction,
    };
    split.check()?;
    // Before the base, which may have to be fetched: a wrong name should not take that long to show.
    let mut reader = RowReader::labelled(&args.data, &options.read)?;
    let tokens = args.base.as_deref().map(|name| Tokens::load(name, console)).transpose()?;
    let mut pass = Pass::new(tokens);
    read(&args.data, &mut reader, console, |part| pass.add(part))?;
    let rows = reader.rows_read();
    let sha256 = reader.finish()?;

    let mut surveyed = pass.finish(&args.data, &options.read, rows, sha256);
    let given = |path: &Option<PathBuf>| -> Result<Option<Given>> {
        let Some(path) = path else { return Ok(None) };
        let mut reader = RowReader::labelled(path, &options.read)?;
        let mut given = Given::new(path, &surveyed.classes);
        read(path, &mut reader, console, |part| {
            given.add(part);
            Ok(())
        })?;
        Ok(Some(given))
    };
    let (valid, test) = (given(&args.valid)?, given(&args.test)?);
    surveyed.split(split, valid, test);
    let findings = surveyed.findings;

    let mut out = std::io::stdout().lock();
    let json = || serde_json::to_string_pretty(&findings);
    match &args.json {
        Some(path) if path == Path::new("-") => writeln!(out, "{}", json()?)?,
        Some(path) => {
            write_atomically(path, format!("{}\n", json()?).as_bytes())?;
            write!(out, "{findings}")?;
        }
        None => write!(out, "{findings}")?,
    }
    Ok(())
}

/// Some rows of a file: good ones, and the errors of bad ones.
struct Part {
    rows: Vec<Row>,
    bad: Vec<DataError>,
}

fn read(
    path: &Path,
    reader: &mut RowReader,
    console: &Console,
    mut take: impl FnMut(Part) -> Result<()>,
) -> Result<()> {
    let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
    let bar = console.bar(&format!("reading {}", path.display()), bytes, Unit::Bytes);
    let mut part = Part { rows: Vec::with_capacity(CHUNK), bad: Vec::new() };
    for row in reader.by_ref() {
        match row {
            Ok(row) => part.rows.push(row),
            Err(error @ DataError::Row { .. }) => part.bad.push(error),
            Err(error) => return Err(error.into()),
        }
        if part.rows.len() + part.bad.len() == CHUNK {
            let empty = Part { rows: Vec::with_capacity(CHUNK), bad: Vec::new() };
            take(std::mem::replace(&mut part, empty))?;
        }
    }
    take(part)?;
    bar.set(bytes);
    Ok(())
}

/// Counting tokens as a base would.
struct Tokens {
    tokenizer: TextTokenizer,
    max_tokens: usize,
    stride: usize,
}

impl Tokens {
    fn load(name: &str, console: &Console) -> Result<Tokens> {
        let settings = Settings::default();
        let files = base::resolve(name, console)?;
        let positions = read_config(&files.config)?.max_position_embeddings;
        let max_tokens = positions.min(settings.max_tokens);
        // Shrinks with the window, as in training.
        let stride = settings.stride.min(max_tokens.saturating_sub(2) / 2);
        Ok(Tokens { tokenizer: read_tokenizer(&files)?, max_tokens, stride })
    }

    /// The tokens of a text, the two special ones included.
    fn count(&self, text: &str) -> pagebert_model::Result<u32> {
        Ok(self.tokenizer.encode(text)?.len() as u32 + 2)
    }

    /// The windows of a text of so many tokens.
    fn windows(&self, tokens: u32) -> usize {
        let tokens = tokens as usize;
        if tokens <= self.max_tokens {
            return 1;
        }
        windows(tokens - 2, self.max_tokens.saturating_sub(2).max(1), self.stride).len()
    }
}
