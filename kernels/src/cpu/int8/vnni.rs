//! Tiles by AVX-512-VNNI: 64 products an instruction.

use std::arch::x86_64::*;

use super::{DEPTH, Raw, Tile};

/// 8 × 48: 24 sums, three vectors of the panel and one of activations.
pub const TILE: Tile = Tile {
    rows: ROWS,
    columns: 48,
    group: 4,
    depth: DEPTH,
    activation_bytes: 1,
    tail: None,
    asks_for_spans: false,
    by_vnni: true,
    run,
    hold: None,
};

const ROWS: usize = 8;

/// Whether the processor has them.
pub fn is_there() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

/// # Safety
/// [`is_there`] must have said so, and the product's bounds must hold.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn run(product: &Raw) {
    for first in (0..product.rows).step_by(ROWS) {
        let mut sums = [[_mm512_setzero_si512(); 3]; ROWS];
        // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from
        // `first` on, and groups of 4 · 48 bytes of the panel.
        unsafe {
            let a = product.a.add(first * product.a_stride);
            for group in 0..product.depth / 4 {
                let b = product.b.add(group * 192);
                let b0 = _mm512_loadu_si512(b.cast());
                let b1 = _mm512_loadu_si512(b.add(64).cast());
                let b2 = _mm512_loadu_si512(b.add(128).cast());
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = a.add(row * product.a_stride + 4 * group).cast::<i32>();
                    let a = _mm512_set1_epi32(a.read_unaligned());
                    sums[0] = _mm512_dpbusd_epi32(sums[0], a, b0);
                    sums[1] = _mm512_dpbusd_epi32(sums[1], a, b1);
                    sums[2] = _mm512_dpbusd_epi32(sums[2], a, b2);
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                let c = product.c.add((first + row) * product.c_stride);
                _mm512_storeu_si512(c.cast(), sums[0]);
                _mm512_storeu_si512(c.add(16).cast(), sums[1]);
                _mm512_storeu_si512(c.add(32).cast(), sums[2]);
            }
        }
    }
}
