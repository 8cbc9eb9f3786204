//! Tiles in plain Rust, for processors without instructions of their own here.

use super::{Kernel, Raw};
use crate::cpu::Element;

const ROWS: usize = 4;

/// For any target: eight columns are two vectors of NEON or WebAssembly.
pub fn base<E: Element>() -> Kernel<E> {
    Kernel { rows: ROWS, columns: 8, run: run::<E, 8>, hold: None, split: false }
}

/// # Safety
/// The product's bounds must hold.
unsafe fn run<E: Element, const COLUMNS: usize>(product: &Raw<E>) {
    let tile = |a: *const E, b: *const E, c: *mut f32| {
        let mut sums = [[0f32; COLUMNS]; ROWS];
        // SAFETY: a tile's bounds are within the product's.
        unsafe {
            if product.add {
                for (i, sums) in sums.iter_mut().enumerate() {
                    *sums = c.add(i * product.ldc).cast::<[f32; COLUMNS]>().read();
                }
            }
            for block in 0..product.blocks.count {
                let a = a.add(block * product.blocks.a_stride);
                let b = b.add(block * product.blocks.b_stride);
                for k in (0..product.depth).step_by(E::GROUP) {
                    for e in 0..E::GROUP {
                        let mut columns = [0f32; COLUMNS];
                        for (j, column) in columns.iter_mut().enumerate() {
                            *column = (*b.add(k * COLUMNS + j * E::GROUP + e)).get();
                        }
                        for (i, sums) in sums.iter_mut().enumerate() {
                            let x = (*a.add(i * product.lda + k + e)).get();
                            for (sum, y) in sums.iter_mut().zip(columns) {
                                *sum += x * y;
                            }
                        }
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                c.add(i * product.ldc).cast::<[f32; COLUMNS]>().write(*sums);
            }
        }
    };
    // SAFETY: the caller's bounds.
    unsafe { product.tiles((ROWS, COLUMNS), tile) };
}
