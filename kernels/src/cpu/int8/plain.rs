//! Tiles in ordinary arithmetic: the oracle of all others.

use super::{DEPTH, Raw, Tile};

/// 4 × 8.
pub const TILE: Tile = Tile {
    rows: ROWS,
    columns: COLUMNS,
    group: GROUP,
    depth: DEPTH,
    activation_bytes: 1,
    tail: None,
    asks_for_spans: false,
    #[cfg(target_arch = "x86_64")]
    by_vnni: false,
    run,
    hold: None,
};

const ROWS: usize = 4;
const COLUMNS: usize = 8;
const GROUP: usize = 4;

/// # Safety
/// The product's bounds must hold.
unsafe fn run(product: &Raw) {
    for row in 0..product.rows {
        let mut sums = [0i32; COLUMNS];
        for group in 0..product.depth / GROUP {
            for (column, sum) in sums.iter_mut().enumerate() {
                for k in 0..GROUP {
                    // SAFETY: within the bounds that were checked for the whole product.
                    let (a, b) = unsafe {
                        (
                            *product.a.add(row * product.a_stride + group * GROUP + k),
                            *product.b.add((group * COLUMNS + column) * GROUP + k),
                        )
                    };
                    *sum += i32::from(a) * i32::from(b);
                }
            }
        }
        for (column, sum) in sums.iter().enumerate() {
            // SAFETY: as above.
            unsafe { *product.c.add(row * product.c_stride + column) = *sum };
        }
    }
}
