//! Sixteen lanes at once, in a vector of AVX-512: where compilers would look for the least and the
//! largest in a loop of its own, or make single numbers of a vector's.

use std::arch::x86_64::*;
use std::ops::{Add, Mul, Sub};

use super::{Constant, Extremes, Finish, Lanes, Products};

/// Sixteen numbers. Made where there is AVX-512 alone, which a vector's type does not say.
#[derive(Clone, Copy)]
pub struct Sixteen(__m512);

impl Sixteen {
    /// # Safety
    /// There must be AVX-512.
    #[inline(always)]
    pub unsafe fn new(x: __m512) -> Self {
        Self(x)
    }

    /// Its vector.
    #[inline(always)]
    pub fn vector(self) -> __m512 {
        self.0
    }
}

macro_rules! operators {
    ($($operator:ident $method:ident $instruction:ident),*) => {$(
        impl $operator for Sixteen {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: where there is a `Sixteen`, there is AVX-512.
                unsafe { Self($instruction(self.0, other.0)) }
            }
        }
    )*};
}

operators!(Add add _mm512_add_ps, Sub sub _mm512_sub_ps, Mul mul _mm512_mul_ps);

// SAFETY of all that follows: where there is a `Sixteen`, there is AVX-512. `splat` alone makes one of
// nothing, and is called by what is given to the functions below.
impl Lanes for Sixteen {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    fn constant(x: &'static Constant) -> Self {
        Self::splat(x.0[0])
    }

    #[inline(always)]
    fn or_larger(self, other: Self) -> Self {
        // The second operand where one is not a number.
        // SAFETY: see above.
        unsafe { Self(_mm512_max_ps(other.0, self.0)) }
    }

    #[inline(always)]
    fn or_smaller(self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Self(_mm512_min_ps(other.0, self.0)) }
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let n = _mm512_add_epi32(_mm512_castps_si512(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(n)))
        }
    }
}

/// See [`super::finish`].
#[target_feature(enable = "avx512f")]
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
        // SAFETY: there is AVX-512, and chunks have sixteen numbers.
        unsafe {
            let load = |x: &[f32; 16]| Sixteen(_mm512_loadu_ps(x.as_ptr()));
            let (mut least, mut most) = (load(&seen.least), load(&seen.most));
            let (zeros, row_scale) = (_mm512_set1_epi32(zero), Sixteen::splat(row_scale));
            for ((integers, out), ((sums, scales), bias)) in whole {
                let x = _mm512_loadu_si512(integers.as_ptr().cast());
                let sums = _mm512_loadu_si512(sums.as_ptr().cast());
                let x = _mm512_sub_epi32(x, _mm512_mullo_epi32(zeros, sums));
                let x = Sixteen(_mm512_cvtepi32_ps(x)) * (row_scale * load(scales));
                let y = finish.on(x, load(bias));
                if LOOK {
                    (least, most) = (least.or_smaller(y), most.or_larger(y));
                }
                _mm512_storeu_ps(out.as_mut_ptr(), y.0);
            }
            if LOOK {
                _mm512_storeu_ps(extremes[row].least.as_mut_ptr(), least.0);
                _mm512_storeu_ps(extremes[row].most.as_mut_ptr(), most.0);
            }
        }
        products.rest::<16>(finish, row, out, extremes);
    }
}

/// See [`super::times`].
#[target_feature(enable = "avx512f")]
pub fn times(x: &[f32], y: &[f32], out: &mut [f32]) -> (f32, f32) {
    let ((x, rest), (y, rest_y)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
    let (out, rest_out) = out.as_chunks_mut::<16>();
    let (mut low, mut high) = (_mm512_setzero_ps(), _mm512_setzero_ps());
    for ((x, y), out) in x.iter().zip(y).zip(out) {
        // SAFETY: sixteen numbers of each.
        unsafe {
            let z = _mm512_mul_ps(_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(y.as_ptr()));
            // The second operand where one is not a number.
            (low, high) = (_mm512_min_ps(z, low), _mm512_max_ps(z, high));
            _mm512_storeu_ps(out.as_mut_ptr(), z);
        }
    }
    let (mut low, mut high) = (least(low), largest(high));
    for ((x, y), out) in rest.iter().zip(rest_y).zip(rest_out) {
        *out = x * y;
        (low, high) = (low.or_smaller(*out), high.or_larger(*out));
    }
    (low, high)
}

/// The sum of a vector's numbers, as by [`crate::cpu::math::by_halves`].
#[inline]
#[target_feature(enable = "avx512f")]
pub fn sum(x: __m512) -> f32 {
    by_halves(x, |x, y| _mm256_add_ps(x, y), |x, y| _mm_add_ps(x, y))
}

/// The largest, likewise.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn largest(x: __m512) -> f32 {
    by_halves(x, |x, y| _mm256_max_ps(y, x), |x, y| _mm_max_ps(y, x))
}

/// The least, likewise.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn least(x: __m512) -> f32 {
    by_halves(x, |x, y| _mm256_min_ps(y, x), |x, y| _mm_min_ps(y, x))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn by_halves(
    x: __m512,
    eight: impl Fn(__m256, __m256) -> __m256,
    four: impl Fn(__m128, __m128) -> __m128,
) -> f32 {
    let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x));
    let x = eight(_mm512_castps512_ps256(x), _mm256_castpd_ps(high));
    let x = four(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
    let x = four(x, _mm_movehl_ps(x, x));
    _mm_cvtss_f32(four(x, _mm_movehdup_ps(x)))
}
