//! Which rows train, which validate, which test.
//!
//! Owns the rule and the check that every class is on every side. The side of a text depends on its
//! [hash](TextHash) and `split_seed` alone: not on the order of rows, on other rows, or on the
//! training seed. So duplicates never straddle the split, and a row keeps its side when data grows.
//!
//! The rule, frozen like the hash: let `x` be the first 8 bytes, big-endian, of
//! `SHA-256("pagebert-split-1:" + split_seed in decimal + ":" + the text hash as 32 hex digits)`,
//! divided by 2^64. A text is on the test side if `x < test_fraction`, on the validation side if
//! `x < test_fraction + valid_fraction`, else it trains. So `valid_fraction` doesn't move test rows.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::dataset::Dataset;
use super::error::{DataError, excerpt};
use super::table::{Align, table};
use super::text_hash::TextHash;

/// A side of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Gradients come from it.
    Train,
    /// Chooses the best checkpoint.
    Valid,
    /// Looked at once, at the end.
    Test,
    /// On none: the same text is in the file given with `--valid` or `--test`.
    LeftOut,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Train => "train",
            Side::Valid => "valid",
            Side::Test => "test",
            Side::LeftOut => "left_out",
        })
    }
}

/// The settings of the split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SplitOptions {
    /// Another number gives another split. Independent of the training `seed`.
    pub split_seed: u64,
    /// The part of the texts that validate.
    pub valid_fraction: f64,
    /// The part of the texts that test.
    pub test_fraction: f64,
}

impl Default for SplitOptions {
    fn default() -> SplitOptions {
        SplitOptions { split_seed: 0, valid_fraction: 0.1, test_fraction: 0.1 }
    }
}

impl SplitOptions {
    /// Refuses fractions that leave nothing to train on.
    pub fn check(&self) -> Result<(), DataError> {
        let (valid, test) = (self.valid_fraction, self.test_fraction);
        // Written so that NaN fails.
        if valid >= 0.0 && test >= 0.0 && valid + test < 1.0 {
            return Ok(());
        }
        Err(DataError::Fractions { valid, test })
    }

    /// The side of a text, by the frozen rule.
    pub fn side_of(&self, text: &TextHash) -> Side {
        let key = format!("pagebert-split-1:{}:{text}", self.split_seed);
        let digest = Sha256::digest(key.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        let x = u64::from_be_bytes(first) as f64 / 2f64.powi(64);
        if x < self.test_fraction {
            Side::Test
        } else if x < self.test_fraction + self.valid_fraction {
            Side::Valid
        } else {
            Side::Train
        }
    }
}

/// Files given in place of a side. Read them with the labels of the main data.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeldOut<'a> {
    /// `--valid FILE`
    pub valid: Option<&'a Dataset>,
    /// `--test FILE`
    pub test: Option<&'a Dataset>,
}

/// One row's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitRow {
    /// The row number in the data file, from 1.
    pub row: u64,
    /// The hash of its text.
    pub text_hash: TextHash,
    /// Its side.
    pub side: Side,
}

/// The sides of a file's rows: what `split.csv` records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// One for each of [`Dataset::rows`], in their order.
    pub rows: Vec<SplitRow>,
}

impl Split {
    /// Splits the data by the rule.
    ///
    /// A side given as a file takes no row of the data: those hashed to it train instead. Rows whose
    /// text is also in such a file are on [no side](Side::LeftOut), so that nothing leaks.
    ///
    /// A class that is missing from a side is an error, except from a side given as a file (what is
    /// in it is its owner's choice) or one whose fraction is 0.
    pub fn new(
        data: &Dataset,
        held_out: HeldOut<'_>,
        options: &SplitOptions,
    ) -> Result<Split, DataError> {
        options.check()?;
        let texts: Vec<TextHash> = data.rows.iter().map(|row| TextHash::of(&row.text)).collect();
        let rule = SideRule::new(held_out, *options);
        let sides = |rule: &SideRule| texts.iter().map(|text| rule.side_of(text)).collect();
        let labels: Vec<u32> = data.rows.iter().map(|row| row.label).collect();
        let all: Vec<Side> = sides(&rule);
        let counts = SideCounts::new(&data.labels, labels.iter().copied().zip(all.iter().copied()));
        if let Some((side, missing)) = counts.missing(&rule) {
            let texts = |id: usize| {
                let of_class =
                    texts.iter().zip(&labels).filter(|(_, label)| **label as usize == id);
                of_class.map(|(text, _)| *text).collect::<HashSet<_>>().len()
            };
            let fewest = missing.iter().map(|id| (texts(*id), *id)).min().unwrap_or_default();
            let works = |split_seed: &u64| {
                let rule = rule.with_seed(*split_seed);
                let sides: Vec<Side> = sides(&rule);
                let counts = SideCounts::new(&data.labels, labels.iter().copied().zip(sides));
                counts.missing(&rule).is_none()
            };
            // A search in seconds, not minutes: with many rows, what is missing is very rare.
            let tries = (2_000_000 / data.rows.len().max(1)).min(100) as u64;
            let seed = (0..tries).find(works);
            return Err(DataError::MissingClass {
                side,
                way_out: way_out(side, &rule, fewest.0, &data.labels[fewest.1], seed),
                missing: missing.into_iter().map(|id| data.labels[id].clone()).collect(),
            });
        }
        let rows = data
            .rows
            .iter()
            .zip(texts)
            .zip(all)
            .map(|((example, text_hash), side)| SplitRow { row: example.row, text_hash, side })
            .collect();
        Ok(Split { rows })
    }

    /// Where the rows of a side lie in [`Dataset::rows`].
    pub fn indices(&self, side: Side) -> Vec<usize> {
        (0..self.rows.len()).filter(|index| self.rows[*index].side == side).collect()
    }

    /// The texts of a side: to tell how much of another file was trained on.
    pub fn texts(&self, side: Side) -> HashSet<TextHash> {
        self.rows.iter().filter(|row| row.side == side).map(|row| row.text_hash).collect()
    }

    /// Rows per class and side, those of the given files included.
    pub fn counts(&self, data: &Dataset, held_out: HeldOut<'_>) -> SideCounts {
        let own = data.rows.iter().zip(&self.rows).map(|(row, split)| (row.label, split.side));
        let given = [(held_out.valid, Side::Valid), (held_out.test, Side::Test)];
        let given = given
            .into_iter()
            .flat_map(|(file, side)| file.into_iter().map(move |file| (file, side)))
            .flat_map(|(file, side)| file.rows.iter().map(move |row| (row.label, side)));
        SideCounts::new(&data.labels, own.chain(given))
    }
}

/// The rule with the files that override it.
pub(crate) struct SideRule {
    options: SplitOptions,
    valid_given: bool,
    test_given: bool,
    held_out: HashSet<TextHash>,
}

impl SideRule {
    fn new(held_out: HeldOut<'_>, options: SplitOptions) -> SideRule {
        let files = held_out.valid.into_iter().chain(held_out.test);
        let texts = files.flat_map(|file| &file.rows).map(|row| TextHash::of(&row.text)).collect();
        SideRule::of_texts(options, held_out.valid.is_some(), held_out.test.is_some(), texts)
    }

    /// `held_out` are the texts of the files that are given.
    pub fn of_texts(
        options: SplitOptions,
        valid_given: bool,
        test_given: bool,
        held_out: HashSet<TextHash>,
    ) -> SideRule {
        SideRule { options, valid_given, test_given, held_out }
    }

    pub fn side_of(&self, text: &TextHash) -> Side {
        if self.held_out.contains(text) {
            return Side::LeftOut;
        }
        match self.options.side_of(text) {
            Side::Valid if self.valid_given => Side::Train,
            Side::Test if self.test_given => Side::Train,
            side => side,
        }
    }

    fn with_seed(&self, split_seed: u64) -> SideRule {
        let options = SplitOptions { split_seed, ..self.options };
        SideRule::of_texts(options, self.valid_given, self.test_given, self.held_out.clone())
    }

    /// Whether the rule puts rows of the data on a side.
    fn fills(&self, side: Side) -> bool {
        match side {
            Side::Train => true,
            Side::Valid => !self.valid_given && self.options.valid_fraction > 0.0,
            Side::Test => !self.test_given && self.options.test_fraction > 0.0,
            Side::LeftOut => false,
        }
    }
}

/// Rows per class and side. Its `Display` is a table, its JSON the same by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SideCounts {
    /// The labels, by class id; so are the counts.
    pub labels: Vec<String>,
    /// Rows that train.
    pub train: Vec<usize>,
    /// Rows that validate.
    pub valid: Vec<usize>,
    /// Rows that test.
    pub test: Vec<usize>,
    /// Rows on no side, because their text is in a file given for one.
    pub left_out: usize,
}

impl SideCounts {
    pub(crate) fn new(labels: &[String], rows: impl Iterator<Item = (u32, Side)>) -> SideCounts {
        let none = vec![0; labels.len()];
        let mut counts = SideCounts {
            labels: labels.to_vec(),
            train: none.clone(),
            valid: none.clone(),
            test: none,
            left_out: 0,
        };
        for (label, side) in rows {
            let label = label as usize;
            match side {
                Side::Train => counts.train[label] += 1,
                Side::Valid => counts.valid[label] += 1,
                Side::Test => counts.test[label] += 1,
                Side::LeftOut => counts.left_out += 1,
            }
        }
        counts
    }

    /// The first side that lacks classes, and which.
    pub(crate) fn missing(&self, rule: &SideRule) -> Option<(Side, Vec<usize>)> {
        [(Side::Train, &self.train), (Side::Valid, &self.valid), (Side::Test, &self.test)]
            .into_iter()
            .filter(|(side, _)| rule.fills(*side))
            .map(|(side, counts)| (side, (0..counts.len()).filter(|id| counts[*id] == 0).collect()))
            .find(|(_, missing): &(Side, Vec<usize>)| !missing.is_empty())
    }
}

impl fmt::Display for SideCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |name: &str, [train, valid, test]: [usize; 3]| {
            let all = train + valid + test;
            let cells = [train, valid, test, all].map(|count| count.to_string());
            [excerpt(name, 40)].into_iter().chain(cells).collect()
        };
        let mut rows = vec![["label", "train", "valid", "test", "all"].map(String::from).to_vec()];
        let counts = self.train.iter().zip(&self.valid).zip(&self.test);
        for (name, ((train, valid), test)) in self.labels.iter().zip(counts) {
            rows.push(line(name, [*train, *valid, *test]));
        }
        rows.push(line(
            "all",
            [&self.train, &self.valid, &self.test].map(|side| side.iter().sum()),
        ));
        let mut columns = [Align::Right; 5];
        columns[0] = Align::Left;
        f.write_str(&table(&columns, &rows))?;
        if self.left_out > 0 {
            let rows = if self.left_out == 1 { "row" } else { "rows" };
            writeln!(f, "left out: {} {rows} also in the --valid or --test file", self.left_out)?;
        }
        Ok(())
    }
}

/// `texts` is how many different texts the scarcest missing class has.
fn way_out(side: Side, rule: &SideRule, texts: usize, label: &str, seed: Option<u64>) -> String {
    let label = excerpt(label, 40);
    let sides = [Side::Train, Side::Valid, Side::Test].into_iter().filter(|s| rule.fills(*s));
    let sides = sides.count();
    if texts < sides {
        return format!(
            "`{label}` has {texts} different text{} for {sides} sides. Add rows, remove the class, \
             or give --valid FILE or --test FILE",
            if texts == 1 { "" } else { "s" }
        );
    }
    let seed = match seed {
        Some(seed) => format!("split_seed={seed} puts every class on every side"),
        None => "Try another split_seed".to_string(),
    };
    match side {
        Side::Valid => format!("{seed}; or raise valid_fraction, or give --valid FILE"),
        Side::Test => format!("{seed}; or raise test_fraction, or give --test FILE"),
        Side::Train | Side::LeftOut => {
            format!("{seed}; or lower valid_fraction or test_fraction, or add rows of the class")
        }
    }
}
