//! The plain twins: each operation in ordinary candle operations, on any device.

mod encoder;
mod ops;

use candle_core::{DType, Device, Result, Tensor, bail};

pub use encoder::{LinearPlace, Place, encoder, observed_encoder};
pub use ops::softmax;

use crate::cpu::parallel;
use crate::{Activation, Dropout, Sequences};

/// A layer norm's parameters.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// Gain, `[H]`.
    pub weight: Tensor,
    /// Shift, `[H]`.
    pub bias: Tensor,
    /// Added to the variance.
    pub eps: f64,
}

/// The tables whose rows are added up to make a token's embedding.
#[derive(Debug, Clone)]
pub struct EmbeddingTables {
    /// One row a vocabulary entry, `[V, H]`.
    pub word: Tensor,
    /// One row a position, `[P, H]`.
    pub position: Tensor,
    /// One row a segment, `[S, H]`; a single text is segment 0 throughout.
    pub token_type: Tensor,
}

/// `activation(x · weightᵀ + bias)`: x `[T, in]`, weight `[out, in]`, bias `[out]` → `[T, out]`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor, act: Activation) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?.broadcast_add(bias)?;
    match act {
        Activation::Identity => Ok(y),
        Activation::Gelu => y.gelu_erf(),
        Activation::GeluTanh => y.gelu(),
        Activation::Relu => y.relu(),
    }
}

/// Multi-head self-attention within each packed sequence.
///
/// qkv `[T, 3·H]`: queries, keys and values side by side, each `heads` blocks of `H / heads`
/// columns. → `[T, H]`. The probabilities' dropout is indexed by (head, query row, key position),
/// so it does not depend on how sequences are padded or tiled.
///
/// This twin pads inside itself, for attention alone.
pub fn attention(
    qkv: &Tensor,
    sequences: &Sequences,
    heads: usize,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    let (tokens, width) = qkv.dims2()?;
    if tokens != sequences.tokens() {
        bail!("attention: {tokens} rows, but the sequences have {}", sequences.tokens());
    }
    if heads == 0 || width % (3 * heads) != 0 {
        bail!("attention: {width} columns do not make queries, keys and values of {heads} heads");
    }
    if tokens == 0 {
        return qkv.narrow(1, 0, width / 3)?.contiguous();
    }
    let (batch, longest) = (sequences.len(), sequences.longest());
    let head_dim = width / 3 / heads;
    let padding = Padding::new(sequences, qkv.device())?;
    // [B·S, 3·H] → [3, B, heads, S, head_dim]
    let padded = padding
        .pad(qkv)?
        .reshape((batch, longest, 3, heads, head_dim))?
        .permute((2, 0, 3, 1, 4))?
        .contiguous()?;
    let part = |i: usize| padded.narrow(0, i, 1)?.squeeze(0);
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let scores = (q.matmul(&k.t()?)? * (1.0 / (head_dim as f64).sqrt()))?; // [B, heads, S, S]
    let scores = scores.broadcast_add(&padding.key_mask(sequences, qkv.dtype())?)?;
    let mut probabilities = softmax(&scores)?;
    if let Some(dropout) = dropout {
        let mask = attention_mask(sequences, heads, dropout, qkv.device())?;
        probabilities = (probabilities * mask.to_dtype(qkv.dtype())?)?;
    }
    let context = probabilities.matmul(&v)?; // [B, heads, S, head_dim]
    let context = context.transpose(1, 2)?.reshape((batch * longest, heads * head_dim))?;
    padding.unpad(&context)
}

/// Where packed rows lie in a padded batch.
struct Padding {
    /// For each padded place, the packed row shown there (any row where there is none), `[B·S]`.
    to_padded: Tensor,
    /// For each packed row, its padded place, `[T]`.
    to_packed: Tensor,
}

impl Padding {
    fn new(sequences: &Sequences, device: &Device) -> Result<Self> {
        let longest = sequences.longest();
        let mut to_padded = vec![0u32; sequences.len() * longest];
        let mut to_packed = vec![0u32; sequences.tokens()];
        for (b, rows) in sequences.ranges().enumerate() {
            for (offset, row) in rows.enumerate() {
                let place = b * longest + offset;
                to_padded[place] = row as u32;
                to_packed[row] = place as u32;
            }
        }
        Ok(Self {
            to_padded: Tensor::new(to_padded, device)?,
            to_packed: Tensor::new(to_packed, device)?,
        })
    }

    fn pad(&self, packed: &Tensor) -> Result<Tensor> {
        packed.index_select(&self.to_padded, 0)
    }

    fn unpad(&self, padded: &Tensor) -> Result<Tensor> {
        padded.index_select(&self.to_packed, 0)
    }

    /// 0 for a key that is there and a very negative number for one that is not, `[B, 1, 1, S]`.
    fn key_mask(&self, sequences: &Sequences, dtype: DType) -> Result<Tensor> {
        let longest = sequences.longest();
        let mut mask = vec![0f32; sequences.len() * longest];
        for (row, rows) in mask.chunks_mut(longest).zip(sequences.ranges()) {
            // A sequence without rows keeps its keys: its softmax is dropped, but must not be NaN.
            if !rows.is_empty() {
                row[rows.len()..].fill(f32::NEG_INFINITY);
            }
        }
        Tensor::from_vec(mask, (sequences.len(), 1, 1, longest), self.to_packed.device())?
            .to_dtype(dtype)
    }
}

/// The index of an attention probability in its dropout's counter.
#[inline]
pub fn attention_index(head: usize, heads: usize, query_row: usize, key: usize) -> u64 {
    // 2^20 keys a row are far above any BERT's positions.
    (((query_row * heads + head) as u64) << 20) | key as u64
}

fn attention_mask(
    sequences: &Sequences,
    heads: usize,
    dropout: Dropout,
    device: &Device,
) -> Result<Tensor> {
    let longest = sequences.longest();
    let ranges: Vec<_> = sequences.ranges().collect();
    let mut mask = vec![1f32; ranges.len() * heads * longest * longest];
    // One head of a sequence, [S, S].
    let planes = mask.chunks_mut((longest * longest).max(1)).collect();
    parallel::for_each(planes, |plane: usize, values: &mut [f32]| {
        let (rows, head) = (&ranges[plane / heads], plane % heads);
        for (row, values) in rows.clone().zip(values.chunks_mut(longest)) {
            let first = attention_index(head, heads, row, 0);
            fill(&mut values[..rows.len()], dropout, first);
        }
    });
    Tensor::from_vec(mask, (sequences.len(), heads, longest, longest), device)
}

/// The multipliers of as many elements as there is room for, from `first` on.
fn fill(values: &mut [f32], dropout: Dropout, first: u64) {
    for (sixteen, values) in values.chunks_mut(16).enumerate() {
        let all = dropout.multipliers(first + 16 * sixteen as u64);
        values.copy_from_slice(&all[..values.len()]);
    }
}

/// Drops elements of x (any shape), indexed in row-major order.
pub fn dropout(x: &Tensor, dropout: Option<Dropout>) -> Result<Tensor> {
    let Some(dropout) = dropout else { return Ok(x.clone()) };
    const PIECE: usize = 1 << 14;
    let mut mask = vec![0f32; x.elem_count()];
    let pieces = mask.chunks_mut(PIECE).collect();
    parallel::for_each(pieces, |piece: usize, values: &mut [f32]| {
        fill(values, dropout, (piece * PIECE) as u64);
    });
    x * Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?
}

/// `LayerNorm(dropout(x) + residual)`: x and residual `[T, H]` → `[T, H]`.
pub fn dropout_add_layer_norm(
    x: &Tensor,
    residual: &Tensor,
    norm: &LayerNorm,
    drop: Option<Dropout>,
) -> Result<Tensor> {
    layer_norm(&(dropout(x, drop)? + residual)?, norm)
}

/// The rows of the three tables added up, normalised, then dropped:
/// input_ids and position_ids `[T]` (u32) → `[T, H]`.
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
    let sum = (words + positions)?.broadcast_add(&segment)?;
    dropout(&layer_norm(&sum, norm)?, drop)
}

/// x `[T, H]` → `[T, H]` of its type, computed in f32; the norm's parameters are f32.
///
/// # Errors
/// When shapes or types do not fit, or the device fails.
pub fn layer_norm(x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
    let LayerNorm { weight, bias, eps } = norm;
    ops::layer_norm(&x.to_dtype(DType::F32)?, weight, bias, *eps)?.to_dtype(x.dtype())
}

/// Mean cross-entropy of logits `[B, C]` against class ids `[B]` (u32) → scalar.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let logits = logits.to_dtype(DType::F32)?;
    candle_nn::loss::cross_entropy(&logits, labels)
}
