//! Which rows train, which validate, which test.
//!
//! Owns the rule. The side of a text depends on its
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

use super::error::DataError;
use super::index::Index;
use super::side_counts::SideCounts;
use super::side_rule::SideRule;
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
    pub valid: Option<&'a Index>,
    /// `--test FILE`
    pub test: Option<&'a Index>,
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Split {
    /// One for each of [`Index::rows`], in their order.
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
        data: &Index,
        held_out: HeldOut<'_>,
        options: &SplitOptions,
    ) -> Result<Split, DataError> {
        options.check()?;
        let rule = SideRule::new(held_out, *options);
        let sides = rule.sides(&data.file.path, &data.labels, &data.texts, &data.classes)?;
        let rows = data.rows.iter().zip(&data.texts).zip(sides);
        let rows = rows
            .map(|((row, text), side)| SplitRow { row: *row, text_hash: *text, side })
            .collect();
        Ok(Split { rows })
    }

    /// Where the rows of a side lie in [`Index::rows`].
    pub fn indices(&self, side: Side) -> Vec<usize> {
        (0..self.rows.len()).filter(|index| self.rows[*index].side == side).collect()
    }

    /// The texts of a side: to tell how much of another file was trained on.
    pub fn texts(&self, side: Side) -> HashSet<TextHash> {
        self.rows.iter().filter(|row| row.side == side).map(|row| row.text_hash).collect()
    }

    /// Rows per class and side, those of the given files included.
    pub fn counts(&self, data: &Index, held_out: HeldOut<'_>) -> SideCounts {
        let own = data.classes.iter().zip(&self.rows).map(|(class, split)| (*class, split.side));
        let given = [(held_out.valid, Side::Valid), (held_out.test, Side::Test)];
        let given = given
            .into_iter()
            .flat_map(|(file, side)| file.into_iter().map(move |file| (file, side)))
            .flat_map(|(file, side)| file.classes.iter().map(move |class| (*class, side)));
        SideCounts::new(&data.labels, own.chain(given))
    }
}
