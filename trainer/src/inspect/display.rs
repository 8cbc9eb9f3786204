//! Findings as people read them: tables and sentences, as wide as a terminal.

use std::fmt;

use super::advice::counted;
use super::findings::{
    BadKind, BadRows, Conflict, Findings, HeldOutFile, LabelCount, Lengths, Repeated,
};
use crate::data::{Align, excerpt, table};

/// Labels in the table: a screenful.
const SHOWN: usize = 30;

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = counted(self.rows as usize, "row");
        writeln!(f, "{}: {rows}, {} good\n", self.data, self.good_rows)?;
        write_labels(f, &self.labels)?;
        self.write_lengths(f)?;
        self.write_texts(f)?;
        write_bad_rows(f, &self.bad_rows)?;
        if !self.split.labels.is_empty() {
            write!(f, "\nThe split into sides, in rows\n{}", self.split)?;
        }
        for (flag, file) in [("--valid", &self.valid_file), ("--test", &self.test_file)] {
            if let Some(file) = file {
                write_held_out(f, flag, file)?;
            }
        }
        match self.texts_in_both_files {
            0 => {}
            1 => writeln!(f, "A leak: 1 text is in both files")?,
            texts => writeln!(f, "A leak: {texts} texts are in both files")?,
        }
        write_list(f, "Worth a look", &self.hints)?;
        write_list(f, "Training would stop at", &self.training_refuses)?;
        if self.training_refuses.is_empty() {
            writeln!(f, "\nTraining would start.")?;
        }
        Ok(())
    }
}

impl Findings {
    fn write_lengths(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = ["text length in", "shortest", "median", "90 %", "99 %", "longest", "mean"];
        let mut rows = vec![header.map(String::from).to_vec()];
        for (name, lengths) in
            [("characters", &self.characters), ("words", &self.words), ("tokens", &self.tokens)]
        {
            rows.extend(lengths.iter().map(|lengths| cells(name, lengths)));
        }
        if rows.len() == 1 {
            return Ok(());
        }
        let mut columns = [Align::Right; 7];
        columns[0] = Align::Left;
        writeln!(f, "{}", table(&columns, &rows))?;
        if let (Some(most), Some(over)) = (self.max_tokens, self.over_max_tokens) {
            match over {
                0 => writeln!(f, "No text has more than {most} tokens.")?,
                over => {
                    // Every text that is not longer is one window.
                    let short = self.readable_rows() - over;
                    let windows = self.windows.unwrap_or_default() - short;
                    writeln!(
                        f,
                        "{} more than {most} tokens, and {} read in {windows} windows.",
                        if over == 1 { "1 text has".into() } else { format!("{over} texts have") },
                        if over == 1 { "is" } else { "are" },
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Rows with a text and a label, whether or not another has the label too.
    fn readable_rows(&self) -> usize {
        self.distinct_texts + self.duplicate_rows
    }

    fn write_texts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = counted(self.distinct_texts, "different text");
        match self.duplicate_rows {
            0 => writeln!(f, "{texts}; none is there twice.")?,
            1 => writeln!(f, "{texts}; 1 row repeats an earlier one.")?,
            rows => writeln!(f, "{texts}; {rows} rows repeat an earlier one.")?,
        }
        if let Some(Repeated { rows, first_row, text }) = &self.most_repeated {
            writeln!(f, "  most often, in {rows} rows (the first: {first_row}): {text}")?;
        }
        match self.conflicting_texts {
            0 => {}
            1 => writeln!(f, "1 text has different labels:")?,
            texts => writeln!(f, "{texts} texts have different labels:")?,
        }
        for Conflict { rows: [first, second], labels: [a, b], text } in &self.conflicts {
            let (a, b) = (excerpt(a, 30), excerpt(b, 30));
            writeln!(f, "  rows {first} ({a}) and {second} ({b}): {text}")?;
        }
        write_more(f, self.conflicting_texts, self.conflicts.len())
    }
}

fn cells(name: &str, lengths: &Lengths) -> Vec<String> {
    let Lengths { shortest, median, p90, p99, longest, mean, .. } = lengths;
    let mut cells = vec![name.to_string()];
    cells.extend([shortest, median, p90, p99, longest].map(u32::to_string));
    cells.push(format!("{mean:.1}"));
    cells
}

fn write_labels(f: &mut fmt::Formatter<'_>, labels: &[LabelCount]) -> fmt::Result {
    if labels.is_empty() {
        return Ok(());
    }
    let mut rows = vec![["label", "rows", "share"].map(String::from).to_vec()];
    for label in labels.iter().take(SHOWN) {
        let share = format!("{:.1} %", 100.0 * label.share);
        rows.push(vec![excerpt(&label.label, 40), label.rows.to_string(), share]);
    }
    write!(f, "{}", table(&[Align::Left, Align::Right, Align::Right], &rows))?;
    write_more(f, labels.len(), labels.len().min(SHOWN))?;
    writeln!(f)
}

fn write_bad_rows(f: &mut fmt::Formatter<'_>, bad: &BadRows) -> fmt::Result {
    for bad in bad.kinds() {
        writeln!(f, "{} {}:", counted(bad.count, "row"), words(bad.kind))?;
        for bad in &bad.first {
            writeln!(f, "  row {} (line {}): {}", bad.row, bad.line, excerpt(&bad.reason, 120))?;
        }
        write_more(f, bad.count, bad.first.len())?;
    }
    Ok(())
}

fn write_held_out(f: &mut fmt::Formatter<'_>, flag: &str, file: &HeldOutFile) -> fmt::Result {
    let rows = counted(file.rows, "row");
    writeln!(f, "\n{}, the {flag} file: {rows}, {} good.", file.file, file.good_rows)?;
    match file.also_in_data {
        0 => writeln!(f, "  None of its texts is in the data.")?,
        1 => writeln!(f, "  1 of its texts is in the data too, and is left out there.")?,
        texts => {
            writeln!(f, "  {texts} of its texts are in the data too, and are left out there.")?
        }
    }
    write_bad_rows(f, &file.bad_rows)
}

fn write_list(f: &mut fmt::Formatter<'_>, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n{title}")?;
    lines.iter().try_for_each(|line| writeln!(f, "- {line}"))
}

fn write_more(f: &mut fmt::Formatter<'_>, all: usize, shown: usize) -> fmt::Result {
    match all - shown {
        0 => Ok(()),
        more => writeln!(f, "  … and {more} more"),
    }
}

fn words(kind: BadKind) -> &'static str {
    match kind {
        BadKind::EmptyText => "without a text",
        BadKind::EmptyLabel => "without a label",
        BadKind::FieldCount => "with more or fewer fields than the header",
        BadKind::InvalidUtf8 => "with bytes that are not UTF-8",
        BadKind::Json => "with JSON that can't be used",
        BadKind::RareLabel => "with a label that no other row has",
        BadKind::UnknownLabel => "with a label that the data doesn't have",
    }
}
