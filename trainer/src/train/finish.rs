//! The end of a training: the best checkpoint's figures on the test side, and the report.

use std::time::Duration;

use anyhow::Result;
use candle_core::Device;
use pagebert_model::BertForSequenceClassification;
use pagebert_model::classify::softmax;

use super::prepare::Prepared;
use super::session::Session;
use super::state;
use crate::checkpoint::Checkpoint;
use crate::metrics::most_probable;
use crate::progress::human_duration;
use crate::report::{self, Mistake};

impl Session<'_> {
    /// The end: figures of the best checkpoint on the test side, and the report.
    pub(super) fn finish(mut self) -> Result<()> {
        let seconds = self.seconds();
        let path = self.folder.path.clone();
        let files = crate::base::resolve_folder(&path)?;
        let device = self.engine.model().device().clone();
        // The best checkpoint takes the room of what training needed.
        self.engine.retire()?;
        let best = Checkpoint::load(files, &Device::Cpu)?;
        let weights = best.weights.to_device(&device)?;
        let model = BertForSequenceClassification::load(&weights, &best.config)?;
        let trained = format!(
            "trained {} steps in {}, {:.0} tokens/s",
            self.progress.step,
            human_duration(Duration::from_secs_f64(seconds)),
            self.progress.tokens as f64 / seconds.max(1e-9),
        );
        self.console.note(trained);
        let shown = path.display().to_string();
        let (mut test, mut mistakes) = (None, Vec::new());
        if self.prepared.test.is_empty() {
            self.console.note("there is no test side, so no test figures");
        } else {
            let mut wrong = Vec::new();
            let prepared = &self.prepared;
            let see = |index: usize, logits: &[f32]| {
                let predicted = most_probable(logits);
                if predicted != prepared.test.label(index) as usize {
                    let scores = softmax(logits.iter().map(|x| f64::from(*x)).collect());
                    wrong.push(Wrong { index, predicted, score: scores[predicted] });
                }
            };
            let report = prepared.measure(&model, &prepared.test, "testing", self.console, see)?;
            mistakes = self.mistakes(wrong);
            self.log_side("test", &report)?;
            self.console.note(format!(
                "test accuracy {:.2} %, macro F1 {:.2} %, loss {:.4}, on {} texts",
                100.0 * report.accuracy,
                100.0 * report.macro_f1,
                report.loss,
                report.rows
            ));
            test = Some(report);
        }
        let page = report::html(&report::Input {
            record: &self.prepared.record,
            counts: &self.prepared.counts,
            log: &self.log.lines,
            test: test.as_ref(),
            mistakes: &mistakes,
        });
        self.folder.write("report.html", page.as_bytes())?;
        state::remove(&path);
        self.console.note(format!(
            "{shown} is a Hugging Face checkpoint, and {shown}/report.html tells of it. Next:\n  pagebert evaluate {shown}\n  pagebert \
             export {shown} --out bundle"
        ));
        Ok(())
    }

    /// Texts of the test side that were labelled wrong, the surest first: they are read again from
    /// the data, which may be gone by now.
    fn mistakes(&self, mut wrong: Vec<Wrong>) -> Vec<Mistake> {
        let Prepared { test, test_rows, counts, .. } = &self.prepared;
        wrong.sort_by(|a, b| b.score.total_cmp(&a.score));
        wrong.truncate(report::MISTAKES);
        let texts = test_rows.texts(wrong.iter().map(|wrong| wrong.index));
        let texts = texts.unwrap_or_else(|error| {
            self.console.warn(format!("the report lacks the texts of mistakes: {error}"));
            vec!["(the data has changed since)".to_string(); wrong.len()]
        });
        wrong
            .into_iter()
            .zip(texts)
            .map(|(Wrong { index, predicted, score }, text)| Mistake {
                row: test_rows.rows[index].0,
                text,
                truth: counts.labels[test.label(index) as usize].clone(),
                predicted: counts.labels[predicted].clone(),
                score: score as f32,
            })
            .collect()
    }
}

/// A text that was labelled wrong.
struct Wrong {
    index: usize,
    predicted: usize,
    score: f64,
}
