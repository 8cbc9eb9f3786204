//! The operations that models are made of: fused on the processor, plain elsewhere.
//!
//! Owns the choice between a kernel and its twin, and the glue to candle's autograd. Tensors that
//! are not contiguous f32 on the processor go to the twin.

mod attention;
mod bias_act;
mod norm;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};

use crate::reference::{self, EmbeddingTables, LayerNorm};
use crate::{Activation, Dropout, Sequences};

/// `activation(x · weightᵀ + bias)`: x `[T, in]`, weight `[out, in]`, bias `[out]` → `[T, out]`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor, act: Activation) -> Result<Tensor> {
    if !fusible(&[x, weight, bias]) {
        return reference::linear(x, weight, bias, act);
    }
    let product = x.matmul(&weight.t()?)?;
    product.apply_op2(bias, bias_act::BiasAct(act))
}

/// Multi-head self-attention within each packed sequence; see [`reference::attention`].
pub fn attention(
    qkv: &Tensor,
    sequences: &Sequences,
    heads: usize,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    if !fusible(&[qkv]) || qkv.elem_count() == 0 {
        return reference::attention(qkv, sequences, heads, dropout);
    }
    let (tokens, width) = qkv.dims2()?;
    if tokens != sequences.tokens() || heads == 0 || width % (3 * heads) != 0 {
        // The twin says what does not fit.
        return reference::attention(qkv, sequences, heads, dropout);
    }
    qkv.contiguous()?.apply_op1(attention::Attention {
        sequences: sequences.clone(),
        heads,
        dropout,
    })
}

/// `LayerNorm(dropout(x) + residual)`: x and residual `[T, H]` → `[T, H]`.
pub fn dropout_add_layer_norm(
    x: &Tensor,
    residual: &Tensor,
    norm: &LayerNorm,
    drop: Option<Dropout>,
) -> Result<Tensor> {
    if !fusible(&[x, residual, &norm.weight, &norm.bias]) || x.dims() != residual.dims() {
        return reference::dropout_add_layer_norm(x, residual, norm, drop);
    }
    // candle's operations take three tensors: the norm's two go together, [2, H].
    let parameters = Tensor::stack(&[&norm.weight, &norm.bias], 0)?;
    x.contiguous()?.apply_op3(
        &residual.contiguous()?,
        &parameters,
        norm::DropoutAddLayerNorm { eps: norm.eps as f32, dropout: drop },
    )
}

/// The rows of the three tables added up, normalised, then dropped; see
/// [`reference::embeddings_layer_norm`].
pub fn embeddings_layer_norm(
    input_ids: &Tensor,
    position_ids: &Tensor,
    tables: &EmbeddingTables,
    norm: &LayerNorm,
    drop: Option<Dropout>,
) -> Result<Tensor> {
    let words = tables.word.index_select(input_ids, 0)?;
    let positions = tables.position.index_select(position_ids, 0)?;
    let segment = tables.token_type.narrow(0, 0, 1)?;
    let residual = positions.broadcast_add(&segment)?;
    let normed = dropout_add_layer_norm(&words, &residual, norm, None)?;
    reference::dropout(&normed, drop)
}

/// Whether kernels can take these.
fn fusible(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.device().is_cpu() && tensor.dtype() == DType::F32)
}

/// A contiguous f32 storage's elements.
fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let (CpuStorage::F32(data), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
        bail!("a kernel was given a tensor that is not contiguous f32")
    };
    Ok(&data[from..to])
}

/// Lends a tensor's elements out.
fn with<T>(tensor: &Tensor, use_it: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => use_it(slice(storage, layout)?),
        _ => bail!("a kernel was given a tensor that is not on the processor"),
    }
}
