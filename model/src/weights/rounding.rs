//! What is known of texts where weights become integers.

use std::collections::BTreeMap;

use candle_core::Tensor;
use pagebert_kernels::int8::{Feedback, round_weight};

use super::PARTS;
use crate::{Batch, BertForSequenceClassification, Result};

/// The step of the word table's integers where all tokens are looked up equally often, of the root of its rows' mean
/// square: some 4 bits a number.
const TABLE_STEP: f32 = 0.24;
/// An error counts as often as its token is looked up. Errors so counted would be the least with steps by frequencies to
/// the −1/2; this is gentler, as other texts have other words.
const TABLE_POWER: f32 = -0.25;
/// So much of the mean frequency is added to each: tokens that nobody saw have theirs, too.
const UNSEEN: f32 = 0.13;
/// The largest of the table's integers.
const TABLE_LIMIT: f32 = 127.0;
/// What is smaller than this counts as 0.
const LEAST: f32 = 1e-30;

/// How floats are rounded: each to the nearest, unless texts have been looked at.
#[derive(Debug, Default)]
pub struct Rounding {
    /// How often each token was looked up; empty where nothing is known.
    counts: Vec<u32>,
    /// By the linear layer's name in this crate, the second moments of what goes into it, `[in, in]`.
    moments: BTreeMap<String, Tensor>,
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
            Ok(())
        })
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
        let feedback = match self.moments.get(&layer) {
            Some(moments) => Feedback::of(&moments.flatten_all()?.to_vec1()?, inputs),
            None => None,
        };
        Ok(round_weight(weight, inputs, feedback.as_ref()))
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
