//! The tensors that an encoder is made of.

use candle_core::{Result, Tensor, bail};

use crate::Activation;
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
    /// `[out, in]`
    pub weight: Parameter,
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
    /// One row a vocabulary entry, `[V, H]`.
    pub word: Parameter,
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
        self.word.value.dim(1)
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
        }
        Ok(())
    }
}

fn shape(what: &str, parameter: &Parameter, expected: &[usize]) -> Result<()> {
    let found = parameter.value.dims();
    if found != expected {
        bail!("{what}: expected a tensor of shape {expected:?}, got {found:?}");
    }
    Ok(())
}
