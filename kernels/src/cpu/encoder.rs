//! The layers of a post-norm transformer encoder over packed rows, forward and backward.
//!
//! Vaswani et al., Attention is all you need (2017). Owns what is computed by which task, what is
//! kept for the backward pass, and in which type: the residual stream is f32, the operands of
//! products are `E`, or integers made of it or for inference alone. A task has a block of rows, a sequence
//! or a head to itself, so no sum depends on the number of threads.

mod add_norm;
mod attention_block;
mod elementwise;
mod feed_forward;
mod first_rows;
mod int8_layers;
mod linear;
mod one_query;
mod packed_weight;
mod weight_gradient;

pub use add_norm::{Norm, norm_row, norm_row_backward};
pub use attention_block::SavedAttention;
pub use feed_forward::SavedFeedForward;
pub use int8_layers::{Int8Layer, Int8Layers, Int8Linear};
pub use linear::Linear;
pub use packed_weight::{PackedWeight, ProductsIn};

use std::ops::Range;

use super::{Buffer, Element};
use crate::{Activation, Dropout, Sequences};

/// One layer's weights, packed.
pub struct Layer<E: Element> {
    /// Queries, keys and values side by side.
    pub qkv: Linear<E>,
    /// Their weight as it is, `[3·H, H]`, in a layer whose first rows alone may be asked for; empty
    /// in others.
    pub qkv_weight: Buffer<f32>,
    /// Behind attention.
    pub attention_output: Linear<E>,
    /// Behind that.
    pub attention_norm: Norm,
    /// The wide layer.
    pub intermediate: Linear<E>,
    /// Back from it.
    pub output: Linear<E>,
    /// Behind that.
    pub output_norm: Norm,
    /// Attention's heads.
    pub heads: usize,
    /// Behind the wide layer.
    pub activation: Activation,
}

/// The three dropouts of a layer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LayerDropout {
    /// Of the probabilities, indexed by (head, query row, key).
    pub probabilities: Option<Dropout>,
    /// Behind attention's output, indexed in the rows that come out.
    pub attention_output: Option<Dropout>,
    /// Behind the second linear layer, indexed in the rows that come out.
    pub output: Option<Dropout>,
}

/// The rows that attention is computed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queries {
    /// Every row: as many rows out as in.
    All,
    /// Each sequence's first: one row out a sequence.
    First,
}

/// What a layer is applied to.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Where sequences begin and end.
    pub sequences: &'a Sequences,
    /// The rows that come out.
    pub queries: Queries,
}

impl Rows<'_> {
    /// The rows of the sequences that have some, where their first rows alone ask.
    fn asking(&self) -> Option<Vec<Range<usize>>> {
        match self.queries {
            Queries::All => None,
            Queries::First => {
                Some(self.sequences.ranges().filter(|rows| !rows.is_empty()).collect())
            }
        }
    }
}

/// What a layer's backward pass needs of its forward pass.
pub struct Saved<E: Element> {
    attention: SavedAttention<E>,
    feed_forward: SavedFeedForward<E>,
}

impl<E: Element> Layer<E> {
    /// x `[T, H]` → `[rows, H]`, and what the backward pass needs where it is to come.
    pub fn forward(
        &self,
        x: &[f32],
        rows: Rows<'_>,
        drop: LayerDropout,
        keep: bool,
    ) -> (Buffer<f32>, Option<Saved<E>>) {
        let (attended, attention) = self.attention_forward(x, rows, drop, keep);
        let (out, feed_forward) = self.feed_forward(&attended, drop.output, keep);
        let saved = attention.zip(feed_forward);
        (out, saved.map(|(attention, feed_forward)| Saved { attention, feed_forward }))
    }

    /// The gradient of x, `[T, H]`, from that of what came out. The weights' gradients go where
    /// the weights say.
    pub fn backward(
        &self,
        saved: &Saved<E>,
        grad: &[f32],
        rows: Rows<'_>,
        drop: LayerDropout,
    ) -> Buffer<f32> {
        let grad = self.feed_forward_backward(&saved.feed_forward, grad, drop.output);
        self.attention_backward(&saved.attention, &grad, rows, drop)
    }
}
