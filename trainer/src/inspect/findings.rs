//! What was found, as JSON and for people.
//!
//! Owns names and words. The JSON of `--json` is [`Findings`], field by field.

use std::fmt;

use serde::Serialize;

use super::LISTED;
use crate::data::{Align, RowProblem, Side, SideCounts, excerpt, table};

/// Everything about a file.
#[derive(Debug, Serialize)]
pub struct Findings {
    /// The file as given.
    pub data: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Rows, bad ones included.
    pub rows: u64,
    /// Rows with a text and a label.
    pub good_rows: usize,
    /// Labels, the most frequent first.
    pub labels: Vec<LabelCount>,
    /// Lengths in characters.
    pub characters: Option<Lengths>,
    /// Lengths in words.
    pub words: Option<Lengths>,
    /// Lengths in tokens, the two special ones included; with `--base`.
    pub tokens: Option<Lengths>,
    /// Tokens of a window of the base.
    pub max_tokens: Option<usize>,
    /// Texts longer than that.
    pub over_max_tokens: Option<usize>,
    /// Texts that differ in more than case, width and white space.
    pub distinct_texts: usize,
    /// Rows whose text was there before.
    pub duplicate_rows: usize,
    /// The text that is there most often, if any is there twice.
    pub most_repeated: Option<Repeated>,
    /// Texts with different labels in different rows.
    pub conflicting_texts: usize,
    /// The first of them.
    pub conflicts: Vec<Conflict>,
    /// Bad rows by kind.
    pub bad_rows: Vec<Bad>,
    /// How training would split the good rows.
    pub split: SideCounts,
    /// The `--valid` file.
    pub valid_file: Option<Held>,
    /// The `--test` file.
    pub test_file: Option<Held>,
    /// Texts in both of these.
    pub texts_in_both_files: usize,
    /// What `pagebert train` would stop at, with the way out. Empty: it would start.
    pub training_refuses: Vec<String>,
}

/// A label and its rows.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // The names say it.
pub struct LabelCount {
    pub label: String,
    pub rows: usize,
    pub share: f64,
}

/// Quantiles of lengths.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[allow(missing_docs)] // The names say it.
pub struct Lengths {
    pub shortest: u32,
    pub median: u32,
    pub p90: u32,
    pub p99: u32,
    pub longest: u32,
    pub mean: f64,
    pub total: u64,
}

impl Lengths {
    /// Nearest-rank quantiles; `None` of nothing.
    pub fn of(mut lengths: Vec<u32>) -> Option<Lengths> {
        lengths.sort_unstable();
        let (shortest, longest) = (*lengths.first()?, *lengths.last()?);
        let at = |part: f64| {
            let rank = (part * lengths.len() as f64).ceil() as usize;
            lengths[rank.clamp(1, lengths.len()) - 1]
        };
        let total: u64 = lengths.iter().map(|n| u64::from(*n)).sum();
        let mean = total as f64 / lengths.len() as f64;
        let (median, p90, p99) = (at(0.5), at(0.9), at(0.99));
        Some(Lengths { shortest, median, p90, p99, longest, mean, total })
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let Lengths { shortest, median, p90, p99, longest, mean, .. } = self;
        let mut cells = vec![name.to_string()];
        cells.extend([shortest, median, p90, p99, longest].map(u32::to_string));
        cells.push(format!("{mean:.1}"));
        cells
    }
}

/// The text that is there most often.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // The names say it.
pub struct Repeated {
    pub rows: u64,
    pub first_row: u64,
    pub text: String,
}

/// One text with two labels.
#[derive(Debug, Serialize)]
#[allow(missing_docs)] // The names say it.
pub struct Conflict {
    pub rows: [u64; 2],
    pub labels: [String; 2],
    pub text: String,
}

/// A file in the place of a side.
#[derive(Debug, Serialize)]
pub struct Held {
    /// Its good rows.
    pub rows: usize,
    /// Its texts that are also in the data, which training leaves out there.
    pub also_in_data: usize,
}

/// Kinds of bad rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // The names say it.
pub enum BadKind {
    EmptyText,
    EmptyLabel,
    FieldCount,
    InvalidUtf8,
    Json,
}

impl BadKind {
    /// The kind of a problem.
    pub fn of(problem: &RowProblem) -> BadKind {
        match problem {
            RowProblem::EmptyText { .. } => BadKind::EmptyText,
            RowProblem::EmptyLabel { .. } => BadKind::EmptyLabel,
            RowProblem::FieldCount { .. } => BadKind::FieldCount,
            RowProblem::InvalidUtf8 { .. } => BadKind::InvalidUtf8,
            _ => BadKind::Json,
        }
    }

    fn words(self) -> &'static str {
        match self {
            BadKind::EmptyText => "without a text",
            BadKind::EmptyLabel => "without a label",
            BadKind::FieldCount => "with another number of fields than the header",
            BadKind::InvalidUtf8 => "that are not UTF-8",
            BadKind::Json => "that are not the JSON they should be",
        }
    }
}

/// Bad rows of one kind.
#[derive(Debug, Serialize)]
pub struct Bad {
    /// The kind.
    pub kind: BadKind,
    /// How many.
    pub count: usize,
    /// The first of them: row number and what is wrong.
    pub first: Vec<(u64, String)>,
}

impl Bad {
    /// The first of its kind.
    pub fn new(kind: BadKind, row: u64, reason: String) -> Bad {
        Bad { kind, count: 1, first: vec![(row, reason)] }
    }

    /// One more.
    pub fn add(&mut self, row: u64, reason: String) {
        self.count += 1;
        if self.first.len() < LISTED {
            self.first.push((row, reason));
        }
    }
}

impl Findings {
    /// Lists what training would refuse. `rare` are the rows of labels that one row alone has.
    pub fn judge(&mut self, rare: &[u64], missing: Option<(Side, Vec<String>)>) {
        let mut refuse = |line: String| self.training_refuses.push(line);
        let bad: usize = self.bad_rows.iter().map(|bad| bad.count).sum();
        if bad > 0 {
            let rows = if bad == 1 { "row" } else { "rows" };
            refuse(format!("{bad} bad {rows}: fix them, or leave them out with --skip-bad-rows"));
        }
        if !rare.is_empty() {
            let rows: Vec<String> = rare.iter().take(LISTED).map(u64::to_string).collect();
            refuse(format!(
                "labels that a single row has (row {}): fix their spelling, add rows, or leave them \
                 out with --skip-bad-rows",
                rows.join(", ")
            ));
        }
        if self.labels.len() - rare.len().min(self.labels.len()) < 2 {
            refuse("fewer than two labels: is it the right --label-column?".to_string());
        } else if let Some((side, labels)) = missing.filter(|_| rare.is_empty()) {
            let labels: Vec<String> =
                labels.iter().map(|l| format!("`{}`", excerpt(l, 40))).collect();
            refuse(format!(
                "no row of {} on the {side} side: add rows, raise {side}_fraction, or try another \
                 split_seed",
                labels.join(", ")
            ));
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} rows, {} good\n", self.data, self.rows, self.good_rows)?;
        self.write_labels(f)?;
        self.write_lengths(f)?;
        self.write_texts(f)?;
        for bad in &self.bad_rows {
            writeln!(f, "{} rows {}", bad.count, bad.kind.words())?;
            for (row, reason) in &bad.first {
                writeln!(f, "  row {row}: {}", excerpt(reason, 100))?;
            }
        }
        writeln!(f, "\nsplit\n{}", self.split)?;
        for (name, held) in [("--valid", &self.valid_file), ("--test", &self.test_file)] {
            if let Some(held) = held {
                writeln!(
                    f,
                    "the {name} file: {} rows; {} of its texts are in the data too, and are left \
                     out there",
                    held.rows, held.also_in_data
                )?;
            }
        }
        if self.texts_in_both_files > 0 {
            writeln!(f, "{} texts are in both files: a leak", self.texts_in_both_files)?;
        }
        if self.training_refuses.is_empty() {
            return writeln!(f, "training would start");
        }
        writeln!(f, "training would stop at")?;
        self.training_refuses.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

impl Findings {
    fn write_labels(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 30;
        let mut rows = vec![["label", "rows", "share"].map(String::from).to_vec()];
        for label in self.labels.iter().take(SHOWN) {
            let share = format!("{:.1} %", 100.0 * label.share);
            rows.push(vec![excerpt(&label.label, 40), label.rows.to_string(), share]);
        }
        write!(f, "{}", table(&[Align::Left, Align::Right, Align::Right], &rows))?;
        match self.labels.len().saturating_sub(SHOWN) {
            0 => writeln!(f),
            more => writeln!(f, "… and {more} more\n"),
        }
    }

    fn write_lengths(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["length in", "shortest", "median", "90 %", "99 %", "longest", "mean"];
        let mut rows = vec![header.map(String::from).to_vec()];
        for (name, lengths) in
            [("characters", &self.characters), ("words", &self.words), ("tokens", &self.tokens)]
        {
            rows.extend(lengths.iter().map(|lengths| lengths.cells(name)));
        }
        let mut columns = [Align::Right; 7];
        columns[0] = Align::Left;
        writeln!(f, "{}", table(&columns, &rows))?;
        match (self.max_tokens, self.over_max_tokens) {
            (Some(most), Some(over)) if over > 0 => {
                writeln!(f, "{over} texts have more than {most} tokens, and are read in windows")
            }
            _ => Ok(()),
        }
    }

    fn write_texts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} different texts; {} rows repeat an earlier one",
            self.distinct_texts, self.duplicate_rows
        )?;
        if let Some(Repeated { rows, first_row, text }) = &self.most_repeated {
            writeln!(f, "  most often, in {rows} rows (the first: {first_row}): {text}")?;
        }
        if self.conflicting_texts > 0 {
            writeln!(f, "{} texts have different labels", self.conflicting_texts)?;
        }
        for Conflict { rows: [first, second], labels: [a, b], text } in &self.conflicts {
            let (a, b) = (excerpt(a, 30), excerpt(b, 30));
            writeln!(f, "  rows {first} ({a}) and {second} ({b}): {text}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_are_there() {
        assert_eq!(Lengths::of(Vec::new()), None);
        let one = Lengths::of(vec![7]).unwrap();
        assert_eq!((one.shortest, one.median, one.p99, one.longest), (7, 7, 7, 7));
        let hundred = Lengths::of((1..=100).rev().collect()).unwrap();
        assert_eq!((hundred.median, hundred.p90, hundred.p99, hundred.longest), (50, 90, 99, 100));
        assert_eq!(hundred.mean, 50.5);
    }
}
