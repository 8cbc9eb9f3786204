//! A model's tensors by name: reading checkpoints of any age, and writing today's names.
//!
//! Inside this crate queries, keys and values of a layer are one linear layer,
//! `bert.encoder.layer.N.attention.self.qkv`; every other name is the checkpoint's. Files never
//! see the fused name.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use pagebert_kernels::int8::{CodedTable, Int8Panels};
use safetensors::SafeTensors;

use crate::{BertConfig, ModelError, Result};

mod assembly;
mod coded;
mod expected;
mod rounding;
mod stream;

pub use coded::RoundedWeights;
pub use rounding::Rounding;
pub use stream::WeightsStream;

use assembly::{Assembly, Stored, fuse};
use expected::{Expected, expected, initial};

const PARTS: [&str; 3] = ["query", "key", "value"];

/// Tensors by their names in this crate, all f32, and those that are in integers instead.
#[derive(Debug, Clone, Default)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    /// Linear layers' weights.
    linears: BTreeMap<String, Arc<Int8Panels>>,
    /// The word table.
    table: Option<Arc<CodedTable>>,
}

/// What a checkpoint lacked and what it had in excess.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Checkpoint names that were freshly initialised.
    pub initialised: Vec<String>,
    /// Names in the file that the model has no use for.
    pub unused: Vec<String>,
}

/// What to do about tensors that a checkpoint lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Initialise them as BERT does, from this seed. A classifier of another number of classes
    /// counts as missing.
    Initialise {
        /// The seed of the random numbers.
        seed: u64,
    },
    /// Fail, naming them.
    Refuse,
}

impl Weights {
    /// Reads a safetensors file for a model of this configuration.
    ///
    /// Accepts names with or without the `bert.` prefix, and the old `gamma` and `beta`; f16, bf16
    /// and f64 become f32.
    ///
    /// # Errors
    /// [`ModelError::Weights`] for a malformed file or a value that is not finite,
    /// [`ModelError::Shape`] for a tensor of the wrong shape, and for a missing tensor under
    /// [`Missing::Refuse`].
    pub fn from_safetensors(
        bytes: &[u8],
        config: &BertConfig,
        missing: Missing,
        device: &Device,
    ) -> Result<(Self, LoadReport)> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|e| ModelError::Weights(format!("not a readable safetensors file: {e:?}")))?;
        let mut assembly = Assembly::new(config, missing, device)?;
        for (name, view) in in_order(&file) {
            assembly.take(Stored {
                name,
                dtype: view.dtype(),
                shape: view.shape(),
                data: Cow::Borrowed(view.data()),
            })?;
        }
        assembly.finish()
    }

    /// Freshly initialised weights.
    pub fn random(config: &BertConfig, seed: u64, device: &Device) -> Result<Self> {
        let mut weights = BTreeMap::new();
        for Expected { name, shape, init } in expected(config)? {
            let tensor = initial(&name, &shape, init, config, seed, device)?;
            weights.insert(name, tensor);
        }
        Ok(Self::from_tensors(fuse(weights, config)?))
    }

    /// Wraps tensors that have this crate's names already.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        Self { tensors: tensors.into_iter().collect(), ..Self::default() }
    }

    /// Puts a freshly initialised classifier in the place of what is there.
    ///
    /// # Errors
    /// When the configuration's labels can't be read, or a tensor operation fails.
    pub fn reset_classifier(
        &mut self,
        config: &BertConfig,
        seed: u64,
        device: &Device,
    ) -> Result<()> {
        for Expected { name, shape, init } in expected(config)? {
            if name.starts_with("classifier.") {
                let tensor = initial(&name, &shape, init, config, seed, device)?;
                self.tensors.insert(name, tensor);
            }
        }
        Ok(())
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        self.tensors
            .get(name)
            .ok_or_else(|| ModelError::Weights(format!("tensor {name} is missing")))
    }

    /// The linear layer's weight of this name, where it is in integers.
    pub fn linear(&self, name: &str) -> Option<&Arc<Int8Panels>> {
        self.linears.get(name)
    }

    /// The word table, where it is in integers.
    pub fn table(&self) -> Option<&Arc<CodedTable>> {
        self.table.as_ref()
    }

    /// The same weights on a device. Integers stay where they are.
    ///
    /// # Errors
    /// When the device fails.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            tensors.insert(name.clone(), tensor.to_device(device)?);
        }
        Ok(Self { tensors, ..self.clone() })
    }

    /// Hands the tensors over.
    pub fn into_tensors(self) -> BTreeMap<String, Tensor> {
        self.tensors
    }

    /// Names and tensors, in the names' order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The checkpoint's names and tensors: what `model.safetensors` holds.
    pub fn to_checkpoint(&self) -> Result<BTreeMap<String, Tensor>> {
        split_fused(&self.tensors)
    }

    /// The bytes of `model.safetensors`, in f32 or f16: reproducible, with metadata `format=pt`.
    ///
    /// # Errors
    /// [`ModelError::Weights`] when a value does not fit f16.
    pub fn to_safetensors(&self, dtype: DType) -> Result<Vec<u8>> {
        let checkpoint = self.to_checkpoint()?;
        serialize(&checkpoint, dtype)
    }
}

/// Splits every `…qkv.weight` and `…qkv.bias` into the checkpoint's three; leaves the rest.
pub fn split_fused(tensors: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let mut checkpoint = BTreeMap::new();
    for (name, tensor) in tensors {
        match name.split_once(".qkv.") {
            Some((prefix, kind)) => {
                for (part, tensor) in PARTS.iter().zip(tensor.chunk(3, 0)?) {
                    checkpoint.insert(format!("{prefix}.{part}.{kind}"), tensor.contiguous()?);
                }
            }
            None => {
                checkpoint.insert(name.clone(), tensor.clone());
            }
        }
    }
    Ok(checkpoint)
}

/// The bytes of a safetensors file with these tensors, metadata `format=pt`.
pub fn serialize(tensors: &BTreeMap<String, Tensor>, dtype: DType) -> Result<Vec<u8>> {
    let stored = match dtype {
        DType::F16 => safetensors::Dtype::F16,
        DType::F32 => safetensors::Dtype::F32,
        other => return Err(ModelError::Weights(format!("cannot store {other:?}"))),
    };
    let mut payloads = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let values: Vec<f32> = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        let mut bytes = Vec::with_capacity(values.len() * 4);
        for x in values {
            if dtype == DType::F16 {
                let half = half::f16::from_f32(x);
                if x.is_finite() && !half.is_finite() {
                    return Err(ModelError::Weights(format!(
                        "{name} holds {x}, too large for f16: use f32"
                    )));
                }
                bytes.extend_from_slice(&half.to_le_bytes());
            } else {
                bytes.extend_from_slice(&x.to_le_bytes());
            }
        }
        payloads.push((name, tensor.dims().to_vec(), bytes));
    }
    let mut views = Vec::with_capacity(payloads.len());
    for (name, shape, bytes) in &payloads {
        let view = safetensors::tensor::TensorView::new(stored, shape.clone(), bytes)
            .map_err(|e| ModelError::Weights(format!("{name}: {e:?}")))?;
        views.push((name.as_str(), view));
    }
    let metadata = [("format".to_string(), "pt".to_string())].into();
    safetensors::serialize(views, Some(metadata)).map_err(|e| ModelError::Weights(format!("{e:?}")))
}

/// The tensors in the order in which they lie in the file.
fn in_order<'a>(
    file: &'a SafeTensors<'a>,
) -> impl Iterator<Item = (&'a str, safetensors::tensor::TensorView<'a>)> {
    let mut all: Vec<_> = file.iter().collect();
    all.sort_by_key(|(_, view)| view.data().as_ptr());
    all.into_iter()
}

/// A tensor of floats as f32.
fn read(stored: &Stored<'_>, shape: &[usize], device: &Device) -> Result<Tensor> {
    let name = stored.name;
    if stored.shape != shape {
        return Err(ModelError::Shape(format!(
            "{name} has shape {:?}, but config.json asks for {shape:?}",
            stored.shape
        )));
    }
    let data: &[u8] = &stored.data;
    let values: Vec<f32> = match stored.dtype {
        safetensors::Dtype::F32 => {
            data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        }
        safetensors::Dtype::F16 => {
            data.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
        }
        safetensors::Dtype::BF16 => {
            data.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
        }
        safetensors::Dtype::F64 => {
            data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect()
        }
        other => {
            return Err(ModelError::Weights(format!(
                "{name} is of type {other:?}; F32, F16, BF16 and F64 are supported"
            )));
        }
    };
    if let Some(at) = values.iter().position(|x| !x.is_finite()) {
        return Err(ModelError::Weights(format!("{name} holds {} at {at}", values[at])));
    }
    Ok(Tensor::from_vec(values, shape, device)?)
}

/// Whether weight decay applies to a parameter: to matrices of linear layers, and neither to
/// biases and norms nor to the embedding tables, whose untouched rows stay as they are.
pub fn decays(name: &str) -> bool {
    name.ends_with(".weight") && !name.contains("LayerNorm") && !name.contains("embeddings.")
}
