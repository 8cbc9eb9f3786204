//! Activations as unsigned 7-bit integers, with a scale and a zero point a row.

use std::f32::consts::LOG2_E;

use bytemuck::Zeroable;

use super::Tile;
use crate::cpu::buffer::Line;
use crate::cpu::dispatch;
use crate::cpu::exact::exp2_times_127;
use crate::cpu::gemm::prefetch;
use crate::cpu::lanes::{Destination, Lanes, Map, ROUND, constant, map_to_integers, range};

/// Quantised rows: `x = (q − zero) · scale`.
#[derive(Debug, Default)]
pub struct QuantizedRows {
    data: Vec<Line>,
    /// Bytes from one row to the next.
    pub(super) stride: usize,
    pub(super) scales: Vec<f32>,
    pub(super) zeros: Vec<i32>,
}

/// The largest activation.
pub(in crate::cpu) const MOST: f32 = 127.0;
impl QuantizedRows {
    /// Room for so many rows of so many columns. What lies behind a row and behind the last one is of
    /// no account: weights are 0 there, and nobody looks at such rows' products. But where a tile has a
    /// tail that is a sum over the row, there must be zeros before it.
    pub fn begin(&mut self, tile: &Tile, rows: usize, columns: usize) {
        self.stride = tile.row_bytes(columns.next_multiple_of(tile.depth));
        // Where a tile's rows would crowd into few sets of the first cache, they are a line apart more.
        if tile.rows >= 16 && self.stride.is_multiple_of(16 * size_of::<Line>()) {
            self.stride += size_of::<Line>();
        }
        let size = rows.next_multiple_of(tile.rows) * self.stride;
        let lines = size.div_ceil(size_of::<Line>());
        if self.data.len() < lines {
            self.data.resize(lines, Line::zeroed());
        }
        self.scales.clear();
        self.zeros.clear();
    }

    /// Takes up one row of scores as probabilities: integers of 127 · e^((x − most) · scale), of
    /// which the scale is one by their sum, so that what they stand for adds up to 1. `most` is the
    /// largest score.
    pub(super) fn push_probabilities(
        &mut self,
        tile: &Tile,
        scores: &[f32],
        most: f32,
        scale: f32,
    ) {
        let row = self.scales.len();
        let (mut sum, map) = (0, Exponential { most, scale: scale * LOG2_E });
        self.put(tile, row, scores.len(), |out| exponentials(scores, map, out, &mut sum));
        self.scales.push(1.0 / sum as f32);
        self.zeros.push(0);
    }

    /// Takes up one row, whose numbers lie between these two; 0 is one of them or lies between.
    pub fn push(&mut self, tile: &Tile, x: &[f32], range: (f32, f32)) {
        let (scale, inverse, zero) = scale(range);
        let (row, map) = (self.scales.len(), Quantise { inverse, zero: zero as f32 });
        self.put(tile, row, x.len(), |out| quantise_row(x, map, out, &mut 0));
        self.scales.push(scale);
        self.zeros.push(zero);
    }

    /// Takes up rows `[count, columns]`, `ld` apart.
    pub fn quantise(
        &mut self,
        tile: &Tile,
        x: &[f32],
        ld: usize,
        (count, columns): (usize, usize),
    ) {
        self.begin(tile, count, columns);
        for row in 0..count {
            // The next row comes from a farther cache meanwhile.
            if row + 1 < count {
                prefetch(&x[(row + 1) * ld..][..columns]);
            }
            let x = &x[row * ld..][..columns];
            self.push(tile, x, range(x));
        }
    }

    /// All rows' bytes.
    pub(super) fn data(&self) -> &[u8] {
        bytemuck::cast_slice(&self.data)
    }

    /// Writes a row's integers, as wide as the tile reads them.
    fn put(&mut self, tile: &Tile, row: usize, columns: usize, fill: impl FnOnce(Destination<'_>)) {
        let data: &mut [u8] = bytemuck::cast_slice_mut(&mut self.data);
        let out = &mut data[row * self.stride..][..columns * tile.activation_bytes];
        if tile.activation_bytes == 1 {
            return fill(Destination::Bytes(out));
        }
        fill(Destination::Words(bytemuck::cast_slice_mut(out)));
        if let Some(tail) = tile.tail {
            let size = tile.row_bytes(columns.next_multiple_of(tile.depth));
            let row = &mut data[row * self.stride..][..size];
            row[columns * tile.activation_bytes..].fill(0);
            (tail.fill)(row);
        }
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
pub(super) struct Quantise {
    pub inverse: f32,
    pub zero: f32,
}

impl Map for Quantise {
    #[inline(always)]
    fn on<T: Lanes>(self, x: T) -> T {
        let round = constant!(T, ROUND);
        let q = x * T::splat(self.inverse) + round + T::splat(self.zero);
        q.or_larger(round).or_smaller(constant!(T, ROUND + MOST))
    }

    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    fn by_hand(self, x: &[f32], out: Destination<'_>) -> i32 {
        crate::cpu::lanes::quantise(x, self.inverse, self.zero, out)
    }
}

dispatch! {
/// Numbers become integers; `sum` is their sum.
pub(super) fn quantise_row(x: &[f32], map: Quantise, out: Destination<'_>, sum: &mut i32) {
    *sum = map_to_integers(map, x, out);
}
}

/// 127 · 2^((x − most) · scale), rounded.
#[derive(Clone, Copy)]
pub(super) struct Exponential {
    pub most: f32,
    pub scale: f32,
}

impl Map for Exponential {
    #[inline(always)]
    fn on<T: Lanes>(self, x: T) -> T {
        exp2_times_127((x - T::splat(self.most)) * T::splat(self.scale)) + constant!(T, ROUND)
    }

    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    fn by_hand(self, x: &[f32], out: Destination<'_>) -> i32 {
        crate::cpu::lanes::probabilities(x, self.most, self.scale, out)
    }
}

dispatch! {
/// Scores become integers; `sum` is their sum.
pub(super) fn exponentials(scores: &[f32], map: Exponential, out: Destination<'_>, sum: &mut i32) {
    *sum = map_to_integers(map, scores, out);
}
}
