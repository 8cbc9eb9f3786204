//! What is remembered of rows while they stream by, and the findings that follow.
//!
//! Hashes and lengths only: 32 bytes a row and some 40 a different text. Knows nothing of how
//! findings are shown.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use rayon::prelude::*;

use super::advice;
use super::findings::{BadRows, Conflict, Findings, HeldOutFile, LabelCount, Lengths, Repeated};
use super::{LISTED, Part, Tokens};
use crate::data::{
    DataError, Labels, Place, ReadOptions, Row, Side, SideCounts, SideRule, SplitOptions, TextHash,
    excerpt,
};

/// Characters of an excerpt.
const EXCERPT: usize = 80;

/// The pass over the data.
pub struct Pass {
    tokens: Option<Tokens>,
    labels: Labels,
    rows: Vec<Facts>,
    texts: HashMap<TextHash, Seen>,
    most_repeated: Option<(TextHash, String)>,
    conflicts: Vec<Conflict>,
    conflicting: HashSet<TextHash>,
    bad: BadRows,
}

/// What is remembered of a row.
struct Facts {
    hash: TextHash,
    /// Counted up from 0 in the order seen.
    label: u32,
    characters: u32,
    words: u32,
    /// 0 without a tokenizer.
    tokens: u32,
}

/// What is remembered of a text.
struct Seen {
    row: u64,
    label: u32,
    count: u64,
}

impl Pass {
    /// Before the first row.
    pub fn new(tokens: Option<Tokens>) -> Pass {
        Pass {
            tokens,
            labels: Labels::new(None),
            rows: Vec::new(),
            texts: HashMap::new(),
            most_repeated: None,
            conflicts: Vec::new(),
            conflicting: HashSet::new(),
            bad: BadRows::default(),
        }
    }

    /// Takes rows in.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn add(&mut self, part: Part) -> Result<()> {
        add_bad(&mut self.bad, &part);
        let tokens = self.tokens.as_ref();
        let facts = |row: &Row| -> pagebert_model::Result<Facts> {
            Ok(Facts {
                hash: TextHash::of(&row.text),
                label: 0,
                characters: row.text.chars().count() as u32,
                words: row.text.split_whitespace().count() as u32,
                tokens: tokens.map_or(Ok(0), |tokens| tokens.count(&row.text))?,
            })
        };
        let facts: Vec<Facts> =
            part.rows.par_iter().map(facts).collect::<pagebert_model::Result<_>>()?;
        for (row, facts) in part.rows.into_iter().zip(facts) {
            self.row(row, facts);
        }
        Ok(())
    }

    fn row(&mut self, row: Row, facts: Facts) {
        let name = row.label.unwrap_or_default();
        // Labels are free here, so every one has an id.
        let Ok(label) = self.labels.id(&name, row.row, row.line) else { return };
        let hash = facts.hash;
        self.rows.push(Facts { label, ..facts });
        let seen = self.texts.entry(hash).or_insert(Seen { row: row.row, label, count: 0 });
        seen.count += 1;
        let (first, count) = (seen.row, seen.count);
        if seen.label != label && self.conflicting.insert(hash) && self.conflicts.len() < LISTED {
            let names = self.labels.seen();
            self.conflicts.push(Conflict {
                rows: [first, row.row],
                labels: [seen.label, label].map(|id| names[id as usize].name.clone()),
                text: excerpt(&row.text, EXCERPT),
            });
        }
        match &self.most_repeated {
            Some((most, _)) if *most == hash || self.texts[most].count >= count => {}
            None if count < 2 => {}
            _ => self.most_repeated = Some((hash, excerpt(&row.text, EXCERPT))),
        }
    }

    /// What was found in the rows themselves; the split comes after.
    pub fn finish(
        mut self,
        path: &Path,
        options: &ReadOptions,
        rows: u64,
        sha256: String,
    ) -> Surveyed {
        let total = self.rows.len().max(1) as f64;
        let mut labels: Vec<LabelCount> = self
            .labels
            .seen()
            .iter()
            .map(|seen| LabelCount {
                label: seen.name.clone(),
                rows: seen.count,
                share: seen.count as f64 / total,
                first_row: seen.row,
            })
            .collect();
        labels.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.label.cmp(&b.label)));
        for (seen, problem) in self.labels.rare() {
            let file = path.display().to_string();
            self.bad.add(&Place { file, row: seen.row, line: seen.line }, &problem);
        }
        let (classes, ids) = self.labels.into_classes();
        let lengths =
            |length: fn(&Facts) -> u32| Lengths::of(self.rows.iter().map(length).collect());
        let tokens = self.tokens.as_ref();
        let windows = tokens.map(|tokens| -> Vec<usize> {
            self.rows.par_iter().map(|facts| tokens.windows(facts.tokens)).collect()
        });
        let findings = Findings {
            data: path.display().to_string(),
            sha256,
            rows,
            good_rows: 0,
            labels,
            characters: lengths(|facts| facts.characters),
            words: lengths(|facts| facts.words),
            tokens: tokens.and_then(|_| lengths(|facts| facts.tokens)),
            max_tokens: tokens.map(|tokens| tokens.max_tokens),
            over_max_tokens: windows.as_ref().map(|all| all.iter().filter(|n| **n > 1).count()),
            windows: windows.map(|all| all.iter().sum()),
            distinct_texts: self.texts.len(),
            duplicate_rows: self.rows.len() - self.texts.len(),
            most_repeated: self.most_repeated.map(|(hash, text)| Repeated {
                rows: self.texts[&hash].count,
                first_row: self.texts[&hash].row,
                text,
            }),
            conflicting_texts: self.conflicting.len(),
            conflicts: self.conflicts,
            bad_rows: self.bad,
            split: SideCounts::new(&classes, std::iter::empty()),
            valid_file: None,
            test_file: None,
            texts_in_both_files: 0,
            hints: Vec::new(),
            training_refuses: Vec::new(),
        };
        // As training with --skip-bad-rows would have them: without the labels of one row alone.
        let (hashes, ids) = self
            .rows
            .iter()
            .filter_map(|facts| ids[facts.label as usize].map(|id| (facts.hash, id)))
            .unzip();
        let path = path.to_path_buf();
        Surveyed { findings, path, options: options.clone(), classes, hashes, ids }
    }
}

fn add_bad(bad: &mut BadRows, part: &Part) {
    for error in &part.bad {
        if let DataError::Row { place, problem } = error {
            bad.add(place, problem);
        }
    }
}

/// Findings that lack the split, and what it takes to make it.
pub struct Surveyed {
    /// What was found so far.
    pub findings: Findings,
    /// The labels in the order of class ids.
    pub classes: Vec<String>,
    path: PathBuf,
    options: ReadOptions,
    /// Of the good rows, in order.
    hashes: Vec<TextHash>,
    /// Their classes.
    ids: Vec<u32>,
}

impl Surveyed {
    /// Splits the rows as training would, and draws the conclusions.
    pub fn split(&mut self, options: SplitOptions, valid: Option<Given>, test: Option<Given>) {
        let texts = |given: &Option<Given>| {
            given.iter().flat_map(|given| given.texts.iter().copied()).collect::<HashSet<_>>()
        };
        let (valid_texts, test_texts) = (texts(&valid), texts(&test));
        let held = &valid_texts | &test_texts;
        let rule = SideRule::of_texts(options, valid.is_some(), test.is_some(), held);
        let sides = self.hashes.par_iter().map(|hash| rule.side_of(hash)).collect::<Vec<Side>>();
        let own = self.ids.iter().copied().zip(sides);
        let of = |given: &Option<Given>, side| {
            let ids = given.iter().flat_map(|given| given.ids.clone()).collect::<Vec<u32>>();
            ids.into_iter().map(move |id| (id, side))
        };
        let rows = own.chain(of(&valid, Side::Valid)).chain(of(&test, Side::Test));

        let known: HashSet<TextHash> = self.hashes.iter().copied().collect();
        let file = |given: Option<Given>| {
            given.map(|given| HeldOutFile {
                also_in_data: given.texts.intersection(&known).count(),
                file: given.file,
                rows: given.ids.len() + given.bad.count(),
                good_rows: given.ids.len(),
                bad_rows: given.bad,
            })
        };
        let findings = &mut self.findings;
        findings.split = SideCounts::new(&self.classes, rows);
        findings.valid_file = file(valid);
        findings.test_file = file(test);
        findings.texts_in_both_files = valid_texts.intersection(&test_texts).count();
        findings.good_rows = self.hashes.len();
        let unsplit = rule.sides(&self.path, &self.classes, &self.hashes, &self.ids).err();
        findings.training_refuses = advice::refusals(findings, &self.options, unsplit);
        findings.hints = advice::hints(findings, &self.options);
    }
}

/// A file in the place of a side.
pub struct Given {
    file: String,
    labels: Labels,
    texts: HashSet<TextHash>,
    ids: Vec<u32>,
    bad: BadRows,
}

impl Given {
    /// Before its first row. Labels are those of the data, as in training.
    pub fn new(path: &Path, classes: &[String]) -> Given {
        Given {
            file: path.display().to_string(),
            labels: Labels::new(Some(classes)),
            texts: HashSet::new(),
            ids: Vec::new(),
            bad: BadRows::default(),
        }
    }

    /// Takes rows in.
    pub fn add(&mut self, part: Part) {
        add_bad(&mut self.bad, &part);
        let hashes: Vec<TextHash> =
            part.rows.par_iter().map(|row| TextHash::of(&row.text)).collect();
        for (row, hash) in part.rows.into_iter().zip(hashes) {
            match self.labels.id(&row.label.unwrap_or_default(), row.row, row.line) {
                Ok(id) => {
                    self.ids.push(id);
                    self.texts.insert(hash);
                }
                Err(problem) => {
                    let file = self.file.clone();
                    self.bad.add(&Place { file, row: row.row, line: row.line }, &problem);
                }
            }
        }
    }
}
