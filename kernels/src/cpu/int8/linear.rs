//! A small layer of floats on top of integers: sums in sixteen lanes, which are then added by halves,
//! never fused, so that what comes out is equal to the bit everywhere.

use crate::cpu::dispatch;
use crate::cpu::math::{lanes, tanh};

dispatch! {
/// `x · weightᵀ + bias` of a row: weight `[out, in]`.
pub fn linear_row(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
    for ((out, weight), bias) in out.iter_mut().zip(weight.chunks_exact(x.len().max(1))).zip(bias) {
        *out = lanes(x, weight, |x, y| x * y) + bias;
    }
}
}

dispatch! {
/// The hyperbolic tangent of each.
pub fn tanh_row(row: &mut [f32]) {
    row.iter_mut().for_each(|x| *x = tanh(*x));
}
}
