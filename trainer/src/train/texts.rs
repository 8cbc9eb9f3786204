//! Texts as token ids, ready to be packed.
//!
//! Owns which texts of a token file are on a side, and how they are cut into windows. Memory holds
//! eight bytes a text here; ids are read when they are wanted.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context, Result};
use pagebert_model::batch::{spread, windows};
use pagebert_model::{Batch, TextTokenizer};

use super::tokens::TokenFile;

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

/// Tokenized texts with their classes: those of one side.
#[derive(Debug, Clone)]
pub struct Texts {
    tokens: Arc<TokenFile>,
    /// Their numbers in the token file.
    members: Vec<u32>,
    labels: Vec<u32>,
}

impl Texts {
    /// Some texts of a token file, each a number with its class.
    ///
    /// # Errors
    /// When there are more than a u32 counts.
    pub fn new(
        tokens: Arc<TokenFile>,
        members: impl IntoIterator<Item = (usize, u32)>,
    ) -> Result<Texts> {
        let mut texts = Texts { tokens, members: Vec::new(), labels: Vec::new() };
        for (member, label) in members {
            texts.members.push(u32::try_from(member).context("too many rows to train on")?);
            texts.labels.push(label);
        }
        Ok(texts)
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The class of a text.
    pub fn label(&self, index: usize) -> u32 {
        self.labels[index]
    }

    /// What a text costs in tokens that run through the model.
    pub fn cost(&self, index: usize, windowing: Windowing) -> usize {
        windowing.cost(self.tokens.tokens(self.members[index] as usize))
    }

    /// What each text costs.
    pub fn costs(&self, windowing: Windowing) -> Vec<u32> {
        (0..self.len()).map(|index| self.cost(index, windowing) as u32).collect()
    }

    /// A text's windows, special tokens included.
    ///
    /// # Errors
    /// When the token file can't be read.
    pub fn windows(
        &self,
        index: usize,
        windowing: Windowing,
        tokenizer: &TextTokenizer,
    ) -> Result<Vec<Vec<u32>>> {
        let ids = self.tokens.read(self.members[index] as usize);
        let ids = ids.context("the file of token ids can't be read")?;
        let ranges = windowing.ranges(ids.len());
        Ok(ranges.into_iter().map(|range| tokenizer.frame(&ids[range])).collect())
    }

    /// Packs some texts, and gives their classes.
    ///
    /// # Errors
    /// When the token file can't be read, or has more tokens than a batch can count.
    pub fn pack(
        &self,
        chosen: &[u32],
        windowing: Windowing,
        tokenizer: &TextTokenizer,
    ) -> Result<(Batch, Vec<u32>)> {
        let documents: Vec<Vec<Vec<u32>>> = chosen
            .iter()
            .map(|index| self.windows(*index as usize, windowing, tokenizer))
            .collect::<Result<_>>()?;
        let batch = Batch::pack(documents.iter().map(|windows| windows.iter().map(Vec::as_slice)))?;
        let labels = chosen.iter().map(|index| self.label(*index as usize)).collect();
        Ok((batch, labels))
    }
}
