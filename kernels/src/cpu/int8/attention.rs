//! Attention in 8-bit integers: both its products are those of a linear layer whose weights are a
//! head's keys, and its values transposed.

use super::panels::Integers;
use super::rows::QuantizedRows;
use super::weights::{quantise_columns, quantise_weights};
use super::{Int8Panels, tile};
use crate::cpu::Buffer;
use crate::cpu::attention::Shape;
use crate::cpu::gemm::prefetch;
use crate::cpu::parallel::{for_each, pieces};

/// Queries handled at once.
const QUERIES: usize = 64;

/// Attention's context, each head's rows by themselves, so that heads are tasks of their own.
pub struct ByHead {
    /// For each sequence `[heads, queries, head_dim]`.
    context: Buffer<f32>,
    /// The first row of each sequence, and behind them the number of rows.
    starts: Vec<usize>,
    hidden: usize,
    head_dim: usize,
}

impl ByHead {
    /// Rows from `first` on, heads side by side: as many as there is room for, `[rows, H]`.
    pub fn gather(&self, first: usize, out: &mut [f32]) {
        let mut sequence = self.starts.partition_point(|start| *start <= first).max(1) - 1;
        for (row, out) in (first..).zip(out.chunks_exact_mut(self.hidden)) {
            while self.starts[sequence + 1] <= row {
                sequence += 1;
            }
            let start = self.starts[sequence];
            let size = (self.starts[sequence + 1] - start) * self.head_dim;
            let heads = &self.context[start * self.hidden + (row - start) * self.head_dim..];
            for (head, out) in out.chunks_exact_mut(self.head_dim).enumerate() {
                out.copy_from_slice(&heads[head * size..][..self.head_dim]);
            }
        }
    }
}

/// Attention of qkv `[T, 3·H]`.
pub fn forward(qkv: &[f32], shape: Shape<'_>) -> ByHead {
    let (hidden, head_dim) = (shape.heads * shape.head_dim, shape.head_dim);
    let ranges: Vec<_> = shape.sequences.ranges().collect();
    let asking = |index: usize| shape.queries.of(ranges[index].len());
    let mut context = Buffer::<f32>::any(shape.rows() * hidden);
    let heads = (0..ranges.len()).flat_map(|index| (0..shape.heads).map(move |head| (index, head)));
    let lengths = heads.clone().map(|(index, _)| asking(index) * head_dim);
    let tasks = pieces(&mut context, lengths).into_iter().zip(heads);
    for_each(tasks.collect(), |_, (out, (index, head)): (&mut [f32], (usize, usize))| {
        let rows = ranges[index].clone();
        if !rows.is_empty() {
            let qkv = &qkv[rows.start * 3 * hidden..rows.end * 3 * hidden];
            Head { qkv, hidden, head_dim, first: head * head_dim, n: rows.len() }.forward(out);
        }
    });
    let mut starts = vec![0];
    starts.extend((0..ranges.len()).scan(0, |start, index| {
        *start += asking(index);
        Some(*start)
    }));
    ByHead { context, starts, hidden, head_dim }
}

/// One head of one sequence.
struct Head<'a> {
    /// `[n, 3·H]`
    qkv: &'a [f32],
    hidden: usize,
    head_dim: usize,
    /// The head's first column.
    first: usize,
    n: usize,
}

impl Head<'_> {
    /// Of queries, keys and values (0, 1, 2) a row's columns.
    fn row(&self, part: usize, row: usize) -> &[f32] {
        &self.qkv[(row * 3 + part) * self.hidden + self.first..][..self.head_dim]
    }

    /// The context of as many first rows as there is room for, `[rows, head_dim]`.
    ///
    /// A row's part is a line or two in a page of its own, for which a processor that is not told of
    /// it waits each time.
    fn forward(&self, out: &mut [f32]) {
        let (n, d, ld) = (self.n, self.head_dim, 3 * self.hidden);
        if n > QUERIES {
            for (part, count) in [(1, n), (0, out.len() / d), (2, n)] {
                (0..count).for_each(|row| prefetch(self.row(part, row)));
            }
        } else if self.first == 0 {
            // All heads' parts stay in the second cache.
            prefetch(self.qkv);
        }
        let mut integers = vec![0i8; n * d];
        let keys = (0..n).zip(integers.chunks_exact_mut(d));
        let scales: Vec<f32> =
            keys.map(|(row, integers)| quantise_weights(self.row(1, row), integers)).collect();
        let mut keys = Int8Panels::empty(tile());
        keys.fill(Integers::ByOutput(&integers), &scales, d);
        let mut scales = vec![0f32; d];
        quantise_columns(&self.qkv[2 * self.hidden + self.first..], ld, &mut scales, &mut integers);
        let mut values = Int8Panels::empty(tile());
        values.fill(Integers::ByInput(&integers), &scales, n);

        let scale = 1.0 / (d as f32).sqrt();
        let (scores_ld, context_ld) = (keys.padded_columns(), values.padded_columns());
        let (mut queries, mut probabilities): (QuantizedRows, QuantizedRows) = Default::default();
        let (mut scores, mut context) = (Vec::new(), Vec::new());
        for (index, out) in out.chunks_mut(QUERIES * d).enumerate() {
            let (first, count) = (index * QUERIES, out.len() / d);
            let x = &self.qkv[first * ld + self.first..];
            queries.quantise(keys.tile(), x, ld, (count, d));
            keys.multiply_rows(&queries, (0, scores_ld), &mut scores, scores_ld);
            probabilities.reset(values.tile(), count, n);
            for scores in scores.chunks_exact(scores_ld).take(count) {
                probabilities.push_probabilities(values.tile(), &scores[..n], scale);
            }
            values.multiply_rows(&probabilities, (0, context_ld), &mut context, context_ld);
            for (out, row) in out.chunks_exact_mut(d).zip(context.chunks_exact(context_ld)) {
                out.copy_from_slice(&row[..d]);
            }
        }
    }
}
