//! Attention in 8-bit integers: both its products are those of a linear layer whose weights are a
//! head's keys, and its values transposed.

use super::panels::quantise_weights;
use super::rows::{MOST, QuantizedRows, rounded};
use super::{Int8Panels, Tile};
use crate::cpu::attention::Shape;
use crate::cpu::math::exp;
use crate::cpu::parallel::{for_each, pieces};
use crate::cpu::{Buffer, dispatch};

/// Queries handled at once.
const QUERIES: usize = 64;

/// qkv `[T, 3·H]` → `[rows, H]`.
pub fn forward(qkv: &[f32], shape: Shape<'_>) -> Buffer<f32> {
    let (hidden, head_dim) = (shape.heads * shape.head_dim, shape.head_dim);
    let ranges: Vec<_> = shape.sequences.ranges().collect();
    let asking = |index: usize| shape.queries.of(ranges[index].len());
    // Each head's rows by themselves, so that heads are tasks of their own.
    let mut by_head = Buffer::<f32>::any(shape.rows() * hidden);
    let heads = (0..ranges.len()).flat_map(|index| (0..shape.heads).map(move |head| (index, head)));
    let lengths = heads.clone().map(|(index, _)| asking(index) * head_dim);
    let tasks = pieces(&mut by_head, lengths).into_iter().zip(heads);
    for_each(tasks.collect(), |_, (out, (index, head)): (&mut [f32], (usize, usize))| {
        let rows = ranges[index].clone();
        if !rows.is_empty() {
            let qkv = &qkv[rows.start * 3 * hidden..rows.end * 3 * hidden];
            Head { qkv, hidden, head_dim, first: head * head_dim, n: rows.len() }.forward(out);
        }
    });
    let mut out = Buffer::any(shape.rows() * hidden);
    let (mut from, mut to) = (by_head.chunks_exact(head_dim.max(1)), out.chunks_exact_mut(hidden));
    for index in 0..ranges.len() {
        let rows: Vec<&mut [f32]> = to.by_ref().take(asking(index)).collect();
        let mut rows = rows;
        for head in 0..shape.heads {
            for row in &mut rows {
                if let Some(from) = from.next() {
                    row[head * head_dim..][..head_dim].copy_from_slice(from);
                }
            }
        }
    }
    out
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
    fn forward(&self, out: &mut [f32]) {
        let (n, d) = (self.n, self.head_dim);
        let mut integers = vec![0i8; n * d];
        let keys = (0..n).map(|row| {
            let integers = &mut integers[row * d..][..d];
            quantise_weights(self.row(1, row).iter().copied(), |i, q| integers[i] = q)
        });
        let scales: Vec<f32> = keys.collect();
        let mut keys = Int8Panels::empty();
        keys.fill(|row, i| integers[row * d + i], &scales, d);
        let values = (0..d).map(|column| {
            let integers = &mut integers[column * n..][..n];
            let x = (0..n).map(|row| self.row(2, row)[column]);
            quantise_weights(x, |i, q| integers[i] = q)
        });
        let scales: Vec<f32> = values.collect();
        let mut values = Int8Panels::empty();
        values.fill(|column, i| integers[column * n + i], &scales, n);

        let scale = 1.0 / (d as f32).sqrt();
        let ld = keys.count() * keys.columns();
        let (mut queries, mut probabilities) = Default::default();
        let mut scores = vec![0f32; QUERIES * ld];
        for (index, out) in out.chunks_mut(QUERIES * d).enumerate() {
            let (first, count) = (index * QUERIES, out.len() / d);
            let x = &self.qkv[first * 3 * self.hidden + self.first..];
            QuantizedRows::quantise(&mut queries, keys.tile(), x, 3 * self.hidden, (count, d));
            keys.multiply_rows(&queries, |first, products| {
                let rows = products.chunks_exact(keys.columns()).zip(scores.chunks_exact_mut(ld));
                for (from, to) in rows {
                    to[first..][..from.len()].copy_from_slice(from);
                }
            });
            QuantizedRows::reset(&mut probabilities, values.tile(), count, n);
            for row in 0..count {
                let scores = &mut scores[row * ld..][..n];
                probabilities.push_probabilities(values.tile(), row, scores, scale);
            }
            values.multiply_rows(&probabilities, |first, products| {
                let rows = products.chunks_exact(values.columns()).zip(out.chunks_exact_mut(d));
                for (from, to) in rows {
                    let here = from.len().min(d - first);
                    to[first..][..here].copy_from_slice(&from[..here]);
                }
            });
        }
    }
}

impl QuantizedRows {
    /// A row of scores as probabilities: integers of 127 · e^(x − most), of which the scale is one
    /// by their sum, so that what they stand for adds up to 1.
    fn push_probabilities(&mut self, tile: &Tile, row: usize, scores: &mut [f32], scale: f32) {
        let out = &mut self.data[row * self.stride..][..self.stride];
        let mut sum = 0;
        exponentials(scores, scale, &mut sum);
        match tile.activation_bytes {
            1 => out.iter_mut().zip(&*scores).for_each(|(out, x)| *out = *x as u8),
            _ => {
                let out: &mut [u16] = bytemuck::cast_slice_mut(out);
                out.iter_mut().zip(&*scores).for_each(|(out, x)| *out = *x as u16);
            }
        }
        self.scales.push(1.0 / sum as f32);
        self.zeros.push(0);
    }
}

dispatch! {
/// Scores become integers, and `sum` their sum.
fn exponentials(scores: &mut [f32], scale: f32, sum: &mut i32) {
    let mut most = [f32::NEG_INFINITY; 16];
    for chunk in scores.chunks(16) {
        for (most, x) in most.iter_mut().zip(chunk) {
            *most = if *x > *most { *x } else { *most };
        }
    }
    let most = most.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    let mut total = 0;
    for x in scores {
        let q = rounded(exp::<false>((*x - most) * scale) * MOST);
        *x = q as f32;
        total += q;
    }
    *sum = total;
}
}
