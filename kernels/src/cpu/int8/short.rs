//! Attention of short sequences in floats: to make integers of their keys and values, and to pack
//! those, takes many times as long as all products.
//!
//! Equal to the bit on every processor: each sum takes one product after the other, none is fused,
//! and lanes are different sums.

use crate::cpu::dispatch;
use crate::cpu::exact::exp2_times_127;
use crate::cpu::lanes::Lanes;
use crate::cpu::math::by_halves;

/// The longest of them: where integers begin to be faster.
pub const LONGEST: usize = 128;

/// Queries handled at once.
const ROWS: usize = 4;

/// Columns whose sums stay in registers, which in a page are of four numbers.
const COLUMNS: usize = if cfg!(target_family = "wasm") { 8 } else { 16 };

/// Rows are padded to so many numbers.
const PAD: usize = 16;

const _: () = assert!(PAD.is_multiple_of(COLUMNS) && PAD.is_multiple_of(ROWS));

/// One head of one sequence: its part of rows that are `ld` apart. A row of queries begins with the
/// slice; keys and values are so many numbers behind it.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    pub qkv: &'a [f32],
    pub ld: usize,
    pub keys: usize,
    pub values: usize,
    pub head_dim: usize,
    pub n: usize,
}

impl Head<'_> {
    #[inline(always)]
    fn row(&self, part: usize, row: usize) -> &[f32] {
        &self.qkv[row * self.ld + part..][..self.head_dim]
    }
}

/// What heads need one after the other.
#[derive(Default)]
pub struct Room {
    /// `[head_dim, n]`, padded.
    keys: Vec<f32>,
    /// `[n, head_dim]`, padded.
    values: Vec<f32>,
    /// Of some queries scores, `[ROWS, n]`, padded.
    scores: Vec<f32>,
    /// Of these `[ROWS, head_dim]`, padded.
    context: Vec<f32>,
}

/// The context of a head's rows, `[n, head_dim]`.
pub fn attend(head: Head<'_>, out: &mut [f32], room: &mut Room) {
    let (n, d) = (head.n.next_multiple_of(PAD), head.head_dim.next_multiple_of(PAD));
    room.keys.resize(head.head_dim * n, 0.0);
    room.values.resize(head.n * d, 0.0);
    room.scores.resize(ROWS * n, 0.0);
    room.context.resize(ROWS * d, 0.0);
    in_room(head, out, room);
}

dispatch! {
fn in_room(head: Head<'_>, out: &mut [f32], room: &mut Room) {
    let (d, n) = (head.head_dim, head.n.next_multiple_of(PAD));
    let wide = d.next_multiple_of(PAD);
    // Behind the last row it stands again: its scores are not looked at.
    let last = head.n - 1;
    for first in (0..n).step_by(4) {
        let rows: [&[f32]; 4] =
            std::array::from_fn(|i| head.row(head.keys, (first + i).min(last)));
        let [a, b, c, e] = rows;
        let four = a.iter().zip(b).zip(c).zip(e);
        for (keys, (((a, b), c), e)) in room.keys.chunks_exact_mut(n).zip(four) {
            keys[first..first + 4].copy_from_slice(&[*a, *b, *c, *e]);
        }
    }
    for (row, values) in room.values.chunks_exact_mut(wide).enumerate() {
        values[..d].copy_from_slice(head.row(head.values, row));
        values[d..].fill(0.0);
    }
    // Powers of two take less than powers of e.
    let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
    for (index, out) in out.chunks_mut(ROWS * d).enumerate() {
        let first = index * ROWS;
        let queries = std::array::from_fn(|i| head.row(0, (first + i).min(last)));
        multiply(queries, &room.keys, n, &mut room.scores);
        let mut inverses = [0f32; ROWS];
        for (scores, inverse) in room.scores.chunks_exact_mut(n).zip(&mut inverses) {
            scores[head.n..].fill(f32::NEG_INFINITY);
            *inverse = 1.0 / exponentials(scores, scale);
        }
        let probabilities: [&[f32]; ROWS] =
            std::array::from_fn(|i| &room.scores[i * n..][..head.n]);
        multiply(probabilities, &room.values, wide, &mut room.context);
        let context = room.context.chunks_exact(wide).zip(inverses);
        for (out, (context, inverse)) in out.chunks_exact_mut(d).zip(context) {
            out.iter_mut().zip(context).for_each(|(out, x)| *out = x * inverse);
        }
    }
}
}

/// Rows of as many numbers as b, `[depth, width]`, has rows, times b: `[ROWS, width]`.
#[inline(always)]
fn multiply([p, q, r, s]: [&[f32]; ROWS], b: &[f32], width: usize, out: &mut [f32]) {
    for first in (0..width).step_by(COLUMNS) {
        let mut sums = [[0f32; COLUMNS]; ROWS];
        let four = p.iter().zip(q).zip(r).zip(s);
        for ((((p, q), r), s), b) in four.zip(b.chunks_exact(width)) {
            let b = &b[first..first + COLUMNS];
            for (sums, x) in sums.iter_mut().zip([p, q, r, s]) {
                *sums = std::array::from_fn(|lane| sums[lane] + x * b[lane]);
            }
        }
        for (out, sums) in out.chunks_exact_mut(width).zip(sums) {
            out[first..first + COLUMNS].copy_from_slice(&sums);
        }
    }
}

/// Scores x become 127 · 2^((x − most) · scale), of which it gives the sum. Their number is a
/// multiple of [`PAD`].
#[inline(always)]
fn exponentials(scores: &mut [f32], scale: f32) -> f32 {
    let scores = scores.as_chunks_mut::<PAD>().0;
    let mut most = [f32::NEG_INFINITY; PAD];
    for x in &*scores {
        most = std::array::from_fn(|lane| most[lane].or_larger(x[lane]));
    }
    let most = by_halves(most, f32::or_larger);
    let mut sums = [0f32; PAD];
    for x in scores {
        *x = std::array::from_fn(|lane| exp2_times_127((x[lane] - most) * scale));
        sums = std::array::from_fn(|lane| sums[lane] + x[lane]);
    }
    by_halves(sums, |x, y| x + y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dropout::normal;

    #[test]
    fn it_is_attention() {
        for (n, head_dim, size) in
            [(1, 1, 1.0), (3, 5, 1.0), (16, 16, 3.0), (27, 32, 1.0), (LONGEST, 64, 20.0)]
        {
            let (ld, keys, values) = (5 * head_dim, 2 * head_dim, 4 * head_dim);
            let qkv: Vec<f32> = (0..(n * ld) as u64).map(|i| size * normal(1, i)).collect();
            let head = Head { qkv: &qkv, ld, keys, values, head_dim, n };
            let (mut out, mut room) = (vec![7f32; n * head_dim], Room::default());
            // Whatever was there before.
            attend(Head { n: n.div_ceil(2), ..head }, &mut out, &mut room);
            attend(head, &mut out, &mut room);
            for (query, out) in out.chunks(head_dim).enumerate() {
                let product = |key| -> f64 {
                    let both = head.row(0, query).iter().zip(head.row(keys, key));
                    both.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum()
                };
                let scores = (0..n).map(|key| product(key) / (head_dim as f64).sqrt());
                let scores: Vec<f64> = scores.collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|x| (x - most).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (column, found) in out.iter().enumerate() {
                    let values = (0..n).map(|key| f64::from(head.row(values, key)[column]));
                    let expected: f64 = values.zip(&weights).map(|(v, w)| v * w / total).sum();
                    let error = (f64::from(*found) - expected).abs();
                    assert!(error < 4e-4 * f64::from(size), "{n} {head_dim}: {found} {expected}");
                }
            }
        }
    }
}
