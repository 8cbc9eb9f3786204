//! How good predictions are: accuracy, F1, cross-entropy, the confusion matrix.
//!
//! Owns the definitions. Knows logits and class ids, not where they come from.

use std::fmt;

use pagebert_model::classify::softmax;
use serde::Serialize;

use crate::data::{Align, table};

/// Figures being counted.
#[derive(Debug, Clone)]
pub struct Tally {
    labels: Vec<String>,
    /// `[truth][predicted]`
    confusion: Vec<Vec<u64>>,
    loss: f64,
    rows: usize,
}

/// The figures of a set of texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Texts.
    pub rows: usize,
    /// The part that was labelled right.
    pub accuracy: f64,
    /// The mean of the classes' F1, over classes that occur among the truths or the predictions
    /// (scikit-learn's, with `zero_division=0`).
    pub macro_f1: f64,
    /// Mean cross-entropy, in nats.
    pub loss: f64,
    /// Figures by class, in label order.
    pub classes: Vec<ClassFigures>,
    /// Rows are truths and columns predictions, in label order.
    pub confusion: Vec<Vec<u64>>,
}

/// One class's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassFigures {
    /// The class.
    pub label: String,
    /// Of the texts that were given this label, the part that has it.
    pub precision: f64,
    /// Of the texts that have this label, the part that was given it.
    pub recall: f64,
    /// The harmonic mean of the two.
    pub f1: f64,
    /// Texts that have this label.
    pub support: u64,
}

impl Tally {
    /// Of no texts yet.
    pub fn new(labels: &[String]) -> Tally {
        let confusion = vec![vec![0; labels.len()]; labels.len()];
        Tally { labels: labels.to_vec(), confusion, loss: 0.0, rows: 0 }
    }

    /// Counts one text: its class, and the model's logits for it.
    pub fn add(&mut self, truth: u32, logits: &[f32]) {
        let probabilities = softmax(logits.iter().map(|x| f64::from(*x)).collect());
        let truth = truth as usize;
        let predicted = most_probable(logits);
        // The smallest positive number in the place of 0, and of NaN: one certain mistake, or an
        // output that is no number, is not infinitely bad.
        self.loss -= probabilities.get(truth).copied().unwrap_or(0.0).max(f64::MIN_POSITIVE).ln();
        if let Some(count) = self.confusion.get_mut(truth).and_then(|row| row.get_mut(predicted)) {
            *count += 1;
        }
        self.rows += 1;
    }

    /// The figures of what was counted.
    pub fn report(&self) -> Report {
        let classes: Vec<ClassFigures> =
            (0..self.labels.len()).map(|class| self.class(class)).collect();
        let right: u64 = (0..self.labels.len()).map(|class| self.confusion[class][class]).sum();
        let occurring: Vec<f64> = classes
            .iter()
            .enumerate()
            .filter(|(class, figures)| figures.support > 0 || self.predicted(*class) > 0)
            .map(|(_, figures)| figures.f1)
            .collect();
        Report {
            rows: self.rows,
            accuracy: ratio(right as f64, self.rows as f64),
            macro_f1: ratio(occurring.iter().sum(), occurring.len() as f64),
            loss: ratio(self.loss, self.rows as f64),
            classes,
            confusion: self.confusion.clone(),
        }
    }

    fn predicted(&self, class: usize) -> u64 {
        self.confusion.iter().map(|row| row[class]).sum()
    }

    fn class(&self, class: usize) -> ClassFigures {
        let right = self.confusion[class][class] as f64;
        let support: u64 = self.confusion[class].iter().sum();
        let precision = ratio(right, self.predicted(class) as f64);
        let recall = ratio(right, support as f64);
        let f1 = ratio(2.0 * precision * recall, precision + recall);
        ClassFigures { label: self.labels[class].clone(), precision, recall, f1, support }
    }
}

/// The class of the largest logit; of equal ones the first, as in a prediction.
pub fn most_probable(logits: &[f32]) -> usize {
    let mut best = 0;
    for (class, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = class;
        }
    }
    best
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |part: f64| format!("{:.2} %", 100.0 * part);
        writeln!(f, "accuracy  {}", percent(self.accuracy))?;
        writeln!(f, "macro F1  {}", percent(self.macro_f1))?;
        writeln!(f, "loss      {:.4}", self.loss)?;
        writeln!(f, "texts     {}\n", self.rows)?;
        let mut rows =
            vec![["label", "precision", "recall", "F1", "texts"].map(String::from).to_vec()];
        for class in &self.classes {
            rows.push(vec![
                class.label.clone(),
                percent(class.precision),
                percent(class.recall),
                percent(class.f1),
                class.support.to_string(),
            ]);
        }
        let right = [Align::Left, Align::Right, Align::Right, Align::Right, Align::Right];
        writeln!(f, "{}", table(&right, &rows).trim_end())?;
        // A matrix of many classes does not fit a terminal; it is in the JSON.
        const SHOWN: usize = 12;
        if self.classes.len() > SHOWN {
            return Ok(());
        }
        let mut header = vec!["has ↓  given →".to_string()];
        header.extend(self.classes.iter().map(|class| class.label.clone()));
        let mut rows = vec![header];
        for (class, counts) in self.classes.iter().zip(&self.confusion) {
            let mut row = vec![class.label.clone()];
            row.extend(counts.iter().map(u64::to_string));
            rows.push(row);
        }
        let mut align = vec![Align::Right; self.classes.len() + 1];
        align[0] = Align::Left;
        write!(f, "\n{}", table(&align, &rows).trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("class {i}")).collect()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }

    #[test]
    fn figures_are_scikit_learns() {
        // y_true = [0, 0, 0, 1, 1, 2], y_pred = [0, 0, 1, 1, 2, 1], of four classes:
        // accuracy_score 0.5, precision_score [1, 1/3, 0], recall_score [2/3, 1/2, 0],
        // f1_score(average='macro', zero_division=0) = (0.8 + 0.4 + 0) / 3.
        let mut tally = Tally::new(&labels(4));
        for (truth, predicted) in [(0, 0), (0, 0), (0, 1), (1, 1), (1, 2), (2, 1)] {
            let mut logits = [0f32; 4];
            logits[predicted] = 2.0;
            tally.add(truth, &logits);
        }
        let report = tally.report();
        close(report.accuracy, 0.5);
        close(report.macro_f1, 0.4);
        let precision: Vec<f64> = report.classes.iter().map(|class| class.precision).collect();
        assert_eq!(precision, [1.0, 1.0 / 3.0, 0.0, 0.0]);
        assert_eq!(report.classes[0].recall, 2.0 / 3.0);
        assert_eq!(report.confusion[0], [2, 1, 0, 0]);
        // −ln softmax of 2 beside three zeros, and of one of those zeros.
        let sum = 2f64.exp() + 3.0;
        close(report.loss, (3.0 * (sum.ln() - 2.0) + 3.0 * sum.ln()) / 6.0);
    }

    #[test]
    fn a_certain_mistake_is_finite_and_nothing_counts_as_nothing() {
        let mut tally = Tally::new(&labels(2));
        close(tally.report().accuracy, 0.0);
        tally.add(0, &[-1e30, 1e30]);
        assert!(tally.report().loss.is_finite());
    }
}
