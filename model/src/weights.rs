//! A model's tensors by name: reading checkpoints of any age, and writing today's names.
//!
//! Inside this crate queries, keys and values of a layer are one linear layer,
//! `bert.encoder.layer.N.attention.self.qkv`; every other name is the checkpoint's. Files never
//! see the fused name.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};
use pagebert_kernels::{DropoutKey, dropout};
use safetensors::SafeTensors;

use crate::{BertConfig, ModelError, Result};

mod quantised;

pub use quantised::to_int8_safetensors;

const PARTS: [&str; 3] = ["query", "key", "value"];

/// Tensors by their names in this crate, all f32, but for weights in integers, which have their
/// scales beside them under `…weight_scale`.
#[derive(Debug, Clone, Default)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
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
        let mut found = BTreeMap::new();
        for (name, view) in file.tensors() {
            found.insert(today_name(&name), (name, view));
        }
        let mut weights = BTreeMap::new();
        let mut report = LoadReport::default();
        for Expected { name, shape, init } in expected(config)? {
            let wrong_size =
                found.get(&name).is_some_and(|(_, view)| view.shape() != shape.as_slice());
            let refit = wrong_size
                && name.starts_with("classifier.")
                && matches!(missing, Missing::Initialise { .. });
            if refit {
                found.remove(&name);
            }
            if let Some((original, view)) = found.get(&name)
                && view.dtype() == safetensors::Dtype::U8
            {
                let scale_name = format!("{name}_scale");
                let scale = found.get(&scale_name).map(|(_, view)| view);
                let (tensor, scale) = quantised::read(original, view, scale, &shape)?;
                found.remove(&name);
                found.remove(&scale_name);
                weights.insert(name, tensor);
                weights.insert(scale_name, scale);
                continue;
            }
            let tensor = match (found.remove(&name), missing) {
                (Some((original, view)), _) => read(&original, &view, &shape, device)?,
                (None, Missing::Initialise { seed }) => {
                    let tensor = initial(&name, &shape, init, config, seed, device)?;
                    report.initialised.push(name.clone());
                    tensor
                }
                (None, Missing::Refuse) => {
                    return Err(ModelError::Shape(format!("tensor {name} is missing")));
                }
            };
            weights.insert(name, tensor);
        }
        report.unused = found
            .into_iter()
            .filter(|(name, _)| !name.ends_with("embeddings.position_ids"))
            .map(|(_, (original, _))| original)
            .collect();
        Ok((Self { tensors: fuse(weights, config)? }, report))
    }

    /// Freshly initialised weights.
    pub fn random(config: &BertConfig, seed: u64, device: &Device) -> Result<Self> {
        let mut weights = BTreeMap::new();
        for Expected { name, shape, init } in expected(config)? {
            let tensor = initial(&name, &shape, init, config, seed, device)?;
            weights.insert(name, tensor);
        }
        Ok(Self { tensors: fuse(weights, config)? })
    }

    /// Wraps tensors that have this crate's names already.
    pub fn from_tensors(tensors: impl IntoIterator<Item = (String, Tensor)>) -> Self {
        Self { tensors: tensors.into_iter().collect() }
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

    /// The same weights on a device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            tensors.insert(name.clone(), tensor.to_device(device)?);
        }
        Ok(Self { tensors })
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

#[derive(Debug, Clone, Copy)]
enum Init {
    Normal,
    Zeros,
    Ones,
}

struct Expected {
    name: String,
    shape: Vec<usize>,
    init: Init,
}

/// Every tensor of a checkpoint of this configuration.
fn expected(config: &BertConfig) -> Result<Vec<Expected>> {
    let hidden = config.hidden_size;
    let inner = config.intermediate_size;
    let mut all = Vec::new();
    let mut push = |name: String, shape: Vec<usize>, init| all.push(Expected { name, shape, init });
    for (table, rows) in [
        ("word", config.vocab_size),
        ("position", config.max_position_embeddings),
        ("token_type", config.type_vocab_size),
    ] {
        let name = format!("bert.embeddings.{table}_embeddings.weight");
        push(name, vec![rows, hidden], Init::Normal);
    }
    let mut norms = vec!["bert.embeddings.LayerNorm".to_string()];
    let mut linears = Vec::new();
    for layer in 0..config.num_hidden_layers {
        let layer = format!("bert.encoder.layer.{layer}");
        for part in PARTS {
            linears.push((format!("{layer}.attention.self.{part}"), hidden, hidden));
        }
        linears.push((format!("{layer}.attention.output.dense"), hidden, hidden));
        linears.push((format!("{layer}.intermediate.dense"), inner, hidden));
        linears.push((format!("{layer}.output.dense"), hidden, inner));
        norms.push(format!("{layer}.attention.output.LayerNorm"));
        norms.push(format!("{layer}.output.LayerNorm"));
    }
    linears.push(("bert.pooler.dense".into(), hidden, hidden));
    linears.push(("classifier".into(), config.labels()?.len(), hidden));
    for (name, out, input) in linears {
        push(format!("{name}.weight"), vec![out, input], Init::Normal);
        push(format!("{name}.bias"), vec![out], Init::Zeros);
    }
    for name in norms {
        push(format!("{name}.weight"), vec![hidden], Init::Ones);
        push(format!("{name}.bias"), vec![hidden], Init::Zeros);
    }
    Ok(all)
}

/// The name that today's Transformers gives a tensor.
fn today_name(name: &str) -> String {
    let name = name.strip_prefix("module.").unwrap_or(name);
    let name = match name.strip_suffix("LayerNorm.gamma") {
        Some(prefix) => format!("{prefix}LayerNorm.weight"),
        None => match name.strip_suffix("LayerNorm.beta") {
            Some(prefix) => format!("{prefix}LayerNorm.bias"),
            None => name.to_string(),
        },
    };
    let bare = ["embeddings.", "encoder.", "pooler."].iter().any(|part| name.starts_with(part));
    if bare { format!("bert.{name}") } else { name }
}

fn read(
    name: &str,
    view: &safetensors::tensor::TensorView<'_>,
    shape: &[usize],
    device: &Device,
) -> Result<Tensor> {
    if view.shape() != shape {
        return Err(ModelError::Shape(format!(
            "{name} has shape {:?}, but config.json asks for {shape:?}",
            view.shape()
        )));
    }
    let data = view.data();
    let values: Vec<f32> = match view.dtype() {
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

fn initial(
    name: &str,
    shape: &[usize],
    init: Init,
    config: &BertConfig,
    seed: u64,
    device: &Device,
) -> Result<Tensor> {
    let count = shape.iter().product::<usize>();
    let values = match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Normal => {
            // The tensor's name is the generator's site, so that a tensor's start depends on
            // nothing else in the checkpoint. FNV-1a.
            let site = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            let key = DropoutKey::new(seed, 0).site(site, 0.0).key;
            let scale = config.initializer_range as f32;
            (0..count as u64).map(|i| dropout::normal(key, i) * scale).collect()
        }
    };
    Ok(Tensor::from_vec(values, shape, device)?)
}

fn fuse(
    mut checkpoint: BTreeMap<String, Tensor>,
    config: &BertConfig,
) -> Result<BTreeMap<String, Tensor>> {
    for layer in 0..config.num_hidden_layers {
        let prefix = format!("bert.encoder.layer.{layer}.attention.self");
        for kind in ["weight", "weight_scale", "bias"] {
            let parts: Vec<Tensor> = PARTS
                .iter()
                .filter_map(|part| checkpoint.remove(&format!("{prefix}.{part}.{kind}")))
                .collect();
            if parts.is_empty() && kind == "weight_scale" {
                continue;
            }
            if parts.len() != PARTS.len() {
                return Err(ModelError::Weights(format!(
                    "{prefix}: some of {kind} are stored in integers and others are not"
                )));
            }
            checkpoint.insert(format!("{prefix}.qkv.{kind}"), Tensor::cat(&parts, 0)?);
        }
    }
    Ok(checkpoint)
}

/// Whether weight decay applies to a parameter: to matrices of linear layers, and neither to
/// biases and norms nor to the embedding tables, whose untouched rows stay as they are.
pub fn decays(name: &str) -> bool {
    name.ends_with(".weight") && !name.contains("LayerNorm") && !name.contains("embeddings.")
}
