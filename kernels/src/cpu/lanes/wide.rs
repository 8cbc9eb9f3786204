//! Four lanes at once in WebAssembly.

use std::arch::wasm32::*;
use std::ops::{Add, Mul, Sub};

use super::{Constant, Extremes, Finish, Lanes, Map, Products, rounded};

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
pub fn finish<const LOOK: bool>(
    finish: impl Finish,
    products: &Products<'_>,
    out: &mut [f32],
    ld: usize,
    extremes: &mut [Extremes],
) {
    let (sums, _) = products.sums.as_chunks::<4>();
    let (scales, _) = products.scales.as_chunks::<4>();
    let (bias, _) = products.bias.as_chunks::<4>();
    for (row, out) in out.chunks_mut(ld).enumerate().take(products.rows()) {
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

/// The first four of sixteen.
#[inline(always)]
fn first(x: [f32; 16]) -> [f32; 4] {
    [x[0], x[1], x[2], x[3]]
}

/// See [`super::map_to_bytes`].
#[inline(always)]
pub fn map_to_bytes<'a>(
    map: impl Map,
    x: &'a [f32],
    out: &'a mut [u8],
) -> (&'a [f32], &'a mut [u8], i32) {
    let (x, rest) = x.as_chunks::<16>();
    let (whole, rest_out) = out[..].split_at_mut(16 * x.len());
    let mut sums = i32x4_splat(0);
    for (x, out) in x.iter().zip(whole.as_chunks_mut::<16>().0) {
        let (x, _) = x.as_chunks::<4>();
        let q = |i: usize| v128_and(map.on(load(&x[i])).0, constant!(Four, f32::from_bits(127)).0);
        let q = [q(0), q(1), q(2), q(3)];
        sums = i32x4_add(sums, i32x4_add(i32x4_add(q[0], q[1]), i32x4_add(q[2], q[3])));
        let bytes =
            u8x16_narrow_i16x8(i16x8_narrow_i32x4(q[0], q[1]), i16x8_narrow_i32x4(q[2], q[3]));
        // SAFETY: there is room for sixteen bytes.
        unsafe { v128_store(out.as_mut_ptr().cast(), bytes) };
    }
    let sum = i32x4_extract_lane::<0>(sums)
        .wrapping_add(i32x4_extract_lane::<1>(sums))
        .wrapping_add(i32x4_extract_lane::<2>(sums))
        .wrapping_add(i32x4_extract_lane::<3>(sums));
    (rest, rest_out, sum)
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
