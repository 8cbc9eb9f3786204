//! The encoder's twin.

use candle_core::{Device, Result, Tensor, bail};

use super::{EmbeddingTables, LayerNorm, attention, dropout_add_layer_norm, embeddings_layer_norm};
use crate::cpu::encoder::Queries;
use crate::cpu::int8::CodedTable;
use crate::encoder::{
    EncoderInput, EncoderParameters, LayerParameters, LinearParameters, LinearWeight,
    NormParameters, Precision, WordTable,
};
use crate::{Activation, LayerDropout, Sequences};

/// See [`crate::Encoder::forward`]. Parameters are f32; in bf16 products, their operands and the
/// states between layers are bf16, and norms and softmax compute in f32.
pub fn encoder(
    parameters: &EncoderParameters,
    input: &EncoderInput,
    precision: Precision,
) -> Result<Tensor> {
    observed_encoder(parameters, input, precision, &mut |_, _| Ok(()))
}

/// A linear layer of an encoder: the layer's number, and which of its four.
pub type Place = (usize, LinearPlace);

/// Which linear layer of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearPlace {
    /// Queries, keys and values.
    Qkv,
    /// Behind attention.
    AttentionOutput,
    /// To the wide rows.
    Intermediate,
    /// Back from them.
    Output,
}

/// The same, with a look at what goes into each linear layer, `[T, in]`.
pub fn observed_encoder(
    parameters: &EncoderParameters,
    input: &EncoderInput,
    precision: Precision,
    see: &mut dyn FnMut(Place, &Tensor) -> Result<()>,
) -> Result<Tensor> {
    let device = parameters.position.value.device();
    let word = match &parameters.word {
        WordTable::Float(word) => word.value.clone(),
        WordTable::Coded(table) => expand_table(table)?,
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
        let see = &mut |place, x: &Tensor| see((index, place), x);
        hidden_states = self::layer(layer, &hidden_states, &input.sequences, chosen, drop, see)?;
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
    see: &mut dyn FnMut(LinearPlace, &Tensor) -> Result<()>,
) -> Result<Tensor> {
    see(LinearPlace::Qkv, x)?;
    let qkv = linear(x, &parameters.qkv, Activation::Identity)?; // [T, 3·H]
    let mut context = attention(&qkv, sequences, parameters.heads, drop.probabilities)?;
    let mut residual = x.clone();
    if let Some(rows) = chosen {
        context = context.index_select(rows, 0)?;
        residual = residual.index_select(rows, 0)?;
    }
    see(LinearPlace::AttentionOutput, &context)?;
    let attended = linear(&context, &parameters.attention_output, Activation::Identity)?;
    let attended = dropout_add_layer_norm(
        &attended,
        &residual,
        &norm(&parameters.attention_norm),
        drop.attention_output,
    )?;
    see(LinearPlace::Intermediate, &attended)?;
    let inner = linear(&attended, &parameters.intermediate, parameters.activation)?;
    see(LinearPlace::Output, &inner)?;
    let outer = linear(&inner, &parameters.output, Activation::Identity)?;
    dropout_add_layer_norm(&outer, &attended, &norm(&parameters.output_norm), drop.output)
}

fn linear(x: &Tensor, parameters: &LinearParameters, activation: Activation) -> Result<Tensor> {
    let factors = match &parameters.weight {
        LinearWeight::Int8(panels) => panels.input_factors(),
        LinearWeight::Float(_) => &[],
    };
    let x = &match factors {
        [] => x.clone(),
        factors => x.broadcast_mul(&Tensor::new(factors, x.device())?.to_dtype(x.dtype())?)?,
    };
    let weight = match &parameters.weight {
        LinearWeight::Float(weight) => weight.value.clone(),
        LinearWeight::Int8(panels) => {
            let mut rows = vec![0f32; panels.outputs() * panels.inputs()];
            for (output, row) in rows.chunks_mut(panels.inputs().max(1)).enumerate() {
                panels.row(output, row);
            }
            Tensor::from_vec(rows, (panels.outputs(), panels.inputs()), x.device())?
        }
    };
    let weight = weight.to_dtype(x.dtype())?;
    let bias = parameters.bias.value.to_dtype(x.dtype())?;
    super::linear(x, &weight, &bias, activation)
}

/// Every row of a coded table, `[V, H]`.
fn expand_table(table: &CodedTable) -> Result<Tensor> {
    let (rows, columns) = table.dims();
    let ids: Vec<u32> = (0..rows as u32).collect();
    let decoded = match table.decode(&ids) {
        Ok(decoded) => decoded,
        Err(row) => bail!("row {row} of the word table is damaged"),
    };
    let mut values = vec![0f32; rows * columns];
    for (id, out) in ids.iter().zip(values.chunks_mut(columns.max(1))) {
        decoded.expand(*id, out);
    }
    Tensor::from_vec(values, (rows, columns), &Device::Cpu)
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
