//! Tiles by WebAssembly's relaxed SIMD: 16 products an instruction. It leaves open what comes of
//! activations above 127 and of sums that 16 bits do not hold; there are neither here.
//!
//! What that instruction becomes differs: one instruction on processors with VNNI, and five on
//! other x86 processors. There it is faster to add its halves up in 16 bits as long as they fit, and
//! to widen once. Both give the same integers.

use std::arch::wasm32::*;
use std::hint::black_box;

use super::by_spans::{SPANS, Sums};
use super::spans::SPAN;
use super::{Ahead, DEPTH, Raw, Tile};

/// The tile that is faster here.
pub fn tile() -> Tile {
    of(saturates())
}

/// Both, which give the same integers everywhere.
#[cfg(any(test, feature = "checks"))]
pub fn tiles() -> [Tile; 2] {
    [false, true].map(of)
}

fn of(saturates: bool) -> Tile {
    let (rows, run): (_, unsafe fn(&Raw)) = if saturates { (1, in_pairs) } else { (ROWS, at_once) };
    Tile {
        rows,
        columns: 8,
        group: 4,
        depth: DEPTH,
        activation_bytes: 1,
        tail: None,
        asks_for_spans: saturates,
        run,
        hold: None,
    }
}

/// Whether products of bytes are made by the x86 instruction that adds two of them up in 16 bits
/// and cuts off what these do not hold. Told by operands of which the result is left open:
/// 2 · 32767 where it is so; else the sum of four products, of the second operand with its sign or
/// without.
fn saturates() -> bool {
    let (most, all_bits) = (i8x16_splat(black_box(127)), i8x16_splat(black_box(-1)));
    let sums = i32x4_relaxed_dot_i8x16_i7x16_add(most, all_bits, i32x4_splat(0));
    i32x4_extract_lane::<0>(sums) == 2 * i32::from(i16::MAX)
}

/// Rows of both tiles, 4 × 8.
const ROWS: usize = 4;

/// # Safety
/// The product's bounds must hold.
unsafe fn at_once(product: &Raw) {
    for first in (0..product.rows).step_by(ROWS) {
        let mut sums = [[i32x4_splat(0); 2]; ROWS];
        // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from
        // `first` on, and groups of 4 · 8 bytes of the panel.
        unsafe {
            let a = product.a.add(first * product.a_stride);
            for group in 0..product.depth / 4 {
                let b = product.b.add(group * 32);
                let b0 = v128_load(b.cast());
                let b1 = v128_load(b.add(16).cast());
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = a.add(row * product.a_stride + 4 * group);
                    let a = v128_load32_splat(a.cast());
                    sums[0] = i32x4_relaxed_dot_i8x16_i7x16_add(b0, a, sums[0]);
                    sums[1] = i32x4_relaxed_dot_i8x16_i7x16_add(b1, a, sums[1]);
                }
            }
            store(&sums, product, first);
        }
    }
}

/// # Safety
/// The product's bounds must hold.
unsafe fn in_pairs(product: &Raw) {
    let mut first = 0;
    // SAFETY: the caller's promise, by which the next panel is there, too, and so many rows are left.
    unsafe {
        if product.spans > 0 {
            let mut ahead = Ahead::of(product, product.rows.div_ceil(ROWS));
            while first < product.rows {
                match product.rows - first {
                    1 => rows_by_spans::<1>(product, first),
                    2 => rows_by_spans::<2>(product, first),
                    3 => rows_by_spans::<3>(product, first),
                    _ => rows_by_spans::<ROWS>(product, first),
                }
                first += ROWS;
                ahead.go();
            }
            return;
        }
        // With a fourth row these sums do not stay in registers. What three do not divide is left
        // to one tile of two, or two of them.
        while product.rows - first >= 5 || product.rows - first == 3 {
            rows_in_pairs::<3>(product, first);
            first += 3;
        }
        while product.rows - first >= 2 {
            rows_in_pairs::<2>(product, first);
            first += 2;
        }
        if product.rows > first {
            rows_in_pairs::<1>(product, first);
        }
    }
}

/// # Safety
/// The product's bounds must hold, and there must be `N` rows from `first` on.
unsafe fn rows_by_spans<const N: usize>(product: &Raw, first: usize) {
    let mut sums: Sums<N> = [[i32x4_splat(0); 2]; N];
    // SAFETY: within the bounds that were checked for the whole product: `N` rows from `first` on,
    // and so many elements of the depth as are left.
    unsafe {
        let (mut a, mut b) = (product.a.add(first * product.a_stride), product.b);
        let mut k = 0;
        while k < product.depth {
            let mut here = 0;
            while product.together(k + here) == SPAN {
                here += SPAN;
            }
            if here > 0 {
                SPANS[N - 1](a, product.a_stride, b, sums.as_mut_ptr().cast(), here / SPAN);
            } else {
                here = DEPTH;
                add_pairs(a, product.a_stride, b, &mut sums);
            }
            (a, b) = (a.add(here), b.add(8 * here));
            k += here;
        }
        store(&sums, product, first);
    }
}

/// # Safety
/// The product's bounds must hold, and there must be `N` rows from `first` on.
unsafe fn rows_in_pairs<const N: usize>(product: &Raw, first: usize) {
    let mut sums: Sums<N> = [[i32x4_splat(0); 2]; N];
    // SAFETY: within the bounds that were checked for the whole product: `N` rows from `first` on,
    // and a depth that is a multiple of 8.
    unsafe {
        let (mut a, mut b) = (product.a.add(first * product.a_stride), product.b);
        for _ in 0..product.depth / DEPTH {
            add_pairs(a, product.a_stride, b, &mut sums);
            (a, b) = (a.add(DEPTH), b.add(8 * DEPTH));
        }
        store(&sums, product, first);
    }
}

/// Adds the products of [`DEPTH`] elements of any weights.
///
/// # Safety
/// There must be so many elements of `N` rows and of the panel.
#[inline(always)]
unsafe fn add_pairs<const N: usize>(
    a: *const u8,
    a_stride: usize,
    b: *const i8,
    sums: &mut Sums<N>,
) {
    for half in 0..2 {
        // SAFETY: the caller's promise.
        unsafe {
            let b0 = v128_load(b.add(16 * half).cast());
            let b1 = v128_load(b.add(32 + 16 * half).cast());
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = a.add(row * a_stride);
                let a0 = v128_load32_splat(a.cast());
                let a1 = v128_load32_splat(a.add(4).cast());
                // At most 4 · 127 · 63, which 16 bits hold.
                let pairs = i16x8_add(
                    i16x8_relaxed_dot_i8x16_i7x16(b0, a0),
                    i16x8_relaxed_dot_i8x16_i7x16(b1, a1),
                );
                sums[half] = i32x4_add(sums[half], i32x4_extadd_pairwise_i16x8(pairs));
            }
        }
    }
}

/// # Safety
/// The product's bounds must hold, and there must be `N` rows from `first` on.
#[inline(always)]
unsafe fn store<const N: usize>(sums: &Sums<N>, product: &Raw, first: usize) {
    for (row, sums) in sums.iter().enumerate() {
        // SAFETY: within the bounds that were checked for the whole product.
        unsafe {
            let c = product.c.add((first + row) * product.c_stride);
            v128_store(c.cast(), sums[0]);
            v128_store(c.add(4).cast(), sums[1]);
        }
    }
}
