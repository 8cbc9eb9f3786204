//! A look at training texts, so that weights become integers that keep the model's answers.

use std::path::Path;

use anyhow::Result;
use pagebert_model::Batch;
use pagebert_model::weights::Rounding;

use crate::data::Side;
use crate::evaluate::recorded_side;
use crate::inference::{LoadedModel, encode_all};
use crate::progress::{Console, Unit};

/// Texts whose tokens are counted.
const COUNTED: usize = 20_000;
/// Tokens that are computed at once, at most.
const BATCH_TOKENS: usize = 2048;
/// Tokens after which enough was seen: many times the inputs of a layer.
const ENOUGH_TOKENS: usize = 16_384;

/// What is known of so many training texts of a run; nothing where it records none, or they are gone.
///
/// # Errors
/// When the model fails.
pub fn rounding(
    run: &Path,
    model: &LoadedModel,
    texts: usize,
    console: &Console,
) -> Result<Rounding> {
    let mut rounding = Rounding::default();
    let Some(record) = model.record.as_ref().filter(|_| texts > 0) else {
        return Ok(rounding);
    };
    let classifier = &model.classifier;
    let rows = match recorded_side(run, record, Side::Train, classifier.labels(), COUNTED) {
        Ok(rows) => rows,
        Err(error) => {
            console.warn(format!("weights are rounded without training texts: {error}"));
            return Ok(rounding);
        }
    };
    let all: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    let documents = encode_all(classifier, &all)?;
    let vocabulary = classifier.model().config().vocab_size;
    for document in &documents {
        document.windows.iter().for_each(|window| rounding.count(window, vocabulary));
    }
    let every = documents.len().div_ceil(texts).max(1);
    let mut windows: Vec<&[u32]> = Vec::new();
    let mut seen = 0;
    for window in documents.iter().step_by(every).flat_map(|document| &document.windows) {
        if seen >= ENOUGH_TOKENS {
            break;
        }
        seen += window.len();
        windows.push(window);
    }
    let bar = console.bar("looking at training texts", seen as u64, Unit::Items("tokens"));
    let (mut done, mut batch) = (0, Vec::new());
    for (index, window) in windows.iter().enumerate() {
        batch.push([*window]);
        let tokens: usize = batch.iter().map(|[window]| window.len()).sum();
        if tokens >= BATCH_TOKENS || index + 1 == windows.len() {
            rounding.look(classifier.model(), &Batch::pack(batch.drain(..))?)?;
            done += tokens;
            bar.set(done as u64);
        }
    }
    Ok(rounding)
}
