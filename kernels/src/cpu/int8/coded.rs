//! Weights and tables as they come out of a bundle.

use super::{Int8Panels, WEIGHT_LIMIT, tile};
use crate::coding::{CodedMatrix, CodingError};

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

/// A table of coded rows, each decoded when it is looked up.
#[derive(Debug)]
pub struct CodedTable {
    rows: CodedMatrix,
    scales: Vec<f32>,
}

impl CodedTable {
    /// A table whose row is `q · scale[row]`.
    ///
    /// # Panics
    /// When there are not as many scales as rows, or blocks are not of one row: a caller's mistake.
    pub fn new(rows: CodedMatrix, scales: Vec<f32>) -> Self {
        assert!(rows.shape().rows == scales.len() && rows.shape().block == 1);
        Self { rows, scales }
    }

    /// Rows and columns.
    pub fn dims(&self) -> (usize, usize) {
        (self.rows.shape().rows, self.rows.shape().columns)
    }

    /// Expands one row; `integers` is room for as many. `false` where it is damaged.
    pub fn expand(&self, row: usize, integers: &mut [i8], out: &mut [f32]) -> bool {
        let whole = self.rows.decode_block(row, integers);
        let scale = self.scales[row];
        out.iter_mut().zip(integers).for_each(|(x, q)| *x = f32::from(*q) * scale);
        whole
    }
}
