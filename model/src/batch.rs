//! Packed batches: real tokens one behind the other, no padding.

use std::ops::Range;

use candle_core::Tensor;
use pagebert_kernels::Sequences;

use crate::Result;

/// Some documents' windows, packed.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Token ids `[T]`.
    pub input_ids: Vec<u32>,
    /// Each token's place in its window `[T]`.
    pub position_ids: Vec<u32>,
    /// Where each of the B windows begins and ends.
    pub sequences: Sequences,
    /// How many windows each document has, in order; they add up to B.
    pub windows_per_document: Vec<usize>,
}

impl Batch {
    /// Packs documents, each a list of windows, each a list of token ids with its special tokens.
    ///
    /// # Errors
    /// When there are more tokens than a u32 counts.
    pub fn pack<'a, D, W>(documents: D) -> Result<Self>
    where
        D: IntoIterator<Item = W>,
        W: IntoIterator<Item = &'a [u32]>,
    {
        let (mut input_ids, mut position_ids) = (Vec::new(), Vec::new());
        let (mut cu_seqlens, mut windows_per_document) = (vec![0], Vec::new());
        for document in documents {
            let before = cu_seqlens.len();
            for window in document {
                input_ids.extend_from_slice(window);
                position_ids.extend(0..window.len() as u32);
                let end = u32::try_from(input_ids.len()).map_err(candle_core::Error::wrap)?;
                cu_seqlens.push(end);
            }
            windows_per_document.push(cu_seqlens.len() - before);
        }
        let sequences = Sequences::new(cu_seqlens)?;
        Ok(Self { input_ids, position_ids, sequences, windows_per_document })
    }

    /// The number of tokens, T.
    pub fn tokens(&self) -> usize {
        self.input_ids.len()
    }

    /// The means over each document's windows: `[B, C]` → `[documents, C]`.
    pub fn mean_over_windows(&self, logits: &Tensor) -> Result<Tensor> {
        if self.windows_per_document.iter().all(|&n| n == 1) {
            return Ok(logits.clone());
        }
        let (documents, windows) = (self.windows_per_document.len(), self.sequences.len());
        let mut shares = vec![0f32; documents * windows];
        let mut first = 0;
        for (document, &n) in self.windows_per_document.iter().enumerate() {
            let row = document * windows;
            shares[row + first..row + first + n].fill(1.0 / n as f32);
            first += n;
        }
        let shares = Tensor::from_vec(shares, (documents, windows), logits.device())?;
        Ok(shares.to_dtype(logits.dtype())?.matmul(logits)?)
    }
}

/// How a document longer than the model's window is cut: windows of `capacity` tokens that overlap
/// by `stride`; the last one ends with the document and may be shorter. A document that fits, the
/// empty one too, is one window.
pub fn windows(tokens: usize, capacity: usize, stride: usize) -> Vec<Range<usize>> {
    let step = capacity.saturating_sub(stride).max(1);
    let mut all = Vec::with_capacity(tokens / step + 1);
    let mut start = 0;
    loop {
        let end = (start + capacity).min(tokens);
        all.push(start..end);
        if end == tokens {
            return all;
        }
        start += step;
    }
}

/// The indices of at most `most` of `count` windows, evenly spread from first to last.
pub fn spread(count: usize, most: usize) -> Vec<usize> {
    match most {
        _ if count <= most => (0..count).collect(),
        0 | 1 => vec![0],
        _ => (0..most).map(|i| (i * (count - 1) + (most - 1) / 2) / (most - 1)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init)] // A text with one window is a case.
    fn windows_cover_overlap_and_end() {
        assert_eq!(windows(0, 10, 2), [0..0]);
        assert_eq!(windows(10, 10, 2), [0..10]);
        assert_eq!(windows(11, 10, 2), [0..10, 8..11]);
        assert_eq!(windows(18, 10, 2), [0..10, 8..18]);
        for tokens in 0..200 {
            for (capacity, stride) in [(1, 0), (7, 0), (7, 3), (16, 15)] {
                let all = windows(tokens, capacity, stride);
                assert_eq!(all[0].start, 0);
                assert_eq!(all[all.len() - 1].end, tokens);
                for pair in all.windows(2) {
                    assert_eq!(pair[0].end - pair[1].start, stride);
                    assert_eq!(pair[0].len(), capacity);
                }
            }
        }
    }

    #[test]
    fn a_spread_keeps_both_ends_and_repeats_nothing() {
        assert_eq!(spread(3, 8), [0, 1, 2]);
        assert_eq!(spread(9, 1), [0]);
        for count in 1..60 {
            for most in 2..12 {
                let chosen = spread(count, most);
                assert_eq!(chosen.len(), count.min(most));
                assert_eq!((chosen[0], chosen[chosen.len() - 1]), (0, count - 1));
                assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]), "{count} {most}");
            }
        }
    }

    #[test]
    fn documents_get_the_mean_of_their_windows() {
        let windows: [&[u32]; 3] = [&[1, 2], &[3], &[4, 5, 6]];
        let batch = Batch::pack([vec![windows[0]], vec![windows[1], windows[2]]]).unwrap();
        assert_eq!(batch.position_ids, [0, 1, 0, 0, 1, 2]);
        let logits = Tensor::new(&[[1f32, 2.0], [3.0, 5.0], [5.0, 9.0]], &Device::Cpu).unwrap();
        let mean = batch.mean_over_windows(&logits).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(mean, [[1.0, 2.0], [4.0, 7.0]]);
    }
}
