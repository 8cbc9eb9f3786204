//! Dropout, residual and layer norm, in one pass over each row.
//!
//! Ba, Kiros and Hinton, Layer normalization (2016). The backward pass makes the normalised rows
//! again from the inputs.

use super::dispatch;
use super::parallel::{column_sums, for_rows, for_rows2};
use crate::Dropout;

/// What the norm works with.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Gain, `[H]`.
    pub weight: &'a [f32],
    /// Shift, `[H]`.
    pub bias: &'a [f32],
    /// Added to the variance.
    pub eps: f32,
    /// Applied to x, by index in row-major order.
    pub dropout: Option<Dropout>,
}

/// `LayerNorm(dropout(x) + residual)`, `[T, H]`.
pub fn forward(x: &[f32], residual: &[f32], norm: Norm<'_>) -> Vec<f32> {
    let width = norm.weight.len();
    let mut out = vec![0f32; x.len()];
    for_rows(&mut out, width, |first, block| {
        for (i, out) in block.chunks_exact_mut(width).enumerate() {
            let at = (first + i) * width;
            sum(&x[at..][..width], &residual[at..][..width], norm.dropout, at as u64, out);
            normalise(out, norm.weight, norm.bias, norm.eps);
        }
    });
    out
}

/// The gradients of x and of the residual, `[T, H]` each, and of weight and bias, `[2, H]`.
pub fn backward(
    x: &[f32],
    residual: &[f32],
    grad: &[f32],
    norm: Norm<'_>,
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let width = norm.weight.len();
    let rows = x.len() / width.max(1);
    // The normalised rows, then, in the same place, the gradient of x.
    let mut normed = vec![0f32; x.len()];
    let mut inverse = vec![0f32; rows];
    for_rows2((&mut normed, width), (&mut inverse, 1), |first, block, inverse| {
        let rows = block.chunks_exact_mut(width).zip(inverse);
        for (i, (row, inverse)) in rows.enumerate() {
            let at = (first + i) * width;
            sum(&x[at..][..width], &residual[at..][..width], norm.dropout, at as u64, row);
            let mut scale = [0f32];
            standardise(row, norm.eps, &mut scale);
            *inverse = scale[0];
        }
    });
    let parameters = column_sums(rows, 2 * width, |from, to, sums| {
        let (weight, bias) = sums.split_at_mut(width);
        for row in from..to {
            let at = row * width;
            add_products(&normed[at..][..width], &grad[at..][..width], weight, bias);
        }
    });
    let mut dresidual = vec![0f32; x.len()];
    for_rows2((&mut normed, width), (&mut dresidual, width), |first, block, dresidual| {
        let rows = block.chunks_exact_mut(width).zip(dresidual.chunks_exact_mut(width));
        for (i, (normed, dz)) in rows.enumerate() {
            let row = first + i;
            let grad = &grad[row * width..][..width];
            row_backward(normed, grad, norm.weight, inverse[row], dz);
            let at = (row * width) as u64;
            apply(dz, norm.dropout, at, normed);
        }
    });
    (normed, dresidual, parameters)
}

dispatch! {
/// `dropout(x) + residual`; `at` is the first element's index.
fn sum(x: &[f32], residual: &[f32], dropout: Option<Dropout>, at: u64, out: &mut [f32]) {
    match dropout {
        None => out.iter_mut().zip(x).zip(residual).for_each(|((o, x), r)| *o = x + r),
        Some(dropout) => {
            for (i, ((out, x), residual)) in out.iter_mut().zip(x).zip(residual).enumerate() {
                *out = x * dropout.multiplier(at + i as u64) + residual;
            }
        }
    }
}
}

dispatch! {
/// `dropout(x)`; `at` is the first element's index.
pub fn apply(x: &[f32], dropout: Option<Dropout>, at: u64, out: &mut [f32]) {
    match dropout {
        None => out.copy_from_slice(x),
        Some(dropout) => {
            for (i, (out, x)) in out.iter_mut().zip(x).enumerate() {
                *out = x * dropout.multiplier(at + i as u64);
            }
        }
    }
}
}

/// The sum of f(i) over a row in sixteen lanes: a fixed order that is also a vector's.
#[inline(always)]
fn lanes(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0f32; 16];
    let whole = n / 16 * 16;
    for start in (0..whole).step_by(16) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(start + lane);
        }
    }
    for i in whole..n {
        sums[i - whole] += f(i);
    }
    let mut half = 8;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

dispatch! {
/// To mean 0 and variance 1, in place; the factor that did it goes to `inverse`.
fn standardise(row: &mut [f32], eps: f32, inverse: &mut [f32; 1]) {
    let n = row.len();
    let mean = lanes(n, |i| row[i]) / n as f32;
    row.iter_mut().for_each(|x| *x -= mean);
    let variance = lanes(n, |i| row[i] * row[i]) / n as f32;
    let scale = 1.0 / (variance + eps).sqrt();
    row.iter_mut().for_each(|x| *x *= scale);
    *inverse = [scale];
}
}

fn normalise(row: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    standardise(row, eps, &mut [0.0]);
    affine(row, weight, bias);
}

dispatch! {
fn affine(row: &mut [f32], weight: &[f32], bias: &[f32]) {
    for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
        *x = *x * weight + bias;
    }
}
}

dispatch! {
fn add_products(normed: &[f32], grad: &[f32], weight: &mut [f32], bias: &mut [f32]) {
    for (((normed, grad), weight), bias) in normed.iter().zip(grad).zip(weight).zip(bias) {
        *weight += normed * grad;
        *bias += grad;
    }
}
}

dispatch! {
/// `dz = inverse · (g − mean(g) − normed · mean(g · normed))`, with `g = grad · weight`.
fn row_backward(normed: &[f32], grad: &[f32], weight: &[f32], inverse: f32, dz: &mut [f32]) {
    let n = normed.len();
    let (grad, weight) = (&grad[..n], &weight[..n]);
    let mean = lanes(n, |i| grad[i] * weight[i]) / n as f32;
    let along = lanes(n, |i| grad[i] * weight[i] * normed[i]) / n as f32;
    for (((dz, normed), grad), weight) in dz.iter_mut().zip(normed).zip(grad).zip(weight) {
        *dz = inverse * (grad * weight - mean - normed * along);
    }
}
}
