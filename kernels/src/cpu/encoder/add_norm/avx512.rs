//! A row's norm by AVX-512, in as few passes as its sums allow. Operation by operation the same as in
//! any other vectors.

use std::arch::x86_64::*;

use super::Norm;
use crate::cpu::lanes::avx512::sum;

const LANES: usize = 16;

/// Whether it is for rows of so many numbers: of whole vectors.
pub fn takes(width: usize) -> bool {
    width.is_multiple_of(LANES)
}

/// As [`super::norm_alone`].
///
/// # Panics
/// When rows are not such as [`takes`] says: a caller's mistake.
#[target_feature(enable = "avx512f")]
pub fn norm_alone(x: &mut [f32], shift: &[f32], other: &[f32], norm: &Norm, out: &mut [f32]) {
    let n = x.len();
    assert!(takes(n), "whole vectors");
    let x = x.as_chunks_mut::<LANES>().0;
    let mut sums = _mm512_setzero_ps();
    let both = shift.as_chunks().0.iter().zip(other.as_chunks().0);
    for (x, (shift, other)) in x.iter_mut().zip(both) {
        let y = _mm512_add_ps(_mm512_add_ps(load(x), load(shift)), load(other));
        sums = _mm512_add_ps(sums, y);
        store(x, y);
    }
    let mean = _mm512_set1_ps(sum(sums) / n as f32);
    let mut squares = _mm512_setzero_ps();
    for x in x.iter_mut() {
        let y = _mm512_sub_ps(load(x), mean);
        squares = _mm512_add_ps(squares, _mm512_mul_ps(y, y));
        store(x, y);
    }
    let variance = sum(squares) / n as f32;
    let scale = _mm512_set1_ps(1.0 / (variance + norm.eps).sqrt());
    let both = norm.weight.as_chunks().0.iter().zip(norm.bias.as_chunks().0);
    for ((x, out), (weight, bias)) in x.iter().zip(out.as_chunks_mut().0).zip(both) {
        let y = _mm512_mul_ps(load(x), scale);
        store(out, _mm512_add_ps(_mm512_mul_ps(y, load(weight)), load(bias)));
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(x: &[f32; LANES]) -> __m512 {
    // SAFETY: sixteen floats.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(out: &mut [f32; LANES], x: __m512) {
    // SAFETY: there is room for sixteen.
    unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) }
}
