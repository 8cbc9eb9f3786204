//! What is known of texts where weights become integers.

use std::collections::BTreeMap;

use candle_core::Tensor;
use pagebert_kernels::int8::{Feedback, round_weight};

use super::coded::is_linear;
use super::{PARTS, Weights};
use crate::{Batch, BertConfig, BertForSequenceClassification, Result};

/// The step of the word table's integers where all tokens are looked up equally often, of the root of its rows' mean
/// square: some 4 bits a number.
const TABLE_STEP: f32 = 0.2;
/// An error counts as often as its token is looked up. Errors so counted would be the least with steps by frequencies to
/// the −1/2; this is gentler, as other texts have other words.
const TABLE_POWER: f32 = -0.25;
/// So much of the mean frequency is added to each: tokens that nobody saw have theirs, too.
const UNSEEN: f32 = 0.13;
/// The largest of the table's integers.
const TABLE_LIMIT: f32 = 127.0;
/// What is smaller than this counts as 0.
const LEAST: f32 = 1e-30;

/// Inputs are divided by their largest numbers to this power, and weights' columns multiplied: half of what sets a
/// channel apart each. Xiao et al., SmoothQuant (2022).
const SMOOTHING: f32 = 0.5;
/// A channel counts as no smaller than so much of the middle one.
const SMALLEST_CHANNEL: f32 = 0.05;
/// How much finer, and how much coarser, a layer's steps may be than the mean's.
const COARSENESS: (f64, f64) = (0.7, 2.5);
/// A layer moves logits by no less, in the mean square.
const LEAST_MOVED: f64 = 1e-9;

/// How floats are rounded: each to the nearest, unless texts have been looked at.
#[derive(Debug, Default)]
pub struct Rounding {
    /// How often each token was looked up; empty where nothing is known.
    counts: Vec<u32>,
    /// By the linear layer's name in this crate, the second moments of what goes into it, `[in, in]`.
    moments: BTreeMap<String, Tensor>,
    /// By the same names, the largest of each input's numbers, `[in]`.
    largest: BTreeMap<String, Tensor>,
    /// By a layer's number, how many times as large as usual its steps are.
    coarseness: Vec<f32>,
}

impl Rounding {
    /// Counts tokens, of a vocabulary of so many.
    pub fn count(&mut self, ids: &[u32], vocabulary: usize) {
        self.counts.resize(vocabulary, 0);
        for id in ids {
            if let Some(count) = self.counts.get_mut(*id as usize) {
                *count = count.saturating_add(1);
            }
        }
    }

    /// Looks at what goes into the linear layers of a model in floats.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn look(&mut self, model: &BertForSequenceClassification, batch: &Batch) -> Result<()> {
        model.observe(batch, |name, x| {
            let squares = x.t()?.matmul(x)?;
            let sum = match self.moments.remove(name) {
                Some(sum) => (sum + squares)?,
                None => squares,
            };
            self.moments.insert(name.to_string(), sum);
            let largest = x.abs()?.max(0)?;
            let largest = match self.largest.remove(name) {
                Some(before) => before.maximum(&largest)?,
                None => largest,
            };
            self.largest.insert(name.to_string(), largest);
            Ok(())
        })
    }

    /// Rounds the layers of a model in floats one by one, to see how far each moves the logits of some texts: where that
    /// is little, steps may be large. Errors of all of a model's weights would be the least, at a number of bits, with
    /// steps by these moves' −1/2. `on_layer` is called after each of them.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn weigh(
        &mut self,
        weights: &Weights,
        config: &BertConfig,
        batches: &[Batch],
        mut on_layer: impl FnMut(),
    ) -> Result<()> {
        let logits = |weights: &Weights| -> Result<Vec<Tensor>> {
            let model = BertForSequenceClassification::load(weights, config)?;
            batches.iter().map(|batch| model.window_logits(batch, None)).collect()
        };
        let expected = logits(weights)?;
        let mut moved = Vec::new();
        for layer in 0..config.num_hidden_layers {
            let found = logits(&with_rounded_layer(weights, layer)?)?;
            let (mut sum, mut count) = (0.0, 0);
            for (found, expected) in found.iter().zip(&expected) {
                sum += f64::from((found - expected)?.sqr()?.sum_all()?.to_scalar::<f32>()?);
                count += expected.elem_count();
            }
            moved.push((sum / count.max(1) as f64).max(LEAST_MOVED));
            on_layer();
        }
        let logarithms: f64 = moved.iter().map(|moved| moved.ln()).sum();
        let usual = (logarithms / moved.len().max(1) as f64).exp();
        let (finest, coarsest) = COARSENESS;
        let of_layer = |moved: &f64| (usual / moved).sqrt().clamp(finest, coarsest) as f32;
        self.coarseness = moved.iter().map(of_layer).collect();
        Ok(())
    }

    /// What the inputs of linear layers are multiplied by before they become integers, by the name under which files
    /// have it: layers that norms feed. Others' inputs have no channels that stand out.
    pub(super) fn all_factors(&self) -> Result<Vec<(String, Vec<f32>)>> {
        let mut all = Vec::new();
        for layer in self.largest.keys() {
            if let Some(factors) = self.factors(layer)? {
                all.push((layer.strip_suffix(".qkv").unwrap_or(layer).to_string(), factors));
            }
        }
        Ok(all)
    }

    /// Those of one layer, by its name in this crate: numbers that f16 has.
    fn factors(&self, layer: &str) -> Result<Option<Vec<f32>>> {
        let fed_by_norm = layer.ends_with("self.qkv") || layer.ends_with("intermediate.dense");
        let Some(largest) = self.largest.get(layer).filter(|_| fed_by_norm) else {
            return Ok(None);
        };
        let largest: Vec<f32> = largest.to_vec1()?;
        let mut sorted = largest.clone();
        sorted.sort_by(f32::total_cmp);
        let middle = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        // Written so that NaN fails.
        if !(middle > LEAST && middle.is_finite()) {
            return Ok(None);
        }
        let factor = |most: &f32| {
            let share = (most / middle).clamp(SMALLEST_CHANNEL, 1.0 / LEAST);
            half::f16::from_f32(share.powf(-SMOOTHING)).to_f32()
        };
        let factors: Vec<f32> = largest.iter().map(factor).collect();
        Ok(factors.iter().all(|x| *x > 0.0).then_some(factors))
    }

    /// A linear layer's weight, by its name in a checkpoint: integers and a scale a row.
    pub(super) fn linear(
        &self,
        name: &str,
        weight: &[f32],
        inputs: usize,
    ) -> Result<(Vec<i8>, Vec<f32>)> {
        let mut layer = name.strip_suffix(".weight").unwrap_or(name).to_string();
        for part in PARTS {
            if let Some(prefix) = layer.strip_suffix(&format!("self.{part}")) {
                layer = format!("{prefix}self.qkv");
                break;
            }
        }
        let number = layer.strip_prefix("bert.encoder.layer.").and_then(|rest| {
            let (number, _) = rest.split_once('.')?;
            number.parse::<usize>().ok()
        });
        let coarseness = number.and_then(|number| self.coarseness.get(number)).copied();
        let factors = self.factors(&layer)?;
        let mut weight = weight.to_vec();
        if let Some(factors) = &factors {
            for row in weight.chunks_mut(inputs.max(1)) {
                row.iter_mut().zip(factors).for_each(|(x, factor)| *x /= factor);
            }
        }
        let feedback = match self.moments.get(&layer) {
            Some(moments) => {
                let mut moments: Vec<f32> = moments.flatten_all()?.to_vec1()?;
                if let Some(factors) = &factors {
                    for (row, one) in moments.chunks_mut(inputs.max(1)).zip(factors) {
                        row.iter_mut().zip(factors).for_each(|(x, other)| *x *= one * other);
                    }
                }
                Feedback::of(&moments, inputs)
            }
            None => None,
        };
        Ok(round_weight(&weight, inputs, coarseness.unwrap_or(1.0), feedback.as_ref()))
    }

    /// The word table: integers and a scale a row.
    pub(super) fn table(&self, table: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
        let square = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>() / columns as f32;
        let mut squares: Vec<f32> = table.chunks(columns.max(1)).map(square).collect();
        squares.sort_by(f32::total_cmp);
        // That of the middle row, as a few may be very large.
        let step = TABLE_STEP * squares.get(squares.len() / 2).map_or(1.0, |square| square.sqrt());
        let sum: f64 = self.counts.iter().map(|count| f64::from(*count)).sum();
        let mean = (sum / self.counts.len().max(1) as f64) as f32;
        let (mut integers, mut scales) = (Vec::with_capacity(table.len()), Vec::new());
        for (id, row) in table.chunks(columns.max(1)).enumerate() {
            let share = match self.counts.get(id) {
                Some(count) if mean > 0.0 => (*count as f32 / mean + UNSEEN) / (1.0 + UNSEEN),
                _ => 1.0,
            };
            let most = row.iter().fold(0f32, |most, x| most.max(x.abs()));
            let scale = (step * share.powf(TABLE_POWER)).max(most / TABLE_LIMIT);
            let scale = if scale < LEAST { 1.0 } else { scale };
            let nearest = |x: &f32| (x / scale).round_ties_even().clamp(-TABLE_LIMIT, TABLE_LIMIT);
            integers.extend(row.iter().map(|x| nearest(x) as i8));
            scales.push(scale);
        }
        (integers, scales)
    }
}

/// These weights, but those of one layer rounded.
fn with_rounded_layer(weights: &Weights, layer: usize) -> Result<Weights> {
    let prefix = format!("bert.encoder.layer.{layer}.");
    let mut tensors = BTreeMap::new();
    for (name, tensor) in weights.iter() {
        let mut tensor = tensor.clone();
        if name.starts_with(&prefix) && is_linear(name) {
            let (_, inputs) = tensor.dims2()?;
            let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
            let (integers, scales) = round_weight(&values, inputs, 1.0, None);
            let rows = integers.chunks(inputs.max(1)).zip(&scales);
            let rounded: Vec<f32> = rows
                .flat_map(|(row, scale)| row.iter().map(move |q| f32::from(*q) * scale))
                .collect();
            tensor = Tensor::from_vec(rounded, tensor.shape(), tensor.device())?;
        }
        tensors.insert(name.to_string(), tensor);
    }
    Ok(Weights::from_tensors(tensors))
}
