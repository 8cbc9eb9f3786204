//! Weights in few bits: what a bundle of precision int8 holds. docs/bundle-format.md has the layout.

use candle_core::{DType, Device, Tensor};
use pagebert_kernels::int8::{GROUP, quantise_table, quantise_weight};
use safetensors::tensor::{Dtype, TensorView};

use super::{Weights, read as read_floats};
use crate::{ModelError, Result};

const WORD_TABLE: &str = "bert.embeddings.word_embeddings.weight";

/// The largest number in 4 bits whose scale is an f16.
const MOST: f32 = 7.0 * 65504.0;

/// The bytes of `model.safetensors` with linear layers in 7 bits and the word table in 4.
///
/// # Errors
/// [`ModelError::Weights`] when a value does not fit f16.
pub fn to_int8_safetensors(weights: &Weights) -> Result<Vec<u8>> {
    let mut stored: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, tensor) in weights.to_checkpoint()? {
        let dims = tensor.dims().to_vec();
        let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let scale_name = format!("{name}_scale");
        if name == WORD_TABLE && dims[1].is_multiple_of(GROUP) {
            if let Some(bad) = values.iter().find(|x| x.abs() > MOST) {
                return Err(ModelError::Weights(format!(
                    "{name} holds {bad}, whose scale is too large for f16: use f32"
                )));
            }
            let (bytes, scales) = quantise_table(&values);
            let scales = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            stored.push((name, Dtype::U8, vec![dims[0], dims[1] / 2], bytes));
            stored.push((scale_name, Dtype::F16, vec![dims[0], dims[1] / GROUP], scales));
        } else if is_integer(&name) {
            let (bytes, scales) = quantise_weight(&values, dims[1]);
            let scales = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
            stored.push((name, Dtype::U8, dims.clone(), bytes));
            stored.push((scale_name, Dtype::F32, vec![dims[0]], scales));
        } else if dims.len() > 1 {
            let mut bytes = Vec::with_capacity(2 * values.len());
            for x in values {
                let half = half::f16::from_f32(x);
                if !half.is_finite() {
                    return Err(ModelError::Weights(format!(
                        "{name} holds {x}, too large for f16: use f32"
                    )));
                }
                bytes.extend_from_slice(&half.to_le_bytes());
            }
            stored.push((name, Dtype::F16, dims, bytes));
        } else {
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            stored.push((name, Dtype::F32, dims, bytes));
        }
    }
    let failed = |e: safetensors::SafeTensorError| ModelError::Weights(format!("{e:?}"));
    let mut views = Vec::with_capacity(stored.len());
    for (name, dtype, shape, bytes) in &stored {
        let view = TensorView::new(*dtype, shape.clone(), bytes).map_err(failed)?;
        views.push((name.as_str(), view));
    }
    let metadata = [("format".to_string(), "pt".to_string())].into();
    safetensors::serialize(views, Some(metadata)).map_err(failed)
}

/// Whether a weight is a linear layer's of the encoder.
fn is_integer(name: &str) -> bool {
    name.starts_with("bert.encoder.layer.")
        && name.ends_with(".weight")
        && !name.contains("LayerNorm")
}

/// Reads a tensor of bytes and its scales, for a weight of this shape.
///
/// # Errors
/// [`ModelError::Shape`] and [`ModelError::Weights`], naming the tensor.
pub(super) fn read(
    name: &str,
    view: &TensorView<'_>,
    scale: Option<&TensorView<'_>>,
    shape: &[usize],
) -> Result<(Tensor, Tensor)> {
    let is_table = name == WORD_TABLE;
    let (bytes_shape, scale_shape) = match shape {
        [rows, columns] if is_table && columns.is_multiple_of(GROUP) => {
            (vec![*rows, columns / 2], vec![*rows, columns / GROUP])
        }
        [outputs, _] if is_integer(name) => (shape.to_vec(), vec![*outputs]),
        _ => {
            return Err(ModelError::Weights(format!(
                "{name} is of type U8, which is for the encoder's linear layers and the word table"
            )));
        }
    };
    if view.shape() != bytes_shape {
        return Err(ModelError::Shape(format!(
            "{name} has shape {:?}, but config.json asks for {bytes_shape:?}",
            view.shape()
        )));
    }
    let Some(scale) = scale else {
        return Err(ModelError::Shape(format!("tensor {name}_scale is missing")));
    };
    let bytes = view.data();
    if !is_table && let Some(at) = bytes.iter().position(|byte| !(1..=127).contains(byte)) {
        return Err(ModelError::Weights(format!(
            "{name} holds {} at {at}; weights are 1 to 127",
            bytes[at]
        )));
    }
    let scale_name = format!("{name}_scale");
    let scale = read_floats(&scale_name, scale, &scale_shape, &Device::Cpu)?;
    Ok((Tensor::from_slice(bytes, bytes_shape, &Device::Cpu)?, scale))
}
