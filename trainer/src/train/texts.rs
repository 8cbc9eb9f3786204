//! Texts as token ids, ready to be packed.
//!
//! Owns how a side's tokens lie in memory: one flat array, so that a million short texts cost
//! their tokens and little more.

use std::ops::Range;

use anyhow::Result;
use pagebert_model::batch::{spread, windows};
use pagebert_model::{Batch, TextTokenizer};
use rayon::prelude::*;

use crate::progress::Bar;

/// How a text longer than the model's window is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windowing {
    /// Tokens of a window, its two special tokens included.
    pub max_tokens: usize,
    /// Tokens that neighbouring windows share.
    pub stride: usize,
    /// The most windows of one text.
    pub max_windows: usize,
}

impl Windowing {
    /// The windows of a text of so many tokens.
    pub fn ranges(&self, tokens: usize) -> Vec<Range<usize>> {
        let all = windows(tokens, self.max_tokens - 2, self.stride);
        let kept = spread(all.len(), self.max_windows);
        kept.into_iter().map(|index| all[index].clone()).collect()
    }

    /// The tokens that run through the model for a text of so many, special tokens included.
    pub fn cost(&self, tokens: usize) -> usize {
        // The common case, without an allocation.
        if tokens <= self.max_tokens - 2 {
            return tokens + 2;
        }
        self.ranges(tokens).into_iter().map(|range| range.len() + 2).sum()
    }
}

/// Tokenized texts with their classes.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    ids: Vec<u32>,
    /// Where each text ends in `ids`.
    ends: Vec<usize>,
    labels: Vec<u32>,
}

/// Texts tokenized at once: enough for every thread, little beside the tokens.
const CHUNK: usize = 4096;

impl Texts {
    /// Tokenizes texts, in parallel and in order.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode<'a>(
        texts: impl IntoIterator<Item = (&'a str, u32)>,
        tokenizer: &TextTokenizer,
        bar: &Bar,
    ) -> Result<Texts> {
        let mut encoded = Texts::default();
        let mut texts = texts.into_iter();
        loop {
            let chunk: Vec<(&str, u32)> = texts.by_ref().take(CHUNK).collect();
            if chunk.is_empty() {
                return Ok(encoded);
            }
            let ids: Vec<Vec<u32>> = chunk
                .par_iter()
                .map(|(text, _)| tokenizer.encode(text))
                .collect::<pagebert_model::Result<_>>()?;
            for (ids, (_, label)) in ids.iter().zip(&chunk) {
                encoded.ids.extend_from_slice(ids);
                encoded.ends.push(encoded.ids.len());
                encoded.labels.push(*label);
            }
            bar.add(chunk.len() as u64);
        }
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The class of a text.
    pub fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    /// A text's own tokens, without special ones.
    pub fn ids(&self, index: usize) -> &[u32] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.ids[start..self.ends[index]]
    }

    /// What each text costs in tokens that run through the model.
    pub fn costs(&self, windowing: Windowing) -> Vec<u32> {
        (0..self.len()).map(|index| windowing.cost(self.ids(index).len()) as u32).collect()
    }

    /// A text's windows, special tokens included.
    pub fn windows(
        &self,
        index: usize,
        windowing: Windowing,
        tokenizer: &TextTokenizer,
    ) -> Vec<Vec<u32>> {
        let ids = self.ids(index);
        let ranges = windowing.ranges(ids.len());
        ranges.into_iter().map(|range| tokenizer.frame(&ids[range])).collect()
    }

    /// Packs some texts, and gives their classes.
    ///
    /// # Errors
    /// When there are more tokens than a batch can count.
    pub fn pack(
        &self,
        chosen: &[u32],
        windowing: Windowing,
        tokenizer: &TextTokenizer,
    ) -> Result<(Batch, Vec<u32>)> {
        let documents: Vec<Vec<Vec<u32>>> = chosen
            .iter()
            .map(|index| self.windows(*index as usize, windowing, tokenizer))
            .collect();
        let batch = Batch::pack(documents.iter().map(|windows| windows.iter().map(Vec::as_slice)))?;
        let labels = chosen.iter().map(|index| self.label(*index as usize)).collect();
        Ok((batch, labels))
    }
}
