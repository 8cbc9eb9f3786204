//! `pagebert inspect`: what is in a file of texts, before anything is trained on it.
//!
//! Owns one pass over the data, and what is remembered of it: hashes and lengths, not texts. What
//! training would refuse is told here, all of it at once, and is no error.

mod findings;

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use pagebert_model::TextTokenizer;
use rayon::prelude::*;

use crate::base;
use crate::checkpoint::{read_config, read_tokenizer, write_atomically};
use crate::cli::InspectArgs;
use crate::data::{
    DataError, DataOptions, Dataset, Labels, Row, RowReader, Side, SideCounts, SideRule,
    SplitOptions, TextHash,
};
use crate::progress::{Console, Unit};

use findings::{BadKind, Conflict, Findings, Held, LabelCount, Lengths, Repeated};

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
    let tokens = args.base.as_deref().map(|name| Tokens::load(name, console)).transpose()?;
    let mut pass = Pass { tokens, ..Pass::default() };
    let bar = console.bar("reading", 0, Unit::Items("rows"));
    let mut reader = RowReader::labelled(&args.data, &options.read)?;
    let mut chunk = Vec::with_capacity(CHUNK);
    for row in reader.by_ref() {
        match row {
            Ok(row) => chunk.push(row),
            Err(DataError::Row { place, problem }) => {
                pass.bad(BadKind::of(&problem), place.row, problem.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        if chunk.len() == CHUNK {
            bar.add(CHUNK as u64);
            pass.rows(std::mem::take(&mut chunk))?;
        }
    }
    pass.rows(chunk)?;
    let rows_read = reader.rows_read();
    let sha256 = reader.finish()?;
    drop(bar);

    let given = |path: &Option<std::path::PathBuf>| -> Result<Option<Given>> {
        let Some(path) = path else { return Ok(None) };
        // Any label will do here: whether it is one of the data's is training's question.
        let options = DataOptions { skip_bad_rows: true, labels: None, ..options.clone() };
        Ok(Some(Given::load(path, &options)?))
    };
    let (valid, test) = (given(&args.valid)?, given(&args.test)?);
    let findings = pass.findings(&args.data, rows_read, sha256, split, valid, test);
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

/// Counting tokens as a base would.
struct Tokens {
    tokenizer: TextTokenizer,
    max_tokens: usize,
}

impl Tokens {
    fn load(name: &str, console: &Console) -> Result<Tokens> {
        let files = base::resolve(name, console)?;
        let positions = read_config(&files.config)?.max_position_embeddings;
        Ok(Tokens { tokenizer: read_tokenizer(&files)?, max_tokens: positions.min(512) })
    }
}

/// A file in the place of a side.
struct Given {
    rows: usize,
    texts: HashSet<TextHash>,
}

impl Given {
    fn load(path: &Path, options: &DataOptions) -> Result<Given> {
        let data = Dataset::load(path, options)?;
        let texts = data.rows.par_iter().map(|row| TextHash::of(&row.text)).collect();
        Ok(Given { rows: data.rows.len(), texts })
    }
}

/// What is remembered of a text.
struct Seen {
    row: u64,
    label: u32,
    count: u64,
}

/// What is remembered of the rows so far.
struct Pass {
    tokens: Option<Tokens>,
    labels: Labels,
    /// Of each row, in order.
    rows: Vec<(TextHash, u32)>,
    characters: Vec<u32>,
    words: Vec<u32>,
    token_counts: Vec<u32>,
    texts: HashMap<TextHash, Seen>,
    most_repeated: Option<(TextHash, String)>,
    conflicts: Vec<Conflict>,
    conflicting: HashSet<TextHash>,
    bad: Vec<findings::Bad>,
}

impl Default for Pass {
    fn default() -> Pass {
        Pass {
            tokens: None,
            labels: Labels::new(None),
            rows: Vec::new(),
            characters: Vec::new(),
            words: Vec::new(),
            token_counts: Vec::new(),
            texts: HashMap::new(),
            most_repeated: None,
            conflicts: Vec::new(),
            conflicting: HashSet::new(),
            bad: Vec::new(),
        }
    }
}

/// What is counted of one text.
struct Counted {
    hash: TextHash,
    characters: u32,
    words: u32,
    tokens: Option<u32>,
}

impl Pass {
    fn bad(&mut self, kind: BadKind, row: u64, reason: String) {
        match self.bad.iter_mut().find(|bad| bad.kind == kind) {
            Some(bad) => bad.add(row, reason),
            None => self.bad.push(findings::Bad::new(kind, row, reason)),
        }
    }

    fn rows(&mut self, rows: Vec<Row>) -> Result<()> {
        let count = |row: &Row| -> pagebert_model::Result<Counted> {
            let encode = |tokens: &Tokens| tokens.tokenizer.encode(&row.text);
            let tokens = self.tokens.as_ref().map(encode).transpose()?;
            Ok(Counted {
                hash: TextHash::of(&row.text),
                characters: row.text.chars().count() as u32,
                words: row.text.split_whitespace().count() as u32,
                tokens: tokens.map(|ids| ids.len() as u32 + 2),
            })
        };
        let counted: Vec<Counted> =
            rows.par_iter().map(count).collect::<pagebert_model::Result<_>>()?;
        for (row, counted) in rows.into_iter().zip(counted) {
            self.row(row, counted);
        }
        Ok(())
    }

    fn row(&mut self, row: Row, counted: Counted) {
        let name = row.label.unwrap_or_default();
        // Labels are free here, so every one has an id.
        let Ok(label) = self.labels.id(&name, row.row, row.line) else { return };
        let Counted { hash, characters, words, tokens } = counted;
        self.rows.push((hash, label));
        self.characters.push(characters);
        self.words.push(words);
        self.token_counts.extend(tokens);
        let seen = self.texts.entry(hash).or_insert(Seen { row: row.row, label, count: 0 });
        seen.count += 1;
        if seen.label != label && self.conflicting.insert(hash) && self.conflicts.len() < LISTED {
            let names = self.labels.seen();
            self.conflicts.push(Conflict {
                rows: [seen.row, row.row],
                labels: [seen.label, label].map(|id| names[id as usize].name.clone()),
                text: crate::data::excerpt(&row.text, 80),
            });
        }
        let count = seen.count;
        let most = self.most_repeated.as_ref().map_or(1, |(hash, _)| self.texts[hash].count);
        if count > most {
            self.most_repeated = Some((hash, crate::data::excerpt(&row.text, 80)));
        }
    }

    fn findings(
        self,
        path: &Path,
        rows: u64,
        sha256: String,
        options: SplitOptions,
        valid: Option<Given>,
        test: Option<Given>,
    ) -> Findings {
        let names: Vec<String> =
            self.labels.seen().iter().map(|label| label.name.clone()).collect();
        let rare: Vec<u64> = self.labels.rare().iter().map(|(label, _)| label.row).collect();
        let total = self.rows.len().max(1) as f64;
        let mut labels: Vec<LabelCount> = self
            .labels
            .seen()
            .iter()
            .map(|label| LabelCount {
                label: label.name.clone(),
                rows: label.count,
                share: label.count as f64 / total,
            })
            .collect();
        labels.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.label.cmp(&b.label)));

        let held: HashSet<TextHash> =
            [&valid, &test].into_iter().flatten().flat_map(|given| given.texts.clone()).collect();
        let rule = SideRule::of_texts(options, valid.is_some(), test.is_some(), held);
        let sides = self.rows.iter().map(|(hash, label)| (*label, rule.side_of(hash)));
        let counts = SideCounts::new(&names, sides);
        let missing = counts.missing(&rule).map(|(side, ids)| {
            (side, ids.into_iter().map(|id| names[id].clone()).collect::<Vec<_>>())
        });
        let held = |given: &Option<Given>| {
            given.as_ref().map(|given| Held {
                rows: given.rows,
                also_in_data: given.texts.iter().filter(|t| self.texts.contains_key(t)).count(),
            })
        };
        let leak = match (&valid, &test) {
            (Some(valid), Some(test)) => valid.texts.intersection(&test.texts).count(),
            _ => 0,
        };
        let distinct = self.texts.len();
        let repeated = self.most_repeated.map(|(hash, text)| Repeated {
            rows: self.texts[&hash].count,
            first_row: self.texts[&hash].row,
            text,
        });
        let max_tokens = self.tokens.as_ref().map(|tokens| tokens.max_tokens);
        let over = max_tokens
            .map(|most| self.token_counts.iter().filter(|tokens| **tokens as usize > most).count());
        let mut findings = Findings {
            data: path.display().to_string(),
            sha256,
            rows,
            good_rows: self.rows.len(),
            labels,
            characters: Lengths::of(self.characters),
            words: Lengths::of(self.words),
            tokens: max_tokens.and_then(|_| Lengths::of(self.token_counts)),
            max_tokens,
            over_max_tokens: over,
            distinct_texts: distinct,
            duplicate_rows: self.rows.len() - distinct,
            most_repeated: repeated,
            conflicting_texts: self.conflicting.len(),
            conflicts: self.conflicts,
            bad_rows: self.bad,
            split: counts,
            valid_file: held(&valid),
            test_file: held(&test),
            texts_in_both_files: leak,
            training_refuses: Vec::new(),
        };
        findings.judge(&rare, missing.map(|(side, labels): (Side, _)| (side, labels)));
        findings
    }
}
