//! Sixteen lanes of one vector become one number.

use std::arch::x86_64::*;

/// The sum, as by [`crate::cpu::math::by_halves`].
#[inline]
#[target_feature(enable = "avx512f")]
pub fn sum(x: __m512) -> f32 {
    by_halves(x, |x, y| _mm256_add_ps(x, y), |x, y| _mm_add_ps(x, y))
}

/// The largest, likewise.
#[inline]
#[target_feature(enable = "avx512f")]
pub fn largest(x: __m512) -> f32 {
    // The second operand where one is not a number.
    by_halves(x, |x, y| _mm256_max_ps(y, x), |x, y| _mm_max_ps(y, x))
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
