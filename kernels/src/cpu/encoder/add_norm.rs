//! Dropout, residual and layer norm behind a linear layer.
//!
//! Ba, Kiros and Hinton, Layer normalization (2016).

#[cfg(target_arch = "x86_64")]
mod avx512;

use crate::Dropout;
use crate::cpu::math::{by_halves, each, lanes, one_by_one};
use crate::cpu::parallel::Runs;
use crate::cpu::{Buffer, Element, dispatch};
#[cfg(target_arch = "x86_64")]
use crate::cpu::{Isa, isa};
use crate::gradients::GradientSlot;

/// A layer norm's parameters.
#[derive(Clone)]
pub struct Norm {
    /// Gain, `[H]`.
    pub weight: Vec<f32>,
    /// Shift, `[H]`.
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub eps: f32,
    /// Where the gradients of weight and bias go.
    pub gradients: Option<(GradientSlot, GradientSlot)>,
}

/// What a norm's backward pass needs: the normalised rows, and what they were multiplied by.
pub struct SavedNorm<E: Element> {
    /// `[rows, H]`
    pub normed: Buffer<E>,
    /// `[rows]`
    pub inverse: Buffer<f32>,
}

impl<E: Element> SavedNorm<E> {
    /// Room for so many rows.
    pub fn new(rows: usize, width: usize) -> Self {
        Self { normed: Buffer::any(rows * width), inverse: Buffer::any(rows) }
    }

    /// Each run's part.
    pub fn cut(&mut self, runs: Runs) -> Vec<NormRun<'_, E>> {
        let width = self.normed.len() / self.inverse.len().max(1);
        let normed = runs.cut(&mut self.normed, width).into_iter();
        let parts = normed.zip(runs.cut(&mut self.inverse, 1));
        parts.map(|(normed, inverse)| NormRun::Kept { normed, inverse, width }).collect()
    }
}

/// A run's part of [`SavedNorm`], or room for one row of it where nobody looks at it again.
pub enum NormRun<'a, E: Element> {
    /// Rows of `width`.
    Kept { normed: &'a mut [E], inverse: &'a mut [f32], width: usize },
    /// One row.
    Spare(Buffer<E>, f32),
}

impl<E: Element> NormRun<'_, E> {
    /// Room for one row.
    pub fn spare(width: usize) -> Self {
        Self::Spare(Buffer::any(width), 0.0)
    }

    /// The room for a row.
    pub fn row(&mut self, row: usize) -> (&mut [E], &mut f32) {
        match self {
            Self::Kept { normed, inverse, width } => {
                (&mut normed[row * *width..][..*width], &mut inverse[row])
            }
            Self::Spare(normed, inverse) => (normed, inverse),
        }
    }
}

/// Multiplies a row by its dropout; `at` is the first element's index.
#[inline(always)]
fn drop_row(row: &mut [f32], dropout: Option<Dropout>, at: u64) {
    let Some(dropout) = dropout else { return };
    let (whole, rest) = row.as_chunks_mut::<16>();
    let last = at + 16 * whole.len() as u64;
    for (index, row) in whole.iter_mut().enumerate() {
        let multipliers = dropout.multipliers(at + 16 * one_by_one(index) as u64);
        *row = std::array::from_fn(|lane| row[lane] * multipliers[lane]);
    }
    rest.iter_mut().zip(dropout.multipliers(last)).for_each(|(x, multiplier)| *x *= multiplier);
}

/// A row of `LayerNorm(x + shift + other)`.
pub fn norm_row(
    x: &mut [f32],
    shift: &[f32],
    other: &[f32],
    norm: &Norm,
    out: &mut [f32],
    normed: &mut [f32],
    inverse: &mut f32,
) {
    forward(x, shift, other, None, 0, norm, out, normed, inverse);
}

/// The same, where no backward pass follows, in as few passes as its sums allow. x is overwritten.
///
/// # Panics
/// When rows are not as long as each other: a caller's mistake.
pub fn norm_alone(x: &mut [f32], shift: &[f32], other: &[f32], norm: &Norm, out: &mut [f32]) {
    let n = x.len();
    assert!([shift, other, &norm.weight, &norm.bias, out].iter().all(|row| row.len() == n));
    #[cfg(target_arch = "x86_64")]
    if isa() >= Isa::Avx512 && avx512::takes(n) {
        // SAFETY: the processor has AVX-512.
        return unsafe { avx512::norm_alone(x, shift, other, norm, out) };
    }
    by_the_compiler(x, shift, other, norm, out);
}

dispatch! {
/// The same in loops of which compilers make vectors.
fn by_the_compiler(x: &mut [f32], shift: &[f32], other: &[f32], norm: &Norm, out: &mut [f32]) {
    let n = x.len();
    let (whole, rest) = x.as_chunks_mut::<16>();
    let (shift, rest_shift) = shift.as_chunks::<16>();
    let (other, rest_other) = other.as_chunks::<16>();
    let mut sums = [0f32; 16];
    for (index, (x, (shift, other))) in whole.iter_mut().zip(shift.iter().zip(other)).enumerate() {
        one_by_one(index);
        *x = each(|lane| x[lane] + shift[lane] + other[lane]);
        sums = each(|lane| sums[lane] + x[lane]);
    }
    let others = rest_shift.iter().zip(rest_other);
    for ((x, sum), (shift, other)) in rest.iter_mut().zip(&mut sums).zip(others) {
        *x = *x + shift + other;
        *sum += *x;
    }
    let mean = by_halves(sums, |x, y| x + y) / n as f32;
    let mut squares = [0f32; 16];
    for (index, x) in whole.iter_mut().enumerate() {
        one_by_one(index);
        *x = each(|lane| x[lane] - mean);
        squares = each(|lane| squares[lane] + x[lane] * x[lane]);
    }
    for (x, sum) in rest.iter_mut().zip(&mut squares) {
        *x -= mean;
        *sum += *x * *x;
    }
    let scale = 1.0 / (by_halves(squares, |x, y| x + y) / n as f32 + norm.eps).sqrt();
    for ((x, out), (weight, bias)) in x.iter().zip(out).zip(norm.weight.iter().zip(&norm.bias)) {
        *out = x * scale * weight + bias;
    }
}
}

/// The backward pass of [`norm_row`]; `dz` is the gradient of each of the three, and `same` equals
/// it.
#[allow(clippy::too_many_arguments)]
pub fn norm_row_backward(
    grad: &[f32],
    normed: &[f32],
    inverse: f32,
    weight: &[f32],
    x: &mut [f32],
    dz: &mut [f32],
    same: &mut [f32],
    sums: &mut [f32],
) {
    backward(grad, normed, inverse, weight, None, 0, x, dz, same, sums);
}

dispatch! {
/// A row of `LayerNorm(dropout(x + bias) + residual)`. x is overwritten. `at` is the index of its
/// first element for the dropout.
pub fn forward<E: Element>(
    x: &mut [f32],
    bias: &[f32],
    residual: &[f32],
    dropout: Option<Dropout>,
    at: u64,
    norm: &Norm,
    out: &mut [f32],
    normed: &mut [E],
    inverse: &mut f32,
) {
    let n = x.len();
    x.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
    drop_row(x, dropout, at);
    x.iter_mut().zip(residual).for_each(|(x, residual)| *x += residual);
    let mean = lanes(x, x, |x, _| x) / n as f32;
    x.iter_mut().for_each(|x| *x -= mean);
    let variance = lanes(x, x, |x, _| x * x) / n as f32;
    let scale = 1.0 / (variance + norm.eps).sqrt();
    *inverse = scale;
    x.iter_mut().zip(normed).for_each(|(x, normed)| {
        *x *= scale;
        *normed = E::new(*x);
    });
    for ((x, out), (weight, bias)) in x.iter().zip(out).zip(norm.weight.iter().zip(&norm.bias)) {
        *out = x * weight + bias;
    }
}
}

dispatch! {
/// The backward pass of a row: `dz` is the gradient of the residual, and `dx` that of x. Adds the
/// gradients of the norm's weight and bias, and of x's bias, to `sums` `[3, H]`. `x` is room for a
/// row.
///
/// `dz = inverse · (g − mean(g) − normed · mean(g · normed))`, with `g = grad · weight`.
pub fn backward<E: Element>(
    grad: &[f32],
    normed: &[E],
    inverse: f32,
    weight: &[f32],
    dropout: Option<Dropout>,
    at: u64,
    x: &mut [f32],
    dz: &mut [f32],
    dx: &mut [E],
    sums: &mut [f32],
) {
    let n = grad.len();
    let (weight_sums, rest) = sums.split_at_mut(n);
    let (bias_sums, x_sums) = rest.split_at_mut(n);
    // x's row holds the normalised one first.
    let x = x.split_at_mut(n).0;
    for ((x, normed), (grad, sum)) in x.iter_mut().zip(normed).zip(grad.iter().zip(weight_sums)) {
        *x = normed.get();
        *sum += grad * *x;
    }
    for ((sum, dz), (grad, weight)) in
        bias_sums.iter_mut().zip(dz.iter_mut()).zip(grad.iter().zip(weight))
    {
        *sum += grad;
        *dz = grad * weight;
    }
    let mean = lanes(dz, dz, |g, _| g) / n as f32;
    let along = lanes(dz, x, |g, x| g * x) / n as f32;
    dz.iter_mut().zip(x).for_each(|(dz, x)| *dz = inverse * (*dz - mean - *x * along));
    let multipliers = |first: usize| match dropout {
        Some(dropout) => dropout.multipliers(at + first as u64),
        None => [1.0; 16],
    };
    let (whole_dz, rest_dz) = dz.as_chunks::<16>();
    let (whole_dx, rest_dx) = dx[..n].as_chunks_mut::<16>();
    let (whole_sums, rest_sums) = x_sums[..n].as_chunks_mut::<16>();
    let whole = whole_dz.iter().zip(whole_dx).zip(whole_sums);
    for (index, ((dz, dx), sums)) in whole.enumerate() {
        let multipliers = multipliers(16 * one_by_one(index));
        let passed: [f32; 16] = each(|lane| dz[lane] * multipliers[lane]);
        *dx = each(|lane| E::new(passed[lane]));
        *sums = each(|lane| sums[lane] + passed[lane]);
    }
    let multipliers = multipliers(n - n % 16);
    for (((dz, dx), sum), multiplier) in
        rest_dz.iter().zip(rest_dx).zip(rest_sums).zip(multipliers)
    {
        let passed = dz * multiplier;
        *dx = E::new(passed);
        *sum += passed;
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dropout::normal;

    #[test]
    fn a_norm_alone_has_the_bits_of_one_with_a_backward_pass() {
        for n in [0, 1, 16, 40, 384, 400] {
            let row = |seed| (0..n as u64).map(|i| 3.0 * normal(seed, i)).collect::<Vec<f32>>();
            let norm = Norm { weight: row(1), bias: row(2), eps: 1e-12, gradients: None };
            let (shift, other) = (row(3), row(4));
            let (mut expected, mut found) = (vec![7f32; n], vec![7f32; n]);
            let (mut normed, mut inverse) = (vec![0f32; n], 0.0);
            norm_row(&mut row(5), &shift, &other, &norm, &mut expected, &mut normed, &mut inverse);
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            for way in [norm_alone, by_the_compiler] {
                way(&mut row(5), &shift, &other, &norm, &mut found);
                assert_eq!(bits(&found), bits(&expected), "{n}");
            }
        }
    }
}
