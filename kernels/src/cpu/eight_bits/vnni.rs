//! Products of bytes by AVX-512-VNNI that become floats while they are in registers.

use std::arch::x86_64::*;

use super::product::{Product, Zeros};
use crate::cpu::gemm::Into;

/// Rows of a tile, and vectors of its columns: as those of the tile for integers alone.
const ROWS: usize = 8;
const VECTORS: usize = 3;
const COLUMNS: usize = 16 * VECTORS;

/// One tile's sums.
type Sums<const N: usize> = [[__m512i; VECTORS]; N];

/// # Safety
/// The processor must have AVX-512-VNNI, and the product's bounds must hold: for `c` those of rows of
/// 48 columns, `ldc` apart.
#[target_feature(enable = "avx512f,avx512vnni")]
pub unsafe fn run(product: &Product<'_>, c: *mut f32, ldc: usize, into: Into) {
    if product.blocks.count > 1 && matches!(product.zeros, Zeros::InSums) {
        // SAFETY: the caller's word for it.
        return unsafe { run_blocks(product, c, ldc, into) };
    }
    for first in (0..product.rows).step_by(ROWS) {
        for block in 0..product.blocks.count {
            // SAFETY: within the bounds that were checked for the whole product.
            unsafe {
                let mut sums = begin(product, first, block);
                let a = product.a.0.as_ptr();
                let a = a.add(block * product.blocks.a_stride + first * product.a.1);
                let b = product.b.as_ptr().add(block * product.blocks.b_stride);
                add(product.depth, a, product.a.1, b, &mut sums);
                let add = block > 0 || into == Into::Add;
                end(product, (first, block), &sums, c.add(first * ldc), ldc, add);
            }
        }
    }
}

/// The same of several blocks: half as many rows, whose floats stay in registers, too.
///
/// # Safety
/// As [`run`]; zero points must be in the sums.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn run_blocks(product: &Product<'_>, c: *mut f32, ldc: usize, into: Into) {
    const FEW: usize = ROWS / 2;
    let none = _mm512_setzero_si512();
    for first in (0..product.rows).step_by(FEW) {
        // SAFETY: within the bounds that were checked for the whole product.
        unsafe {
            let c = c.add(first * ldc);
            let mut floats = [[_mm512_setzero_ps(); VECTORS]; FEW];
            if into == Into::Add {
                for (i, floats) in floats.iter_mut().enumerate() {
                    for (j, x) in floats.iter_mut().enumerate() {
                        *x = _mm512_loadu_ps(c.add(i * ldc + 16 * j));
                    }
                }
            }
            for block in 0..product.blocks.count {
                let less = [
                    _mm512_sub_epi32(none, columns(product.sums, product, block, 0)),
                    _mm512_sub_epi32(none, columns(product.sums, product, block, 1)),
                    _mm512_sub_epi32(none, columns(product.sums, product, block, 2)),
                ];
                let mut sums = [less; FEW];
                let a = product.a.0.as_ptr();
                let a = a.add(block * product.blocks.a_stride + first * product.a.1);
                let b = product.b.as_ptr().add(block * product.blocks.b_stride);
                add(product.depth, a, product.a.1, b, &mut sums);
                let row_scales = product.row_scales.0.as_ptr();
                let row_scales = row_scales.add(block * product.row_scales.1 + first);
                for j in 0..VECTORS {
                    let scale = _mm512_castsi512_ps(columns(product.scales, product, block, j));
                    for (i, (floats, sums)) in floats.iter_mut().zip(&sums).enumerate() {
                        let x = _mm512_mul_ps(_mm512_cvtepi32_ps(sums[j]), scale);
                        let row_scale = _mm512_set1_ps(*row_scales.add(i));
                        floats[j] = _mm512_fmadd_ps(x, row_scale, floats[j]);
                    }
                }
            }
            for (i, floats) in floats.iter().enumerate() {
                for (j, x) in floats.iter().enumerate() {
                    _mm512_storeu_ps(c.add(i * ldc + 16 * j), *x);
                }
            }
        }
    }
}

/// A vector of a block's numbers of columns.
///
/// # Safety
/// They must be there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn columns<T>(of: &[T], product: &Product<'_>, block: usize, vector: usize) -> __m512i {
    // SAFETY: the caller's bounds; both kinds of numbers are four bytes.
    unsafe {
        _mm512_loadu_si512(of.as_ptr().add(block * product.column_stride + 16 * vector).cast())
    }
}

/// What sums begin with: less the zero points' part.
///
/// # Safety
/// As [`run`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn begin(product: &Product<'_>, first: usize, block: usize) -> Sums<ROWS> {
    let none = _mm512_setzero_si512();
    let mut less = [none; VECTORS];
    for (j, less) in less.iter_mut().enumerate() {
        // SAFETY: the caller's bounds.
        *less = _mm512_sub_epi32(none, unsafe { columns(product.sums, product, block, j) });
    }
    let mut sums = [less; ROWS];
    if let Zeros::Each(zeros) = product.zeros {
        for (i, sums) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let zero = _mm512_set1_epi32(unsafe { *zeros.get_unchecked(first + i) });
            for (sum, less) in sums.iter_mut().zip(less) {
                *sum = _mm512_mullo_epi32(zero, less);
            }
        }
    }
    sums
}

/// Adds the products of so much of the depth.
///
/// # Safety
/// A's rows, as many as the sums', and the panel must have it.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn add<const N: usize>(
    depth: usize,
    a: *const u8,
    lda: usize,
    b: *const i8,
    sums: &mut Sums<N>,
) {
    for group in 0..depth / 4 {
        // SAFETY: the caller's bounds.
        unsafe {
            let b = b.add(group * 4 * COLUMNS);
            let b: [__m512i; VECTORS] = [
                _mm512_loadu_si512(b.cast()),
                _mm512_loadu_si512(b.add(64).cast()),
                _mm512_loadu_si512(b.add(128).cast()),
            ];
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = a.add(row * lda + 4 * group).cast::<i32>();
                let a = _mm512_set1_epi32(a.read_unaligned());
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = _mm512_dpbusd_epi32(*sum, a, b);
                }
            }
        }
    }
}

/// Makes floats of the sums.
///
/// # Safety
/// As [`run`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn end(
    product: &Product<'_>,
    (first, block): (usize, usize),
    sums: &Sums<ROWS>,
    c: *mut f32,
    ldc: usize,
    add: bool,
) {
    // SAFETY: the caller's bounds.
    unsafe {
        let mut scales = [_mm512_setzero_ps(); VECTORS];
        for (j, scales) in scales.iter_mut().enumerate() {
            *scales = _mm512_castsi512_ps(columns(product.scales, product, block, j));
        }
        let (row_scales, stride) = product.row_scales;
        let row_scales = row_scales.as_ptr().add(block * stride + first);
        for (i, sums) in sums.iter().enumerate() {
            let row_scale = _mm512_set1_ps(*row_scales.add(i));
            for (j, sum) in sums.iter().enumerate() {
                let at = c.add(i * ldc + 16 * j);
                let x = _mm512_mul_ps(_mm512_cvtepi32_ps(*sum), scales[j]);
                let x = if add {
                    _mm512_fmadd_ps(x, row_scale, _mm512_loadu_ps(at))
                } else {
                    _mm512_mul_ps(x, row_scale)
                };
                _mm512_storeu_ps(at, x);
            }
        }
    }
}
