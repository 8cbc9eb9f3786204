//! Products of bytes as floats.

use super::dispatch;
use crate::cpu::gemm::{Blocks, Into, MOST_COLUMNS};
use crate::cpu::int8::{Panel, Tile};
use crate::cpu::parallel::BLOCK;

/// A product of rows of unsigned integers with one panel of signed ones, of some blocks of the summed
/// dimension, each of which has scales of its own:
/// `c = Σ (a · b − zeros · sums) · row_scales · scales`, the sum over blocks.
#[derive(Debug)]
pub struct Product<'a> {
    /// The left operand's rows, and the bytes from one to the next.
    pub a: (&'a [u8], usize),
    /// The panel, `[depth / 4, columns, 4]`.
    pub b: &'a [i8],
    /// The summed dimension of a block.
    pub depth: usize,
    /// Rows, a multiple of the tile's.
    pub rows: usize,
    /// The blocks.
    pub blocks: Blocks,
    /// The rows' scales, and how many there are from one block to the next.
    pub row_scales: (&'a [f32], usize),
    /// The rows' zero points.
    pub zeros: Zeros<'a>,
    /// The columns' sums and scales, and how many there are from one block to the next.
    pub sums: &'a [i32],
    /// See above.
    pub scales: &'a [f32],
    /// See above.
    pub column_stride: usize,
}

/// The left operand's zero points.
#[derive(Debug, Clone, Copy)]
pub enum Zeros<'a> {
    /// One a row, the same in all blocks.
    Each(&'a [i32]),
    /// All rows have the same one, and the sums have been multiplied by it.
    InSums,
}

impl Zeros<'_> {
    #[inline(always)]
    fn of(&self, row: usize) -> i32 {
        match self {
            Self::Each(zeros) => zeros[row],
            Self::InSums => 1,
        }
    }
}

/// Computes it: rows of `c` are `ldc` apart.
///
/// # Panics
/// When an operand is too short: a caller's mistake.
pub fn multiply(tile: &Tile, product: &Product<'_>, c: &mut [f32], ldc: usize, into: Into) {
    let Product { a: (a, lda), b, depth, rows, blocks, .. } = *product;
    let (last, columns) = (blocks.count.saturating_sub(1), tile.columns);
    if rows == 0 {
        return;
    }
    assert!(blocks.count > 0 || into == Into::Add, "nothing is no product");
    assert!(rows.is_multiple_of(tile.rows) && depth.is_multiple_of(tile.depth));
    assert!(c.len() >= (rows - 1) * ldc + columns);
    assert!(a.len() >= last * blocks.a_stride + (rows - 1) * lda + depth);
    assert!(b.len() >= last * blocks.b_stride + depth * columns);
    assert!(product.row_scales.0.len() >= last * product.row_scales.1 + rows);
    assert!(product.sums.len() >= last * product.column_stride + columns);
    assert!(product.scales.len() >= last * product.column_stride + columns);
    if let Zeros::Each(zeros) = product.zeros {
        assert!(zeros.len() >= rows);
    }
    #[cfg(target_arch = "x86_64")]
    if tile.is_vnni() {
        // SAFETY: such a tile is there only where its instructions are, and the bounds are those
        // asserted here.
        return unsafe { super::vnni::run(product, c.as_mut_ptr(), ldc, into) };
    }
    by_tiles(tile, product, c, ldc, into);
}

/// The same by any tile: first the integers, some rows at a time, then the floats.
fn by_tiles(tile: &Tile, product: &Product<'_>, c: &mut [f32], ldc: usize, into: Into) {
    #[repr(align(64))]
    struct Integers([i32; BLOCK * MOST_COLUMNS]);
    let mut integers = Integers([0; BLOCK * MOST_COLUMNS]);
    let _held = tile.hold();
    for first in (0..product.rows).step_by(BLOCK) {
        let rows = BLOCK.min(product.rows - first);
        for block in 0..product.blocks.count {
            let a = &product.a.0[block * product.blocks.a_stride + first * product.a.1..];
            let b = &product.b[block * product.blocks.b_stride..];
            let to = (&mut integers.0[..], tile.columns);
            let panel = Panel { data: b, fits: &[], next: &[] };
            tile.multiply((a, product.a.1), panel, product.depth, rows, to);
            let what = Finish {
                integers: &integers.0,
                first,
                rows,
                block,
                columns: tile.columns,
                add: block > 0 || into == Into::Add,
            };
            finish(what, product, &mut c[first * ldc..], ldc);
        }
    }
}

/// Some rows' integers of a block.
struct Finish<'a> {
    integers: &'a [i32],
    first: usize,
    rows: usize,
    block: usize,
    columns: usize,
    add: bool,
}

dispatch! {
fn finish(what: Finish<'_>, product: &Product<'_>, c: &mut [f32], ldc: usize) {
    let Finish { integers, first, rows, block, columns, add } = what;
    let sums = &product.sums[block * product.column_stride..][..columns];
    let scales = &product.scales[block * product.column_stride..][..columns];
    let row_scales = &product.row_scales.0[block * product.row_scales.1 + first..][..rows];
    for (row, (integers, c)) in integers.chunks_exact(columns).zip(c.chunks_mut(ldc)).enumerate() {
        let Some(row_scale) = row_scales.get(row) else { break };
        let zero = product.zeros.of(first + row);
        let columns = integers.iter().zip(sums.iter().zip(scales));
        for (c, (integer, (sum, scale))) in c.iter_mut().zip(columns) {
            let x = integer.wrapping_sub(zero.wrapping_mul(*sum)) as f32 * (row_scale * scale);
            *c = if add { *c + x } else { x };
        }
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::int8::full_range_tiles;
    use crate::dropout::{hash, normal};

    /// Every integer that there is, in all combinations of zero points and blocks.
    fn check(tile: &Tile) {
        for (tiles, depth, blocks) in [(1, 1, 1), (3, 7, 2), (9, 64, 5), (2, 200, 1)] {
            let (rows, depth) = (tiles * tile.rows, (depth as usize).next_multiple_of(tile.depth));
            let (lda, ldc) = (depth + 3, tile.columns + 5);
            let bytes = |seed, n: usize| (0..n as u64).map(move |i| hash(seed, i) >> 9);
            let a: Vec<u8> = bytes(1, blocks * rows * lda).map(|x| x as u8).collect();
            let b: Vec<i8> =
                bytes(2, blocks * depth * tile.columns).map(|x| (x as i8).max(-127)).collect();
            let floats =
                |seed, n: usize| (0..n as u64).map(|i| normal(seed, i)).collect::<Vec<_>>();
            let (row_stride, column_stride) = (rows + 1, tile.columns + 2);
            let row_scales = floats(3, blocks * row_stride);
            let scales = floats(4, blocks * column_stride);
            let sums: Vec<i32> =
                bytes(5, blocks * column_stride).map(|x| x as i32 % 5000 - 2500).collect();
            let each: Vec<i32> = bytes(6, rows).map(|x| (x & 255) as i32).collect();
            for zeros in [Zeros::Each(&each), Zeros::InSums] {
                for into in [Into::Replace, Into::Add] {
                    let product = Product {
                        a: (&a, lda),
                        b: &b,
                        depth,
                        rows,
                        blocks: Blocks {
                            count: blocks,
                            a_stride: rows * lda,
                            b_stride: depth * tile.columns,
                        },
                        row_scales: (&row_scales, row_stride),
                        zeros,
                        sums: &sums,
                        scales: &scales,
                        column_stride,
                    };
                    let mut c = vec![0.5f32; rows * ldc];
                    multiply(tile, &product, &mut c, ldc, into);
                    for (index, found) in c.iter().enumerate() {
                        let (row, column) = (index / ldc, index % ldc);
                        if column >= tile.columns {
                            assert_eq!(*found, 0.5, "beyond the last column");
                            continue;
                        }
                        let (mut expected, mut size) = (0.0, 1.0);
                        for block in 0..blocks {
                            let integer: i32 = (0..depth)
                                .map(|k| {
                                    let x = a[(block * rows + row) * lda + k];
                                    let group = (k / 4 * tile.columns + column) * 4 + k % 4;
                                    i32::from(x)
                                        * i32::from(b[block * depth * tile.columns + group])
                                })
                                .sum();
                            let at = block * column_stride + column;
                            let integer = integer - zeros.of(row) * sums[at];
                            let scale = f64::from(row_scales[block * row_stride + row]);
                            let term = f64::from(integer) * scale * f64::from(scales[at]);
                            (expected, size) = (expected + term, size + term.abs());
                        }
                        expected += if into == Into::Add { 0.5 } else { 0.0 };
                        let error = (f64::from(*found) - expected).abs();
                        assert!(error < 1e-6 * size, "{tile:?} {row} {column}: {found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_tile_multiplies() {
        full_range_tiles().iter().for_each(check);
    }
}
