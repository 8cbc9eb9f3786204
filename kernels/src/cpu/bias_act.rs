//! A bias and a non-linearity, behind a product.

use super::dispatch;
use super::math::normal;
use super::parallel::{column_sums, for_rows};
use crate::Activation;

/// `activation(x + bias)`: x `[T, N]`, bias `[N]` → `[T, N]`.
pub fn forward(x: &[f32], bias: &[f32], activation: Activation) -> Vec<f32> {
    let width = bias.len();
    let mut out = vec![0f32; x.len()];
    for_rows(&mut out, width, |row, out| {
        let x = &x[row * width..][..out.len()];
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            match activation {
                Activation::Gelu => gelu(x, bias, out),
                Activation::GeluTanh => gelu_tanh(x, bias, out),
                Activation::Relu => relu(x, bias, out),
                Activation::Identity => add(x, bias, out),
            }
        }
    });
    out
}

/// The gradients of x, `[T, N]`, and of the bias, `[N]`.
pub fn backward(
    x: &[f32],
    bias: &[f32],
    grad: &[f32],
    activation: Activation,
) -> (Vec<f32>, Vec<f32>) {
    let width = bias.len();
    let mut dx = vec![0f32; x.len()];
    for_rows(&mut dx, width, |row, dx| {
        let at = row * width;
        let (x, grad) = (&x[at..][..dx.len()], &grad[at..][..dx.len()]);
        let rows = x.chunks_exact(width).zip(grad.chunks_exact(width));
        for ((x, grad), dx) in rows.zip(dx.chunks_exact_mut(width)) {
            match activation {
                Activation::Gelu => gelu_backward(x, bias, grad, dx),
                Activation::GeluTanh => gelu_tanh_backward(x, bias, grad, dx),
                Activation::Relu => relu_backward(x, bias, grad, dx),
                Activation::Identity => dx.copy_from_slice(grad),
            }
        }
    });
    let rows = x.len() / width.max(1);
    let dbias =
        column_sums(rows, width, |from, to, sums| add_rows(&dx[from * width..to * width], sums));
    (dx, dbias)
}

dispatch! {
/// Adds every row of x to the sums.
pub fn add_rows(x: &[f32], sums: &mut [f32]) {
    for row in x.chunks_exact(sums.len()) {
        sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
    }
}
}

dispatch! {
fn add(x: &[f32], bias: &[f32], out: &mut [f32]) {
    for ((out, x), bias) in out.iter_mut().zip(x).zip(bias) {
        *out = x + bias;
    }
}
}

dispatch! {
fn relu(x: &[f32], bias: &[f32], out: &mut [f32]) {
    for ((out, x), bias) in out.iter_mut().zip(x).zip(bias) {
        *out = (x + bias).max(0.0);
    }
}
}

dispatch! {
fn relu_backward(x: &[f32], bias: &[f32], grad: &[f32], dx: &mut [f32]) {
    for (((dx, x), bias), grad) in dx.iter_mut().zip(x).zip(bias).zip(grad) {
        *dx = if x + bias > 0.0 { *grad } else { 0.0 };
    }
}
}

dispatch! {
fn gelu(x: &[f32], bias: &[f32], out: &mut [f32]) {
    for ((out, x), bias) in out.iter_mut().zip(x).zip(bias) {
        let x = x + bias;
        *out = x * normal(x).0;
    }
}
}

dispatch! {
fn gelu_backward(x: &[f32], bias: &[f32], grad: &[f32], dx: &mut [f32]) {
    for (((dx, x), bias), grad) in dx.iter_mut().zip(x).zip(bias).zip(grad) {
        let x = x + bias;
        let (cdf, density) = normal(x);
        *dx = grad * (cdf + x * density);
    }
}
}

/// √(2/π) and the cubic's coefficient, of Hendrycks and Gimpel's approximation.
const TANH: (f32, f32) = (0.797_884_6, 0.044_715);

fn gelu_tanh(x: &[f32], bias: &[f32], out: &mut [f32]) {
    for ((out, x), bias) in out.iter_mut().zip(x).zip(bias) {
        let x = x + bias;
        *out = 0.5 * x * (1.0 + (TANH.0 * (x + TANH.1 * x * x * x)).tanh());
    }
}

fn gelu_tanh_backward(x: &[f32], bias: &[f32], grad: &[f32], dx: &mut [f32]) {
    for (((dx, x), bias), grad) in dx.iter_mut().zip(x).zip(bias).zip(grad) {
        let x = x + bias;
        let t = (TANH.0 * (x + TANH.1 * x * x * x)).tanh();
        let inner = TANH.0 * (1.0 + 3.0 * TANH.1 * x * x);
        *dx = grad * (0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner);
    }
}
