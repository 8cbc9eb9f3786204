//! Attention of short sequences by AVX-512: the scores of some queries stay in registers until they
//! are probabilities. Operation by operation the same as in any other vectors.

use std::arch::x86_64::*;

use super::{Head, LONGEST, ROWS, Room, scale_of};
use crate::cpu::exact::exp2_times_127;
use crate::cpu::lanes::avx512::{Sixteen, largest, sum};

/// Numbers of a vector.
const LANES: usize = 16;

/// As many vectors of keys there are at most.
const _: () = assert!(LONGEST == 4 * LANES);

/// Of some queries their vectors.
type Vectors<const N: usize> = [[__m512; N]; ROWS];

/// Whether it is for heads of so many numbers: of whole vectors.
pub fn takes(head_dim: usize) -> bool {
    head_dim.is_multiple_of(LANES)
}

/// The context of a head's rows, `[n, head_dim]`.
///
/// # Safety
/// The processor must have AVX-512, and [`takes`] such heads.
#[target_feature(enable = "avx512f")]
pub unsafe fn attend(head: Head<'_>, out: &mut [f32], room: &mut Room) {
    let (n, d) = (head.n, head.head_dim);
    assert!(takes(d) && (1..=LONGEST).contains(&n) && out.len() == n * d);
    let vectors = n.div_ceil(LANES);
    room.keys.resize(vectors * LANES * d, 0.0);
    room.values.resize(n * d, 0.0);
    // SAFETY: the processor has AVX-512.
    unsafe { put_keys(&head, vectors, &mut room.keys) };
    for (row, values) in room.values.chunks_exact_mut(d).enumerate() {
        let to = values.as_chunks_mut::<LANES>().0;
        to.iter_mut().zip(head.row(head.values, row).as_chunks().0).for_each(|(to, x)| *to = *x);
    }
    for (index, out) in out.chunks_mut(ROWS * d).enumerate() {
        let first = index * ROWS;
        head.fetch_next(first..(first + ROWS).min(n));
        // SAFETY: the processor has AVX-512, and there are so many vectors of keys.
        unsafe {
            match vectors {
                1 => some::<1>(&head, first, room, out),
                2 => some::<2>(&head, first, room, out),
                3 => some::<3>(&head, first, room, out),
                _ => some::<4>(&head, first, room, out),
            }
        }
    }
}

/// Puts keys into `[head_dim, vectors · 16]`. Behind the last row it stands again.
///
/// # Safety
/// The processor must have AVX-512, there must be a row, and [`takes`] must have said so of heads.
#[target_feature(enable = "avx512f")]
unsafe fn put_keys(head: &Head<'_>, vectors: usize, out: &mut [f32]) {
    for vector in 0..vectors {
        let mut rows: [&[f32]; LANES] = [&[]; LANES];
        for (lane, row) in rows.iter_mut().enumerate() {
            *row = head.row(head.keys, (vector * LANES + lane).min(head.n - 1));
        }
        for first in (0..head.head_dim).step_by(LANES) {
            let mut block = [_mm512_setzero_ps(); LANES];
            for (x, row) in block.iter_mut().zip(rows) {
                // SAFETY: sixteen numbers of a row, which is `head_dim` long.
                *x = unsafe { _mm512_loadu_ps(row[first..].as_ptr()) };
            }
            for (k, keys) in transpose(block).into_iter().enumerate() {
                let out = &mut out[((first + k) * vectors + vector) * LANES..][..LANES];
                // SAFETY: there is room for sixteen.
                unsafe { _mm512_storeu_ps(out.as_mut_ptr(), keys) };
            }
        }
    }
}

/// Sixteen rows of sixteen become columns.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(mut x: [__m512; LANES]) -> [__m512; LANES] {
    // Of each four rows, columns 4 · part + c of each part of a vector.
    for four in x.as_chunks_mut::<4>().0 {
        let pairs = |x, y| {
            let pairs = (_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
            (_mm512_castps_pd(pairs.0), _mm512_castps_pd(pairs.1))
        };
        let (low, high) = pairs(four[0], four[1]);
        let (low_2, high_2) = pairs(four[2], four[3]);
        *four = [
            _mm512_castpd_ps(_mm512_unpacklo_pd(low, low_2)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(low, low_2)),
            _mm512_castpd_ps(_mm512_unpacklo_pd(high, high_2)),
            _mm512_castpd_ps(_mm512_unpackhi_pd(high, high_2)),
        ];
    }
    let mut out = x;
    for c in 0..4 {
        let even = |i: usize| _mm512_shuffle_f32x4::<0x88>(x[i + c], x[i + 4 + c]);
        let odd = |i: usize| _mm512_shuffle_f32x4::<0xdd>(x[i + c], x[i + 4 + c]);
        out[c] = _mm512_shuffle_f32x4::<0x88>(even(0), even(8));
        out[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd(0), odd(8));
        out[8 + c] = _mm512_shuffle_f32x4::<0xdd>(even(0), even(8));
        out[12 + c] = _mm512_shuffle_f32x4::<0xdd>(odd(0), odd(8));
    }
    out
}

/// The context of up to [`ROWS`] queries, of which `first` is the first one.
///
/// # Safety
/// The processor must have AVX-512, keys must be of N vectors, and the room must hold all of them.
#[target_feature(enable = "avx512f")]
unsafe fn some<const N: usize>(head: &Head<'_>, first: usize, room: &Room, out: &mut [f32]) {
    let (n, d) = (head.n, head.head_dim);
    // Behind the last row it stands again: what comes of it is not looked at.
    let mut queries: [&[f32]; ROWS] = [&[]; ROWS];
    for (i, row) in queries.iter_mut().enumerate() {
        *row = head.row(0, (first + i).min(n - 1));
    }
    // SAFETY: `[head_dim, N · 16]`.
    let mut scores = unsafe { multiply::<N>(queries, &room.keys, N * LANES) };
    let mut probabilities = [[0f32; LONGEST]; ROWS];
    let mut inverses = [0f32; ROWS];
    let rest = (u32::from(u16::MAX) >> (N * LANES - n)) as u16;
    let each = scores.iter_mut().zip(&mut probabilities).zip(&mut inverses);
    for ((scores, probabilities), inverse) in each {
        let none = _mm512_set1_ps(f32::NEG_INFINITY);
        scores[N - 1] = _mm512_mask_mov_ps(none, rest, scores[N - 1]);
        *inverse = 1.0 / exponentials(scores, scale_of(d));
        for (x, out) in scores.iter().zip(probabilities.as_chunks_mut::<LANES>().0) {
            // SAFETY: there is room for sixteen.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), *x) };
        }
    }
    let [a, b, c, e] = &probabilities;
    let probabilities = [&a[..n], &b[..n], &c[..n], &e[..n]];
    let mut column = 0;
    while column < d {
        let values = &room.values[column..];
        // SAFETY: `[n, head_dim]`, of which so many columns are left.
        column += unsafe {
            if d - column >= 2 * LANES {
                put(multiply::<2>(probabilities, values, d), inverses, &mut out[column..], d)
            } else {
                put(multiply::<1>(probabilities, values, d), inverses, &mut out[column..], d)
            }
        };
    }
}

/// Writes as many rows as there is room for, each times a number; says how many columns it wrote.
#[inline]
#[target_feature(enable = "avx512f")]
fn put<const N: usize>(x: Vectors<N>, inverses: [f32; ROWS], out: &mut [f32], ld: usize) -> usize {
    for ((x, inverse), out) in x.iter().zip(inverses).zip(out.chunks_mut(ld)) {
        for (x, out) in x.iter().zip(out.as_chunks_mut::<LANES>().0) {
            let x = _mm512_mul_ps(*x, _mm512_set1_ps(inverse));
            // SAFETY: there is room for sixteen.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), x) };
        }
    }
    N * LANES
}

/// Rows times N vectors of each of as many rows of y as they have numbers, `ld` apart.
///
/// # Safety
/// These must be there, rows of x must be as long as each other, and the processor must have AVX-512.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn multiply<const N: usize>(x: [&[f32]; ROWS], y: &[f32], ld: usize) -> Vectors<N> {
    let depth = x[0].len();
    debug_assert!(x.iter().all(|x| x.len() == depth));
    debug_assert!(depth == 0 || y.len() >= (depth - 1) * ld + N * LANES);
    let mut sums = [[_mm512_setzero_ps(); N]; ROWS];
    for k in 0..depth {
        // SAFETY: the caller's word for y; rows are as long as the first.
        unsafe {
            let mut vectors = [_mm512_setzero_ps(); N];
            for (i, vector) in vectors.iter_mut().enumerate() {
                *vector = _mm512_loadu_ps(y.as_ptr().add(k * ld + i * LANES));
            }
            for (sums, x) in sums.iter_mut().zip(x) {
                let x = _mm512_set1_ps(*x.get_unchecked(k));
                for (sum, y) in sums.iter_mut().zip(vectors) {
                    *sum = _mm512_add_ps(*sum, _mm512_mul_ps(x, y));
                }
            }
        }
    }
    sums
}

/// As [`super::exponentials`].
#[inline]
#[target_feature(enable = "avx512f")]
fn exponentials<const N: usize>(x: &mut [__m512; N], scale: f32) -> f32 {
    // The second operand where one is not a number.
    let larger = |all, x| _mm512_max_ps(x, all);
    let most = x.iter().fold(_mm512_set1_ps(f32::NEG_INFINITY), |all, x| larger(all, *x));
    let (most, scale) = (_mm512_set1_ps(largest(most)), _mm512_set1_ps(scale));
    let mut sums = _mm512_setzero_ps();
    for x in x {
        let exponent = _mm512_mul_ps(_mm512_sub_ps(*x, most), scale);
        // SAFETY: there is AVX-512.
        *x = exp2_times_127(unsafe { Sixteen::new(exponent) }).vector();
        sums = _mm512_add_ps(sums, *x);
    }
    sum(sums)
}
