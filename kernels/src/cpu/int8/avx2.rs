//! Tiles by AVX2: pairs of products in 16 bits, which are added up there as long as they fit.

use std::arch::x86_64::*;

use super::{Raw, Tile};

/// 3 × 16: with a fourth row sums do not stay in registers.
pub const TILE: Tile =
    Tile { rows: ROWS, columns: 16, group: 4, activation_bytes: 1, asks_for_spans: true, run };

const ROWS: usize = 3;

/// # Safety
/// The processor must have AVX2, and the product's bounds must hold.
#[target_feature(enable = "avx2")]
unsafe fn run(product: &Raw) {
    let ones = _mm256_set1_epi16(1);
    for first in (0..product.rows).step_by(ROWS) {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from
        // `first` on, and so many elements of the depth as are left.
        unsafe {
            let (mut a, mut b) = (product.a.add(first * product.a_stride), product.b);
            let mut k = 0;
            while k < product.depth {
                let here = product.together(k);
                let mut short = [[_mm256_setzero_si256(); 2]; ROWS];
                for _ in 0..here / 4 {
                    let (b0, b1) =
                        (_mm256_loadu_si256(b.cast()), _mm256_loadu_si256(b.add(32).cast()));
                    for (row, short) in short.iter_mut().enumerate() {
                        let a = a.add(row * product.a_stride).cast::<i32>();
                        let a = _mm256_set1_epi32(a.read_unaligned());
                        short[0] = _mm256_add_epi16(short[0], _mm256_maddubs_epi16(a, b0));
                        short[1] = _mm256_add_epi16(short[1], _mm256_maddubs_epi16(a, b1));
                    }
                    (a, b) = (a.add(4), b.add(64));
                }
                for (sums, short) in sums.iter_mut().zip(short) {
                    sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(short[0], ones));
                    sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(short[1], ones));
                }
                k += here;
            }
            for (row, sums) in sums.iter().enumerate() {
                let c = product.c.add((first + row) * product.c_stride);
                _mm256_storeu_si256(c.cast(), sums[0]);
                _mm256_storeu_si256(c.add(8).cast(), sums[1]);
            }
        }
    }
}
