//! Rows per class and side, counted and shown. Knows nothing of texts.

use std::fmt;

use serde::Serialize;

use super::side_rule::SideRule;
use super::split::Side;
use super::table::{Align, table};
use super::words::excerpt;

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

/// Classes in the table: a screenful.
const SHOWN: usize = 40;

impl fmt::Display for SideCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |name: &str, [train, valid, test]: [usize; 3]| {
            let all = train + valid + test;
            let cells = [train, valid, test, all].map(|count| count.to_string());
            [excerpt(name, 40)].into_iter().chain(cells).collect()
        };
        let mut rows = vec![["label", "train", "valid", "test", "all"].map(String::from).to_vec()];
        let counts = self.train.iter().zip(&self.valid).zip(&self.test);
        for (name, ((train, valid), test)) in self.labels.iter().zip(counts).take(SHOWN) {
            rows.push(line(name, [*train, *valid, *test]));
        }
        if let Some(more) = self.labels.len().checked_sub(SHOWN + 1) {
            rows.push(vec![format!("… and {} more", more + 1)]);
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
