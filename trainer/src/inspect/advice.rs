//! Conclusions: what training would stop at, and what looks like a mistake.
//!
//! Owns the sentences. Reads findings alone, so everything here is said of what the JSON holds.

use std::collections::HashMap;

use super::LISTED;
use super::findings::{Findings, HeldOutFile, LabelCount};
use crate::data::{DataError, ReadOptions, excerpt, names, normalize};

/// Labels compared with each other: more of them are no classes that somebody typed.
const COMPARED: usize = 500;

/// What `pagebert train` would stop at, each with the way out. `unsplit` is the split's error.
pub fn refusals(
    findings: &Findings,
    options: &ReadOptions,
    unsplit: Option<DataError>,
) -> Vec<String> {
    let mut said = Vec::new();
    let bad = &findings.bad_rows;
    if let Some(first) = bad.first() {
        said.push(format!(
            "{} (the first: row {}). Fix the file, or leave them out with --skip-bad-rows",
            counted(bad.count(), "bad row"),
            first.row
        ));
    }
    for file in [&findings.valid_file, &findings.test_file].into_iter().flatten() {
        said.extend(held_out_refusals(file));
    }
    let column = &options.label_column;
    match (findings.rows, findings.split.labels.as_slice()) {
        (0, _) => said.push("there are no rows: add some below the header".to_string()),
        (_, []) => {
            said.push(format!("no label is there twice: is `{column}` the right --label-column?"))
        }
        (_, [only]) => said.push(format!(
            "every good row has the label `{}`, and training needs two labels or more: is \
             `{column}` the right --label-column?",
            excerpt(only, 40)
        )),
        _ => said.extend(unsplit.map(|error| error.to_string())),
    }
    said
}

fn held_out_refusals(file: &HeldOutFile) -> Option<String> {
    let first = file.bad_rows.first();
    if file.good_rows == 0 && first.is_none() {
        return Some(format!("{} has no rows", file.file));
    }
    first.map(|first| {
        format!(
            "{} in {} (the first: row {}, {}). Fix the file, or leave them out with \
             --skip-bad-rows",
            counted(file.bad_rows.count(), "bad row"),
            file.file,
            first.row,
            excerpt(&first.reason, 100)
        )
    })
}

/// What looks like a mistake, or will make the figures mean less than they seem to.
pub fn hints(findings: &Findings, options: &ReadOptions) -> Vec<String> {
    let labels = &findings.labels;
    let mut said = Vec::new();
    if let Some(header) = labels.iter().find(|l| same(&l.label, &options.label_column)) {
        said.push(format!(
            "row {} has the label `{}`, the name of its column: a header in the middle, as of \
             files put together?",
            header.first_row,
            excerpt(&header.label, 40)
        ));
    }
    if labels.len() <= COMPARED {
        said.extend(same_but_for_case(labels));
        said.extend(slips(labels));
    }
    if labels.len() > 50 && labels.len() * 5 > findings.good_rows {
        said.push(format!(
            "`{}` has {} different values in {}: is it the column of classes?",
            options.label_column,
            labels.len(),
            counted(findings.rows as usize, "row")
        ));
    }
    if let Some(most) = labels.first().filter(|most| labels.len() > 1 && most.share > 0.9) {
        said.push(format!(
            "always answering `{}` would be right in {:.1} % of the rows: look at macro F1 beside \
             accuracy",
            excerpt(&most.label, 40),
            100.0 * most.share
        ));
    }
    let split = &findings.split;
    let few: Vec<String> = split
        .labels
        .iter()
        .zip(&split.train)
        .filter(|(_, rows)| (1..8).contains(*rows))
        .map(|(label, _)| label.clone())
        .collect();
    if !few.is_empty() {
        said.push(format!(
            "{} {} on fewer than 8 rows: too few to learn much from",
            names(&few),
            if few.len() == 1 { "trains" } else { "train" }
        ));
    }
    if findings.words.as_ref().is_some_and(|words| words.median <= 1) {
        said.push(format!(
            "most texts are a single word: is {} the right --text-column?",
            names(&options.text_columns)
        ));
    }
    said
}

/// Labels that are one label to a reader, such as `Sports` and `sports`.
fn same_but_for_case(labels: &[LabelCount]) -> Vec<String> {
    let mut spellings: HashMap<String, &LabelCount> = HashMap::new();
    let mut said = Vec::new();
    for label in labels {
        let plain: String = normalize(&label.label).split(['-', '_', ' ']).collect();
        match spellings.get(&plain) {
            Some(first) => said.push(format!(
                "{} and {} differ in little but case: are they one class?",
                with_rows(first),
                with_rows(label)
            )),
            None => drop(spellings.insert(plain, label)),
        }
    }
    said.truncate(LISTED);
    said
}

/// Rare labels a letter or two from a far more frequent one. Those of a single row are bad rows,
/// which name the label that was meant.
fn slips(labels: &[LabelCount]) -> Vec<String> {
    let mut said = Vec::new();
    for rare in labels.iter().filter(|rare| rare.rows > 1) {
        // `level 1` and `level 2` are a letter apart, and on purpose.
        if rare.label.contains(|c: char| c.is_numeric()) {
            continue;
        }
        let letters = rare.label.chars().count();
        let meant = labels.iter().take_while(|other| other.rows >= 20 * rare.rows).find(|other| {
            let distance = strsim::osa_distance(&rare.label, &other.label);
            distance <= (letters / 4).min(2) && !same(&rare.label, &other.label)
        });
        if let Some(meant) = meant {
            said.push(format!("{} looks like a slip of {}", with_rows(rare), with_rows(meant)));
        }
    }
    said.truncate(LISTED);
    said
}

fn same(a: &str, b: &str) -> bool {
    normalize(a) == normalize(b)
}

fn with_rows(label: &LabelCount) -> String {
    format!("`{}` ({})", excerpt(&label.label, 40), counted(label.rows, "row"))
}

/// `1 row`, `2 rows`
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
