//! Tiles by plain WebAssembly SIMD, which multiplies 16-bit numbers: weights are widened as they
//! are loaded, activations lie widened.

use std::arch::wasm32::*;

use super::{DEPTH, Raw, Tile};

/// 4 × 8.
pub const TILE: Tile = Tile {
    rows: ROWS,
    columns: 8,
    group: 2,
    depth: DEPTH,
    activation_bytes: 2,
    asks_for_spans: false,
    run,
    hold: None,
};

const ROWS: usize = 4;

unsafe extern "C" {
    /// Adds products to `sums`, of each row two vectors: of four rows of activations, `stride` bytes
    /// apart, with a panel of 8 columns, for `count` eights of the depth; at least one. `simd128.s` has
    /// it, which the page's engine includes, as `by_spans.rs` says.
    fn pagebert_eights(a: *const u8, stride: usize, b: *const i8, sums: *mut i32, count: usize);
}

const _: () = assert!(DEPTH == 8);

/// # Safety
/// The product's bounds must hold.
unsafe fn run(product: &Raw) {
    for first in (0..product.rows).step_by(ROWS) {
        let mut sums = [[i32x4_splat(0); 2]; ROWS];
        // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from
        // `first` on, of two bytes each, and groups of 2 · 8 bytes of the panel.
        unsafe {
            if product.depth > 0 {
                let a = product.a.add(first * product.a_stride);
                let sums = sums.as_mut_ptr().cast();
                pagebert_eights(a, product.a_stride, product.b, sums, product.depth / 8);
            }
            for (row, sums) in sums.iter().enumerate() {
                let c = product.c.add((first + row) * product.c_stride);
                v128_store(c.cast(), sums[0]);
                v128_store(c.add(4).cast(), sums[1]);
            }
        }
    }
}
