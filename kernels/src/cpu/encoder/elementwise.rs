//! What happens to a panel's products on their way out.

use crate::Activation;
use crate::cpu::math::{normal, one_by_one, tanh};
use crate::cpu::{Element, dispatch};

/// A panel's products `[rows, columns]`, and where they go.
#[derive(Debug)]
pub struct Panel<'a> {
    /// The products. An activation is applied to them here, in one long row: a loop over the
    /// columns of one row at a time would be over before a processor gets going.
    pub products: &'a mut [f32],
    /// The panel's columns.
    pub columns: usize,
    /// The first of them in the whole.
    pub first: usize,
    /// How many of them there are in the whole.
    pub width: usize,
}

impl<'a> Panel<'a> {
    /// A panel of a layer with so many outputs.
    pub fn new(products: &'a mut [f32], columns: usize, first: usize, outputs: usize) -> Self {
        Self { products, columns, first, width: columns.min(outputs - first) }
    }
}

/// Elements that are handled at once: compilers make vectors of them without asking first how many
/// there are.
const TOGETHER: usize = 16;

/// Sets `out` to f of it and of another row of its length.
#[inline(always)]
fn update<A: Copy, B: Copy>(out: &mut [A], row: &[B], f: impl Fn(A, B) -> A) {
    let ((out, out_rest), (row, row_rest)) =
        (out.as_chunks_mut::<TOGETHER>(), row.as_chunks::<TOGETHER>());
    for (index, (out, row)) in out.iter_mut().zip(row).enumerate() {
        one_by_one(index);
        *out = std::array::from_fn(|i| f(out[i], row[i]));
    }
    for (out, x) in out_rest.iter_mut().zip(row_rest) {
        *out = f(*out, *x);
    }
}

/// The products, rounded, to rows `ld` apart.
#[inline(always)]
fn put<E: Element>(panel: &Panel<'_>, out: &mut [E], ld: usize) {
    let Panel { columns, first, width, .. } = *panel;
    if E::round_rows(panel.products, columns, width, &mut out[first..], ld) {
        return;
    }
    for (row, out) in panel.products.chunks_exact(panel.columns).zip(out.chunks_mut(ld)) {
        update(&mut out[panel.first..][..panel.width], &row[..panel.width], |_, x| E::new(x));
    }
}

/// Adds the bias to the products.
#[inline(always)]
fn shift(panel: &mut Panel<'_>, bias: &[f32]) {
    let bias = &bias[panel.first..][..panel.width];
    for row in panel.products.chunks_exact_mut(panel.columns) {
        update(&mut row[..panel.width], bias, |x, bias| x + bias);
    }
}

/// Adds the columns of a block `[rows, columns]` up.
#[inline(always)]
fn add_columns(block: &[f32], columns: usize, sums: &mut [f32]) {
    for row in block.chunks_exact(columns) {
        update(sums, &row[..sums.len()], |sum, x| sum + x);
    }
}

dispatch! {
/// `products + bias`, rounded, to rows `ld` apart.
pub fn add_bias<E: Element>(panel: Panel<'_>, bias: &[f32], out: &mut [E], ld: usize) {
    let mut panel = panel;
    shift(&mut panel, bias);
    put(&panel, out, ld);
}
}

dispatch! {
/// The products themselves, rounded, to rows `ld` apart.
pub fn store<E: Element>(panel: Panel<'_>, out: &mut [E], ld: usize) {
    put(&panel, out, ld);
}
}

dispatch! {
/// Adds the products to rows `ld` apart.
pub fn add_to(panel: Panel<'_>, out: &mut [f32], ld: usize) {
    for (row, out) in panel.products.chunks_exact(panel.columns).zip(out.chunks_mut(ld)) {
        update(&mut out[panel.first..][..panel.width], &row[..panel.width], |out, x| out + x);
    }
}
}

dispatch! {
/// `before = products + bias`, rounded, and `out = activation(before)`, of the rounded value: the
/// backward pass sees no other. `before` is this panel's alone, and as wide; rows of `out` are `ld`
/// apart.
pub fn activate<E: Element>(
    panel: Panel<'_>,
    bias: &[f32],
    activation: Activation,
    before: &mut [E],
    out: &mut [E],
    ld: usize,
) {
    let mut panel = panel;
    shift(&mut panel, bias);
    let products = &mut *panel.products;
    let n = before.len().min(products.len());
    let rounded = E::round_rows(&products[..n], n, n, &mut before[..n], n);
    for (before, x) in before.iter_mut().zip(&mut *products) {
        if !rounded {
            *before = E::new(*x);
        }
        *x = before.get();
    }
    match activation {
        Activation::Gelu => products.iter_mut().for_each(|x| *x *= normal::<FMA>(*x).0),
        Activation::GeluTanh => products.iter_mut().for_each(|x| *x = gelu_tanh(*x).0),
        Activation::Relu => products.iter_mut().for_each(|x| *x = x.max(0.0)),
        Activation::Identity => {}
    }
    put(&panel, out, ld);
}
}

dispatch! {
/// The products are the gradient of what came out of the activation: `grad` becomes that of
/// `before`, which is this panel's alone; its columns' sums are added to `sums`, and `again` is what
/// came out. Rows of `grad` and `again` are `ld` apart. `made` is room for as many as the products.
pub fn activate_backward<E: Element>(
    panel: Panel<'_>,
    activation: Activation,
    before: &[E],
    grad: &mut [E],
    again: &mut [E],
    ld: usize,
    sums: &mut [f32],
    made: &mut [f32],
) {
    let Panel { products, columns, first, width } = panel;
    let made = &mut made[..products.len()];
    let each = products.iter_mut().zip(before).zip(&mut *made);
    match activation {
        Activation::Gelu => {
            for ((g, x), y) in each {
                let x = x.get();
                let (cdf, density) = normal::<FMA>(x);
                (*g, *y) = (*g * (cdf + x * density), x * cdf);
            }
        }
        Activation::GeluTanh => {
            for ((g, x), y) in each {
                let (value, slope) = gelu_tanh(x.get());
                (*g, *y) = (*g * slope, value);
            }
        }
        Activation::Relu => {
            for ((g, x), y) in each {
                let x = x.get();
                (*g, *y) = (if x > 0.0 { *g } else { 0.0 }, x.max(0.0));
            }
        }
        Activation::Identity => each.for_each(|((_, x), y)| *y = x.get()),
    }
    add_columns(products, columns, &mut sums[first..][..width]);
    put(&Panel { products, columns, first, width }, grad, ld);
    put(&Panel { products: made, columns, first, width }, again, ld);
}
}

dispatch! {
/// Adds the rows' columns up: rows of `width`, `ld` apart.
pub fn column_sums<E: Element>(rows: &[E], ld: usize, width: usize, sums: &mut [f32]) {
    for row in rows.chunks(ld) {
        sums[..width].iter_mut().zip(row).for_each(|(sum, x)| *sum += x.get());
    }
}
}

/// Hendrycks and Gimpel's approximation of GELU, and its slope: the same bits everywhere.
pub fn gelu_tanh(x: f32) -> (f32, f32) {
    const ROOT: f32 = 0.797_884_6; // √(2/π)
    const CUBIC: f32 = 0.044_715;
    let t = tanh(ROOT * (x + CUBIC * x * x * x));
    let inner = ROOT * (1.0 + 3.0 * CUBIC * x * x);
    (0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner)
}
