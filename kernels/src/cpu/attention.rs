//! Self-attention within each packed sequence, a row of scores at a time.
//!
//! Nothing of a sequence's length squared is kept: the backward pass makes each row of
//! probabilities again, as in Rabe and Staats, Self-attention does not need O(n²) memory (2021).

use super::dispatch;
use super::math::exp;
use super::parallel::for_pieces;
use crate::reference::attention_index;
use crate::{Dropout, Sequences};

/// The shape of the work.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// Where sequences begin and end.
    pub sequences: &'a Sequences,
    /// Heads side by side in a row.
    pub heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Dropout of the probabilities.
    pub dropout: Option<Dropout>,
}

impl Shape<'_> {
    fn hidden(&self) -> usize {
        self.heads * self.head_dim
    }

    fn starts(&self) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        self.sequences.ranges()
    }
}

/// qkv `[T, 3·H]` → `[T, H]`.
pub fn forward(qkv: &[f32], shape: Shape<'_>) -> Vec<f32> {
    let hidden = shape.hidden();
    let ranges: Vec<_> = shape.starts().collect();
    let mut out = vec![0f32; shape.sequences.tokens() * hidden];
    for_pieces(&mut out, ranges.iter().map(|rows| rows.len() * hidden), |i, out| {
        let rows = ranges[i].clone();
        let mut scratch = Scratch::new(rows.len(), shape.head_dim);
        for head in 0..shape.heads {
            scratch.load(&qkv[rows.start * 3 * hidden..], hidden, head);
            for row in 0..rows.len() {
                scratch.probabilities(row, shape.dropout, head, shape.heads, rows.start + row);
                let at = row * hidden + head * shape.head_dim;
                let out = &mut out[at..at + shape.head_dim];
                combine(&scratch.dropped, &scratch.values, out);
            }
        }
    });
    out
}

/// The gradient of qkv, `[T, 3·H]`.
pub fn backward(qkv: &[f32], grad: &[f32], shape: Shape<'_>) -> Vec<f32> {
    let hidden = shape.hidden();
    let ranges: Vec<_> = shape.starts().collect();
    let mut out = vec![0f32; qkv.len()];
    for_pieces(&mut out, ranges.iter().map(|rows| rows.len() * 3 * hidden), |i, out| {
        let rows = ranges[i].clone();
        let (n, d) = (rows.len(), shape.head_dim);
        let mut scratch = Scratch::new(n, d);
        let (mut dkeys, mut dvalues) = (vec![0f32; n * d], vec![0f32; n * d]);
        let mut dscores = vec![0f32; n];
        for head in 0..shape.heads {
            scratch.load(&qkv[rows.start * 3 * hidden..], hidden, head);
            dkeys.fill(0.0);
            dvalues.fill(0.0);
            for row in 0..n {
                scratch.probabilities(row, shape.dropout, head, shape.heads, rows.start + row);
                let grad = &grad[(rows.start + row) * hidden + head * d..][..d];
                // Gradients of the dropped probabilities, then of the scores.
                transposed_product(grad, &scratch.values_t, &mut dscores);
                scores_backward(
                    &scratch.kept,
                    &scratch.dropped,
                    shape.dropout,
                    scratch.scale,
                    &mut dscores,
                );
                let at = row * 3 * hidden + head * d;
                combine(&dscores, &scratch.keys, &mut out[at..at + d]);
                outer(&dscores, &scratch.queries[row * d..][..d], &mut dkeys);
                outer(&scratch.dropped, grad, &mut dvalues);
            }
            for row in 0..n {
                let at = row * 3 * hidden + head * d;
                out[at + hidden..][..d].copy_from_slice(&dkeys[row * d..][..d]);
                out[at + 2 * hidden..][..d].copy_from_slice(&dvalues[row * d..][..d]);
            }
        }
    });
    out
}

/// One head of one sequence.
struct Scratch {
    n: usize,
    d: usize,
    scale: f32,
    /// `[n, d]`
    queries: Vec<f32>,
    /// `[n, d]`
    keys: Vec<f32>,
    /// `[d, n]`
    keys_t: Vec<f32>,
    /// `[n, d]`
    values: Vec<f32>,
    /// `[d, n]`
    values_t: Vec<f32>,
    /// One row's probabilities, `[n]`.
    kept: Vec<f32>,
    /// The same after dropout.
    dropped: Vec<f32>,
}

impl Scratch {
    fn new(n: usize, d: usize) -> Self {
        let matrix = || vec![0f32; n * d];
        Self {
            n,
            d,
            scale: 1.0 / (d as f32).sqrt(),
            queries: matrix(),
            keys: matrix(),
            keys_t: matrix(),
            values: matrix(),
            values_t: matrix(),
            kept: vec![0.0; n],
            dropped: vec![0.0; n],
        }
    }

    /// qkv starts with the sequence's first row.
    fn load(&mut self, qkv: &[f32], hidden: usize, head: usize) {
        let (n, d) = (self.n, self.d);
        for row in 0..n {
            let at = row * 3 * hidden + head * d;
            self.queries[row * d..][..d].copy_from_slice(&qkv[at..][..d]);
            self.keys[row * d..][..d].copy_from_slice(&qkv[at + hidden..][..d]);
            self.values[row * d..][..d].copy_from_slice(&qkv[at + 2 * hidden..][..d]);
            for column in 0..d {
                self.keys_t[column * n + row] = qkv[at + hidden + column];
                self.values_t[column * n + row] = qkv[at + 2 * hidden + column];
            }
        }
    }

    /// Fills `kept` and `dropped` for one query.
    fn probabilities(
        &mut self,
        row: usize,
        dropout: Option<Dropout>,
        head: usize,
        heads: usize,
        query_row: usize,
    ) {
        let query = &self.queries[row * self.d..][..self.d];
        transposed_product(query, &self.keys_t, &mut self.kept);
        softmax(&mut self.kept, self.scale);
        let first = attention_index(head, heads, query_row, 0);
        super::norm::apply(&self.kept, dropout, first, &mut self.dropped);
    }
}

dispatch! {
/// `out[j] = Σ_c x[c] · matrix[c, j]`: matrix `[d, n]`.
fn transposed_product(x: &[f32], matrix: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    let n = out.len();
    for (x, row) in x.iter().zip(matrix.chunks_exact(n.max(1))) {
        out.iter_mut().zip(row).for_each(|(out, y)| *out += x * y);
    }
}
}

dispatch! {
/// `out[c] = Σ_j x[j] · matrix[j, c]`: matrix `[n, d]`.
fn combine(x: &[f32], matrix: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    let d = out.len();
    for (x, row) in x.iter().zip(matrix.chunks_exact(d.max(1))) {
        out.iter_mut().zip(row).for_each(|(out, y)| *out += x * y);
    }
}
}

dispatch! {
/// `out[j, c] += x[j] · y[c]`.
fn outer(x: &[f32], y: &[f32], out: &mut [f32]) {
    for (x, row) in x.iter().zip(out.chunks_exact_mut(y.len())) {
        row.iter_mut().zip(y).for_each(|(out, y)| *out += x * y);
    }
}
}

dispatch! {
fn softmax(row: &mut [f32], scale: f32) {
    let mut largest = f32::NEG_INFINITY;
    for x in row.iter_mut() {
        *x *= scale;
        largest = if *x > largest { *x } else { largest };
    }
    row.iter_mut().for_each(|x| *x = exp(*x - largest));
    let mut sums = [0f32; 16];
    for chunk in row.chunks(16) {
        sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x);
    }
    let inverse = 1.0 / sums.iter().sum::<f32>();
    row.iter_mut().for_each(|x| *x *= inverse);
}
}

dispatch! {
/// From the gradients of the dropped probabilities to those of the scores before their scale.
fn scores_backward(
    kept: &[f32],
    dropped: &[f32],
    dropout: Option<Dropout>,
    scale: f32,
    grad: &mut [f32],
) {
    // dropped = kept · multiplier, and what was dropped passes nothing back.
    let mut sums = [0f32; 16];
    for (grad, dropped) in grad.chunks(16).zip(dropped.chunks(16)) {
        for ((sum, grad), dropped) in sums.iter_mut().zip(grad).zip(dropped) {
            *sum += grad * dropped;
        }
    }
    let along = sums.iter().sum::<f32>();
    let multiplier = dropout.map_or(1.0, |dropout| dropout.scale());
    for ((grad, kept), dropped) in grad.iter_mut().zip(kept).zip(dropped) {
        // A probability of 0 passes nothing on either way.
        let passed = if *dropped == 0.0 { 0.0 } else { *grad * multiplier };
        *grad = kept * (passed - along) * scale;
    }
}
}
