//! Four lanes at once in WebAssembly.

use std::arch::wasm32::*;
use std::ops::{Add, Mul, Sub};

use crate::cpu::exact::{EXP2, GELU};
use crate::cpu::math::by_halves;

use super::by_hand::{
    CUTS, pagebert_gelu, pagebert_probabilities_to_bytes, pagebert_probabilities_to_words,
    pagebert_softmax, pagebert_to_bytes, pagebert_to_words,
};
use super::{Constant, Destination, Extremes, Finish, Lanes, Products, rounded};

/// Four numbers.
#[derive(Clone, Copy)]
struct Four(v128);

macro_rules! operators {
    ($($operator:ident $method:ident $instruction:ident),*) => {$(
        impl $operator for Four {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self($instruction(self.0, other.0))
            }
        }
    )*};
}

operators!(Add add f32x4_add, Sub sub f32x4_sub, Mul mul f32x4_mul);

impl Lanes for Four {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        Self(f32x4_splat(x))
    }

    #[inline(always)]
    fn constant(x: &'static Constant) -> Self {
        // SAFETY: it is there and aligned. Volatile, or the compiler would make code of it.
        Self(unsafe { std::ptr::from_ref(x).cast::<v128>().read_volatile() })
    }

    #[inline(always)]
    fn or_larger(self, other: Self) -> Self {
        Self(f32x4_pmax(self.0, other.0))
    }

    #[inline(always)]
    fn or_smaller(self, other: Self) -> Self {
        Self(f32x4_pmin(self.0, other.0))
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        Self(i32x4_shl(i32x4_add(self.0, constant!(Self, f32::from_bits(127)).0), 23))
    }
}

#[inline(always)]
fn load(x: &[f32; 4]) -> Four {
    // SAFETY: four floats are there, and a vector need not be aligned.
    Four(unsafe { v128_load(x.as_ptr().cast()) })
}

/// See [`super::finish`].
pub fn finish<F: Finish, const LOOK: bool>(
    finish: F,
    products: &Products<'_>,
    out: &mut [f32],
    ld: usize,
    extremes: &mut [Extremes],
) {
    let (sums, _) = products.sums.as_chunks::<4>();
    let (scales, _) = products.scales.as_chunks::<4>();
    let (bias, _) = products.bias.as_chunks::<4>();
    for (row, out) in out.chunks_mut(ld).enumerate().take(products.rows()) {
        if F::IS_GELU && LOOK {
            gelu(products, row, out, &mut extremes[row]);
            products.rest::<8>(finish, row, out, extremes);
            continue;
        }
        let (integers, zero, row_scale) = products.row(row);
        let (zeros, row_scale) = (i32x4_splat(zero), Four::splat(row_scale));
        let whole = integers.as_chunks::<4>().0.iter().zip(out.as_chunks_mut::<4>().0);
        let whole = whole.zip(sums.iter().zip(scales).zip(bias));
        let seen = if LOOK { extremes[row] } else { Extremes::NONE };
        let (mut least, mut most) = (load(&first(seen.least)), load(&first(seen.most)));
        for ((integers, out), ((sums, scales), bias)) in whole {
            // SAFETY: chunks have four numbers, and a vector need not be aligned.
            let (integers, sums) =
                unsafe { (v128_load(integers.as_ptr().cast()), v128_load(sums.as_ptr().cast())) };
            let integers = i32x4_sub(integers, i32x4_mul(zeros, sums));
            let x = Four(f32x4_convert_i32x4(integers)) * (row_scale * load(scales));
            let y = finish.on(x, load(bias));
            if LOOK {
                (least, most) = (least.or_smaller(y), most.or_larger(y));
            }
            // SAFETY: there is room for four floats.
            unsafe { v128_store(out.as_mut_ptr().cast(), y.0) };
        }
        if LOOK {
            extremes[row].least[..4].copy_from_slice(&each(least));
            extremes[row].most[..4].copy_from_slice(&each(most));
        }
        products.rest::<4>(finish, row, out, extremes);
    }
}

/// GELU of whole eights of a row's products, which the row's extremes take up.
#[inline(always)]
fn gelu(products: &Products<'_>, row: usize, out: &mut [f32], extremes: &mut Extremes) {
    let (integers, zero, scale) = products.row(row);
    let width = integers.len() / 8 * 8;
    if width == 0 {
        return;
    }
    let (sums, scales) = (&products.sums[..width], &products.scales[..width]);
    let (bias, out) = (&products.bias[..width], &mut out[..width]);
    // SAFETY: each has so many numbers, of which there is an eight; there are as many constants as it
    // reads, and four of the least and of the largest.
    unsafe {
        pagebert_gelu(
            integers.as_ptr(),
            sums.as_ptr(),
            scales.as_ptr(),
            bias.as_ptr(),
            out.as_mut_ptr(),
            zero,
            scale,
            width / 8,
            &GELU,
            extremes.least.as_mut_ptr(),
            extremes.most.as_mut_ptr(),
        );
    }
}

/// The first four of sixteen.
#[inline(always)]
fn first(x: [f32; 16]) -> [f32; 4] {
    [x[0], x[1], x[2], x[3]]
}

/// Numbers times `inverse`, rounded, with a zero point, as integers of 0…127: a multiple of 16, and
/// at least that; gives the sum.
pub fn quantise(x: &[f32], inverse: f32, zero: f32, out: Destination<'_>) -> i32 {
    let (sixteens, cuts) = (whole_sixteens(x.len(), &out), &CUTS);
    // SAFETY: so many numbers are there, and room for as many integers.
    unsafe {
        match out {
            Destination::Bytes(out) => {
                pagebert_to_bytes(x.as_ptr(), out.as_mut_ptr(), inverse, zero, sixteens, cuts)
            }
            Destination::Words(out) => {
                pagebert_to_words(x.as_ptr(), out.as_mut_ptr(), inverse, zero, sixteens, cuts)
            }
        }
    }
}

/// 127 · 2^((score − most) · scale), rounded, of a multiple of 16, and at least that; gives the sum.
pub fn probabilities(scores: &[f32], most: f32, scale: f32, out: Destination<'_>) -> i32 {
    let (sixteens, curve) = (whole_sixteens(scores.len(), &out), &EXP2);
    let x = scores.as_ptr();
    // SAFETY: so many numbers are there, and room for as many integers.
    unsafe {
        match out {
            Destination::Bytes(out) => {
                let out = out.as_mut_ptr();
                pagebert_probabilities_to_bytes(x, out, most, scale, sixteens, curve)
            }
            Destination::Words(out) => {
                let out = out.as_mut_ptr();
                pagebert_probabilities_to_words(x, out, most, scale, sixteens, curve)
            }
        }
    }
}

/// How many sixteens there are, and room for.
fn whole_sixteens(count: usize, out: &Destination<'_>) -> usize {
    let room = match out {
        Destination::Bytes(out) => out.len(),
        Destination::Words(out) => out.len(),
    };
    assert!(count >= 16 && count.is_multiple_of(16) && room >= count);
    count / 16
}

/// Scores become 127 · 2^((score − the largest) · scale), a multiple of 16 and at least that; gives
/// their sum, of sixteen lanes that are added by halves.
pub fn softmax(scores: &mut [f32], scale: f32) -> f32 {
    assert!(scores.len() >= 16 && scores.len().is_multiple_of(16));
    let (x, sixteens) = (scores.as_mut_ptr(), scores.len() / 16);
    // SAFETY: so many numbers are there.
    unsafe { pagebert_softmax(x, x, f32::NEG_INFINITY, scale, sixteens, &EXP2) }
}

/// Sixteen bytes as floats.
#[inline(always)]
fn floats(bytes: &[i8; 16]) -> [Four; 4] {
    // SAFETY: sixteen bytes are there, and a vector need not be aligned.
    let bytes = unsafe { v128_load(bytes.as_ptr().cast()) };
    let (low, high) = (i16x8_extend_low_i8x16(bytes), i16x8_extend_high_i8x16(bytes));
    [
        i32x4_extend_low_i16x8(low),
        i32x4_extend_high_i16x8(low),
        i32x4_extend_low_i16x8(high),
        i32x4_extend_high_i16x8(high),
    ]
    .map(|x| Four(f32x4_convert_i32x4(x)))
}

/// The product of a row of floats with one of bytes, in sixteen lanes that are added by halves.
pub fn dot_bytes(x: &[f32], y: &[i8]) -> f32 {
    let mut sums = [Four::splat(0.0); 4];
    let ((whole, rest), (whole_y, rest_y)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
    for (x, y) in whole.iter().zip(whole_y) {
        for ((sum, x), y) in sums.iter_mut().zip(x.as_chunks().0).zip(floats(y)) {
            *sum = *sum + load(x) * y;
        }
    }
    let mut lanes = [0f32; 16];
    for (lanes, sum) in lanes.as_chunks_mut::<4>().0.iter_mut().zip(sums) {
        *lanes = each(sum);
    }
    for ((lane, x), y) in lanes.iter_mut().zip(rest).zip(rest_y) {
        *lane += x * f32::from(*y);
    }
    by_halves(lanes, |x, y| x + y)
}

/// Adds sixteen bytes times a weight to sums.
#[inline(always)]
pub fn add_weighted_bytes(sums: &mut [f32; 16], weight: f32, bytes: &[i8; 16]) {
    let weight = Four::splat(weight);
    for (sums, x) in sums.as_chunks_mut::<4>().0.iter_mut().zip(floats(bytes)) {
        *sums = each(load(sums) + weight * x);
    }
}

/// See [`super::round_products`].
#[inline(always)]
pub fn round_products<'a>(
    x: &'a [f32],
    y: &'a [f32],
    most: f32,
    out: &'a mut [i8],
) -> (&'a [f32], &'a [f32], &'a mut [i8]) {
    let (x, rest) = x.as_chunks::<16>();
    let (y, rest_y) = y.as_chunks::<16>();
    let (whole, rest_out) = out.split_at_mut(16 * x.len().min(y.len()));
    for ((x, y), out) in x.iter().zip(y).zip(whole.as_chunks_mut::<16>().0) {
        let (x, y) = (x.as_chunks::<4>().0, y.as_chunks::<4>().0);
        // The lowest byte with its sign.
        let q = |i: usize| i32x4_shr(i32x4_shl(rounded(load(&x[i]) * load(&y[i]), most).0, 24), 24);
        let bytes =
            i8x16_narrow_i16x8(i16x8_narrow_i32x4(q(0), q(1)), i16x8_narrow_i32x4(q(2), q(3)));
        // SAFETY: there is room for sixteen bytes.
        unsafe { v128_store(out.as_mut_ptr().cast(), bytes) };
    }
    (rest, rest_y, rest_out)
}

/// The lanes' numbers.
#[inline(always)]
fn each(x: Four) -> [f32; 4] {
    [
        f32x4_extract_lane::<0>(x.0),
        f32x4_extract_lane::<1>(x.0),
        f32x4_extract_lane::<2>(x.0),
        f32x4_extract_lane::<3>(x.0),
    ]
}

/// One number of sixteen.
#[inline(always)]
fn across([a, b, c, d]: [Four; 4], f: impl Fn(Four, Four) -> Four) -> f32 {
    let four = f(f(a, b), f(c, d));
    let two = f(four, Four(i32x4_shuffle::<2, 3, 2, 3>(four.0, four.0)));
    f32x4_extract_lane::<0>(f(two, Four(i32x4_shuffle::<1, 1, 1, 1>(two.0, two.0))).0)
}

/// See [`super::range`].
#[inline(always)]
pub fn range(x: &[f32]) -> (&[f32], f32, f32) {
    let (mut least, mut most) = ([Four::splat(0.0); 4], [Four::splat(0.0); 4]);
    let (whole, rest) = x.as_chunks::<16>();
    for x in whole {
        for (i, x) in x.as_chunks::<4>().0.iter().enumerate() {
            (least[i], most[i]) = (least[i].or_smaller(load(x)), most[i].or_larger(load(x)));
        }
    }
    (rest, across(least, Four::or_smaller), across(most, Four::or_larger))
}
