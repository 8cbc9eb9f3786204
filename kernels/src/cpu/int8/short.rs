//! Attention of short sequences in floats: to make integers of their keys and values, and to pack
//! those, takes many times as long as all products.
//!
//! Equal to the bit on every processor: each sum takes one product after the other, none is fused,
//! and lanes are different sums.

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::cpu::dispatch;
use crate::cpu::exact::exp2_times_127;
use crate::cpu::gemm::prefetch;
use crate::cpu::lanes::Lanes;
use crate::cpu::math::{by_halves, one_by_one};
#[cfg(target_arch = "x86_64")]
use crate::cpu::{Isa, isa};

/// The longest of them. Of twice as many tokens integers take about as long on processors with AVX2.
pub const LONGEST: usize = 64;

/// Queries handled at once.
const ROWS: usize = 4;

/// Columns of a panel, whose sums stay in registers: in a page these are of four numbers. Which sums
/// are made side by side changes none of them.
const WIDTH: usize = if cfg!(target_family = "wasm") { 8 } else { 16 };

/// Rows of scores are padded to so many.
const PAD: usize = 16;

/// Keys that are put into a panel at once.
const TOGETHER: usize = 4;

const _: () = assert!(PAD.is_multiple_of(WIDTH) && WIDTH.is_multiple_of(TOGETHER));

/// One head of one sequence.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// Rows, `ld` apart, of which each begins with the head's queries, `[head_dim]`.
    pub qkv: &'a [f32],
    /// From one row to the next.
    pub ld: usize,
    /// Where in a row the head's keys are.
    pub keys: usize,
    /// Where in a row the head's values are.
    pub values: usize,
    /// Numbers of a query, a key and a value; at least one.
    pub head_dim: usize,
    /// Rows; at least one.
    pub n: usize,
    /// Whether another head follows, whose queries, keys and values are `head_dim` farther.
    pub has_next: bool,
}

impl Head<'_> {
    #[inline(always)]
    fn row(&self, part: usize, row: usize) -> &[f32] {
        &self.qkv[row * self.ld + part..][..self.head_dim]
    }

    /// Has rows of the next one come nearer.
    #[inline(always)]
    fn fetch_next(&self, rows: std::ops::Range<usize>) {
        for row in if self.has_next { rows } else { 0..0 } {
            for part in [0, self.keys, self.values] {
                prefetch(&self.qkv[row * self.ld + part + self.head_dim..][..self.head_dim]);
            }
        }
    }
}

/// What heads need one after the other.
#[derive(Default)]
pub struct Room {
    /// Panels `[head_dim, WIDTH]`, a key each column; AVX-512 has one, as wide as all keys.
    keys: Vec<f32>,
    /// Panels `[n, WIDTH]`; AVX-512 has one, `[n, head_dim]`.
    values: Vec<f32>,
    /// Of some queries scores, `[ROWS, n]`, padded.
    scores: Vec<f32>,
    /// Of these `[ROWS, head_dim]`, padded.
    context: Vec<f32>,
}

/// The context of a head's rows, `[n, head_dim]`.
pub fn attend(head: Head<'_>, out: &mut [f32], room: &mut Room) {
    #[cfg(target_arch = "x86_64")]
    if isa() >= Isa::Avx512 && avx512::takes(head.head_dim) {
        // SAFETY: the processor has AVX-512, and such heads are taken.
        return unsafe { avx512::attend(head, out, room) };
    }
    by_the_compiler(head, out, room);
}

dispatch! {
/// The same in loops of which compilers make vectors.
fn by_the_compiler(head: Head<'_>, out: &mut [f32], room: &mut Room) {
    in_panels::<WIDTH>(head, out, room);
}
}

/// The same, in panels of any width that divides [`PAD`].
#[inline(always)]
fn in_panels<const WIDTH: usize>(head: Head<'_>, out: &mut [f32], room: &mut Room) {
    let (d, n) = (head.head_dim, head.n.next_multiple_of(PAD));
    let wide = d.next_multiple_of(WIDTH);
    room.keys.resize(d * n, 0.0);
    room.values.resize(head.n * wide, 0.0);
    room.scores.resize(ROWS * n, 0.0);
    room.context.resize(ROWS * wide, 0.0);
    // Behind the last row it stands again: what comes of it is not looked at.
    let row = |part, row: usize| head.row(part, row.min(head.n - 1));
    for (panel, keys) in room.keys.chunks_exact_mut(d * WIDTH).enumerate() {
        let keys = keys.as_chunks_mut::<WIDTH>().0;
        for first in (0..WIDTH).step_by(TOGETHER) {
            let [a, b, c, e]: [_; TOGETHER] =
                std::array::from_fn(|i| row(head.keys, panel * WIDTH + first + i));
            let four = a.iter().zip(b).zip(c).zip(e);
            for (keys, (((a, b), c), e)) in keys.iter_mut().zip(four) {
                keys[first..first + TOGETHER].copy_from_slice(&[*a, *b, *c, *e]);
            }
        }
    }
    for (panel, values) in room.values.chunks_exact_mut(head.n * WIDTH).enumerate() {
        for (index, values) in values.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
            let row = &row(head.values, index)[panel * WIDTH..];
            match row.first_chunk() {
                Some(whole) => *values = *whole,
                None => {
                    values[..row.len()].copy_from_slice(row);
                    values[row.len()..].fill(0.0);
                }
            }
        }
    }
    let scale = scale_of(d);
    for (index, out) in out.chunks_mut(ROWS * d).enumerate() {
        let first = index * ROWS;
        head.fetch_next(first..(first + ROWS).min(head.n));
        let queries = std::array::from_fn(|i| row(0, first + i));
        multiply::<WIDTH>(queries, &room.keys, &mut room.scores);
        let mut inverses = [0f32; ROWS];
        for (scores, inverse) in room.scores.chunks_exact_mut(n).zip(&mut inverses) {
            scores[head.n..].fill(f32::NEG_INFINITY);
            *inverse = 1.0 / exponentials(scores, scale);
        }
        let probabilities = std::array::from_fn(|i| &room.scores[i * n..][..head.n]);
        multiply::<WIDTH>(probabilities, &room.values, &mut room.context);
        let context = room.context.chunks_exact(wide).zip(inverses);
        for (out, (context, inverse)) in out.chunks_exact_mut(d).zip(context) {
            out.iter_mut().zip(context).for_each(|(out, x)| *out = x * inverse);
        }
    }
}

/// What scores are multiplied by: powers of two take less than powers of e.
#[inline(always)]
fn scale_of(head_dim: usize) -> f32 {
    std::f32::consts::LOG2_E / (head_dim as f32).sqrt()
}

/// Rows times panels `[depth, WIDTH]`: `[ROWS, columns of all panels]`.
#[inline(always)]
fn multiply<const WIDTH: usize>([p, q, r, s]: [&[f32]; ROWS], panels: &[f32], out: &mut [f32]) {
    let width = out.len() / ROWS;
    for (index, panel) in panels.chunks_exact(p.len() * WIDTH).enumerate() {
        let mut sums = [[0f32; WIDTH]; ROWS];
        let four = p.iter().zip(q).zip(r).zip(s);
        for ((((p, q), r), s), b) in four.zip(panel.as_chunks::<WIDTH>().0) {
            for (sums, x) in sums.iter_mut().zip([p, q, r, s]) {
                *sums = std::array::from_fn(|lane| sums[lane] + x * b[lane]);
            }
        }
        for (out, sums) in out.chunks_exact_mut(width).zip(sums) {
            out[index * WIDTH..][..WIDTH].copy_from_slice(&sums);
        }
    }
}

/// Scores x become 127 · 2^((x − most) · scale), of which it gives the sum. Their number is a
/// multiple of [`PAD`].
#[inline(always)]
pub(super) fn exponentials(scores: &mut [f32], scale: f32) -> f32 {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    return crate::cpu::lanes::softmax(scores, scale);
    #[allow(unreachable_code)]
    let most = over_lanes(scores, f32::NEG_INFINITY, f32::or_larger);
    scores.iter_mut().for_each(|x| *x = exp2_times_127((*x - most) * scale));
    over_lanes(scores, 0.0, |sum, x| sum + x)
}

/// One number of many, in [`PAD`] lanes.
#[inline(always)]
fn over_lanes(x: &[f32], first: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut all = [first; PAD];
    for (index, x) in x.as_chunks::<PAD>().0.iter().enumerate() {
        one_by_one(index);
        all = std::array::from_fn(|lane| f(all[lane], x[lane]));
    }
    by_halves(all, f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dropout::normal;

    /// A head's context, by sums of 64 bits.
    fn exactly(head: Head<'_>) -> Vec<f64> {
        let scale = 1.0 / (head.head_dim as f64).sqrt();
        let mut out = Vec::new();
        for query in 0..head.n {
            let score = |key| -> f64 {
                let both = head.row(0, query).iter().zip(head.row(head.keys, key));
                both.map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * scale
            };
            let scores: Vec<f64> = (0..head.n).map(score).collect();
            let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|x| (x - most).exp()).collect();
            let total: f64 = weights.iter().sum();
            out.extend((0..head.head_dim).map(|column| {
                let values = (0..head.n).map(|key| f64::from(head.row(head.values, key)[column]));
                values.zip(&weights).map(|(value, weight)| value * weight / total).sum::<f64>()
            }));
        }
        out
    }

    #[test]
    fn it_is_attention_whatever_was_there_before_and_in_panels_of_any_width() {
        let mut room = Room::default();
        for (n, head_dim, size) in [
            (LONGEST, 72, f32::NAN),
            (1, 1, 1.0),
            (3, 5, 1.0),
            (16, 16, 3.0),
            (1, 32, 1.0),
            (5, 16, 1.0),
            (40, 48, 1.0),
            (18, 72, 1.0),
            (27, 32, 1.0),
            (30, 24, 1.0),
            (LONGEST, 64, 1.0),
            (LONGEST, 64, 20.0),
        ] {
            let (ld, keys, values) = (6 * head_dim, 2 * head_dim, 4 * head_dim);
            let qkv: Vec<f32> = (0..(n * ld) as u64).map(|i| size * normal(1, i)).collect();
            let head = Head { qkv: &qkv, ld, keys, values, head_dim, n, has_next: true };
            let mut out = vec![7f32; n * head_dim];
            attend(head, &mut out, &mut room);
            if size.is_nan() {
                continue;
            }
            for (found, expected) in out.iter().zip(exactly(head)) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 4e-4 * f64::from(size), "{n} {head_dim}: {found} {expected}");
            }
            for way in [in_panels::<8>, in_panels::<16>, by_the_compiler] {
                let mut again = vec![7f32; n * head_dim];
                way(head, &mut again, &mut room);
                assert!(again == out, "{n} {head_dim}");
            }
        }
    }
}
