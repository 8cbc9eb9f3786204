//! Memory that is used again, and begins with a cache line.
//!
//! A training step needs hundreds of arrays of the same sizes as the step before. Asked of the
//! allocator, large ones come as fresh pages, which the operating system clears one by one: a tenth
//! of a step's time. These come from the arrays that earlier steps have dropped. A tile or a vector
//! that lies across two cache lines takes twice as long to load: products were 2.5 times slower.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

/// An array that goes back to the pool when it is dropped.
#[derive(Debug)]
pub struct Buffer<E: Pod> {
    lines: Vec<Line>,
    len: usize,
    elements: PhantomData<E>,
}

/// A cache line.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub struct Line([u64; 8]);

impl<E: Pod> Buffer<E> {
    /// So many elements of any value: for what is written before it is read.
    pub fn any(len: usize) -> Self {
        let lines = (len * size_of::<E>()).div_ceil(size_of::<Line>());
        Self { lines: POOL.take(lines), len, elements: PhantomData }
    }

    /// So many zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::any(len);
        buffer.fill(E::zeroed());
        buffer
    }
}

impl<E: Pod> Drop for Buffer<E> {
    fn drop(&mut self) {
        POOL.give(std::mem::take(&mut self.lines));
    }
}

impl<E: Pod> Deref for Buffer<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<E: Pod> DerefMut for Buffer<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// Arrays that wait for their next use, smallest first, and of one size the one that was used last,
/// which may still be in a cache.
#[derive(Debug)]
struct Pool(Mutex<Vec<Vec<Line>>>);

static POOL: Pool = Pool(Mutex::new(Vec::new()));

/// Below this the allocator is as fast.
const SMALL: usize = 64;

/// There memory is never given back to the system.
const IN_A_PAGE: bool = cfg!(target_family = "wasm");

/// So many times as large as what is asked for is far too large. In a page anything is used that
/// fits: as the smallest is taken, a text asks for no more arrays than a longer one before it.
const TOO_LARGE: usize = if IN_A_PAGE { usize::MAX } else { 4 };

impl Pool {
    /// An array of at least so many lines. It keeps its own length: to grow again, it would have to
    /// be cleared.
    fn take(&self, len: usize) -> Vec<Line> {
        if len < SMALL {
            return vec![Line::zeroed(); len];
        }
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let best = waiting.partition_point(|array| array.len() < len);
        // One that is far too large is left to others.
        let most = len.saturating_mul(TOO_LARGE);
        if waiting.get(best).is_none_or(|array| array.len() > most) {
            // The one next below gives way, so that not every size that ever was is kept. In a page
            // all do: side by side they may be room for this one, which memory then need not grow for.
            let first = if IN_A_PAGE { 0 } else { best.saturating_sub(1) };
            let dropped: Vec<_> = waiting.drain(first..best).collect();
            drop(waiting);
            drop(dropped);
            return vec![Line::zeroed(); len];
        }
        waiting.remove(best)
    }

    fn give(&self, array: Vec<Line>) {
        if array.len() >= SMALL {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let at = waiting.partition_point(|other| other.len() < array.len());
            waiting.insert(at, array);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{Bf16, Element};

    #[test]
    fn arrays_come_back() {
        let pool = Pool(Mutex::new(Vec::new()));
        let first = pool.take(10_000);
        let place = first.as_ptr();
        pool.give(first);
        // Far too large for this one.
        let small = pool.take(2_000);
        assert_ne!(small.as_ptr(), place);
        let again = pool.take(9_000);
        assert_eq!((again.as_ptr(), again.len()), (place, 10_000));
    }

    #[test]
    fn buffers_begin_with_a_line_and_zeros_are_zeros() {
        for len in [0, 1, 31, 5_000, 100_001] {
            let mut buffer = Buffer::<Bf16>::any(len);
            assert!(buffer.len() == len && (buffer.as_ptr() as usize).is_multiple_of(64));
            buffer.fill(Bf16::new(1.0));
            drop(buffer);
            assert!(Buffer::<f32>::zeros(len / 2).iter().all(|x| *x == 0.0));
        }
    }
}
