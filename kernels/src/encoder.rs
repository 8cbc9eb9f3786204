//! A post-norm transformer encoder with its embeddings, as one operation.
//!
//! Owns the choice between the fused encoder and its twin, the packed copies of the weights, and
//! the glue to candle's autograd. One operation for all layers, because candle fills every
//! intermediate gradient with zeros and adds to it, which costs more than the products here do. In a
//! page there is the fused encoder alone.

mod fused;
mod parameters;

use candle_core::{DType, Result, Tensor, bail};

pub use parameters::{
    EncoderParameters, LayerParameters, LinearParameters, LinearWeight, NormParameters, Parameter,
    WordTable,
};

#[cfg(not(target_arch = "wasm32"))]
use crate::cpu::Bf16;
use crate::cpu::eight_bits::MOST_DEPTH;
use crate::cpu::encoder::LayerDropout;
use crate::cpu::encoder::Queries;
use crate::cpu::parallel::share;
use crate::reference::Place;
use crate::{Dropout, Gradients, Sequences, reference};

/// Whether this is for a page, which computes in f32 or in its bundle's integers, by the fused encoder:
/// code for all else would make its engine larger by a half.
const IN_PAGE: bool = cfg!(target_arch = "wasm32");

/// There nothing is made of it.
#[cfg(target_arch = "wasm32")]
type Bf16 = f32;

/// What the operands of products are kept in. Sums, weights and their updates are f32 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// The upper halves of them.
    Bf16,
    /// Integers of 8 bits, with scales by row and by column, in linear layers' products; in all
    /// others what is faster here of the two above. For the fused encoder of float weights alone.
    Int8,
}

impl Precision {
    /// Whether this processor multiplies bf16 faster than f32.
    pub fn bf16_is_fast() -> bool {
        crate::isa() >= crate::cpu::Isa::Avx512Bf16
    }

    /// Whether this processor has instructions for products of bytes.
    pub fn int8_is_fast() -> bool {
        crate::cpu::int8::full_range_is_fast()
    }

    /// candle's name for it, in the twin's ordinary operations.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 | Self::Int8 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }
}

/// How to compute.
#[derive(Debug, Clone)]
pub struct EncoderOptions {
    /// Of products.
    pub precision: Precision,
    /// Where gradients go; `None` leaves them to candle's autograd, and the computation to the
    /// twin wherever a parameter is a variable.
    pub gradients: Option<Gradients>,
    /// Keeps each layer's input alone for the backward pass, and computes the rest again there.
    pub checkpoint_layers: bool,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self { precision: Precision::F32, gradients: None, checkpoint_layers: false }
    }
}

/// One step's dropouts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EncoderDropout {
    /// Behind the embeddings.
    pub embeddings: Option<Dropout>,
    /// Of each layer.
    pub layers: Vec<LayerDropout>,
}

impl EncoderDropout {
    /// A layer's; none beyond those that are given.
    pub fn layer(&self, index: usize) -> LayerDropout {
        self.layers.get(index).copied().unwrap_or_default()
    }

    /// Whether anything is dropped.
    fn is_any(&self) -> bool {
        self.embeddings.is_some() || self.layers.iter().any(|layer| *layer != Default::default())
    }
}

/// A packed batch.
#[derive(Debug, Clone)]
pub struct EncoderInput {
    /// Rows of the word table, `[T]`.
    pub input_ids: Vec<u32>,
    /// Rows of the position table, `[T]`.
    pub position_ids: Vec<u32>,
    /// Where sequences begin and end.
    pub sequences: Sequences,
    /// The rows that are wanted of the last layer. With the first of each sequence alone, that
    /// layer computes no others.
    pub queries: Queries,
    /// None in evaluation.
    pub dropout: EncoderDropout,
}

/// The encoder. Clones share weights and packed copies.
#[derive(Clone)]
pub struct Encoder {
    parameters: EncoderParameters,
    options: EncoderOptions,
    fused: Option<fused::Fused>,
}

impl Encoder {
    /// Takes parameters up. Where they are variables, an optimizer's updates are the encoder's, if
    /// it says so to [`Gradients::weights_changed`].
    ///
    /// # Errors
    /// When shapes do not fit one another, or nothing here computes in such a way.
    pub fn new(parameters: EncoderParameters, options: EncoderOptions) -> Result<Self> {
        parameters.check()?;
        let fusible = parameters.all().all(|parameter| {
            let value = &parameter.value;
            value.device().is_cpu() && value.dtype() == DType::F32
        });
        let learns = parameters.all().any(|parameter| parameter.value.is_variable());
        let fused =
            fusible && !parameters.layers.is_empty() && learns == options.gradients.is_some();
        if IN_PAGE && (!fused || options.precision != Precision::F32) {
            bail!(
                "a page computes in f32, or integers beside it, by the fused encoder alone: of layers \
                 whose weights are f32 and do not learn"
            );
        }
        let int8 = parameters.is_int8() || parameters.word.parameter().is_none();
        if int8 && (learns || options.precision != Precision::F32) {
            bail!("integers are for inference, and for f32 beside them");
        }
        if options.precision == Precision::Int8 && !fused {
            bail!(
                "products of 8-bit integers are computed by the fused encoder alone: of layers whose \
                 weights are f32 on the processor, with gradients' slots where they learn. Choose f32 \
                 or bf16"
            );
        }
        if options.precision == Precision::Int8
            && let Some(size) = parameters.widest().filter(|size| *size > MOST_DEPTH)
        {
            bail!(
                "sums of {size} products of 8-bit integers do not fit 32 bits: choose f32 or bf16"
            );
        }
        let fused = fused.then(|| fused::Fused::new(&parameters, &options)).transpose()?;
        Ok(Self { parameters, options, fused })
    }

    /// How it computes.
    pub fn options(&self) -> &EncoderOptions {
        &self.options
    }

    /// The hidden states of the last layer, f32: `[T, H]`, or `[B, H]` of first rows.
    ///
    /// # Errors
    /// When an id has no row, or the device fails; in a page, where the twin is missing, also when there
    /// is no token.
    pub fn forward(&self, input: &EncoderInput) -> Result<Tensor> {
        self.check(input)?;
        match &self.fused {
            Some(fused) if !input.input_ids.is_empty() => {
                share(input.input_ids.len(), || fused.forward(input))
            }
            _ if IN_PAGE => bail!("there is no token"),
            _ => reference::encoder(&self.parameters, input, self.options.precision),
        }
    }

    /// The twin's way through the layers, with a look at what goes into each linear layer, `[T, in]`.
    ///
    /// # Errors
    /// As [`Self::forward`], and what `see` gives.
    pub fn observe(
        &self,
        input: &EncoderInput,
        mut see: impl FnMut(Place, &Tensor) -> Result<()>,
    ) -> Result<()> {
        self.check(input)?;
        let precision = self.options.precision;
        reference::observed_encoder(&self.parameters, input, precision, &mut see)?;
        Ok(())
    }

    fn check(&self, input: &EncoderInput) -> Result<()> {
        if self.parameters.is_int8() && input.dropout.is_any() {
            bail!("integers are for inference, which drops nothing out");
        }
        let tokens = input.sequences.tokens();
        if input.input_ids.len() != tokens || input.position_ids.len() != tokens {
            bail!(
                "{} ids and {} positions for sequences of {tokens} tokens",
                input.input_ids.len(),
                input.position_ids.len()
            );
        }
        let all = [
            ("token id", &input.input_ids, self.parameters.word.dims()?.0),
            ("position", &input.position_ids, self.parameters.position.value.dim(0)?),
        ];
        for (what, ids, rows) in all {
            if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
                bail!("{what} {id} has no row in a table of {rows}");
            }
        }
        Ok(())
    }
}
