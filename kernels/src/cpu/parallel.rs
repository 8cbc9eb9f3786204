//! Work shared among threads, in pieces whose bounds do not depend on how many threads there are:
//! sums come out the same with any number.

#[cfg(not(target_family = "wasm"))]
use rayon::prelude::*;

/// Rows handled by one task.
pub const BLOCK: usize = 32;

/// Hands `out`, rows of `width`, out in blocks: `task` gets the first row's number and the block.
pub fn for_rows(out: &mut [f32], width: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
    let size = (BLOCK * width).max(1);
    #[cfg(not(target_family = "wasm"))]
    out.par_chunks_mut(size).enumerate().for_each(|(i, block)| task(i * BLOCK, block));
    #[cfg(target_family = "wasm")]
    out.chunks_mut(size).enumerate().for_each(|(i, block)| task(i * BLOCK, block));
}

/// As [`for_rows`], with two outputs of the same rows.
pub fn for_rows2(
    (first, width): (&mut [f32], usize),
    (second, width2): (&mut [f32], usize),
    task: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
) {
    let (size, size2) = ((BLOCK * width).max(1), (BLOCK * width2).max(1));
    #[cfg(not(target_family = "wasm"))]
    first
        .par_chunks_mut(size)
        .zip(second.par_chunks_mut(size2))
        .enumerate()
        .for_each(|(i, (a, b))| task(i * BLOCK, a, b));
    #[cfg(target_family = "wasm")]
    first
        .chunks_mut(size)
        .zip(second.chunks_mut(size2))
        .enumerate()
        .for_each(|(i, (a, b))| task(i * BLOCK, a, b));
}

/// Hands pieces of given lengths out, one a task.
pub fn for_pieces(
    mut out: &mut [f32],
    lengths: impl Iterator<Item = usize>,
    task: impl Fn(usize, &mut [f32]) + Sync,
) {
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, rest) = out.split_at_mut(length);
        pieces.push(piece);
        out = rest;
    }
    #[cfg(not(target_family = "wasm"))]
    pieces.into_par_iter().enumerate().for_each(|(i, piece)| task(i, piece));
    #[cfg(target_family = "wasm")]
    pieces.into_iter().enumerate().for_each(|(i, piece)| task(i, piece));
}

/// The sums of columns over blocks of rows, added up in the blocks' order. `task` adds the rows
/// from the first number to before the second to its sums.
pub fn column_sums(
    rows: usize,
    width: usize,
    task: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let blocks = rows.div_ceil(BLOCK);
    let mut partial = vec![0f32; blocks * width];
    for_pieces(&mut partial, (0..blocks).map(|_| width), |i, sums| {
        task(i * BLOCK, ((i + 1) * BLOCK).min(rows), sums);
    });
    let mut sums = vec![0f32; width];
    for block in partial.chunks(width.max(1)) {
        sums.iter_mut().zip(block).for_each(|(sum, x)| *sum += x);
    }
    sums
}
