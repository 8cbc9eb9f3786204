//! Tiles by plain WebAssembly SIMD, which multiplies 16-bit numbers: weights are widened as they
//! are loaded, activations lie widened.

use std::arch::wasm32::*;

use super::{Raw, Tile};

/// 4 × 8.
pub const TILE: Tile =
    Tile { rows: ROWS, columns: 8, group: 2, activation_bytes: 2, asks_for_spans: false, run };

const ROWS: usize = 4;

/// # Safety
/// The product's bounds must hold.
unsafe fn run(product: &Raw) {
    for first in (0..product.rows).step_by(ROWS) {
        let mut sums = [[i32x4_splat(0); 2]; ROWS];
        // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from
        // `first` on, of two bytes each, and groups of 2 · 8 bytes of the panel.
        unsafe {
            let a = product.a.add(first * product.a_stride);
            for group in 0..product.depth / 2 {
                let b = product.b.add(group * 16);
                let b0 = i16x8_load_extend_i8x8(b);
                let b1 = i16x8_load_extend_i8x8(b.add(8));
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a = a.add(row * product.a_stride + 4 * group);
                    let a = v128_load32_splat(a.cast());
                    sums[0] = i32x4_add(sums[0], i32x4_dot_i16x8(b0, a));
                    sums[1] = i32x4_add(sums[1], i32x4_dot_i16x8(b1, a));
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
