//! Tiles by AVX2: pairs of products in 16 bits, of which two are added before they are widened.

use std::arch::x86_64::*;

use super::{Raw, Tile};

/// 4 × 16.
pub const TILE: Tile = Tile { rows: ROWS, columns: 16, group: 4, activation_bytes: 1, run };

const ROWS: usize = 4;

/// # Safety
/// The processor must have AVX2, and the product's bounds must hold.
#[target_feature(enable = "avx2")]
unsafe fn run(product: &Raw) {
    let ones = _mm256_set1_epi16(1);
    for first in (0..product.rows).step_by(ROWS) {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from
        // `first` on, and two groups of 4 · 16 bytes of the panel (the depth is a multiple of 8).
        unsafe {
            let a = product.a.add(first * product.a_stride);
            for groups in 0..product.depth / 8 {
                let b = product.b.add(groups * 128);
                let b: [__m256i; 4] =
                    std::array::from_fn(|i| _mm256_loadu_si256(b.add(32 * i).cast()));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = a.add(row * product.a_stride + 8 * groups).cast::<i32>();
                    let a0 = _mm256_set1_epi32(a.read_unaligned());
                    let a1 = _mm256_set1_epi32(a.add(1).read_unaligned());
                    for half in 0..2 {
                        // At most 4 · 127 · 63, which 16 bits hold.
                        let pairs = _mm256_add_epi16(
                            _mm256_maddubs_epi16(a0, b[half]),
                            _mm256_maddubs_epi16(a1, b[2 + half]),
                        );
                        sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                let c = product.c.add((first + row) * product.c_stride);
                _mm256_storeu_si256(c.cast(), sums[0]);
                _mm256_storeu_si256(c.add(8).cast(), sums[1]);
            }
        }
    }
}
