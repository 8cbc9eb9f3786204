//! Where each sequence of a packed batch begins and ends.

use std::ops::Range;

use candle_core::{Result, bail};

/// The boundaries of B sequences packed one behind the other in T rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequences {
    cu_seqlens: Vec<u32>,
    longest: usize,
}

impl Sequences {
    /// From cumulative lengths `[B+1]`: starts with 0, never decreases, ends with T.
    ///
    /// # Errors
    /// When the vector is empty, does not start with 0, or decreases.
    pub fn new(cu_seqlens: Vec<u32>) -> Result<Self> {
        if cu_seqlens.first() != Some(&0) {
            bail!("cu_seqlens must start with 0, got {:?}", cu_seqlens.first());
        }
        let mut longest = 0;
        for pair in cu_seqlens.windows(2) {
            if pair[1] < pair[0] {
                bail!("cu_seqlens must not decrease, got {} after {}", pair[1], pair[0]);
            }
            longest = longest.max(pair[1] - pair[0]);
        }
        Ok(Self { cu_seqlens, longest: longest as usize })
    }

    /// Cumulative lengths `[B+1]`.
    pub fn cu_seqlens(&self) -> &[u32] {
        &self.cu_seqlens
    }

    /// The number of sequences, B.
    pub fn len(&self) -> usize {
        self.cu_seqlens.len() - 1
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of packed rows, T.
    pub fn tokens(&self) -> usize {
        self.cu_seqlens[self.len()] as usize
    }

    /// The length of the longest sequence (0 without any).
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Each sequence's rows.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.cu_seqlens.windows(2).map(|pair| pair[0] as usize..pair[1] as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_checked() {
        for bad in [vec![], vec![1, 2], vec![0, 3, 2]] {
            assert!(Sequences::new(bad.clone()).is_err(), "{bad:?}");
        }
        let packed = Sequences::new(vec![0, 3, 3, 7]).unwrap();
        assert_eq!((packed.len(), packed.tokens(), packed.longest()), (3, 7, 4));
        assert_eq!(packed.ranges().collect::<Vec<_>>(), [0..3, 3..3, 3..7]);
        assert!(Sequences::new(vec![0]).unwrap().is_empty());
    }
}
