//! Tensors put in their places one after the other, as a file has them or as they arrive.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use pagebert_kernels::int8::Int8Panels;
use safetensors::Dtype;

use super::expected::{Expected, expected, initial, today_name};
use super::{LoadReport, Missing, PARTS, Weights, coded};
use crate::{BertConfig, ModelError, Result};

/// A tensor as a file has it.
pub(super) struct Stored<'a> {
    /// The file's name for it.
    pub name: &'a str,
    pub dtype: Dtype,
    pub shape: &'a [usize],
    pub data: Cow<'a, [u8]>,
}

/// Weights of which some are there.
pub(super) struct Assembly {
    config: BertConfig,
    missing: Missing,
    device: Device,
    expected: HashMap<String, Expected>,
    /// The expected ones that came.
    found: HashSet<String>,
    floats: BTreeMap<String, Tensor>,
    /// Of weights that are coded and have not come yet, by the weight's name: the file's name, and the scales.
    scales: BTreeMap<String, (String, Vec<f32>)>,
    /// By the weight's name in this crate: the file's name, and what its inputs are multiplied by.
    factors: BTreeMap<String, (String, Vec<f32>)>,
    /// By this crate's names.
    linears: BTreeMap<String, Int8Panels>,
    table: Option<coded::Table>,
    unused: Vec<String>,
}

impl Assembly {
    pub fn new(config: &BertConfig, missing: Missing, device: &Device) -> Result<Self> {
        let all = expected(config)?.into_iter().map(|one| (one.name.clone(), one));
        Ok(Self {
            config: config.clone(),
            missing,
            device: device.clone(),
            expected: all.collect(),
            found: HashSet::new(),
            floats: BTreeMap::new(),
            scales: BTreeMap::new(),
            factors: BTreeMap::new(),
            linears: BTreeMap::new(),
            table: None,
            unused: Vec::new(),
        })
    }

    /// Puts a tensor where it belongs.
    ///
    /// # Errors
    /// [`ModelError::Weights`] and [`ModelError::Shape`], naming it.
    pub fn take(&mut self, stored: Stored<'_>) -> Result<()> {
        let name = today_name(stored.name);
        let Some(Expected { shape, .. }) = self.expected.get(&name) else {
            let weight = name.strip_suffix("_scale").filter(|weight| coded::is_coded(weight));
            match weight.and_then(|weight| self.expected.get_key_value(weight)) {
                Some((weight, one)) => {
                    let scales = coded::scales(&stored, one.shape[0])?;
                    self.scales.insert(weight.clone(), (stored.name.to_string(), scales));
                }
                None => match self.factors_of(&name) {
                    Some((weight, inputs)) => {
                        let factors = coded::factors(&stored, inputs)?;
                        self.factors.insert(weight, (stored.name.to_string(), factors));
                    }
                    None => self.unused.push(stored.name.to_string()),
                },
            }
            return Ok(());
        };
        let shape = shape.clone();
        // A coded one says its shape itself.
        let other = stored.dtype != Dtype::U8 && stored.shape != shape;
        let may_begin_anew = matches!(self.missing, Missing::Initialise { .. });
        if other && may_begin_anew && name.starts_with("classifier.") {
            return Ok(());
        }
        if stored.dtype == Dtype::U8 {
            self.take_coded(&name, stored, &shape)?;
        } else {
            let tensor = super::read(&stored, &shape, &self.device)?;
            self.floats.insert(name.clone(), tensor);
        }
        self.found.insert(name);
        Ok(())
    }

    /// The weight, by its name in this crate, whose inputs a tensor of this name has factors of, and how
    /// many those are.
    fn factors_of(&self, name: &str) -> Option<(String, usize)> {
        let layer = name.strip_suffix(coded::FACTORS)?;
        // Queries, keys and values have the same inputs.
        let (first, weight) = match layer.ends_with(".attention.self") {
            true => (format!("{layer}.query.weight"), format!("{layer}.qkv.weight")),
            false => (format!("{layer}.weight"), format!("{layer}.weight")),
        };
        let expected = self.expected.get(&first).filter(|_| coded::is_linear(&first))?;
        Some((weight, expected.shape[1]))
    }

    fn take_coded(&mut self, name: &str, stored: Stored<'_>, shape: &[usize]) -> Result<()> {
        let original = stored.name;
        let matrix = coded::matrix(stored, name, shape)?;
        let Some((_, scales)) = self.scales.remove(name) else {
            return Err(ModelError::Shape(format!("tensor {name}_scale is missing")));
        };
        if name == coded::WORD_TABLE {
            self.table = Some(coded::Table::new(matrix, scales));
            return Ok(());
        }
        let (outputs, inputs) = (shape[0], shape[1]);
        // Queries, keys and values lie side by side.
        let mut place = (name.to_string(), outputs, 0);
        for (index, part) in PARTS.iter().enumerate() {
            if let Some(prefix) = name.strip_suffix(&format!("self.{part}.weight")) {
                place =
                    (format!("{prefix}self.qkv.weight"), PARTS.len() * outputs, index * outputs);
            }
        }
        let (place, all, first) = place;
        let panels = self.linears.entry(place).or_insert_with(|| Int8Panels::zeros(all, inputs));
        let taken = panels.take_up(first, &matrix, &scales);
        taken.map_err(|error| ModelError::Weights(format!("{original} {error}")))
    }

    /// The weights, with what was missing.
    ///
    /// # Errors
    /// [`ModelError::Shape`] for a missing tensor under [`Missing::Refuse`], [`ModelError::Weights`] when some of what
    /// belongs together is coded and some is not.
    pub fn finish(mut self) -> Result<(Weights, LoadReport)> {
        let mut report = LoadReport::default();
        for Expected { name, shape, init } in expected(&self.config)? {
            if self.found.contains(&name) {
                continue;
            }
            let Missing::Initialise { seed } = self.missing else {
                return Err(ModelError::Shape(format!("tensor {name} is missing")));
            };
            let tensor = initial(&name, &shape, init, &self.config, seed, &self.device)?;
            self.floats.insert(name.clone(), tensor);
            report.initialised.push(name);
        }
        self.unused.extend(self.scales.into_values().map(|(name, _)| name));
        self.unused.retain(|name| !name.ends_with("embeddings.position_ids"));
        self.unused.sort();
        report.unused = self.unused;
        let linears = self.linears.into_iter().map(|(name, mut panels)| {
            if let Some((_, factors)) = self.factors.remove(&name) {
                panels.set_input_factors(factors);
            }
            (name, Arc::new(panels))
        });
        let linears = linears.collect();
        if let Some((name, _)) = self.factors.into_values().next() {
            return Err(ModelError::Weights(format!("{name} is there, but no integers for it")));
        }
        let weights = Weights {
            tensors: fuse(self.floats, &self.config)?,
            linears,
            table: self.table.map(Arc::new),
        };
        Ok((weights, report))
    }
}

/// Puts queries, keys and values of each layer side by side.
pub(super) fn fuse(
    mut checkpoint: BTreeMap<String, Tensor>,
    config: &BertConfig,
) -> Result<BTreeMap<String, Tensor>> {
    for layer in 0..config.num_hidden_layers {
        let prefix = format!("bert.encoder.layer.{layer}.attention.self");
        for kind in ["weight", "bias"] {
            let parts: Vec<Tensor> = PARTS
                .iter()
                .filter_map(|part| checkpoint.remove(&format!("{prefix}.{part}.{kind}")))
                .collect();
            if parts.is_empty() {
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
