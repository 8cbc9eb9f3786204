//! Work shared among threads, in pieces whose bounds do not depend on how many threads there are:
//! sums come out the same with any number.
//!
//! In a browser there are threads only where the engine is compiled with atomics; rayon is there
//! wherever threads are (Cargo.toml has the same condition).

#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
#[path = "parallel/awake.rs"]
mod pool;
#[cfg(not(target_family = "wasm"))]
#[path = "parallel/native.rs"]
mod pool;
#[cfg(all(target_family = "wasm", not(target_feature = "atomics")))]
#[path = "parallel/alone.rs"]
mod pool;

pub use pool::{for_each, share, threads};

/// Has all threads wait for work as a page's do. Returns where memory has the number by which the
/// page wakes them when it sends a text that they will share: add one to it and notify all who wait
/// there.
#[cfg(all(target_family = "wasm", target_feature = "atomics"))]
pub fn bell() -> *const u32 {
    pool::ask_to_stay();
    pool::BELL.number().as_ptr()
}

// Native tests try what pages run.
#[cfg(all(test, not(target_family = "wasm")))]
#[path = "parallel/awake.rs"]
mod awake;

/// Rows handled by one task.
pub const BLOCK: usize = 64;

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

/// How rows are cut among tasks: in runs of whole blocks. A task reads the weights once for its
/// run, so long runs read them less often; how long they are depends on the number of threads, so
/// that each has as much to do as the others. What becomes of a row must depend on its block alone.
#[derive(Debug, Clone, Copy)]
pub struct Runs {
    rows: usize,
    block: usize,
    count: usize,
}

impl Runs {
    /// The most blocks in a run: so many rows stay in the second cache.
    const MOST: usize = 4;

    /// The rows of a block where none depends on others: about a tile's, but for AMX's, to whose 32
    /// rows a short run is padded.
    const FEW: usize = 8;

    /// The most rows of such a run. A page waits for memory longer, as it can ask for it beforehand only by
    /// reading it, and plain WebAssembly SIMD prepares a weight once a run besides.
    const MOST_ROWS: usize = if !cfg!(target_arch = "wasm32") {
        32
    } else if cfg!(target_feature = "relaxed-simd") {
        64
    } else {
        128
    };

    /// How many such runs each of several threads gets at least, as far as there are blocks. A page's
    /// threads may come late, or share a core with others: who is faster then takes one more.
    const LEAST_A_THREAD: usize = if cfg!(target_arch = "wasm32") { 2 } else { 1 };

    /// Cuts so many rows into runs of whole blocks of [`BLOCK`].
    pub fn of(rows: usize) -> Self {
        Self::cut_in(rows, BLOCK, Self::MOST, 1)
    }

    /// Cuts so many rows, none of which depends on others, so that a short text too is work for
    /// several threads. A run is so short that most of what it makes of its rows stays in the second
    /// cache.
    pub fn of_independent(rows: usize) -> Self {
        let least = if threads() > 1 { Self::LEAST_A_THREAD } else { 1 };
        Self::cut_in(rows, Self::FEW, Self::MOST_ROWS / Self::FEW, least)
    }

    /// `most` blocks in a run, and at least `least` runs for each thread.
    fn cut_in(rows: usize, block: usize, most: usize, least: usize) -> Self {
        let (blocks, threads) = (rows.div_ceil(block), threads());
        let count = threads * blocks.div_ceil(threads * most).max(least);
        Self { rows, block, count: count.min(blocks) }
    }

    /// The first block of a run.
    fn block(&self, run: usize) -> usize {
        run * self.rows.div_ceil(self.block) / self.count
    }

    /// The first row of a run.
    pub fn row(&self, run: usize) -> usize {
        (self.block(run) * self.block).min(self.rows)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// What a page's threads are: the caller is the first, and no other works for anyone else. Once
    /// a process: threads are asked to stay once.
    fn in_own_pool(test: impl FnOnce() + Send + 'static) {
        let in_thread = move || {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).use_current_thread();
            let pool = pool.build().unwrap();
            pool.install(test);
            // Its threads never end.
            std::mem::forget(pool);
        };
        std::thread::spawn(in_thread).join().unwrap();
    }

    #[test]
    fn threads_that_stay_do_every_task_once() {
        in_own_pool(|| {
            let sum = AtomicUsize::new(0);
            let add = |index: usize, item: usize| {
                assert_eq!(index, item);
                sum.fetch_add(item + 1, Ordering::Relaxed);
            };
            // From threads of the pool as well: first, as one may be asked to stay while it waits.
            let all = awake::threads();
            assert_eq!(all, 3);
            for (rows, threads) in [(0, 1), (31, 1), (32, all), (512, all)] {
                sum.store(0, Ordering::Relaxed);
                awake::share(rows, || {
                    assert_eq!(awake::threads(), threads);
                    awake::for_each((0..8).collect(), |_, _: usize| {
                        awake::for_each((0..8).collect(), |_, _: usize| {
                            sum.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                });
                assert_eq!(sum.load(Ordering::Relaxed), 64);
                assert_eq!(awake::threads(), all);
            }
            for round in 0..100 {
                for count in [0, 1, 2, 3, 50] {
                    sum.store(0, Ordering::Relaxed);
                    awake::for_each((0..count).collect(), add);
                    assert_eq!(sum.load(Ordering::Relaxed), count * (count + 1) / 2);
                }
                if round % 20 == 0 {
                    // Until they sleep.
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
            }
        });
    }

    #[test]
    fn runs_are_all_rows_in_whole_blocks() {
        for rows in [0, 1, 7, 8, 9, 64, 65, 100, 512, 1000] {
            let twice = Runs::cut_in(rows, Runs::FEW, Runs::MOST, 2);
            assert!(twice.count >= rows.div_ceil(Runs::FEW).min(2 * threads()));
            for (runs, block) in [
                (Runs::of(rows), BLOCK),
                (Runs::of_independent(rows), Runs::FEW),
                (twice, Runs::FEW),
            ] {
                let mut all = vec![0; rows * 3];
                let mut first = 0;
                for (index, run) in runs.cut(&mut all, 3).into_iter().enumerate() {
                    assert!(runs.row(index) == first && first.is_multiple_of(block));
                    assert!(!run.is_empty() && run.len() / 3 <= Runs::MOST * BLOCK);
                    first += run.len() / 3;
                }
                assert_eq!(first, rows);
            }
        }
    }
}
