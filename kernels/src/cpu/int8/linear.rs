//! A small layer of floats on top of integers: sums in sixteen lanes, which are then added by halves,
//! never fused, so that what comes out is equal to the bit everywhere.

use crate::cpu::dispatch;
use crate::cpu::math::{by_halves, one_by_one, tanh};

#[inline(always)]
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
    for (index, (x, y)) in x.iter().zip(y).enumerate() {
        one_by_one(index);
        sums = std::array::from_fn(|lane| sums[lane] + x[lane] * y[lane]);
    }
    for ((sum, x), y) in sums.iter_mut().zip(x_rest).zip(y_rest) {
        *sum += x * y;
    }
    by_halves(sums, |x, y| x + y)
}

dispatch! {
/// `x · weightᵀ + bias` of a row: weight `[out, in]`.
pub fn linear_row(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) {
    for ((out, weight), bias) in out.iter_mut().zip(weight.chunks_exact(x.len().max(1))).zip(bias) {
        *out = dot(x, weight) + bias;
    }
}
}

dispatch! {
/// The hyperbolic tangent of each.
pub fn tanh_row(row: &mut [f32]) {
    row.iter_mut().for_each(|x| *x = tanh(*x));
}
}
