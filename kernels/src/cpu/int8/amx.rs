//! Tiles by AMX: 16 × 16 sums of 64 products an instruction.

use super::{Raw, Tile};
use crate::cpu::gemm::amx::{TwoByTwo, hold, two_by_two};

/// 32 × 32: two by two tiles.
pub const TILE: Tile = Tile {
    rows: ROWS,
    columns: COLUMNS,
    group: 4,
    depth: DEPTH,
    activation_bytes: 1,
    tail: None,
    asks_for_spans: false,
    by_vnni: false,
    run,
    hold: Some(hold),
};

const ROWS: usize = 32;
const COLUMNS: usize = 32;
/// A tile's row of bytes.
const DEPTH: usize = 64;

/// # Safety
/// There must be tiles ([`crate::cpu::gemm::amx::is_usable`]), and the product's bounds must hold.
unsafe fn run(product: &Raw) {
    // SAFETY: the caller's word for it.
    let _held = unsafe { hold() };
    for first in (0..product.rows).step_by(ROWS) {
        // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from
        // `first` on, of A as of C, and the panel's whole depth, which is not 0.
        unsafe {
            let operands = TwoByTwo {
                steps: product.depth / DEPTH,
                next_a: 0,
                next_b: 0,
                blocks: 1,
                a: product.a.add(first * product.a_stride),
                lda: product.a_stride,
                b: product.b.cast(),
                c: product.c.add(first * product.c_stride).cast(),
                ldc: 4 * product.c_stride,
                add: false,
            };
            two_by_two!("tdpbusd", &operands);
        }
    }
}
