//! The fused encoder behind candle's interface.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, Error, Layout, Result, Shape, Storage, Tensor, Var, bail,
};

use super::{
    Bf16, EncoderInput, EncoderOptions, EncoderParameters, LayerParameters, LinearParameters,
    LinearWeight, NormParameters, Parameter, Precision, WordTable,
};
use crate::cpu::embeddings::{self, Lookup, SavedEmbeddings, TableGradients, Tables, Words};
use crate::cpu::encoder::{
    Int8Layer, Int8Layers, Int8Linear, Layer, Linear, Norm, PackedWeight, ProductsIn, Queries,
    Rows, Saved,
};
use crate::cpu::{Buffer, Element};

/// What clones of an encoder share.
#[derive(Clone)]
pub struct Fused(Arc<Inner>);

struct Inner {
    parameters: EncoderParameters,
    options: EncoderOptions,
    hidden: usize,
    tables: Option<TableGradients>,
    /// What autograd sees in the place of all parameters.
    anchor: Option<Var>,
    packed: Packed,
}

/// The packed weights of one version.
enum Packed {
    F32(Cache<f32>),
    Bf16(Cache<Bf16>),
    /// Which do not change. The embeddings' norm is by itself.
    Int8(Norm, Int8Layers),
}

type Cache<E> = Mutex<Option<Arc<Weights<E>>>>;

/// Weights as they were when the count of their changes was so much.
struct Weights<E: Element> {
    version: u64,
    norm: Norm,
    layers: Vec<Layer<E>>,
}

/// What one forward pass keeps for its backward pass.
enum Tape {
    F32(TapeOf<f32>),
    Bf16(TapeOf<Bf16>),
}

struct TapeOf<E: Element> {
    weights: Arc<Weights<E>>,
    embeddings: SavedEmbeddings,
    layers: Vec<Kept<E>>,
}

enum Kept<E: Element> {
    All(Box<Saved<E>>),
    /// The layer's input, to compute the rest again.
    Input(Buffer<f32>),
}

impl Fused {
    pub fn new(parameters: &EncoderParameters, options: &EncoderOptions) -> Result<Self> {
        let slots = (
            &parameters.word.parameter().and_then(|word| word.gradient.clone()),
            &parameters.position.gradient,
            &parameters.token_type.gradient,
        );
        let tables = match slots {
            (Some(word), Some(position), Some(segment)) => Some(TableGradients {
                word: word.clone(),
                position: position.clone(),
                segment: segment.clone(),
            }),
            _ => None,
        };
        let anchor = match options.gradients {
            Some(_) => Some(Var::zeros(1, candle_core::DType::F32, &candle_core::Device::Cpu)?),
            None => None,
        };
        let packed = match options.precision {
            _ if parameters.is_int8() => Packed::Int8(
                copy_norm(&parameters.norm)?,
                Int8Layers::new(parameters.layers.iter().map(int8_layer).collect::<Result<_>>()?),
            ),
            Precision::F32 => Packed::F32(Mutex::default()),
            Precision::Int8 if !Precision::bf16_is_fast() => Packed::F32(Mutex::default()),
            Precision::Bf16 | Precision::Int8 => Packed::Bf16(Mutex::default()),
        };
        Ok(Self(Arc::new(Inner {
            hidden: parameters.hidden()?,
            parameters: parameters.clone(),
            options: options.clone(),
            tables,
            anchor,
            packed,
        })))
    }

    pub fn forward(&self, input: &EncoderInput) -> Result<Tensor> {
        let Some(anchor) = &self.0.anchor else {
            let (out, _) = self.0.run(input, false)?;
            let rows = out.len() / self.0.hidden;
            return Tensor::from_vec(
                out.to_vec(),
                (rows, self.0.hidden),
                &candle_core::Device::Cpu,
            );
        };
        let pass = Pass { encoder: self.0.clone(), input: input.clone(), tape: Mutex::new(None) };
        anchor.as_tensor().apply_op1(pass)
    }
}

impl Inner {
    fn run(&self, input: &EncoderInput, keep: bool) -> Result<(Buffer<f32>, Option<Tape>)> {
        Ok(match &self.packed {
            Packed::F32(cache) => {
                let (out, tape) = self.run_in(cache, input, keep)?;
                (out, tape.map(Tape::F32))
            }
            Packed::Bf16(cache) => {
                let (out, tape) = self.run_in(cache, input, keep)?;
                (out, tape.map(Tape::Bf16))
            }
            Packed::Int8(norm, layers) => {
                let (x, _) = self.embed(norm, input, false)?;
                (layers.forward(x, &input.sequences, input.queries), None)
            }
        })
    }

    fn run_in<E: Element>(
        &self,
        cache: &Cache<E>,
        input: &EncoderInput,
        keep: bool,
    ) -> Result<(Buffer<f32>, Option<TapeOf<E>>)> {
        let weights = self.weights(cache)?;
        let (mut x, embeddings) = self.embed(&weights.norm, input, keep)?;
        let mut kept = Vec::with_capacity(self.parameters.layers.len());
        let again = self.options.checkpoint_layers;
        for (index, layer) in weights.layers.iter().enumerate() {
            let rows = self.rows(index, input);
            let (out, saved) = layer.forward(&x, rows, input.dropout.layer(index), keep && !again);
            let before = std::mem::replace(&mut x, out);
            match saved {
                Some(saved) => kept.push(Kept::All(Box::new(saved))),
                None if keep => kept.push(Kept::Input(before)),
                None => {}
            }
        }
        let tape = embeddings.map(|embeddings| TapeOf { weights, embeddings, layers: kept });
        Ok((x, tape))
    }

    fn backward<E: Element>(
        &self,
        tape: TapeOf<E>,
        input: &EncoderInput,
        grad: Buffer<f32>,
    ) -> Result<()> {
        let TapeOf { weights, embeddings, layers } = tape;
        if weights.version != self.version() {
            bail!("weights have changed between a forward pass and its backward pass");
        }
        let mut grad = grad;
        for (index, kept) in layers.into_iter().enumerate().rev() {
            let (layer, rows) = (&weights.layers[index], self.rows(index, input));
            let drop = input.dropout.layer(index);
            let saved = match kept {
                Kept::All(saved) => *saved,
                Kept::Input(x) => match layer.forward(&x, rows, drop, true).1 {
                    Some(saved) => saved,
                    None => bail!("a layer's second forward pass kept nothing"),
                },
            };
            grad = layer.backward(&saved, &grad, rows, drop);
        }
        let Some(tables) = &self.tables else {
            bail!("the embedding tables have nowhere to put their gradients")
        };
        let sizes =
            (self.parameters.position.value.dim(0)?, self.parameters.token_type.value.dim(0)?);
        let lookup = lookup(&weights.norm, input);
        embeddings::backward(&embeddings, &grad, lookup, tables, sizes);
        Ok(())
    }

    fn embed(
        &self,
        norm: &Norm,
        input: &EncoderInput,
        keep: bool,
    ) -> Result<(Buffer<f32>, Option<SavedEmbeddings>)> {
        let EncoderParameters { word, position, token_type, .. } = &self.parameters;
        let look_up = |word: Words<'_>| {
            with(&position.value, |position| {
                with(&token_type.value, |segments| {
                    let tables = Tables { word, position, segment: &segments[..self.hidden] };
                    let found = embeddings::forward(&tables, lookup(norm, input), keep);
                    found.map_err(damaged_row)
                })
            })
        };
        match word {
            WordTable::Float(word) => with(&word.value, |word| look_up(Words::Float(word))),
            WordTable::Coded(table) => look_up(Words::Coded(table)),
        }
    }

    /// The last layer computes what is asked for; the others all rows.
    fn rows<'a>(&self, layer: usize, input: &'a EncoderInput) -> Rows<'a> {
        let last = layer + 1 == self.parameters.layers.len();
        let queries = if last { input.queries } else { Queries::All };
        Rows { sequences: &input.sequences, queries }
    }

    /// The count of the weights' changes.
    fn version(&self) -> u64 {
        self.options.gradients.as_ref().map_or(0, |gradients| gradients.version())
    }

    /// The packed weights, made anew where they have changed and no optimizer has done so.
    fn weights<E: Element>(&self, cache: &Cache<E>) -> Result<Arc<Weights<E>>> {
        let version = self.version();
        let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(weights) = &*cache
            && weights.version == version
        {
            return Ok(weights.clone());
        }
        let last = self.parameters.layers.len().saturating_sub(1);
        let layers = self.parameters.layers.iter().enumerate().map(|(index, layer)| {
            let before = cache.as_ref().map(|weights| &weights.layers[index]);
            let products_in = match self.options.precision {
                Precision::Int8 => ProductsIn::EightBits,
                Precision::F32 | Precision::Bf16 => ProductsIn::Floats,
            };
            let pack = |linear, of: fn(&Layer<E>) -> &Linear<E>| {
                pack_linear(linear, version, before.map(of), products_in)
            };
            Ok(Layer {
                qkv: pack(&layer.qkv, |layer| &layer.qkv)?,
                qkv_weight: match &layer.qkv.weight {
                    LinearWeight::Float(weight) if index == last => {
                        with(&weight.value, |values| Ok(copied(values)))?
                    }
                    _ => Buffer::any(0),
                },
                attention_output: pack(&layer.attention_output, |layer| &layer.attention_output)?,
                attention_norm: copy_norm(&layer.attention_norm)?,
                intermediate: pack(&layer.intermediate, |layer| &layer.intermediate)?,
                output: pack(&layer.output, |layer| &layer.output)?,
                output_norm: copy_norm(&layer.output_norm)?,
                heads: layer.heads,
                activation: layer.activation,
            })
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let norm = copy_norm(&self.parameters.norm)?;
        let weights = Arc::new(Weights { version, norm, layers });
        *cache = Some(weights.clone());
        Ok(weights)
    }
}

fn lookup<'a>(norm: &'a Norm, input: &'a EncoderInput) -> Lookup<'a> {
    Lookup {
        input_ids: &input.input_ids,
        position_ids: &input.position_ids,
        norm,
        dropout: input.dropout.embeddings,
    }
}

/// A linear layer with its weight of this version, in the memory of the one before.
fn pack_linear<E: Element>(
    linear: &LinearParameters,
    version: u64,
    before: Option<&Linear<E>>,
    products_in: ProductsIn,
) -> Result<Linear<E>> {
    let bias = copy(&linear.bias)?;
    let LinearWeight::Float(parameter) = &linear.weight else {
        bail!("some linear layers are of integers and others are not")
    };
    let (outputs, inputs) = parameter.value.dims2()?;
    let gradients = parameter.gradient.clone().zip(linear.bias.gradient.clone());
    let weight = match (before, &gradients) {
        (Some(before), _) => before.weight.clone(),
        (None, None) => Arc::new(PackedWeight::new((outputs, inputs), false, products_in)),
        (None, Some((slot, _))) => {
            let weight = Arc::new(PackedWeight::new((outputs, inputs), true, products_in));
            slot.follow(weight.clone());
            weight
        }
    };
    with(&parameter.value, |values| {
        weight.follow(values, version);
        Ok(())
    })?;
    Ok(Linear { inputs, outputs, bias, weight, products_in, gradients })
}

fn int8_layer(layer: &LayerParameters) -> Result<Int8Layer> {
    let linear = |linear: &LinearParameters| match &linear.weight {
        LinearWeight::Int8(weight) => {
            Ok(Int8Linear { weight: weight.clone(), bias: copy(&linear.bias)? })
        }
        LinearWeight::Float(_) => bail!("some linear layers are of integers and others are not"),
    };
    Ok(Int8Layer {
        qkv: linear(&layer.qkv)?,
        attention_output: linear(&layer.attention_output)?,
        attention_norm: copy_norm(&layer.attention_norm)?,
        intermediate: linear(&layer.intermediate)?,
        output: linear(&layer.output)?,
        output_norm: copy_norm(&layer.output_norm)?,
        heads: layer.heads,
        activation: layer.activation,
    })
}

fn copy_norm(norm: &NormParameters) -> Result<Norm> {
    Ok(Norm {
        weight: copy(&norm.weight)?,
        bias: copy(&norm.bias)?,
        eps: norm.eps as f32,
        gradients: norm.weight.gradient.clone().zip(norm.bias.gradient.clone()),
    })
}

fn copy(parameter: &Parameter) -> Result<Vec<f32>> {
    with(&parameter.value, |values| Ok(values.to_vec()))
}

/// A word's row that cannot be decoded.
fn damaged_row(id: u32) -> Error {
    Error::msg(format!("row {id} of the word table is damaged: fetch or export the bundle again"))
}

/// A copy in memory that is used again.
fn copied(values: &[f32]) -> Buffer<f32> {
    let mut buffer = Buffer::any(values.len());
    buffer.copy_from_slice(values);
    buffer
}

/// Lends a tensor's elements out.
fn with<T>(tensor: &Tensor, use_it: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((from, to))) => use_it(&data[from..to]),
        _ => bail!("a kernel was given a tensor that is not contiguous f32 on the processor"),
    }
}

/// One forward pass, and what its backward pass needs.
struct Pass {
    encoder: Arc<Inner>,
    input: EncoderInput,
    tape: Mutex<Option<Tape>>,
}

impl CustomOp1 for Pass {
    fn name(&self) -> &'static str {
        "encoder"
    }

    fn cpu_fwd(&self, _anchor: &CpuStorage, _layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (out, tape) = self.encoder.run(&self.input, true)?;
        *self.tape.lock().unwrap_or_else(PoisonError::into_inner) = tape;
        let shape = Shape::from((out.len() / self.encoder.hidden, self.encoder.hidden));
        Ok((CpuStorage::F32(out.to_vec()), shape))
    }

    fn bwd(&self, anchor: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner).take();
        let grad = with(grad, |grad| Ok(copied(grad)))?;
        match tape {
            Some(Tape::F32(tape)) => self.encoder.backward(tape, &self.input, grad)?,
            Some(Tape::Bf16(tape)) => self.encoder.backward(tape, &self.input, grad)?,
            None => bail!("the encoder's backward pass was asked for twice"),
        }
        Ok(Some(anchor.zeros_like()?))
    }
}
