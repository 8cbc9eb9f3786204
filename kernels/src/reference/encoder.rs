//! The encoder's twin.

use candle_core::{DType, Result, Tensor};

use super::{EmbeddingTables, LayerNorm, attention, dropout_add_layer_norm, embeddings_layer_norm};
use crate::cpu::attention::Queries;
use crate::cpu::int8::{TABLE_GROUP, WEIGHT_ZERO};
use crate::encoder::{
    EncoderInput, EncoderParameters, LayerParameters, LinearParameters, NormParameters, Precision,
};
use crate::{Activation, LayerDropout, Sequences};

/// See [`crate::Encoder::forward`]. Parameters are f32; in bf16 products, their operands and the
/// states between layers are bf16, and norms and softmax compute in f32.
pub fn encoder(
    parameters: &EncoderParameters,
    input: &EncoderInput,
    precision: Precision,
) -> Result<Tensor> {
    let device = parameters.word.value.device();
    let word = match &parameters.word_scale {
        None => parameters.word.value.clone(),
        Some(scale) => expand_table(&parameters.word.value, scale)?,
    };
    let tables = EmbeddingTables {
        word,
        position: parameters.position.value.clone(),
        token_type: parameters.token_type.value.clone(),
    };
    let embedded = embeddings_layer_norm(
        &Tensor::new(input.input_ids.as_slice(), device)?,
        &Tensor::new(input.position_ids.as_slice(), device)?,
        &tables,
        &norm(&parameters.norm),
        input.dropout.embeddings,
    )?;
    let mut hidden_states = embedded.to_dtype(precision.dtype())?;
    let first = first_rows(input, &hidden_states)?;
    for (index, layer) in parameters.layers.iter().enumerate() {
        let last = index + 1 == parameters.layers.len();
        let chosen = first.as_ref().filter(|_| last);
        let drop = input.dropout.layer(index);
        hidden_states = self::layer(layer, &hidden_states, &input.sequences, chosen, drop)?;
    }
    if let (Some(first), true) = (first, parameters.layers.is_empty()) {
        hidden_states = hidden_states.index_select(&first, 0)?;
    }
    hidden_states.to_dtype(Precision::F32.dtype())
}

/// x `[T, H]` → `[rows, H]`.
fn layer(
    parameters: &LayerParameters,
    x: &Tensor,
    sequences: &Sequences,
    chosen: Option<&Tensor>,
    drop: LayerDropout,
) -> Result<Tensor> {
    let qkv = linear(x, &parameters.qkv, Activation::Identity)?; // [T, 3·H]
    let mut context = attention(&qkv, sequences, parameters.heads, drop.probabilities)?;
    let mut residual = x.clone();
    if let Some(rows) = chosen {
        context = context.index_select(rows, 0)?;
        residual = residual.index_select(rows, 0)?;
    }
    let attended = linear(&context, &parameters.attention_output, Activation::Identity)?;
    let attended = dropout_add_layer_norm(
        &attended,
        &residual,
        &norm(&parameters.attention_norm),
        drop.attention_output,
    )?;
    let inner = linear(&attended, &parameters.intermediate, parameters.activation)?;
    let outer = linear(&inner, &parameters.output, Activation::Identity)?;
    dropout_add_layer_norm(&outer, &attended, &norm(&parameters.output_norm), drop.output)
}

fn linear(x: &Tensor, parameters: &LinearParameters, activation: Activation) -> Result<Tensor> {
    let weight = parameters.weight.value.to_dtype(x.dtype())?;
    let weight = match &parameters.weight_scale {
        None => weight,
        Some(scale) => {
            let zero = f64::from(WEIGHT_ZERO);
            (weight - zero)?.broadcast_mul(&scale.to_dtype(x.dtype())?.unsqueeze(1)?)?
        }
    };
    let bias = parameters.bias.value.to_dtype(x.dtype())?;
    super::linear(x, &weight, &bias, activation)
}

/// A table of 4-bit rows, u8 `[V, H / 2]`, as f32 `[V, H]`.
fn expand_table(bytes: &Tensor, scale: &Tensor) -> Result<Tensor> {
    let (rows, half) = bytes.dims2()?;
    let bytes = bytes.to_dtype(DType::F32)?;
    let upper = (&bytes / 16.0)?.floor()?;
    let lower = (bytes - (&upper * 16.0)?)?;
    let values = (Tensor::stack(&[lower, upper], 2)? - 8.0)?; // [V, H / 2, 2]
    let groups = 2 * half / TABLE_GROUP;
    let values = values.reshape((rows, groups, TABLE_GROUP))?;
    values.broadcast_mul(&scale.unsqueeze(2)?)?.reshape((rows, 2 * half))
}

fn norm(parameters: &NormParameters) -> LayerNorm {
    LayerNorm {
        weight: parameters.weight.value.clone(),
        bias: parameters.bias.value.clone(),
        eps: parameters.eps,
    }
}

/// The rows that are wanted of the last layer, where they are not all.
fn first_rows(input: &EncoderInput, like: &Tensor) -> Result<Option<Tensor>> {
    if input.queries == Queries::All {
        return Ok(None);
    }
    let ranges = input.sequences.ranges().filter(|rows| !rows.is_empty());
    let rows: Vec<u32> = ranges.map(|rows| rows.start as u32).collect();
    Ok(Some(Tensor::new(rows, like.device())?))
}
