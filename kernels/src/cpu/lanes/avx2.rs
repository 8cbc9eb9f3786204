//! Sixteen lanes at once, in two vectors of AVX2: what is compared or narrowed compilers take lane
//! by lane, and of one vector's chain of operations a processor can have too few waiting.

use std::arch::x86_64::*;
use std::ops::{Add, Mul, Sub};

use super::{Constant, Extremes, Finish, Lanes, Map, Products, rounded};

/// Sixteen numbers. Made by the functions below alone, which ask for AVX2.
#[derive(Clone, Copy)]
struct Sixteen(__m256, __m256);

macro_rules! operators {
    ($($operator:ident $method:ident $instruction:ident),*) => {$(
        impl $operator for Sixteen {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: where there is a `Sixteen`, there is AVX2.
                unsafe { Self($instruction(self.0, other.0), $instruction(self.1, other.1)) }
            }
        }
    )*};
}

operators!(Add add _mm256_add_ps, Sub sub _mm256_sub_ps, Mul mul _mm256_mul_ps);

impl Sixteen {
    #[inline(always)]
    fn each(self, f: impl Fn(__m256) -> __m256) -> Self {
        Self(f(self.0), f(self.1))
    }

    /// # Safety
    /// There must be AVX2.
    #[inline(always)]
    unsafe fn load(x: &[f32; 16]) -> Self {
        // SAFETY: sixteen floats are there.
        unsafe { Self(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn numbers(self) -> [f32; 16] {
        let mut out = [0f32; 16];
        // SAFETY: there is AVX2, and room for sixteen floats.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), self.0);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), self.1);
        }
        out
    }
}

// SAFETY of all that follows: where there is a `Sixteen`, there is AVX2. `splat` alone makes one of
// nothing, and is called by maps, which are given to the functions below.
impl Lanes for Sixteen {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see above.
        let x = unsafe { _mm256_set1_ps(x) };
        Self(x, x)
    }

    #[inline(always)]
    fn constant(x: &'static Constant) -> Self {
        Self::splat(x.0[0])
    }

    #[inline(always)]
    fn or_larger(self, other: Self) -> Self {
        // The second operand where one is not a number.
        // SAFETY: see above.
        unsafe { Self(_mm256_max_ps(other.0, self.0), _mm256_max_ps(other.1, self.1)) }
    }

    #[inline(always)]
    fn or_smaller(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm256_min_ps(other.0, self.0), _mm256_min_ps(other.1, self.1)) }
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: see above.
        self.each(|x| unsafe {
            let n = _mm256_add_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
        })
    }
}

/// The rest of a slice with zeros behind it.
#[inline(always)]
fn padded(rest: &[f32]) -> [f32; 16] {
    let mut whole = [0f32; 16];
    whole[..rest.len()].copy_from_slice(rest);
    whole
}

/// See [`super::finish`].
#[target_feature(enable = "avx2")]
pub fn finish<const LOOK: bool>(
    finish: impl Finish,
    products: &Products<'_>,
    out: &mut [f32],
    ld: usize,
    extremes: &mut [Extremes],
) {
    let (sums, _) = products.sums.as_chunks::<16>();
    let (scales, _) = products.scales.as_chunks::<16>();
    let (bias, _) = products.bias.as_chunks::<16>();
    for (row, out) in out.chunks_mut(ld).enumerate().take(products.rows()) {
        let (integers, zero, row_scale) = products.row(row);
        let whole = integers.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<16>().0);
        let whole = whole.zip(sums.iter().zip(scales).zip(bias));
        let seen = if LOOK { extremes[row] } else { Extremes::NONE };
        // SAFETY: there is AVX2, and chunks have sixteen numbers.
        unsafe {
            let (mut least, mut most) = (Sixteen::load(&seen.least), Sixteen::load(&seen.most));
            let (zeros, row_scale) = (_mm256_set1_epi32(zero), Sixteen::splat(row_scale));
            for ((integers, out), ((sums, scales), bias)) in whole {
                let float = |half: usize| {
                    let x = _mm256_loadu_si256(integers.as_ptr().add(half).cast());
                    let sums = _mm256_loadu_si256(sums.as_ptr().add(half).cast());
                    _mm256_cvtepi32_ps(_mm256_sub_epi32(x, _mm256_mullo_epi32(zeros, sums)))
                };
                let x = Sixteen(float(0), float(8)) * (row_scale * Sixteen::load(scales));
                let y = finish.on(x, Sixteen::load(bias));
                if LOOK {
                    (least, most) = (least.or_smaller(y), most.or_larger(y));
                }
                _mm256_storeu_ps(out.as_mut_ptr(), y.0);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), y.1);
            }
            if LOOK {
                extremes[row] = Extremes { least: least.numbers(), most: most.numbers() };
            }
        }
        products.rest::<16>(finish, row, out, extremes);
    }
}

/// Lower bytes of sixteen integers.
#[target_feature(enable = "avx2")]
fn lower_bytes(q: Sixteen, mask: i32) -> (__m256i, __m128i) {
    let low = _mm256_set1_epi32(mask);
    let q = [q.0, q.1].map(|q| _mm256_and_si256(_mm256_castps_si256(q), low));
    let words = _mm256_permute4x64_epi64::<0xd8>(_mm256_packs_epi32(q[0], q[1]));
    let halves = (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
    (_mm256_add_epi32(q[0], q[1]), _mm_packus_epi16(halves.0, halves.1))
}

/// See [`super::round_products`].
#[target_feature(enable = "avx2")]
pub fn round_products(x: &[f32], y: &[f32], most: f32, out: &mut [i8]) {
    let bytes = |x: &[f32; 16], y: &[f32; 16]| {
        // SAFETY: there is AVX2.
        let products = unsafe { Sixteen::load(x) * Sixteen::load(y) };
        let mut bytes = [0i8; 16];
        let (_, packed) = lower_bytes(rounded(products, most), 255);
        // SAFETY: there is room for sixteen bytes.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), packed) };
        bytes
    };
    let (x, rest) = x.as_chunks::<16>();
    let (y, rest_y) = y.as_chunks::<16>();
    let (out, rest_out) = out.as_chunks_mut::<16>();
    for ((x, y), out) in x.iter().zip(y).zip(out) {
        *out = bytes(x, y);
    }
    if !rest.is_empty() {
        let last = bytes(&padded(rest), &padded(rest_y));
        rest_out.iter_mut().zip(&last[..rest.len()]).for_each(|(out, q)| *out = *q);
    }
}

/// See [`super::map_to_integers`].
#[target_feature(enable = "avx2")]
pub fn map_to_bytes(map: impl Map, x: &[f32], out: &mut [u8]) -> i32 {
    let mut sums = _mm256_setzero_si256();
    // SAFETY: there is AVX2.
    let bytes = |x: &[f32; 16]| lower_bytes(map.on(unsafe { Sixteen::load(x) }), 127);
    let (x, rest) = x.as_chunks::<16>();
    let (out, rest_out) = out.as_chunks_mut::<16>();
    for (x, out) in x.iter().zip(out) {
        let (sum, bytes) = bytes(x);
        sums = _mm256_add_epi32(sums, sum);
        // SAFETY: there is room for sixteen bytes.
        unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), bytes) };
    }
    let mut lanes = [0i32; 8];
    // SAFETY: there is room for eight integers.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), sums) };
    let mut sum = lanes.iter().sum();
    if !rest.is_empty() {
        let mut last = [0u8; 16];
        // SAFETY: there is room for sixteen bytes.
        unsafe { _mm_storeu_si128(last.as_mut_ptr().cast(), bytes(&padded(rest)).1) };
        rest_out.iter_mut().zip(&last[..rest.len()]).for_each(|(out, q)| *out = *q);
        sum += last[..rest.len()].iter().map(|q| i32::from(*q)).sum::<i32>();
    }
    sum
}

/// See [`super::range`].
#[target_feature(enable = "avx2")]
pub fn range(x: &[f32]) -> (f32, f32) {
    let (mut least, mut most) = (Sixteen::splat(0.0), Sixteen::splat(0.0));
    let (x, rest) = x.as_chunks::<16>();
    for x in x {
        // SAFETY: there is AVX2.
        let x = unsafe { Sixteen::load(x) };
        (least, most) = (least.or_smaller(x), most.or_larger(x));
    }
    if !rest.is_empty() {
        // Zeros are among them anyway.
        // SAFETY: as above.
        let x = unsafe { Sixteen::load(&padded(rest)) };
        (least, most) = (least.or_smaller(x), most.or_larger(x));
    }
    let least = across(_mm256_min_ps(least.0, least.1), |x, y| _mm_min_ps(x, y));
    (least, across(_mm256_max_ps(most.0, most.1), |x, y| _mm_max_ps(x, y)))
}

/// One number of eight.
#[target_feature(enable = "avx2")]
fn across(x: __m256, f: impl Fn(__m128, __m128) -> __m128) -> f32 {
    let four = f(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let two = f(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(f(two, _mm_movehdup_ps(two)))
}
