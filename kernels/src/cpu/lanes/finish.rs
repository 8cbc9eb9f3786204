//! Integer products on their way out: they become floats, and what follows happens to these while
//! they are at hand.

use super::Lanes;
use crate::cpu::dispatch;

/// What becomes of a product and its column's bias.
pub trait Finish: Copy {
    /// Whether it is GELU of their sum.
    const IS_GELU: bool = false;

    /// In as many lanes as there are.
    fn on<T: Lanes>(self, product: T, bias: T) -> T;
}

/// Products of some columns: `(integer − zero · sum) · (scale of the row · of the column)`.
#[derive(Debug, Clone, Copy)]
pub struct Products<'a> {
    /// Rows of at least as many as there are columns, `ld` apart.
    pub integers: &'a [i32],
    /// From one row to the next.
    pub ld: usize,
    /// The rows' scales.
    pub row_scales: &'a [f32],
    /// The rows' zero points.
    pub zeros: &'a [i32],
    /// The columns' sums of weights.
    pub sums: &'a [i32],
    /// The columns' scales.
    pub scales: &'a [f32],
    /// The columns' biases.
    pub bias: &'a [f32],
}

impl Products<'_> {
    /// How many rows there are.
    #[inline(always)]
    pub fn rows(&self) -> usize {
        self.row_scales.len()
    }

    /// A row's integers, zero point and scale.
    #[inline(always)]
    pub fn row(&self, row: usize) -> (&[i32], i32, f32) {
        let integers = &self.integers[row * self.ld..][..self.scales.len()];
        (integers, self.zeros[row], self.row_scales[row])
    }

    /// The columns of a row behind whole vectors of `N`.
    #[cfg(any(target_arch = "x86_64", target_arch = "wasm32"))]
    #[inline(always)]
    pub fn rest<const N: usize>(
        &self,
        finish: impl Finish,
        row: usize,
        out: &mut [f32],
        extremes: &mut [Extremes],
    ) {
        let whole = self.scales.len() / N * N;
        for (column, out) in out[..self.scales.len()].iter_mut().enumerate().skip(whole) {
            *out = self.one(finish, row, column);
            if let Some(extremes) = extremes.get_mut(row) {
                extremes.add(&[*out], &[*out]);
            }
        }
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "wasm32"))]
    #[inline(always)]
    fn one(&self, finish: impl Finish, row: usize, column: usize) -> f32 {
        let (integers, zero, scale) = self.row(row);
        let integer = integers[column] - zero * self.sums[column];
        finish.on(integer as f32 * (scale * self.scales[column]), self.bias[column])
    }
}

/// The least and the largest number of a row, in lanes.
#[derive(Debug, Clone, Copy)]
pub struct Extremes {
    pub(super) least: [f32; 16],
    pub(super) most: [f32; 16],
}

impl Extremes {
    /// Of 0 alone.
    pub const ZERO: Self = Self { least: [0.0; 16], most: [0.0; 16] };
    /// Of no number.
    pub const NONE: Self = Self { least: [f32::INFINITY; 16], most: [f32::NEG_INFINITY; 16] };

    /// Takes up what was seen in up to sixteen lanes.
    #[inline(always)]
    pub fn add(&mut self, least: &[f32], most: &[f32]) {
        self.least.iter_mut().zip(least).for_each(|(all, x)| *all = all.or_smaller(*x));
        self.most.iter_mut().zip(most).for_each(|(all, x)| *all = all.or_larger(*x));
    }

    /// The least and the largest.
    pub fn range(&self) -> (f32, f32) {
        let [least, most] = [self.least, self.most];
        (
            least.into_iter().fold(f32::INFINITY, f32::or_smaller),
            most.into_iter().fold(f32::NEG_INFINITY, f32::or_larger),
        )
    }
}

/// Finishes products: rows of `out` are `ld` apart. Where there are extremes, one a row, they take
/// up what came out.
pub fn finish<F: Finish>(
    finish: F,
    products: &Products<'_>,
    out: &mut [f32],
    ld: usize,
    extremes: &mut [Extremes],
) {
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    return match extremes {
        [] => super::wide::finish::<F, false>(finish, products, out, ld, &mut []),
        _ => super::wide::finish::<F, true>(finish, products, out, ld, extremes),
    };
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::isa() == crate::cpu::Isa::Avx2 {
        // SAFETY: the processor has AVX2.
        return unsafe {
            match extremes {
                [] => super::avx2::finish::<false>(finish, products, out, ld, &mut []),
                _ => super::avx2::finish::<true>(finish, products, out, ld, extremes),
            }
        };
    }
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::isa() >= crate::cpu::Isa::Avx512 {
        // SAFETY: the processor has AVX-512.
        return unsafe {
            match extremes {
                [] => super::avx512::finish::<false>(finish, products, out, ld, &mut []),
                _ => super::avx512::finish::<true>(finish, products, out, ld, extremes),
            }
        };
    }
    #[allow(unreachable_code)]
    by_the_compiler(finish, products, out, ld, extremes)
}

dispatch! {
/// [`finish`] in loops of which compilers make vectors.
fn by_the_compiler<F: Finish>(
    finish: F,
    products: &Products<'_>,
    out: &mut [f32],
    ld: usize,
    extremes: &mut [Extremes],
) {
    let width = products.scales.len();
    for (row, out) in out.chunks_mut(ld).enumerate().take(products.rows()) {
        let (integers, zero, scale) = products.row(row);
        let out = &mut out[..width];
        let columns = products.sums.iter().zip(products.scales).zip(products.bias);
        for ((out, integer), ((sum, column_scale), bias)) in
            out.iter_mut().zip(integers).zip(columns)
        {
            let integer = integer - zero * sum;
            *out = finish.on(integer as f32 * (scale * column_scale), *bias);
        }
        if let Some(extremes) = extremes.get_mut(row) {
            let (whole, rest) = out.as_chunks::<16>();
            whole.iter().for_each(|x| extremes.add(x, x));
            extremes.add(rest, rest);
        }
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dropout::{hash, normal};

    #[derive(Clone, Copy)]
    struct TwiceAndBias;

    impl Finish for TwiceAndBias {
        fn on<T: Lanes>(self, product: T, bias: T) -> T {
            product + product + bias
        }
    }

    #[test]
    fn every_way_is_that_of_one_number_after_the_other() {
        for (rows, columns, ld, out_ld) in
            [(1, 1, 1, 1), (3, 15, 16, 17), (5, 96, 96, 100), (2, 70, 96, 70)]
        {
            let integers: Vec<i32> =
                (0..rows * ld).map(|i| hash(1, i as u64) as i32 % 100_000).collect();
            let floats =
                |seed, n: usize| (0..n as u64).map(|i| normal(seed, i)).collect::<Vec<f32>>();
            let (row_scales, scales, bias) =
                (floats(2, rows), floats(3, columns), floats(4, columns));
            let zeros: Vec<i32> = (0..rows as i32).map(|row| row * 40).collect();
            let sums: Vec<i32> = (0..columns as i32).map(|column| column * 17 - 400).collect();
            let products = Products {
                integers: &integers,
                ld,
                row_scales: &row_scales,
                zeros: &zeros,
                sums: &sums,
                scales: &scales,
                bias: &bias,
            };
            type Way = fn(TwiceAndBias, &Products<'_>, &mut [f32], usize, &mut [Extremes]);
            for way in [finish as Way, by_the_compiler as Way] {
                let mut out = vec![7.5f32; rows * out_ld];
                let mut extremes = vec![Extremes::NONE; rows];
                way(TwiceAndBias, &products, &mut out, out_ld, &mut extremes);
                for (row, (out, extremes)) in out.chunks(out_ld).zip(&extremes).enumerate() {
                    let (mut least, mut most) = (f32::INFINITY, f32::NEG_INFINITY);
                    for (column, x) in out[..columns].iter().enumerate() {
                        let integer = integers[row * ld + column] - zeros[row] * sums[column];
                        let product = integer as f32 * (row_scales[row] * scales[column]);
                        assert_eq!(*x, product + product + bias[column]);
                        (least, most) = (least.min(*x), most.max(*x));
                    }
                    assert_eq!(extremes.range(), (least, most));
                    assert!(out[columns..].iter().all(|x| *x == 7.5));
                }
                // Nobody need look at what comes out.
                let mut again = vec![7.5f32; rows * out_ld];
                way(TwiceAndBias, &products, &mut again, out_ld, &mut []);
                assert_eq!(again, out);
            }
        }
    }
}
