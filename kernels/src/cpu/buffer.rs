//! Memory that is used again.
//!
//! A training step needs hundreds of arrays of the same sizes as the step before. Asked of the
//! allocator, large ones come as fresh pages, which the operating system clears one by one: a tenth
//! of a step's time. These come from the arrays that earlier steps have dropped.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use super::Element;

/// An array that goes back to its [`Pool`] when it is dropped.
#[derive(Debug)]
pub struct Buffer<E: Element> {
    data: Vec<E>,
}

impl<E: Element> Buffer<E> {
    /// So many elements of any value: for what is written before it is read.
    pub fn any(len: usize) -> Self {
        Self { data: E::pool().take(len) }
    }

    /// So many zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::any(len);
        buffer.fill(E::zeroed());
        buffer
    }

    /// The array itself, which then does not come back.
    pub fn into_vec(mut self) -> Vec<E> {
        std::mem::take(&mut self.data)
    }
}

impl<E: Element> From<Vec<E>> for Buffer<E> {
    fn from(data: Vec<E>) -> Self {
        Self { data }
    }
}

impl<E: Element> Drop for Buffer<E> {
    fn drop(&mut self) {
        E::pool().give(std::mem::take(&mut self.data));
    }
}

impl<E: Element> Deref for Buffer<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.data
    }
}

impl<E: Element> DerefMut for Buffer<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.data
    }
}

/// Arrays that wait for their next use.
#[derive(Debug)]
pub struct Pool<E>(Mutex<Vec<Vec<E>>>);

/// Below this the allocator is as fast.
const SMALL_BYTES: usize = 1 << 12;

impl<E: Element> Pool<E> {
    /// Nothing waits.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn take(&self, len: usize) -> Vec<E> {
        if len * size_of::<E>() < SMALL_BYTES {
            return vec![E::zeroed(); len];
        }
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = waiting.iter().enumerate().filter(|(_, array)| array.capacity() >= len);
        let best = fits.min_by_key(|(_, array)| array.capacity()).map(|(index, _)| index);
        // One that is far too large is left to others.
        let best = best.filter(|index| waiting[*index].capacity() <= 4 * len);
        let mut array = match best {
            Some(index) => waiting.swap_remove(index),
            None => {
                // The one next below grows, so that not every size that ever was is kept.
                let below = waiting.iter().enumerate().filter(|(_, array)| array.capacity() < len);
                let next = below.max_by_key(|(_, array)| array.capacity()).map(|(index, _)| index);
                if let Some(index) = next {
                    waiting.swap_remove(index);
                }
                drop(waiting);
                return vec![E::zeroed(); len];
            }
        };
        drop(waiting);
        array.resize(len, E::zeroed());
        array
    }

    fn give(&self, array: Vec<E>) {
        if array.capacity() * size_of::<E>() >= SMALL_BYTES {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(array);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_come_back_and_zeros_are_zeros() {
        let pool = Pool::<f32>::new();
        let mut first = pool.take(10_000);
        first.fill(3.0);
        let place = first.as_ptr();
        pool.give(first);
        // Far too large for this one.
        let small = pool.take(2_000);
        assert_ne!(small.as_ptr(), place);
        let again = pool.take(9_000);
        assert_eq!((again.as_ptr(), again.len()), (place, 9_000));
        assert!(Buffer::<f32>::zeros(5_000).iter().all(|x| *x == 0.0));
        drop(Buffer::<f32>::from(vec![1.0; 5_000]));
        assert!(Buffer::<f32>::zeros(5_000).iter().all(|x| *x == 0.0));
    }
}
