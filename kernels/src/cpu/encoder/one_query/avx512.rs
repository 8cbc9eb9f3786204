//! Rows by AVX-512: sums stay in registers, and enough of them are made at once that none waits for
//! the addition before. Operation by operation the same as in any other vectors.

use std::arch::x86_64::*;

use super::{Head, LANES, Number, Way, by};
use crate::cpu::lanes::avx512::sum;

/// Vectors whose sums stay in registers.
const MANY: usize = 8;

/// Rows whose products are made at once.
const ROWS: usize = 4;

/// Whether it is for rows of so many numbers: of whole vectors.
pub fn takes(width: usize) -> bool {
    width > 0 && width.is_multiple_of(LANES)
}

/// As [`super::attend`].
///
/// # Safety
/// The processor must have AVX-512, and [`takes`] rows as wide as `room`.
#[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
pub unsafe fn attend(head: Head<'_>, room: &mut [f32], scores: &mut [f32], out: &mut [f32]) {
    by::<Wide>(head, room, scores, out);
}

/// By AVX-512; [`attend`] alone makes use of it, which asks for that.
struct Wide;

impl Way for Wide {
    fn weigh<T: Number>(rows: &[T], weights: &[f32], sum: &mut [f32]) {
        assert!(rows.len() >= weights.len() * sum.len() && takes(sum.len()));
        // SAFETY: there is AVX-512, and so many rows.
        unsafe { weigh(rows, weights, sum) }
    }

    fn dots<T: Number>(x: &[f32], rows: &[T], out: &mut [f32]) {
        assert!(rows.len() >= out.len() * x.len() && takes(x.len()));
        // SAFETY: as above.
        unsafe { dots(x, rows, out) }
    }
}

/// # Safety
/// The processor must have AVX-512, and there must be a row, as wide as `sum`, for each weight.
#[target_feature(enable = "avx512f")]
unsafe fn weigh<T: Number>(rows: &[T], weights: &[f32], sum: &mut [f32]) {
    let (width, mut first) = (sum.len(), 0);
    if weights.is_empty() {
        return sum.fill(0.0);
    }
    while first < width {
        // SAFETY: so many columns are left.
        first += unsafe {
            if width - first >= MANY * LANES {
                columns::<T, MANY>(&rows[first..], width, weights, &mut sum[first..])
            } else {
                columns::<T, 1>(&rows[first..], width, weights, &mut sum[first..])
            }
        };
    }
}

/// Sums of N vectors of columns, of rows that are `ld` apart and begin with them; says how many they
/// are.
///
/// # Safety
/// As for [`weigh`], of so many columns.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn columns<T: Number, const N: usize>(
    rows: &[T],
    ld: usize,
    weights: &[f32],
    out: &mut [f32],
) -> usize {
    let mut sums = [_mm512_setzero_ps(); N];
    for (index, weight) in weights.iter().enumerate() {
        let weight = _mm512_set1_ps(*weight);
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's word for the row.
            let x = unsafe { T::load(rows.as_ptr().add(index * ld + i * LANES)) };
            *sum = _mm512_add_ps(*sum, _mm512_mul_ps(weight, x));
        }
    }
    for (sum, out) in sums.iter().zip(out.as_chunks_mut::<LANES>().0) {
        // SAFETY: there is room for sixteen.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *sum) };
    }
    N * LANES
}

/// # Safety
/// The processor must have AVX-512, and there must be a row, as long as x, for each number of `out`.
#[target_feature(enable = "avx512f")]
unsafe fn dots<T: Number>(x: &[f32], rows: &[T], out: &mut [f32]) {
    let (fours, rest) = out.as_chunks_mut::<ROWS>();
    let behind = &rows[fours.len() * ROWS * x.len()..];
    // SAFETY: the caller's word for the rows.
    unsafe {
        for (rows, out) in rows.chunks_exact(ROWS * x.len()).zip(fours) {
            *out = some(x, rows.as_ptr());
        }
        for (row, out) in behind.chunks_exact(x.len()).zip(rest) {
            [*out] = some(x, row.as_ptr());
        }
    }
}

/// N rows' products with x.
///
/// # Safety
/// As for [`dots`], of so many rows.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn some<T: Number, const N: usize>(x: &[f32], rows: *const T) -> [f32; N] {
    let mut sums = [_mm512_setzero_ps(); N];
    for (index, lanes) in x.as_chunks::<LANES>().0.iter().enumerate() {
        for (row, sum) in sums.iter_mut().enumerate() {
            // SAFETY: sixteen numbers of each.
            unsafe {
                let row = T::load(rows.add(row * x.len() + index * LANES));
                *sum = _mm512_add_ps(*sum, _mm512_mul_ps(_mm512_loadu_ps(lanes.as_ptr()), row));
            }
        }
    }
    let mut out = [0f32; N];
    out.iter_mut().zip(sums).for_each(|(out, sums)| *out = sum(sums));
    out
}
