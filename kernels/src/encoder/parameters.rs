//! The tensors that an encoder is made of.

use std::sync::Arc;

use candle_core::{Result, Tensor, bail};

use crate::Activation;
use crate::cpu::int8::{CodedTable, Int8Panels};
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
    pub weight: LinearWeight,
    /// `[out]`
    pub bias: Parameter,
}

/// The one thing in which inference in integers differs.
#[derive(Debug, Clone)]
pub enum LinearWeight {
    /// f32.
    Float(Parameter),
    /// Packed integers, with a scale an output.
    Int8(Arc<Int8Panels>),
}

/// The word table, `[V, H]`.
#[derive(Debug, Clone)]
pub enum WordTable {
    /// f32.
    Float(Parameter),
    /// Coded integers, with a scale a row.
    Coded(Arc<CodedTable>),
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
    /// One row a vocabulary entry.
    pub word: WordTable,
    /// One row a position, `[P, H]`.
    pub position: Parameter,
    /// One row a segment, `[S, H]`; a single text is segment 0 throughout.
    pub token_type: Parameter,
    /// Behind the embeddings.
    pub norm: NormParameters,
    /// One behind the other.
    pub layers: Vec<LayerParameters>,
}

impl LinearWeight {
    /// The tensor, where it is one.
    pub fn parameter(&self) -> Option<&Parameter> {
        match self {
            Self::Float(parameter) => Some(parameter),
            Self::Int8(_) => None,
        }
    }
}

impl WordTable {
    /// The tensor, where it is one.
    pub fn parameter(&self) -> Option<&Parameter> {
        match self {
            Self::Float(parameter) => Some(parameter),
            Self::Coded(_) => None,
        }
    }

    /// Rows and columns.
    pub fn dims(&self) -> Result<(usize, usize)> {
        match self {
            Self::Float(parameter) => parameter.value.dims2(),
            Self::Coded(table) => Ok(table.dims()),
        }
    }
}

impl LinearParameters {
    fn is_int8(&self) -> bool {
        matches!(self.weight, LinearWeight::Int8(_))
    }

    fn check(&self, what: &str, inputs: usize, outputs: usize) -> Result<()> {
        match &self.weight {
            LinearWeight::Float(weight) => shape(what, weight, &[outputs, inputs])?,
            LinearWeight::Int8(panels) => {
                let found = [panels.outputs(), panels.inputs()];
                if found != [outputs, inputs] {
                    bail!("{what}: expected integers of {:?}, got {found:?}", [outputs, inputs]);
                }
            }
        }
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
        self.layers.iter().any(|layer| layer.qkv.is_int8())
    }

    /// The most inputs or outputs of a linear layer.
    pub(super) fn widest(&self) -> Option<usize> {
        let linears =
            self.layers.iter().flat_map(|layer| [&layer.qkv.bias, &layer.intermediate.bias]);
        linears.map(|bias| bias.value.elem_count()).max()
    }

    /// Every parameter that is a tensor.
    pub fn all(&self) -> impl Iterator<Item = &Parameter> {
        let head = [&self.position, &self.token_type, &self.norm.weight];
        let head = head.into_iter().chain(self.word.parameter());
        let layers = self.layers.iter().flat_map(|layer| {
            let linears = [&layer.qkv, &layer.attention_output, &layer.intermediate, &layer.output];
            let norms = [&layer.attention_norm, &layer.output_norm];
            let of_linears = linears
                .into_iter()
                .flat_map(|linear| linear.weight.parameter().into_iter().chain([&linear.bias]));
            of_linears.chain(norms.into_iter().flat_map(|norm| [&norm.weight, &norm.bias]))
        });
        head.chain([&self.norm.bias]).chain(layers)
    }

    pub(super) fn check(&self) -> Result<()> {
        let hidden = self.hidden()?;
        let (rows, columns) = self.word.dims()?;
        if columns != hidden {
            bail!(
                "word: expected a tensor of shape {:?}, got {:?}",
                [rows, hidden],
                [rows, columns]
            );
        }
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
            if linears.iter().any(|linear| linear.is_int8() != self.is_int8()) {
                bail!("some linear layers are of integers and others are not");
            }
        }
        Ok(())
    }
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
