//! What happens to a panel's products on their way out.

use crate::Activation;
use crate::cpu::math::{normal, tanh};
use crate::cpu::{Element, dispatch};

/// A panel's products `[rows, columns]`, and where they go.
#[derive(Debug, Clone, Copy)]
pub struct Panel<'a> {
    /// The products.
    pub products: &'a [f32],
    /// The panel's columns.
    pub columns: usize,
    /// The first of them in the whole.
    pub first: usize,
    /// How many of them there are in the whole.
    pub width: usize,
}

impl<'a> Panel<'a> {
    /// A panel of a layer with so many outputs.
    pub fn new(products: &'a [f32], columns: usize, first: usize, outputs: usize) -> Self {
        Self { products, columns, first, width: columns.min(outputs - first) }
    }

    #[inline(always)]
    fn rows(&self) -> impl Iterator<Item = &'a [f32]> + use<'a> {
        let width = self.width;
        self.products.chunks_exact(self.columns).map(move |row| &row[..width])
    }
}

dispatch! {
/// `products + bias`, rounded, to rows `ld` apart.
pub fn add_bias<E: Element>(panel: &Panel<'_>, bias: &[f32], out: &mut [E], ld: usize) {
    let bias = &bias[panel.first..][..panel.width];
    for (row, out) in panel.rows().zip(out.chunks_mut(ld)) {
        let out = &mut out[panel.first..][..panel.width];
        for ((out, x), bias) in out.iter_mut().zip(row).zip(bias) {
            *out = E::new(x + bias);
        }
    }
}
}

dispatch! {
/// The products themselves, rounded, to rows `ld` apart.
pub fn store<E: Element>(panel: &Panel<'_>, out: &mut [E], ld: usize) {
    for (row, out) in panel.rows().zip(out.chunks_mut(ld)) {
        let out = &mut out[panel.first..][..panel.width];
        out.iter_mut().zip(row).for_each(|(out, x)| *out = E::new(*x));
    }
}
}

dispatch! {
/// Adds the products to rows `ld` apart.
pub fn add_to(panel: &Panel<'_>, out: &mut [f32], ld: usize) {
    for (row, out) in panel.rows().zip(out.chunks_mut(ld)) {
        let out = &mut out[panel.first..][..panel.width];
        out.iter_mut().zip(row).for_each(|(out, x)| *out += x);
    }
}
}

dispatch! {
/// `before = products + bias`, rounded, and `out = activation(before)`, of the rounded value: the
/// backward pass sees no other. `before` is this panel's alone, and as wide; rows of `out` are `ld`
/// apart.
pub fn activate<E: Element>(
    panel: &Panel<'_>,
    bias: &[f32],
    activation: Activation,
    before: &mut [E],
    out: &mut [E],
    ld: usize,
) {
    let bias = &bias[panel.first..][..panel.width];
    let rows = panel.rows().zip(before.chunks_mut(panel.columns)).zip(out.chunks_mut(ld));
    for ((row, before), out) in rows {
        let before = &mut before[..panel.width];
        let out = &mut out[panel.first..][..panel.width];
        for ((before, x), bias) in before.iter_mut().zip(row).zip(bias) {
            *before = E::new(x + bias);
        }
        match activation {
            Activation::Gelu => {
                for (out, x) in out.iter_mut().zip(&*before) {
                    let x = x.get();
                    *out = E::new(x * normal::<FMA>(x).0);
                }
            }
            Activation::GeluTanh => {
                for (out, x) in out.iter_mut().zip(&*before) {
                    *out = E::new(gelu_tanh(x.get()).0);
                }
            }
            Activation::Relu => {
                for (out, x) in out.iter_mut().zip(&*before) {
                    *out = E::new(x.get().max(0.0));
                }
            }
            Activation::Identity => out.copy_from_slice(before),
        }
    }
}
}

dispatch! {
/// The products are the gradient of what came out of the activation: `grad` becomes that of
/// `before`, which is this panel's alone; its columns' sums are added to `sums`, and `again` is what
/// came out. Rows of `grad` and `again` are `ld` apart.
pub fn activate_backward<E: Element>(
    panel: &Panel<'_>,
    activation: Activation,
    before: &[E],
    grad: &mut [E],
    again: &mut [E],
    ld: usize,
    sums: &mut [f32],
) {
    let (first, width) = (panel.first, panel.width);
    let sums = &mut sums[first..][..width];
    let rows = panel.rows().zip(before.chunks(panel.columns));
    for ((row, before), (grad, again)) in rows.zip(grad.chunks_mut(ld).zip(again.chunks_mut(ld))) {
        let before = &before[..width];
        let (grad, again) = (&mut grad[first..][..width], &mut again[first..][..width]);
        let columns = before.iter().zip(row).zip(grad).zip(again).zip(sums.iter_mut());
        match activation {
            Activation::Gelu => {
                for ((((x, g), grad), again), sum) in columns {
                    let x = x.get();
                    let (cdf, density) = normal::<FMA>(x);
                    let passed = g * (cdf + x * density);
                    (*grad, *again) = (E::new(passed), E::new(x * cdf));
                    *sum += passed;
                }
            }
            Activation::GeluTanh => {
                for ((((x, g), grad), again), sum) in columns {
                    let (y, slope) = gelu_tanh(x.get());
                    (*grad, *again) = (E::new(g * slope), E::new(y));
                    *sum += g * slope;
                }
            }
            Activation::Relu => {
                for ((((x, g), grad), again), sum) in columns {
                    let passed = if x.get() > 0.0 { *g } else { 0.0 };
                    (*grad, *again) = (E::new(passed), E::new(x.get().max(0.0)));
                    *sum += passed;
                }
            }
            Activation::Identity => {
                for ((((x, g), grad), again), sum) in columns {
                    (*grad, *again) = (E::new(*g), *x);
                    *sum += g;
                }
            }
        }
    }
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
