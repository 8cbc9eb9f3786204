//! Weights in coded integers: what a bundle of precision int8 holds. docs/bundle-format.md has the layout.

use candle_core::{DType, Device, Tensor};
use pagebert_kernels::coding::{CodedMatrix, CodedShape, encode};
pub(super) use pagebert_kernels::int8::CodedTable as Table;
use safetensors::tensor::{Dtype, TensorView};

use super::assembly::Stored;
use super::{Rounding, Weights};
use crate::{ModelError, Result};

pub(super) const WORD_TABLE: &str = "bert.embeddings.word_embeddings.weight";

/// Ends the name of what a linear layer's inputs are multiplied by before they become integers.
pub(super) const FACTORS: &str = ".input_factors";

/// Rows of a linear layer's weight that are coded together. They are read once, all of them; a block costs some bytes.
const LINEAR_BLOCK: usize = 16;
/// The most integers of a block: at 12 bits each they fit the 65,535 words that a block may have.
const MOST_IN_BLOCK: usize = 87_000;

/// Whether a tensor of this name may be coded: the word table, and the encoder's linear layers.
pub(super) fn is_coded(name: &str) -> bool {
    name == WORD_TABLE || is_linear(name)
}

/// Whether a tensor is the weight of a linear layer of the encoder.
pub(super) fn is_linear(name: &str) -> bool {
    name.starts_with("bert.encoder.layer.")
        && name.ends_with(".weight")
        && !name.contains("LayerNorm")
}

/// How a tensor of this shape is coded.
///
/// # Errors
/// [`ModelError::Weights`] when one of its rows may not fit a block.
fn shape_of(name: &str, shape: &[usize]) -> Result<CodedShape> {
    if shape[1] > MOST_IN_BLOCK {
        return Err(ModelError::Weights(format!(
            "{name} has {} columns, int8 at most {MOST_IN_BLOCK}: use f16",
            shape[1]
        )));
    }
    let together = (MOST_IN_BLOCK / shape[1].max(1)).clamp(1, LINEAR_BLOCK);
    let block = if name == WORD_TABLE { 1 } else { together };
    Ok(CodedShape { rows: shape[0], columns: shape[1], block })
}

/// A model's weights in integers, as its file has them.
#[derive(Debug, Clone)]
pub struct RoundedWeights {
    stored: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
}

impl RoundedWeights {
    /// Rounds weights, as `rounding` says. `on_tensor` is called after each tensor of the checkpoint.
    ///
    /// # Errors
    /// [`ModelError::Weights`] when a value does not fit f16, or a row is too long to be coded.
    pub fn of(weights: &Weights, rounding: &Rounding, mut on_tensor: impl FnMut()) -> Result<Self> {
        let mut stored: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for (layer, factors) in rounding.all_factors()? {
            let dims = vec![factors.len()];
            let halves = factors.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes());
            stored.push((format!("{layer}{FACTORS}"), Dtype::F16, dims, halves.collect()));
        }
        for (name, tensor) in weights.to_checkpoint()? {
            let dims = tensor.dims().to_vec();
            let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            // Coded ones could be larger, but a model of such numbers computes none.
            let too_large = |x: &&f32| dims.len() > 1 && !half::f16::from_f32(**x).is_finite();
            if let Some(bad) = values.iter().find(too_large) {
                return Err(ModelError::Weights(format!(
                    "{name} holds {bad}, too large for f16: use f32"
                )));
            }
            if is_coded(&name) {
                let shape = shape_of(&name, &dims)?;
                let (integers, scales) = match name == WORD_TABLE {
                    true => rounding.table(&values, dims[1]),
                    false => rounding.linear(&name, &values, dims[1])?,
                };
                let bytes = encode(&integers, shape);
                let scales = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
                stored.push((format!("{name}_scale"), Dtype::F32, vec![dims[0]], scales));
                stored.push((name, Dtype::U8, vec![bytes.len()], bytes));
            } else if dims.len() > 1 {
                let halves = values.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes());
                let bytes = halves.collect();
                stored.push((name, Dtype::F16, dims, bytes));
            } else {
                let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                stored.push((name, Dtype::F32, dims, bytes));
            }
            on_tensor();
        }
        Ok(Self { stored })
    }

    /// Adds so much to each class's logit: what rounding has taken from it in the mean.
    pub fn shift_logits(&mut self, shift: &[f32]) {
        let bias = self.stored.iter_mut().find(|(name, ..)| name == "classifier.bias");
        let Some((.., bytes)) = bias else { return };
        for (bytes, shift) in bytes.as_chunks_mut().0.iter_mut().zip(shift) {
            *bytes = (f32::from_le_bytes(*bytes) + shift).to_le_bytes();
        }
    }

    /// The bytes of `model.safetensors`.
    ///
    /// # Errors
    /// [`ModelError::Weights`] when the file would be none.
    pub fn to_safetensors(&self) -> Result<Vec<u8>> {
        let failed = |e: safetensors::SafeTensorError| ModelError::Weights(format!("{e:?}"));
        let mut views = Vec::with_capacity(self.stored.len());
        for (name, dtype, shape, bytes) in &self.stored {
            let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(failed)?;
            views.push((name.as_str(), view));
        }
        let metadata = [("format".to_string(), "pt".to_string())].into();
        safetensors::serialize(views, Some(metadata)).map_err(failed)
    }
}

/// Reads the scales of so many rows.
pub(super) fn scales(stored: &Stored<'_>, rows: usize) -> Result<Vec<f32>> {
    let scales: Tensor = super::read(stored, &[rows], &Device::Cpu)?;
    Ok(scales.to_vec1()?)
}

/// Reads what so many inputs are multiplied by.
///
/// # Errors
/// [`ModelError::Shape`] and [`ModelError::Weights`], naming the tensor.
pub(super) fn factors(stored: &Stored<'_>, inputs: usize) -> Result<Vec<f32>> {
    let factors: Vec<f32> = super::read(stored, &[inputs], &Device::Cpu)?.to_vec1()?;
    match factors.iter().find(|x| **x <= 0.0) {
        Some(bad) => Err(ModelError::Weights(format!("{} holds {bad}", stored.name))),
        None => Ok(factors),
    }
}

/// Reads coded integers for a weight of this shape.
///
/// # Errors
/// [`ModelError::Shape`] and [`ModelError::Weights`], naming the tensor.
pub(super) fn matrix(stored: Stored<'_>, name: &str, shape: &[usize]) -> Result<CodedMatrix> {
    if !is_coded(name) {
        return Err(ModelError::Weights(format!(
            "{} is of type U8, which is for the encoder's linear layers and the word table",
            stored.name
        )));
    }
    let matrix = CodedMatrix::new(stored.data.into_owned())
        .map_err(|error| ModelError::Weights(format!("{} {error}", stored.name)))?;
    let (found, wanted) = (matrix.shape(), shape_of(name, shape)?);
    if (found.rows, found.columns) != (wanted.rows, wanted.columns) {
        return Err(ModelError::Shape(format!(
            "{} has shape {:?}, but config.json asks for {shape:?}",
            stored.name,
            [found.rows, found.columns]
        )));
    }
    if found.block != wanted.block {
        return Err(ModelError::Weights(format!(
            "{} has blocks of {} rows, not {}",
            stored.name, found.block, wanted.block
        )));
    }
    Ok(matrix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_too_long_for_a_block_are_an_error_that_names_the_tensor() {
        let error = shape_of(WORD_TABLE, &[1, MOST_IN_BLOCK + 1]).unwrap_err().to_string();
        assert!(error.contains(WORD_TABLE) && error.contains("87001"), "{error}");
        // The longest rows are coded, whatever is in them.
        let shape = shape_of(WORD_TABLE, &[1, MOST_IN_BLOCK]).unwrap();
        let integers: Vec<i8> = (0..MOST_IN_BLOCK).map(|i| (i * 37 % 127) as i8 - 63).collect();
        let matrix = CodedMatrix::new(encode(&integers, shape)).unwrap();
        let mut row = vec![0; MOST_IN_BLOCK];
        assert!(matrix.decode_block(0, &mut row));
        assert_eq!(row, integers);
    }
}
