//! Work shared among threads, in pieces whose bounds do not depend on how many threads there are:
//! sums come out the same with any number.
//!
//! In a browser there are threads only where the engine is compiled with atomics; rayon is there
//! wherever threads are (Cargo.toml has the same condition).

#[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
use rayon::prelude::*;

/// Rows handled by one task.
pub const BLOCK: usize = 64;

/// Gives each item, with its number, to a task.
pub fn for_each<T: Send>(items: Vec<T>, task: impl Fn(usize, T) + Sync + Send) {
    #[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
    if items.len() > 1 {
        return items
            .into_par_iter()
            .enumerate()
            .with_max_len(1)
            .for_each(|(i, item)| task(i, item));
    }
    items.into_iter().enumerate().for_each(|(i, item)| task(i, item));
}

/// Cuts a slice into pieces of given lengths.
pub fn pieces<T>(mut all: &mut [T], lengths: impl Iterator<Item = usize>) -> Vec<&mut [T]> {
    lengths
        .map(|length| {
            let (piece, rest) = std::mem::take(&mut all).split_at_mut(length);
            all = rest;
            piece
        })
        .collect()
}

/// How rows are cut among tasks: in runs of whole blocks of [`BLOCK`]. A task reads the weights
/// once for its run, so long runs read them less often; how long they are depends on the number of
/// threads, so that each has as much to do as the others. What becomes of a row must depend on its
/// block alone.
#[derive(Debug, Clone, Copy)]
pub struct Runs {
    rows: usize,
    count: usize,
}

impl Runs {
    /// The most blocks in a run: so many rows stay in the second cache.
    const MOST: usize = 4;

    /// Cuts so many rows.
    pub fn of(rows: usize) -> Self {
        let (blocks, threads) = (rows.div_ceil(BLOCK), threads());
        let count = threads * blocks.div_ceil(threads * Self::MOST);
        Self { rows, count: count.min(blocks) }
    }

    /// The first block of a run.
    fn block(&self, run: usize) -> usize {
        run * self.rows.div_ceil(BLOCK) / self.count
    }

    /// The first row of a run.
    pub fn row(&self, run: usize) -> usize {
        (self.block(run) * BLOCK).min(self.rows)
    }

    /// Cuts rows of `width`.
    pub fn cut<'a, T>(&self, all: &'a mut [T], width: usize) -> Vec<&'a mut [T]> {
        pieces(all, (0..self.count).map(|run| (self.row(run + 1) - self.row(run)) * width))
    }

    /// Cuts what has `size` elements for each block.
    pub fn cut_blocks<'a, T>(&self, all: &'a mut [T], size: usize) -> Vec<&'a mut [T]> {
        pieces(all, (0..self.count).map(|run| (self.block(run + 1) - self.block(run)) * size))
    }
}

/// How many threads there are.
#[cfg(any(not(target_family = "wasm"), target_feature = "atomics"))]
pub fn threads() -> usize {
    rayon::current_num_threads()
}

#[cfg(not(any(not(target_family = "wasm"), target_feature = "atomics")))]
pub fn threads() -> usize {
    1
}

/// Cuts `rows` rows of `width` into blocks of [`BLOCK`].
pub fn blocks<T>(all: &mut [T], rows: usize, width: usize) -> Vec<&mut [T]> {
    let starts = (0..rows).step_by(BLOCK);
    pieces(all, starts.map(|start| BLOCK.min(rows - start) * width))
}

/// Adds the rows of partial sums up, in their order: `[parts, width]` → `[width]`.
pub fn add_up(partial: &[f32], sums: &mut [f32]) {
    for part in partial.chunks_exact(sums.len().max(1)) {
        sums.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
}
