//! Activations as unsigned 7-bit integers, with a scale and a zero point a row.

use super::{DEPTH, Tile};
use crate::cpu::dispatch;
use crate::cpu::exact::exp_of_negative;
use crate::cpu::gemm::prefetch;
use crate::cpu::lanes::{Lanes, Map, ROUND, constant, largest, map_to_bytes, range};

/// Quantised rows: `x = (q − zero) · scale`.
#[derive(Debug, Default)]
pub struct QuantizedRows {
    pub(super) data: Vec<u8>,
    /// Bytes from one row to the next.
    pub(super) stride: usize,
    pub(super) scales: Vec<f32>,
    pub(super) zeros: Vec<i32>,
    /// A row's bytes, where a tile reads wider integers.
    bytes: Vec<u8>,
}

/// The largest activation.
pub(super) const MOST: f32 = 127.0;
impl QuantizedRows {
    /// Room for so many rows of so many columns, all of them zeros.
    pub(super) fn reset(&mut self, tile: &Tile, rows: usize, columns: usize) {
        self.stride = columns.next_multiple_of(DEPTH) * tile.activation_bytes;
        self.data.clear();
        self.data.resize(rows.next_multiple_of(tile.rows) * self.stride, 0);
        self.scales.clear();
        self.zeros.clear();
    }

    /// Takes up one row of scores as probabilities: integers of 127 · e^((x − most) · scale), of
    /// which the scale is one by their sum, so that what they stand for adds up to 1.
    pub(super) fn push_probabilities(&mut self, tile: &Tile, scores: &[f32], scale: f32) {
        let row = self.scales.len();
        let mut sum = 0;
        self.put(tile, row, scores.len(), |out| exponentials(scores, scale, out, &mut sum));
        self.scales.push(1.0 / sum as f32);
        self.zeros.push(0);
    }

    /// Takes up rows `[count, columns]`, `ld` apart.
    pub(super) fn quantise(
        &mut self,
        tile: &Tile,
        x: &[f32],
        ld: usize,
        (count, columns): (usize, usize),
    ) {
        self.reset(tile, count, columns);
        for row in 0..count {
            // The next row comes from a farther cache meanwhile.
            if row + 1 < count {
                prefetch(&x[(row + 1) * ld..][..columns]);
            }
            let x = &x[row * ld..][..columns];
            let mut found = (1.0, 0);
            self.put(tile, row, columns, |out| quantise_row(x, out, &mut found));
            self.scales.push(found.0);
            self.zeros.push(found.1);
        }
    }

    /// Writes a row's bytes, as wide as the tile reads them.
    fn put(&mut self, tile: &Tile, row: usize, columns: usize, fill: impl FnOnce(&mut [u8])) {
        let out = &mut self.data[row * self.stride..][..columns * tile.activation_bytes];
        if tile.activation_bytes == 1 {
            return fill(out);
        }
        self.bytes.resize(columns, 0);
        fill(&mut self.bytes);
        let wide: &mut [u16] = bytemuck::cast_slice_mut(out);
        wide.iter_mut().zip(&self.bytes).for_each(|(to, from)| *to = u16::from(*from));
    }
}

/// Scale, its inverse and the zero point of a range.
#[inline(always)]
fn scale((least, most): (f32, f32)) -> (f32, f32, i32) {
    let width = most - least;
    // A row of zeros, and one so narrow that its inverse is infinite.
    if width < 1e-30 {
        return (1.0, 1.0, 0);
    }
    let inverse = MOST / width;
    (width / MOST, inverse, rounded(-least * inverse))
}

/// The nearest integer, ties to even, of a float of up to 2^22.
#[inline(always)]
pub(super) fn rounded(x: f32) -> i32 {
    (x + ROUND).to_bits() as i32 - ROUND.to_bits() as i32
}

/// x · inverse, rounded, with the zero point.
#[derive(Clone, Copy)]
struct Quantise {
    inverse: f32,
    zero: f32,
}

impl Map for Quantise {
    #[inline(always)]
    fn on<T: Lanes>(self, x: T) -> T {
        let round = constant!(T, ROUND);
        let q = x * T::splat(self.inverse) + round + T::splat(self.zero);
        q.or_larger(round).or_smaller(constant!(T, ROUND + MOST))
    }
}

dispatch! {
fn quantise_row(x: &[f32], out: &mut [u8], found: &mut (f32, i32)) {
    let (scale, inverse, zero) = scale(range(x));
    map_to_bytes(Quantise { inverse, zero: zero as f32 }, x, out);
    *found = (scale, zero);
}
}

/// 127 · e^((x − most) · scale), rounded.
#[derive(Clone, Copy)]
struct Exponential {
    most: f32,
    scale: f32,
}

impl Map for Exponential {
    #[inline(always)]
    fn on<T: Lanes>(self, x: T) -> T {
        let x = (x - T::splat(self.most)) * T::splat(self.scale);
        exp_of_negative(x) * constant!(T, MOST) + constant!(T, ROUND)
    }
}

dispatch! {
/// Scores become integers; `sum` is their sum.
fn exponentials(scores: &[f32], scale: f32, out: &mut [u8], sum: &mut i32) {
    *sum = map_to_bytes(Exponential { most: largest(scores), scale }, scores, out);
}
}
