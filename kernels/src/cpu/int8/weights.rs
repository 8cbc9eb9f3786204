//! Floats as the signed integers of a weight.

use super::WEIGHT_LIMIT;
use crate::cpu::dispatch;
use crate::cpu::lanes::{Lanes, range, round_products};

/// The largest of a weight's integers.
const LIMIT: f32 = WEIGHT_LIMIT as f32;
/// What is smaller than this counts as 0: its inverse would be infinite.
const LEAST: f32 = 1e-30;

/// A row of weights as integers: gives their scale, 1 where all are 0.
pub fn quantise_weights(x: &[f32], integers: &mut [i8]) -> f32 {
    let mut scale = 1.0;
    quantise_row(x, integers, &mut scale);
    scale
}

/// Rows of as many columns as there are scales, `ld` apart, as integers `[rows, columns]`: each
/// column has a scale, 1 where all of it is 0.
pub fn quantise_columns(x: &[f32], ld: usize, scales: &mut [f32], integers: &mut [i8]) {
    let mut inverses = vec![0f32; scales.len()];
    columns(x, ld, scales, &mut inverses, integers);
}

/// The larger; `most` where x is not a number.
#[inline(always)]
fn larger(most: f32, x: f32) -> f32 {
    if x > most { x } else { most }
}

dispatch! {
fn quantise_row(x: &[f32], integers: &mut [i8], scale: &mut f32) {
    let (least, most) = range(x);
    let most = most.or_larger(-least);
    if most < LEAST {
        integers.fill(0);
        *scale = 1.0;
        return;
    }
    let inverses = [LIMIT / most; 64];
    for (q, x) in integers.chunks_mut(64).zip(x.chunks(64)) {
        round_products(x, &inverses[..x.len()], LIMIT, q);
    }
    *scale = most / LIMIT;
}
}

dispatch! {
fn columns(
    x: &[f32],
    ld: usize,
    scales: &mut [f32],
    inverses: &mut [f32],
    integers: &mut [i8],
) {
    scales.fill(0.0);
    for row in x.chunks(ld) {
        for (most, x) in scales.iter_mut().zip(row) {
            *most = larger(*most, x.abs());
        }
    }
    for (scale, inverse) in scales.iter_mut().zip(inverses.iter_mut()) {
        let is_there = *scale >= LEAST;
        *inverse = if is_there { LIMIT / *scale } else { 0.0 };
        *scale = if is_there { *scale / LIMIT } else { 1.0 };
    }
    for (row, integers) in x.chunks(ld).zip(integers.chunks_exact_mut(scales.len())) {
        round_products(&row[..integers.len()], inverses, LIMIT, integers);
    }
}
}
