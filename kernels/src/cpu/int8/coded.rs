//! Weights and tables as they come out of a bundle.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Int8Panels, WEIGHT_LIMIT, tile};
use crate::coding::{CodedMatrix, CodingError};
use crate::cpu::parallel::for_each;

impl Int8Panels {
    /// Room for a weight `[out, in]`, all of it zeros.
    pub fn zeros(outputs: usize, inputs: usize) -> Self {
        let mut panels = Self::empty(tile());
        panels.reset(&vec![0.0; outputs], inputs);
        panels
    }

    /// Takes up the rows of some outputs, from `first` on: integers within ±63, and a scale each.
    ///
    /// # Errors
    /// When a block is damaged, or an integer is out of range.
    ///
    /// # Panics
    /// When the rows are as many as there is no room for, or not as long: a caller's mistake.
    pub fn take_up(
        &mut self,
        first: usize,
        integers: &CodedMatrix,
        scales: &[f32],
    ) -> Result<(), CodingError> {
        let shape = integers.shape();
        assert!(shape.columns == self.inputs() && shape.rows == scales.len());
        let mut wrong = None;
        integers.decode(|row, integers| {
            if integers.iter().any(|q| !(-WEIGHT_LIMIT..=WEIGHT_LIMIT).contains(q)) {
                wrong = wrong.or(Some(row));
            } else {
                self.put_trained(first + row, integers, scales[row]);
            }
        })?;
        wrong.map_or(Ok(()), |row| Err(CodingError::Range(row)))
    }
}

/// A table of coded rows, which are decoded when they are looked up. Outside of a page, where memory is
/// dearer than time, each is decoded once.
#[derive(Debug)]
pub struct CodedTable {
    rows: CodedMatrix,
    scales: Vec<f32>,
    /// Rows that were decoded, or no room for any.
    kept: Vec<OnceLock<Box<[i8]>>>,
}

/// Whether decoded rows are kept.
const KEEPS: bool = !cfg!(target_arch = "wasm32");

impl CodedTable {
    /// A table whose row is `q · scale[row]`.
    ///
    /// # Panics
    /// When there are not as many scales as rows, or blocks are not of one row: a caller's mistake.
    pub fn new(rows: CodedMatrix, scales: Vec<f32>) -> Self {
        Self::with(rows, scales, KEEPS)
    }

    /// The same, which keeps decoded rows or does not.
    pub(super) fn with(rows: CodedMatrix, scales: Vec<f32>, keeps: bool) -> Self {
        assert!(rows.shape().rows == scales.len() && rows.shape().block == 1);
        let kept = vec![OnceLock::new(); if keeps { scales.len() } else { 0 }];
        Self { rows, scales, kept }
    }

    /// Rows and columns.
    pub fn dims(&self) -> (usize, usize) {
        (self.rows.shape().rows, self.rows.shape().columns)
    }

    /// A row that was kept.
    fn kept(&self, id: u32) -> Option<&[i8]> {
        Some(self.kept.get(id as usize)?.get()?)
    }

    /// Decodes the rows of some ids, each once, however often it is there.
    ///
    /// # Errors
    /// The least id whose row is damaged.
    pub fn decode(&self, ids: &[u32]) -> Result<DecodedRows<'_>, u32> {
        let columns = self.rows.shape().columns;
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| self.kept(*id).is_none());
        let mut integers = vec![0i8; ids.len() * columns];
        let damaged = AtomicUsize::new(NONE);
        let blocks: Vec<usize> = ids.iter().map(|id| *id as usize).collect();
        let size = (ROWS_TOGETHER * columns).max(1);
        let tasks = blocks.chunks(ROWS_TOGETHER).zip(integers.chunks_mut(size));
        for_each(tasks.collect(), |_, (blocks, out): (&[usize], &mut [i8])| {
            if let Some(block) = self.rows.decode_blocks(blocks, out) {
                damaged.fetch_min(block, Ordering::Relaxed);
            }
        });
        match damaged.into_inner() {
            NONE => {}
            row => return Err(row as u32),
        }
        if self.kept.is_empty() {
            return Ok(DecodedRows { table: self, ids, integers });
        }
        for (id, row) in ids.iter().zip(integers.chunks_exact(columns.max(1))) {
            self.kept[*id as usize].get_or_init(|| row.into());
        }
        Ok(DecodedRows { table: self, ids: Vec::new(), integers: Vec::new() })
    }
}

/// No table is as long.
const NONE: usize = usize::MAX;

/// How many rows a task decodes.
const ROWS_TOGETHER: usize = 16;

/// Some rows of a [`CodedTable`], which are here or kept there.
#[derive(Debug)]
pub struct DecodedRows<'a> {
    table: &'a CodedTable,
    /// Ascending.
    ids: Vec<u32>,
    /// Of each a row.
    integers: Vec<i8>,
}

impl DecodedRows<'_> {
    /// Expands the row of an id that was asked for; of others it gives zeros, or their row where that
    /// was kept.
    pub fn expand(&self, id: u32, out: &mut [f32]) {
        let integers = match (self.table.kept(id), self.ids.binary_search(&id)) {
            (Some(kept), _) => kept,
            (None, Ok(index)) => &self.integers[index * out.len()..],
            (None, Err(_)) => return out.fill(0.0),
        };
        let scale = self.table.scales[id as usize];
        out.iter_mut().zip(integers).for_each(|(x, q)| *x = f32::from(*q) * scale);
    }
}
