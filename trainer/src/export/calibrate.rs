//! A look at training texts, so that weights become integers that keep the model's answers.
//!
//! Owns which texts, and how many. What is learnt from them is `pagebert_model::weights::Rounding`'s.

use std::path::Path;

use anyhow::Result;
use candle_core::Device;
use pagebert_model::weights::{Missing, RoundedWeights, Rounding};
use pagebert_model::{Batch, BertConfig, BertForSequenceClassification, Weights};

use crate::UsageError;
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
/// Tokens of the texts on which layers are weighed, each of them in a pass of its own.
const WEIGHED_TOKENS: usize = 4096;

/// A model's weights in integers that keep its answers to so many training texts of a run; rounded to the nearest where
/// the run records none, or they are gone.
///
/// # Errors
/// When the model fails, or its weights do not fit integers.
pub fn round(
    run: &Path,
    model: &LoadedModel,
    weights: &Weights,
    texts: usize,
    console: &Console,
) -> Result<RoundedWeights> {
    let mut rounding = Rounding::default();
    let windows = windows(run, model, texts, &mut rounding, console)?;
    let batches = batches(&windows)?;
    let config = model.classifier.model().config();
    let tokens: usize = windows.iter().map(Vec::len).sum();
    let bar = console.bar("looking at training texts", tokens as u64, Unit::Items("tokens"));
    for batch in &batches {
        rounding.look(model.classifier.model(), batch)?;
        bar.add(batch.input_ids.len() as u64);
    }
    drop(bar);
    if !batches.is_empty() {
        let some = &batches[..(WEIGHED_TOKENS / BATCH_TOKENS).min(batches.len())];
        let layers = config.num_hidden_layers as u64;
        let bar = console.bar("weighing layers", layers, Unit::Items("layers"));
        rounding.weigh(weights, config, some, || bar.add(1))?;
    }
    let tensors = weights.to_checkpoint()?.len() as u64;
    let bar = console.bar("rounding weights", tensors, Unit::Items("tensors"));
    let mut rounded = RoundedWeights::of(weights, &rounding, || bar.add(1))
        .map_err(|error| UsageError(format!("--precision int8: {error} (--precision f32)")))?;
    drop(bar);
    keep_means(&mut rounded, model.classifier.model(), config, &batches)?;
    Ok(rounded)
}

/// Gives logits back what rounding took from them in the mean.
fn keep_means(
    rounded: &mut RoundedWeights,
    model: &BertForSequenceClassification,
    config: &BertConfig,
    batches: &[Batch],
) -> Result<()> {
    if batches.is_empty() {
        return Ok(());
    }
    let file = rounded.to_safetensors()?;
    let (weights, _) = Weights::from_safetensors(&file, config, Missing::Refuse, &Device::Cpu)?;
    let after = BertForSequenceClassification::load(&weights, config)?;
    let (mut shift, mut count) = (Vec::new(), 0);
    for batch in batches {
        let lost = (model.window_logits(batch, None)? - after.window_logits(batch, None)?)?;
        count += lost.dim(0)?;
        let lost: Vec<f32> = lost.sum(0)?.to_vec1()?;
        shift.resize(lost.len(), 0.0);
        shift.iter_mut().zip(lost).for_each(|(sum, x)| *sum += x);
    }
    shift.iter_mut().for_each(|sum| *sum /= count.max(1) as f32);
    rounded.shift_logits(&shift);
    Ok(())
}

/// Windows of evenly spread training texts; none where there are no texts. Tokens of many more are counted.
fn windows(
    run: &Path,
    model: &LoadedModel,
    texts: usize,
    rounding: &mut Rounding,
    console: &Console,
) -> Result<Vec<Vec<u32>>> {
    let mut windows = Vec::new();
    let Some(record) = model.record.as_ref().filter(|_| texts > 0) else {
        return Ok(windows);
    };
    let classifier = &model.classifier;
    let rows = match recorded_side(run, record, Side::Train, classifier.labels(), COUNTED) {
        Ok(rows) => rows,
        Err(error) => {
            console.warn(format!("weights are rounded without training texts: {error}"));
            return Ok(windows);
        }
    };
    let all: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    let documents = encode_all(classifier, &all)?;
    let vocabulary = classifier.model().config().vocab_size;
    for document in &documents {
        document.windows.iter().for_each(|window| rounding.count(window, vocabulary));
    }
    let every = documents.len().div_ceil(texts).max(1);
    let mut seen = 0;
    for window in documents.into_iter().step_by(every).flat_map(|document| document.windows) {
        if seen >= ENOUGH_TOKENS {
            break;
        }
        seen += window.len();
        windows.push(window);
    }
    Ok(windows)
}

/// Some windows at a time, each a document of its own.
fn batches(windows: &[Vec<u32>]) -> Result<Vec<Batch>> {
    let (mut batches, mut batch, mut tokens) = (Vec::new(), Vec::new(), 0);
    for (index, window) in windows.iter().enumerate() {
        batch.push([window.as_slice()]);
        tokens += window.len();
        if tokens >= BATCH_TOKENS || index + 1 == windows.len() {
            batches.push(Batch::pack(batch.drain(..))?);
            tokens = 0;
        }
    }
    Ok(batches)
}
