//! Activations as unsigned 7-bit integers, with a scale and a zero point a row.

use super::{DEPTH, Tile};
use crate::cpu::dispatch;
use crate::cpu::math::exp;

/// Quantised rows: `x = (q − zero) · scale`.
#[derive(Debug, Default)]
pub struct QuantizedRows {
    pub(super) data: Vec<u8>,
    /// Bytes from one row to the next.
    pub(super) stride: usize,
    pub(super) scales: Vec<f32>,
    pub(super) zeros: Vec<i32>,
}

/// The largest activation.
pub(super) const MOST: f32 = 127.0;
/// Added to a float of up to 2^22, it rounds it to the nearest integer, ties to even, which then
/// is in the lower bits.
const ROUND: f32 = 12_582_912.0;

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
        let out = &mut self.data[row * self.stride..][..self.stride];
        let mut sum = 0;
        match tile.activation_bytes {
            1 => exponentials::<u8>(scores, scale, out, &mut sum),
            _ => exponentials::<u16>(scores, scale, bytemuck::cast_slice_mut(out), &mut sum),
        }
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
            let x = &x[row * ld..][..columns];
            let out = &mut self.data[row * self.stride..][..self.stride];
            let mut found = (1.0, 0);
            match tile.activation_bytes {
                1 => quantise_row::<u8>(x, out, &mut found),
                _ => quantise_row::<u16>(x, bytemuck::cast_slice_mut(out), &mut found),
            }
            self.scales.push(found.0);
            self.zeros.push(found.1);
        }
    }
}

/// The least and the largest, 0 among them.
#[inline(always)]
fn range(x: &[f32]) -> (f32, f32) {
    let (mut least, mut most) = ([0f32; 16], [0f32; 16]);
    let (whole, rest) = x.as_chunks::<16>();
    for chunk in whole {
        for ((least, most), x) in least.iter_mut().zip(&mut most).zip(chunk) {
            *least = if *x < *least { *x } else { *least };
            *most = if *x > *most { *x } else { *most };
        }
    }
    for ((least, most), x) in least.iter_mut().zip(&mut most).zip(rest) {
        *least = if *x < *least { *x } else { *least };
        *most = if *x > *most { *x } else { *most };
    }
    let least = least.into_iter().fold(0.0, |a, b| if b < a { b } else { a });
    (least, most.into_iter().fold(0.0, |a, b| if b > a { b } else { a }))
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

/// An activation's integer as a tile reads it.
pub trait Unsigned: bytemuck::Pod {
    /// Of 0…127.
    fn new(q: i32) -> Self;
}

impl Unsigned for u8 {
    #[inline(always)]
    fn new(q: i32) -> Self {
        q as u8
    }
}

impl Unsigned for u16 {
    #[inline(always)]
    fn new(q: i32) -> Self {
        q as u16
    }
}

dispatch! {
fn quantise_row<U: Unsigned>(x: &[f32], out: &mut [U], found: &mut (f32, i32)) {
    let (scale, inverse, zero) = scale(range(x));
    for (out, x) in out.iter_mut().zip(x) {
        *out = U::new((rounded(x * inverse) + zero).clamp(0, MOST as i32));
    }
    *found = (scale, zero);
}
}

dispatch! {
/// Scores become integers; `sum` is their sum.
fn exponentials<U: Unsigned>(scores: &[f32], scale: f32, out: &mut [U], sum: &mut i32) {
    let mut most = [f32::NEG_INFINITY; 16];
    for chunk in scores.chunks(16) {
        for (most, x) in most.iter_mut().zip(chunk) {
            *most = if *x > *most { *x } else { *most };
        }
    }
    let most = most.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
    let mut total = 0;
    for (out, x) in out.iter_mut().zip(scores) {
        let q = rounded(exp::<false>((*x - most) * scale) * MOST);
        *out = U::new(q);
        total += q;
    }
    *sum = total;
}
}
