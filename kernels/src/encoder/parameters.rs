//! The tensors that an encoder is made of.

use candle_core::{DType, Result, Tensor, bail};

use crate::Activation;
use crate::cpu::int8::TABLE_GROUP;
use crate::gradients::GradientSlot;

/// A tensor, and where its gradient goes.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// The value.
    pub value: Tensor,
    /// `None` for a fixed one, and for one whose gradient candle's autograd keeps.
    pub gradient: Option<GradientSlot>,
}

/// A linear layer's.
#[derive(Debug, Clone)]
pub struct LinearParameters {
    /// `[out, in]`: f32, or, with a scale, u8.
    pub weight: Parameter,
    /// f32 `[out]`: the weight is `(stored − 64) · scale`, the stored number 1 to 127.
    pub weight_scale: Option<Tensor>,
    /// `[out]`
    pub bias: Parameter,
}

/// A layer norm's.
#[derive(Debug, Clone)]
pub struct NormParameters {
    /// Gain, `[H]`.
    pub weight: Parameter,
    /// Shift, `[H]`.
    pub bias: Parameter,
    /// Added to the variance.
    pub eps: f64,
}

/// One layer's.
#[derive(Debug, Clone)]
pub struct LayerParameters {
    /// Queries, keys and values side by side: `[3·H, H]`.
    pub qkv: LinearParameters,
    /// `[H, H]`
    pub attention_output: LinearParameters,
    /// Behind attention.
    pub attention_norm: NormParameters,
    /// `[intermediate, H]`
    pub intermediate: LinearParameters,
    /// `[H, intermediate]`
    pub output: LinearParameters,
    /// Behind the feed-forward layers.
    pub output_norm: NormParameters,
    /// Attention's heads; they divide H.
    pub heads: usize,
    /// Behind the intermediate layer.
    pub activation: Activation,
}

/// All of them.
#[derive(Debug, Clone)]
pub struct EncoderParameters {
    /// One row a vocabulary entry: f32 `[V, H]`, or, with scales, u8 `[V, H / 2]`.
    pub word: Parameter,
    /// f32 `[V, H / 32]`: columns 2·i and 2·i + 1 are the lower and the upper half of byte i, less
    /// 8, times the scale that 32 columns share.
    pub word_scale: Option<Tensor>,
    /// One row a position, `[P, H]`.
    pub position: Parameter,
    /// One row a segment, `[S, H]`; a single text is segment 0 throughout.
    pub token_type: Parameter,
    /// Behind the embeddings.
    pub norm: NormParameters,
    /// One behind the other.
    pub layers: Vec<LayerParameters>,
}

impl LinearParameters {
    fn check(&self, what: &str, inputs: usize, outputs: usize) -> Result<()> {
        shape(what, &self.weight, &[outputs, inputs])?;
        if let Some(scale) = &self.weight_scale {
            shape_of(what, scale, &[outputs])?;
        }
        stored_as(what, &self.weight.value, self.weight_scale.as_ref())?;
        shape(what, &self.bias, &[outputs])
    }
}

impl NormParameters {
    fn check(&self, what: &str, hidden: usize) -> Result<()> {
        shape(what, &self.weight, &[hidden])?;
        shape(what, &self.bias, &[hidden])
    }
}

impl EncoderParameters {
    /// H.
    pub fn hidden(&self) -> Result<usize> {
        self.norm.weight.value.dim(0)
    }

    /// Whether products are those of integers.
    pub fn is_int8(&self) -> bool {
        self.layers.iter().any(|layer| layer.qkv.weight_scale.is_some())
    }

    /// Every parameter.
    pub fn all(&self) -> impl Iterator<Item = &Parameter> {
        let head = [&self.word, &self.position, &self.token_type, &self.norm.weight];
        let layers = self.layers.iter().flat_map(|layer| {
            let linears = [&layer.qkv, &layer.attention_output, &layer.intermediate, &layer.output];
            let norms = [&layer.attention_norm, &layer.output_norm];
            let of_linears = linears.into_iter().flat_map(|linear| [&linear.weight, &linear.bias]);
            of_linears.chain(norms.into_iter().flat_map(|norm| [&norm.weight, &norm.bias]))
        });
        head.into_iter().chain([&self.norm.bias]).chain(layers)
    }

    pub(super) fn check(&self) -> Result<()> {
        let hidden = self.hidden()?;
        let rows = self.word.value.dim(0)?;
        match &self.word_scale {
            None => shape("word", &self.word, &[rows, hidden])?,
            Some(scale) => {
                if hidden % TABLE_GROUP != 0 {
                    bail!("a table of {hidden} columns can't be stored in 4 bits");
                }
                shape("word", &self.word, &[rows, hidden / 2])?;
                shape_of("word's scales", scale, &[rows, hidden / TABLE_GROUP])?;
            }
        }
        stored_as("word", &self.word.value, self.word_scale.as_ref())?;
        for (what, table) in [("position", &self.position), ("token type", &self.token_type)] {
            let rows = table.value.dim(0)?;
            shape(what, table, &[rows, hidden])?;
        }
        if self.token_type.value.dim(0)? == 0 {
            bail!("the token type table has no row");
        }
        self.norm.check("embeddings' norm", hidden)?;
        for layer in &self.layers {
            if layer.heads == 0 || hidden % layer.heads != 0 {
                bail!("{} heads do not divide {hidden} columns", layer.heads);
            }
            let wide = layer.intermediate.bias.value.elem_count();
            layer.qkv.check("queries, keys and values", hidden, 3 * hidden)?;
            layer.attention_output.check("attention output", hidden, hidden)?;
            layer.intermediate.check("intermediate", hidden, wide)?;
            layer.output.check("output", wide, hidden)?;
            layer.attention_norm.check("attention's norm", hidden)?;
            layer.output_norm.check("output's norm", hidden)?;
            let linears = [&layer.qkv, &layer.attention_output, &layer.intermediate, &layer.output];
            if linears.iter().any(|linear| linear.weight_scale.is_some() != self.is_int8()) {
                bail!("some linear layers are of integers and others are not");
            }
        }
        Ok(())
    }
}

/// Whether a tensor is of the type that having scales or not asks for.
fn stored_as(what: &str, value: &Tensor, scale: Option<&Tensor>) -> Result<()> {
    let (found, scaled) = (value.dtype(), scale.is_some());
    if scaled != (found == DType::U8) {
        bail!("{what}: a tensor of {found:?} {} scales", if scaled { "with" } else { "without" });
    }
    Ok(())
}

fn shape(what: &str, parameter: &Parameter, expected: &[usize]) -> Result<()> {
    shape_of(what, &parameter.value, expected)
}

fn shape_of(what: &str, tensor: &Tensor, expected: &[usize]) -> Result<()> {
    let found = tensor.dims();
    if found != expected {
        bail!("{what}: expected a tensor of shape {expected:?}, got {found:?}");
    }
    Ok(())
}
