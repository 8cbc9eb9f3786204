//! Tiles by ARM's NEON: by its products of four bytes where a processor has those, or else by pairs
//! of sixteen bits. Activations of 7 bits are signed bytes as well.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{DEPTH, Raw, Tile};

/// 8 × 8, by products of four bytes: 16 sums, two vectors of the panel, and each row's sixteen next
/// activations. The last rows, fewer than 8, take only as long as they are many.
pub const BY_FOURS: Tile = Tile { depth: 4 * GROUP, run: by_fours, ..BY_PAIRS };

/// 4 × 4, by products of 16 bits, of which four are added before they are widened: two registers of
/// the panel's half. Every ARM processor of 64 bits has these.
pub const BY_PAIRS: Tile = Tile {
    rows: 1,
    columns: COLUMNS,
    group: GROUP,
    depth: DEPTH,
    activation_bytes: 1,
    tail: None,
    asks_for_spans: false,
    run: by_pairs,
    hold: None,
};

const COLUMNS: usize = 8;
const GROUP: usize = 4;

/// Whether the processor has products of four bytes.
pub fn has_fours() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

/// Runs `$block::<N>` for blocks of `$most` rows and for what is left of them.
macro_rules! in_blocks {
    ($product:expr, $block:ident, $most:literal, $($fewer:literal)*) => {{
        let whole = $product.rows / $most * $most;
        for first in (0..whole).step_by($most) {
            $block::<$most>($product, first);
        }
        match $product.rows - whole {
            $($fewer => $block::<$fewer>($product, whole),)*
            _ => {}
        }
    }};
}

/// # Safety
/// [`has_fours`] must have said so, and the product's bounds must hold.
#[target_feature(enable = "neon,dotprod")]
unsafe fn by_fours(product: &Raw) {
    // SAFETY: all these rows are the product's.
    unsafe { in_blocks!(product, fours, 8, 1 2 3 4 5 6 7) }
}

/// So many rows from `first` on.
///
/// # Safety
/// As for [`by_fours`], and they must be the product's.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn fours<const ROWS: usize>(product: &Raw, first: usize) {
    let mut sums = [[vdupq_n_s32(0); 2]; ROWS];
    // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from `first` on,
    // a multiple of 16 activations of each, and groups of 4 · 8 bytes of the panel.
    unsafe {
        let a = product.a.add(first * product.a_stride).cast::<i8>();
        for k in (0..product.depth).step_by(4 * GROUP) {
            let mut next = [vdupq_n_s8(0); ROWS];
            for (row, next) in next.iter_mut().enumerate() {
                *next = vld1q_s8(a.add(row * product.a_stride + k));
            }
            let b = product.b.add(k * COLUMNS);
            group::<0, ROWS>(&mut sums, &next, b);
            group::<1, ROWS>(&mut sums, &next, b.add(GROUP * COLUMNS));
            group::<2, ROWS>(&mut sums, &next, b.add(2 * GROUP * COLUMNS));
            group::<3, ROWS>(&mut sums, &next, b.add(3 * GROUP * COLUMNS));
        }
        for (row, sums) in sums.iter().enumerate() {
            let c = product.c.add((first + row) * product.c_stride);
            vst1q_s32(c, sums[0]);
            vst1q_s32(c.add(4), sums[1]);
        }
    }
}

/// Adds the products of each row's four activations of one lane.
///
/// # Safety
/// [`has_fours`] must have said so, and a group of the panel must be there.
#[inline]
#[target_feature(enable = "neon,dotprod")]
unsafe fn group<const LANE: usize, const ROWS: usize>(
    sums: &mut [[int32x4_t; 2]; ROWS],
    a: &[int8x16_t; ROWS],
    b: *const i8,
) {
    // SAFETY: 4 · 8 bytes.
    let b = unsafe { [vld1q_s8(b), vld1q_s8(b.add(16))] };
    for (sums, a) in sums.iter_mut().zip(a) {
        for (sum, b) in sums.iter_mut().zip(b) {
            // Stable Rust has no name for it.
            // SAFETY: it touches registers alone, and the processor has it.
            unsafe {
                asm!(
                    "sdot {sum:v}.4s, {b:v}.16b, {a:v}.4b[{lane}]",
                    sum = inout(vreg) *sum,
                    b = in(vreg) b,
                    a = in(vreg) *a,
                    lane = const LANE,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
    }
}

/// # Safety
/// The product's bounds must hold.
#[target_feature(enable = "neon")]
unsafe fn by_pairs(product: &Raw) {
    // SAFETY: all these rows are the product's.
    unsafe { in_blocks!(product, pairs, 4, 1 2 3) }
}

/// So many rows from `first` on.
///
/// # Safety
/// As for [`by_pairs`], and they must be the product's.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn pairs<const ROWS: usize>(product: &Raw, first: usize) {
    // Four products of 7 bits by 7 fit 16 bits, whatever they are.
    const _: () = assert!(GROUP * super::WEIGHT_LIMIT as usize * 127 <= i16::MAX as usize);
    for half in 0..2 {
        // Of two columns the sums of both halves of a group, and of the two next to them.
        let mut sums = [[vdupq_n_s32(0); 2]; ROWS];
        // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from `first`
        // on, a multiple of four activations of each, and groups of 4 · 8 bytes of the panel.
        unsafe {
            let a = product.a.add(first * product.a_stride);
            let b = product.b.add(half * 16);
            // A sum of 16 bits holds one product of four groups.
            for k in (0..product.depth).step_by(4 * GROUP) {
                let groups = ((product.depth - k) / GROUP).min(4);
                let mut products = [[vdupq_n_s16(0); 2]; ROWS];
                for group in k / GROUP..k / GROUP + groups {
                    let b = vld1q_s8(b.add(group * GROUP * COLUMNS));
                    for (row, products) in products.iter_mut().enumerate() {
                        let a = a.add(row * product.a_stride + group * GROUP).cast::<i32>();
                        let a = vreinterpretq_s8_s32(vdupq_n_s32(a.read_unaligned()));
                        products[0] = vmlal_s8(products[0], vget_low_s8(b), vget_low_s8(a));
                        products[1] = vmlal_high_s8(products[1], b, a);
                    }
                }
                for (sums, products) in sums.iter_mut().zip(products) {
                    sums[0] = vpadalq_s16(sums[0], products[0]);
                    sums[1] = vpadalq_s16(sums[1], products[1]);
                }
            }
            for (row, sums) in sums.iter().enumerate() {
                let c = product.c.add((first + row) * product.c_stride + half * 4);
                vst1q_s32(c, vpaddq_s32(sums[0], sums[1]));
            }
        }
    }
}
