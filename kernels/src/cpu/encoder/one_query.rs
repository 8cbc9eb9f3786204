//! Attention where one row of each sequence asks, as in a classifier's last layer: beside integers,
//! but in floats, equal to the bit on every processor.
//!
//! A head scores a row x for a query q by q · (K·x + b) = (Kᵀ·q) · x + q · b. For one query it takes
//! less to turn it than to make keys of all rows, and q · b is the same for all of them. It is
//! likewise with values: Σ p · (V·x + b) = V · (Σ p · x) + b. Weights stay integers, which are floats
//! as they are read: in a page there is no room for them as floats.

#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;

use super::int8_layers::Int8Linear;
use crate::cpu::math::{by_halves, exp, lanes, one_by_one};
use crate::cpu::parallel::for_each;
use crate::cpu::{Buffer, dispatch};
#[cfg(target_arch = "x86_64")]
use crate::cpu::{Isa, isa};

/// The keys' and the values' weights, and the values' bias.
pub struct OneQuery {
    keys: Scaled,
    values: Scaled,
    /// What both multiply their rows by, or nothing.
    factors: Vec<f32>,
    bias: Vec<f32>,
    heads: usize,
}

/// Integers `[H, H]`, each row times a scale of `[H]`.
struct Scaled {
    integers: Vec<i8>,
    scales: Vec<f32>,
}

impl OneQuery {
    /// Of a layer's queries, keys and values `[3·H, H]`.
    pub fn new(qkv: &Int8Linear, heads: usize) -> Self {
        let hidden = qkv.weight.inputs();
        let part = |part: usize| {
            let mut integers = vec![0; hidden * hidden];
            for (row, out) in integers.chunks_exact_mut(hidden.max(1)).enumerate() {
                qkv.weight.integers(part * hidden + row, out);
            }
            let scales = qkv.weight.scales()[part * hidden..][..hidden].to_vec();
            Scaled { integers, scales }
        };
        let (factors, bias) = (qkv.weight.input_factors(), &qkv.bias[2 * hidden..]);
        let (factors, bias) = (factors.to_vec(), bias.to_vec());
        Self { keys: part(1), values: part(2), factors, bias, heads }
    }

    /// For each sequence, rows of x `[T, H]`, and its query in `[B, H]` the context, `[B, H]`.
    pub fn context(&self, x: &[f32], sequences: &[Range<usize>], queries: &[f32]) -> Buffer<f32> {
        let hidden = self.bias.len();
        let head_dim = hidden / self.heads.max(1);
        let mut context = Buffer::<f32>::any(sequences.len() * hidden);
        // A head of a sequence.
        let tasks: Vec<&mut [f32]> = context.chunks_exact_mut(head_dim.max(1)).collect();
        for_each(tasks, |task, out: &mut [f32]| {
            let (sequence, first) = (task / self.heads, task % self.heads * head_dim);
            let rows = sequences[sequence].clone();
            let head = Head {
                x: &x[rows.start * hidden..rows.end * hidden],
                query: &queries[sequence * hidden + first..][..head_dim],
                keys: self.keys.rows(first, head_dim),
                values: self.values.rows(first, head_dim),
                factors: &self.factors,
                bias: &self.bias[first..][..head_dim],
            };
            let mut room = Buffer::<f32>::any(hidden);
            attend(head, &mut room, &mut Buffer::<f32>::any(rows.len()), out);
        });
        context
    }
}

impl Scaled {
    /// Some rows of integers, and their scales.
    fn rows(&self, first: usize, count: usize) -> (&[i8], &[f32]) {
        let (rows, hidden) = (first..first + count, self.scales.len());
        (&self.integers[rows.start * hidden..rows.end * hidden], &self.scales[rows])
    }
}

/// One head of one sequence: rows `[n, H]`, a query and a bias `[head_dim]`, the head's weights
/// `[head_dim, H]` with their scales, and the rows' factors `[H]`, if any.
#[derive(Clone, Copy)]
struct Head<'a> {
    x: &'a [f32],
    query: &'a [f32],
    keys: (&'a [i8], &'a [f32]),
    values: (&'a [i8], &'a [f32]),
    factors: &'a [f32],
    bias: &'a [f32],
}

/// Numbers that are handled at once.
const LANES: usize = 16;

/// What a row is made of.
trait Number: Copy + Into<f32> {
    /// Adds some of them times a weight to sums.
    #[inline(always)]
    fn add_weighted(sum: &mut [f32; LANES], weight: f32, row: &[Self; LANES]) {
        *sum = std::array::from_fn(|lane| sum[lane] + weight * row[lane].into());
    }

    /// The product with a row of floats, in sixteen lanes that are added by halves.
    #[inline(always)]
    fn dot(x: &[f32], row: &[Self]) -> f32 {
        lanes(x, row, |x, y| x * y)
    }

    /// Sixteen of them as floats.
    ///
    /// # Safety
    /// They must be there, and the processor must have AVX-512.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load(x: *const Self) -> std::arch::x86_64::__m512;
}

impl Number for f32 {
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load(x: *const Self) -> std::arch::x86_64::__m512 {
        // SAFETY: the caller's word for both.
        unsafe { std::arch::x86_64::_mm512_loadu_ps(x) }
    }
}

/// In a page compilers take bytes one by one.
impl Number for i8 {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    #[inline(always)]
    fn add_weighted(sum: &mut [f32; LANES], weight: f32, row: &[Self; LANES]) {
        crate::cpu::lanes::add_weighted_bytes(sum, weight, row);
    }

    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    #[inline(always)]
    fn dot(x: &[f32], row: &[Self]) -> f32 {
        crate::cpu::lanes::dot_bytes(x, row)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load(x: *const Self) -> std::arch::x86_64::__m512 {
        use std::arch::x86_64::*;
        // SAFETY: as above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.cast()))) }
    }
}

/// Sums of many rows, by some processor's means.
trait Way {
    /// `sum` becomes Σ weight · row, one row after the other.
    fn weigh<T: Number>(rows: &[T], weights: &[f32], sum: &mut [f32]);

    /// Each row's product with x, as long as it.
    fn dots<T: Number>(x: &[f32], rows: &[T], out: &mut [f32]);
}

/// In loops of which compilers make vectors.
struct Plain;

impl Way for Plain {
    /// Of a few columns at a time, so that their sums stay in registers.
    #[inline(always)]
    fn weigh<T: Number>(rows: &[T], weights: &[f32], sum: &mut [f32]) {
        let width = sum.len();
        let (whole, rest) = sum.as_chunks_mut::<LANES>();
        for (index, sum) in whole.iter_mut().enumerate() {
            let first = LANES * one_by_one(index);
            *sum = [0.0; LANES];
            for (row, weight) in rows.chunks_exact(width).zip(weights) {
                if let Some(row) = row[first..].first_chunk() {
                    T::add_weighted(sum, *weight, row);
                }
            }
        }
        let first = width - rest.len();
        rest.fill(0.0);
        for (row, weight) in rows.chunks_exact(width).zip(weights) {
            rest.iter_mut().zip(&row[first..]).for_each(|(sum, x)| *sum += weight * (*x).into());
        }
    }

    #[inline(always)]
    fn dots<T: Number>(x: &[f32], rows: &[T], out: &mut [f32]) {
        let rows = rows.chunks_exact(x.len());
        out.iter_mut().zip(rows).for_each(|(out, row)| *out = T::dot(x, row));
    }
}

/// A head's context, `[head_dim]`. `room` is as wide as a row, and there are as many scores as rows.
fn attend(head: Head<'_>, room: &mut [f32], scores: &mut [f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa() >= Isa::Avx512 && avx512::takes(room.len()) {
        // SAFETY: the processor has AVX-512, and rows are as it takes them.
        return unsafe { avx512::attend(head, room, scores, out) };
    }
    by_the_compiler(head, room, scores, out);
}

dispatch! {
fn by_the_compiler(head: Head<'_>, room: &mut [f32], scores: &mut [f32], out: &mut [f32]) {
    by::<Plain>(head, room, scores, out);
}
}

#[inline(always)]
fn by<W: Way>(head: Head<'_>, room: &mut [f32], scores: &mut [f32], out: &mut [f32]) {
    let scale = 1.0 / (out.len() as f32).sqrt();
    let ((keys, key_scales), (values, value_scales)) = (head.keys, head.values);
    let query = head.query.iter().zip(key_scales);
    out.iter_mut().zip(query).for_each(|(out, (q, scale))| *out = q * scale);
    W::weigh(keys, out, room);
    room.iter_mut().zip(head.factors).for_each(|(x, factor)| *x *= factor);
    W::dots(room, head.x, scores);
    let mut most = f32::NEG_INFINITY;
    for score in &mut *scores {
        *score *= scale;
        most = if *score > most { *score } else { most };
    }
    scores.iter_mut().for_each(|score| *score = exp::<false>(*score - most));
    let mut sums = [0f32; LANES];
    for scores in scores.chunks(LANES) {
        sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
    }
    let inverse = 1.0 / by_halves(sums, |x, y| x + y);
    scores.iter_mut().for_each(|score| *score *= inverse);
    W::weigh(head.x, scores, room);
    room.iter_mut().zip(head.factors).for_each(|(x, factor)| *x *= factor);
    W::dots(room, values, out);
    for ((out, scale), bias) in out.iter_mut().zip(value_scales).zip(head.bias) {
        *out = *out * scale + bias;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cpu::int8::{Int8Panels, WEIGHT_LIMIT, tile};
    use crate::dropout::{hash, normal};

    /// Queries, keys and values of any integers.
    fn weight(seed: u64, hidden: usize) -> Int8Panels {
        let scales: Vec<f32> =
            (0..3 * hidden as u64).map(|i| 0.03 * (1.0 + normal(seed, i).abs())).collect();
        let limit = WEIGHT_LIMIT as i32;
        let integer = |output: usize, column: usize| {
            let random = hash(seed, (output * hidden + column) as u64) >> 1;
            (random as i32 % (2 * limit + 1) - limit) as i8
        };
        let row = |output: usize, row: &mut [i8]| {
            row.iter_mut().enumerate().for_each(|(column, q)| *q = integer(output, column));
        };
        Int8Panels::with(tile(), row, &scales, hidden)
    }

    #[test]
    fn it_is_attention_with_keys_and_values_made() {
        for (heads, head_dim, lengths) in [
            (1, 1, vec![1]),
            (3, 5, vec![4, 1, 33]),
            (2, 16, vec![16, 100]),
            (12, 32, vec![7, 512]),
        ] {
            let hidden = heads * head_dim;
            let random =
                |seed, n: usize| -> Vec<f32> { (0..n as u64).map(|i| normal(seed, i)).collect() };
            let mut weight = weight(1, hidden);
            weight.set_input_factors(
                random(2, hidden).iter().map(|x| 0.02 * (x.abs() + 0.5)).collect(),
            );
            let qkv = Int8Linear { weight: Arc::new(weight), bias: random(3, 3 * hidden) };
            let starts = lengths.iter().scan(0, |next, n| {
                *next += n;
                Some(*next - n..*next)
            });
            let sequences: Vec<Range<usize>> = starts.collect();
            let x = random(4, lengths.iter().sum::<usize>() * hidden);
            let queries = random(5, lengths.len() * hidden);
            let found = OneQuery::new(&qkv, heads).context(&x, &sequences, &queries);
            let made = |output: usize, x: &[f32]| -> f64 {
                let mut row = vec![0f32; hidden];
                qkv.weight.row(output, &mut row);
                let factors = qkv.weight.input_factors();
                let products = row.iter().zip(x).zip(factors);
                products.map(|((w, x), factor)| f64::from(*w) * f64::from(x * factor)).sum::<f64>()
                    + f64::from(qkv.bias[output])
            };
            for (sequence, rows) in sequences.iter().enumerate() {
                let rows: Vec<&[f32]> =
                    rows.clone().map(|row| &x[row * hidden..][..hidden]).collect();
                for head in 0..heads {
                    let columns = head * head_dim..(head + 1) * head_dim;
                    let query = &queries[sequence * hidden..][..hidden];
                    let scores: Vec<f64> = rows
                        .iter()
                        .map(|x| {
                            let products =
                                columns.clone().map(|c| f64::from(query[c]) * made(hidden + c, x));
                            products.sum::<f64>() / (head_dim as f64).sqrt()
                        })
                        .collect();
                    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> =
                        scores.iter().map(|score| (score - most).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    for column in columns {
                        let values = rows.iter().map(|x| made(2 * hidden + column, x));
                        let expected: f64 = values.zip(&weights).map(|(v, w)| v * w / total).sum();
                        let found = f64::from(found[sequence * hidden + column]);
                        assert!(
                            (found - expected).abs() < 1e-4 * expected.abs().max(1.0),
                            "{found} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_way_gives_the_same_bits() {
        for (n, head_dim, hidden) in [(1, 16, 16), (5, 24, 144), (40, 32, 384), (27, 7, 35)] {
            let row = |seed, n: usize| (0..n as u64).map(|i| normal(seed, i)).collect::<Vec<f32>>();
            let bytes = |seed| -> Vec<i8> {
                (0..(head_dim * hidden) as u64).map(|i| hash(seed, i) as i8).collect()
            };
            let (x, query, keys, values) =
                (row(1, n * hidden), row(2, head_dim), bytes(3), bytes(4));
            let (scales, factors, bias) = (row(5, head_dim), row(6, hidden), row(7, head_dim));
            let head = Head {
                x: &x,
                query: &query,
                keys: (&keys, &scales),
                values: (&values, &scales),
                factors: &factors,
                bias: &bias,
            };
            let by = |way: fn(Head<'_>, &mut [f32], &mut [f32], &mut [f32])| -> Vec<u32> {
                let mut out = vec![7f32; head_dim];
                way(head, &mut vec![7f32; hidden], &mut vec![7f32; n], &mut out);
                out.iter().map(|x| x.to_bits()).collect()
            };
            assert_eq!(by(attend), by(by_the_compiler), "{n} {head_dim} {hidden}");
        }
    }

    #[test]
    fn of_no_sequence_there_is_no_context() {
        let qkv = Int8Linear { weight: Arc::new(weight(1, 4)), bias: vec![0.0; 12] };
        assert!(OneQuery::new(&qkv, 2).context(&[], &[], &[]).is_empty());
    }
}
