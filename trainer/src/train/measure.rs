//! Figures of a model on a side while training.
//!
//! Owns how a side of any size is classified in bounded memory.

use anyhow::Result;
use pagebert_model::BertForSequenceClassification;
use pagebert_model::classify::Encoded;

use super::Windowing;
use super::prepare::Prepared;
use super::texts::Texts;
use crate::inference::document_logits;
use crate::metrics::{Report, Tally};
use crate::progress::{Console, Unit};

/// Texts classified at once, and their tokens: enough that batches are as full as those of all
/// texts together.
const TEXTS: usize = 1 << 16;
const TOKENS: usize = 1 << 22;

impl Prepared {
    /// The figures of a model on a side. `each` sees every text's logits, in order.
    ///
    /// # Errors
    /// When the model fails, or the token ids can't be read.
    pub fn measure(
        &self,
        model: &BertForSequenceClassification,
        texts: &Texts,
        what: &str,
        console: &Console,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<Report> {
        // Every window counts here, however many there are.
        let windowing = Windowing { max_windows: usize::MAX, ..self.windowing };
        let bar = console.bar(what, texts.len() as u64, Unit::Items("texts"));
        let mut tally = Tally::new(&self.counts.labels);
        let mut start = 0;
        while start < texts.len() {
            let mut documents = Vec::new();
            let mut tokens = 0;
            while start + documents.len() < texts.len()
                && documents.len() < TEXTS
                && tokens < TOKENS
            {
                let windows = texts.windows(start + documents.len(), windowing, &self.tokenizer)?;
                documents.push(Encoded { windows });
                tokens += documents.last().map_or(0, Encoded::tokens);
            }
            let done = &mut |done: usize| bar.set((start + done) as u64);
            for (index, logits) in document_logits(model, &documents, done)?.iter().enumerate() {
                tally.add(texts.label(start + index), logits);
                each(start + index, logits);
            }
            start += documents.len();
        }
        Ok(tally.report())
    }
}
