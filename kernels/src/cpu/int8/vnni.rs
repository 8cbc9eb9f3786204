//! Tiles by AVX-512-VNNI: 64 products an instruction.

use std::arch::x86_64::*;

use super::{DEPTH, Raw, Tile};

/// 8 × 48: 24 sums, three vectors of the panel and one of activations. The last rows, fewer than 8,
/// take only as long as they are many.
pub const TILE: Tile = Tile {
    rows: 1,
    columns: COLUMNS,
    group: 4,
    depth: DEPTH,
    activation_bytes: 1,
    tail: None,
    asks_for_spans: false,
    by_vnni: false,
    run,
    hold: None,
};

/// The same for whole blocks of rows, which is how training multiplies.
pub const WHOLE: Tile = Tile { rows: ROWS, by_vnni: true, ..TILE };

/// Rows multiplied at once; of the last ones fewer.
const ROWS: usize = 8;

const COLUMNS: usize = 48;

/// Whether the processor has them.
pub fn is_there() -> bool {
    is_x86_feature_detected!("avx512vnni")
}

/// # Safety
/// [`is_there`] must have said so, and the product's bounds must hold.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn run(product: &Raw) {
    let whole = product.rows / ROWS * ROWS;
    // SAFETY: all these rows are the product's.
    unsafe {
        for first in (0..whole).step_by(ROWS) {
            block::<ROWS>(product, first);
        }
        match product.rows - whole {
            0 => {}
            1 => block::<1>(product, whole),
            2 => block::<2>(product, whole),
            3 => block::<3>(product, whole),
            4 => block::<4>(product, whole),
            5 => block::<5>(product, whole),
            6 => block::<6>(product, whole),
            _ => block::<7>(product, whole),
        }
    }
}

/// So many rows from `first` on.
///
/// # Safety
/// As for [`run`], and they must be the product's.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn block<const ROWS: usize>(product: &Raw, first: usize) {
    let mut sums = [[_mm512_setzero_si512(); 3]; ROWS];
    // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from `first` on,
    // and groups of 4 · 48 bytes of the panel.
    unsafe {
        let a = product.a.add(first * product.a_stride);
        for group in 0..product.depth / 4 {
            let b = product.b.add(group * 4 * COLUMNS);
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
