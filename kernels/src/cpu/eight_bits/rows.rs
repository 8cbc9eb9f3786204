//! Rows as unsigned integers of 8 bits.

use super::{LEAST, Panels8, Product, ROUND, Zeros};
use crate::cpu::gemm::Blocks;
use crate::cpu::int8::Tile;
use crate::cpu::lanes::range;
use crate::cpu::math::{each, lanes, one_by_one};
use crate::cpu::{Buffer, Element, dispatch};

/// Quantised rows: `x · factors = (q − zero) · scale`.
pub struct Rows8 {
    /// Rows of whole tiles, `stride` bytes apart, with their scales and zero points.
    data: Buffer<u8>,
    stride: usize,
    scales: Vec<f32>,
    zeros: Vec<i32>,
}

/// The largest integer.
const MOST: f32 = 255.0;

impl Rows8 {
    /// Takes up rows of `width`, `ld` apart, each column times its factor where there are factors.
    /// What lies behind a row and behind the last one is of no account: weights are 0 there, and
    /// nobody looks at such rows' products.
    pub fn of<E: Element>(
        tile: &Tile,
        (rows, ld): (&[E], usize),
        (count, width): (usize, usize),
        factors: &[f32],
    ) -> Self {
        let mut stride = width.next_multiple_of(tile.depth);
        // Where a tile's rows would crowd into few sets of the first cache, they are a line apart more.
        const LINE: usize = 64;
        if stride.is_multiple_of(16 * LINE) {
            stride += LINE;
        }
        let mut data = Buffer::any(count.next_multiple_of(tile.rows) * stride);
        let padded = count.next_multiple_of(tile.rows);
        let (mut scales, mut zeros) = (vec![0f32; padded], vec![0i32; padded]);
        let mut x = vec![0f32; width];
        for (row, out) in data.chunks_exact_mut(stride).take(count).enumerate() {
            let from = &rows[row * ld..][..width];
            let (scale, zero) = (&mut scales[row], &mut zeros[row]);
            quantise(from, factors, &mut x, &mut out[..width], scale, zero);
        }
        Self { data, stride, scales, zeros }
    }

    /// Their products with a panel, of as many rows as whole tiles have.
    pub fn product<'a>(&'a self, panels: &'a Panels8, panel: usize) -> Product<'a> {
        let (b, sums, scales) = panels.panel(panel);
        Product {
            a: (&self.data, self.stride),
            b,
            depth: panels.depth(),
            rows: self.scales.len(),
            blocks: Blocks::ONE,
            row_scales: (&self.scales, 0),
            zeros: Zeros::Each(&self.zeros),
            sums,
            scales,
            column_stride: 0,
        }
    }
}

dispatch! {
/// A row's integers, their scale and zero point. `x` is room for the row.
fn quantise<E: Element>(
    row: &[E],
    factors: &[f32],
    x: &mut [f32],
    out: &mut [u8],
    scale: &mut f32,
    zero: &mut i32,
) {
    if factors.is_empty() {
        x.iter_mut().zip(row).for_each(|(x, from)| *x = from.get());
    } else {
        let both = row.iter().zip(factors);
        x.iter_mut().zip(both).for_each(|(x, (from, factor))| *x = from.get() * factor);
    }
    let (least, most) = range(x);
    // No number stays none, nor does an infinite one pass for another.
    let bad = lanes(x, x, |x, _| 0.0 * x);
    let width = most - least;
    if width < LEAST {
        (*scale, *zero) = (bad, 0);
        out.fill(0);
        return;
    }
    let inverse = MOST / width;
    let at_zero = (-least * inverse + ROUND) - ROUND;
    *scale = width / MOST + bad;
    *zero = at_zero as i32;
    let (whole, rest) = x.as_chunks::<16>();
    let (whole_out, rest_out) = out.as_chunks_mut::<16>();
    for (index, (x, out)) in whole.iter().zip(whole_out).enumerate() {
        one_by_one(index);
        *out = each(|i| integer(x[i], inverse, at_zero));
    }
    rest_out.iter_mut().zip(rest).for_each(|(out, x)| *out = integer(*x, inverse, at_zero));
}
}

#[inline(always)]
fn integer(x: f32, inverse: f32, zero: f32) -> u8 {
    (x * inverse + ROUND + zero).clamp(ROUND, ROUND + MOST).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Bf16;
    use crate::cpu::eight_bits::tile;
    use crate::dropout::normal;

    fn check<E: Element>(width: usize) {
        let (ld, sizes) = (width + 3, [1.0, 0.0, 1e-38, 1e-20, 1e18, -3.0, 1.0]);
        let mut rows = vec![E::new(f32::NAN); sizes.len() * ld];
        for (row, size) in rows.chunks_mut(ld).zip(sizes) {
            for (i, x) in row[..width].iter_mut().enumerate() {
                let x0 = normal(1, i as u64);
                // The sixth has one sign alone.
                *x = E::new(if size < 0.0 { size * x0.abs() } else { size * x0 });
            }
        }
        rows[6 * ld + width / 2] =
            E::new(if width.is_multiple_of(2) { f32::NAN } else { f32::INFINITY });
        let factors: Vec<f32> = (0..width).map(|i| 0.5 + normal(2, i as u64).abs()).collect();
        for factors in [&[], &*factors] {
            let found = Rows8::of(&tile(), (&rows, ld), (sizes.len(), width), factors);
            let each = rows.chunks(ld).zip(found.data.chunks(found.stride));
            for (row, (x, q)) in each.enumerate().take(sizes.len()) {
                let (scale, zero) = (found.scales[row], found.zeros[row]);
                if row == 6 {
                    assert!(!scale.is_finite(), "what is no number stays none");
                    continue;
                }
                let factor = |i: usize| factors.get(i).copied().unwrap_or(1.0);
                let x: Vec<f32> = (0..width).map(|i| x[i].get() * factor(i)).collect();
                let least = x.iter().fold(0f32, |least, x| least.min(*x));
                let most = x.iter().fold(0f32, |most, x| most.max(*x));
                if most - least >= LEAST {
                    assert!((scale * 255.0 / (most - least) - 1.0).abs() < 1e-5, "{scale}");
                }
                for (x, q) in x.iter().zip(q) {
                    let error = ((i32::from(*q) - zero) as f32 * scale - x).abs();
                    // The zero point is rounded, too.
                    let bound = scale.max(LEAST);
                    assert!(error <= 1.001 * bound, "row {row} of {width}: {x}, {q}, {zero}");
                }
                assert!(
                    zero == 0 || x.iter().zip(q).all(|(x, q)| *x != 0.0 || i32::from(*q) == zero)
                );
            }
        }
    }

    #[test]
    fn rows_are_what_their_integers_say() {
        for width in [1, 2, 15, 16, 37, 384] {
            check::<f32>(width);
            check::<Bf16>(width);
        }
    }
}
