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
        let best = Checkpoint::load(files, &Device::Cpu)?;
        let device = self.engine.model().device().clone();
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
            let logits = self.logits(&model, &self.prepared.test, "testing")?;
            let report = self.tally(&self.prepared.test, &logits);
            mistakes = self.mistakes(&logits);
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

    /// Texts of the test side that were labelled wrong, the surest first.
    fn mistakes(&self, logits: &[Vec<f32>]) -> Vec<Mistake> {
        let Prepared { test, test_rows, counts, .. } = &self.prepared;
        let mut wrong: Vec<(usize, usize, f64)> = logits
            .iter()
            .enumerate()
            .map(|(index, logits)| {
                let predicted = most_probable(logits);
                let scores = softmax(logits.iter().map(|x| f64::from(*x)).collect());
                (index, predicted, scores[predicted])
            })
            .filter(|(index, predicted, _)| test.label(*index) as usize != *predicted)
            .collect();
        wrong.sort_by(|a, b| b.2.total_cmp(&a.2));
        wrong.truncate(report::MISTAKES);
        wrong
            .into_iter()
            .map(|(index, predicted, score)| Mistake {
                row: test_rows[index].row,
                text: test_rows[index].text.clone(),
                truth: counts.labels[test.label(index) as usize].clone(),
                predicted: counts.labels[predicted].clone(),
                score: score as f32,
            })
            .collect()
    }
}
