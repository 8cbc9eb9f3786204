//! The fixtures of tests/fixtures, and a model whose weights are variables.
#![allow(dead_code)] // Each test file uses a part.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use pagebert_kernels::{AdamW, AdamWConfig, EncoderOptions, Gradients, Precision};
use pagebert_model::weights::{Missing, decays};
use pagebert_model::{Batch, BertConfig, BertForSequenceClassification, Weights};
use serde::Deserialize;

pub const CPU: Device = Device::Cpu;

pub fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Some texts' token ids, special tokens included, and their classes.
#[derive(Deserialize)]
pub struct Texts {
    pub texts: Vec<Vec<u32>>,
    pub labels: Vec<u32>,
}

impl Texts {
    pub fn pack(&self) -> Batch {
        pack(&self.texts)
    }

    pub fn labels(&self) -> Tensor {
        Tensor::new(self.labels.as_slice(), &CPU).unwrap()
    }
}

/// What PyTorch and Transformers computed.
#[derive(Deserialize)]
pub struct Parity {
    pub batches: Vec<Texts>,
    pub logits: Vec<Vec<f32>>,
    pub loss: f64,
    pub weight_decay: f64,
    pub rates: Vec<f64>,
    pub losses: Vec<f64>,
    /// Of parameters, by the checkpoint's names, after the steps of `rates`.
    pub norms: BTreeMap<String, f64>,
}

/// What PyTorch computed over a hundred steps.
#[derive(Deserialize)]
pub struct Curve {
    pub batches: Vec<Texts>,
    pub weight_decay: f64,
    pub rates: Vec<f64>,
    pub losses: Vec<f64>,
}

pub fn curve() -> Curve {
    serde_json::from_slice(&bytes("curve.json")).unwrap()
}

pub fn parity() -> Parity {
    serde_json::from_slice(&bytes("parity.json")).unwrap()
}

/// One text a document, one window each.
pub fn pack(texts: &[Vec<u32>]) -> Batch {
    Batch::pack(texts.iter().map(|text| [text.as_slice()])).unwrap()
}

pub fn tiny_config() -> BertConfig {
    BertConfig::from_json(&bytes("tiny/config.json")).unwrap()
}

pub fn tiny_weights(config: &BertConfig) -> Weights {
    let file = bytes("tiny/model.safetensors");
    let (weights, report) =
        Weights::from_safetensors(&file, config, Missing::Refuse, &CPU).unwrap();
    assert!(report.unused.is_empty(), "{report:?}");
    weights
}

/// A model and its variables by name.
pub struct Trainable {
    pub vars: BTreeMap<String, Var>,
    pub model: BertForSequenceClassification,
    /// Of the fused operations; autograd's are in its store.
    gradients: Option<Gradients>,
}

impl Trainable {
    /// The tiny model by both ways: fused operations, and their plain twins.
    pub fn both() -> Vec<(&'static str, Self)> {
        Self::both_in(Precision::F32)
    }

    /// Products of 8-bit integers have no twin.
    pub fn both_in(precision: Precision) -> Vec<(&'static str, Self)> {
        let config = tiny_config();
        let weights = tiny_weights(&config);
        let fused = Some(Gradients::default());
        let options = EncoderOptions { precision, ..EncoderOptions::default() };
        let mut ways = vec![("fused", Self::new(&weights, &config, fused, options.clone()))];
        if precision != Precision::Int8 {
            ways.push(("plain", Self::new(&weights, &config, None, options)));
        }
        ways
    }

    pub fn new(
        weights: &Weights,
        config: &BertConfig,
        gradients: Option<Gradients>,
        options: EncoderOptions,
    ) -> Self {
        let vars: BTreeMap<String, Var> = weights
            .iter()
            .map(|(name, tensor)| (name.to_string(), Var::from_tensor(tensor).unwrap()))
            .collect();
        let shared = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone()));
        let options = EncoderOptions { gradients: gradients.clone(), ..options };
        let shared = Weights::from_tensors(shared);
        let model = BertForSequenceClassification::load_with(&shared, config, options).unwrap();
        Self { vars, model, gradients }
    }

    pub fn optimizer(&self, config: AdamWConfig) -> AdamW {
        let parameters =
            self.vars.iter().map(|(name, var)| (name.clone(), var.clone(), decays(name)));
        let optimizer = AdamW::new(parameters.collect(), config).unwrap();
        match &self.gradients {
            Some(gradients) => optimizer.with_gradients(gradients),
            None => optimizer,
        }
    }

    /// The gradient of each variable.
    pub fn gradients(&self, store: &GradStore) -> BTreeMap<String, Tensor> {
        let one = |(name, var): (&String, &Var)| {
            let slot = self.gradients.as_ref().and_then(|gradients| gradients.find(name));
            let gradient = match slot {
                Some(slot) => slot.tensor(var.shape()).unwrap(),
                None => store.get(var).cloned(),
            };
            (name.clone(), gradient.expect(name))
        };
        self.vars.iter().map(one).collect()
    }

    /// To be called between an optimizer's step and the next forward pass.
    pub fn stepped(&self) {
        if let Some(gradients) = &self.gradients {
            gradients.clear();
        }
    }
}

pub fn norm(x: &Tensor) -> f64 {
    let squares = x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
    f64::from(squares).sqrt()
}

pub fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    if a.elem_count() == 0 {
        return 0.0;
    }
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}
