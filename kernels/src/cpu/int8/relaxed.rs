//! Tiles by WebAssembly's relaxed SIMD: 16 products an instruction. It leaves open what comes of
//! activations above 127 and of sums that 16 bits do not hold; there are neither here.

use std::arch::wasm32::*;

use super::{Raw, Tile};

/// 4 × 8.
pub const TILE: Tile = Tile { rows: ROWS, columns: 8, group: 4, activation_bytes: 1, run };

const ROWS: usize = 4;

/// # Safety
/// The product's bounds must hold.
unsafe fn run(product: &Raw) {
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
            for (row, sums) in sums.iter().enumerate() {
                let c = product.c.add((first + row) * product.c_stride);
                v128_store(c.cast(), sums[0]);
                v128_store(c.add(4).cast(), sums[1]);
            }
        }
    }
}
