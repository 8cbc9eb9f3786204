//! The model being trained: its variables, gradients and optimizer.
//!
//! Owns one optimizer step. Must not know of files, epochs or progress.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use pagebert_kernels::{
    AdamW, AdamWConfig, DropoutKey, EncoderOptions, Gradients, Precision, cross_entropy,
};
use pagebert_model::weights::{decays, split_fused};
use pagebert_model::{Batch, BertConfig, BertForSequenceClassification, Weights};

use crate::settings::Settings;

/// What one step showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean over the step's texts.
    pub loss: f64,
    /// Of all parameters together, before clipping.
    pub grad_norm: f64,
    /// Tokens that ran through the model.
    pub tokens: usize,
}

impl StepReport {
    /// Whether the weights were updated: they are not by a loss or gradient that is not a number.
    pub fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.grad_norm.is_finite()
    }
}

/// Which of the two implementations computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Fused operations where the device has them.
    Fused,
    /// The plain twins everywhere.
    Plain,
}

/// A part of a step that is computed at once.
pub struct MicroBatch {
    /// The packed texts.
    pub batch: Batch,
    /// Their classes.
    pub labels: Vec<u32>,
    /// Its dropout; `None` for none.
    pub dropout: Option<DropoutKey>,
}

/// A model with variables for weights.
pub struct Engine {
    vars: BTreeMap<String, Var>,
    model: BertForSequenceClassification,
    optimizer: AdamW,
    /// What the fused encoder computes; autograd has the rest.
    gradients: Option<Gradients>,
    device: Device,
}

impl Engine {
    /// Takes up weights.
    ///
    /// # Errors
    /// When memory or the device fails.
    pub fn new(
        weights: Weights,
        config: &BertConfig,
        settings: &Settings,
        precision: Precision,
    ) -> Result<Engine> {
        Self::on(weights, config, settings, precision, Route::Fused)
    }

    /// As [`Engine::new`], by the given way.
    ///
    /// # Errors
    /// When memory or the device fails.
    pub fn on(
        weights: Weights,
        config: &BertConfig,
        settings: &Settings,
        precision: Precision,
        route: Route,
    ) -> Result<Engine> {
        let mut vars = BTreeMap::new();
        for (name, tensor) in weights.into_tensors() {
            // One at a time, so that memory never holds all of them twice.
            vars.insert(name, Var::from_tensor(&tensor)?);
        }
        let on_cpu = vars.values().all(|var| var.device().is_cpu());
        let gradients = (on_cpu && route == Route::Fused).then(Gradients::default);
        let shared = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone()));
        let options = EncoderOptions {
            precision,
            gradients: gradients.clone(),
            checkpoint_layers: settings.checkpoint_layers,
        };
        let shared = Weights::from_tensors(shared);
        let model = BertForSequenceClassification::load_with(&shared, config, options)?;
        let parameters =
            vars.iter().map(|(name, var)| (name.clone(), var.clone(), decays(name))).collect();
        let config = AdamWConfig {
            weight_decay: settings.weight_decay,
            clip: settings.clip,
            ..AdamWConfig::default()
        };
        let mut optimizer = match route {
            Route::Fused => AdamW::new(parameters, config)?,
            Route::Plain => AdamW::plain(parameters, config)?,
        };
        if let Some(gradients) = &gradients {
            optimizer = optimizer.with_gradients(gradients);
        }
        let device = model.device().clone();
        Ok(Engine { vars, model, optimizer, gradients, device })
    }

    /// The model, which sees every update.
    pub fn model(&self) -> &BertForSequenceClassification {
        &self.model
    }

    /// How many parameters there are.
    pub fn parameters(&self) -> usize {
        self.vars.values().map(|var| var.elem_count()).sum()
    }

    /// Gives up what only steps need, once there are to be no more.
    ///
    /// # Errors
    /// Never on the CPU.
    pub fn retire(&mut self) -> Result<()> {
        self.optimizer = AdamW::new(Vec::new(), AdamWConfig::default())?;
        if let Some(gradients) = &self.gradients {
            gradients.release();
        }
        Ok(())
    }

    /// The weights as they are now.
    pub fn weights(&self) -> Weights {
        Weights::from_tensors(
            self.vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())),
        )
    }

    /// One optimizer step on the mean loss over all texts of some batches.
    ///
    /// # Errors
    /// When memory or the device fails. A loss that is not a number is no error here: the report
    /// has it, and nothing was updated.
    pub fn step(&mut self, batches: &[MicroBatch], lr: f64) -> Result<StepReport> {
        // On one of the threads that share the work: from any other, each of a step's hundreds of
        // parallel loops would put this thread to sleep and wake it up again.
        rayon::scope(|_| self.step_here(batches, lr))
    }

    fn step_here(&mut self, batches: &[MicroBatch], lr: f64) -> Result<StepReport> {
        let (loss, gradients) = self.gradients(batches)?;
        let tokens = batches.iter().map(|part| part.batch.tokens()).sum();
        let grad_norm = match gradients {
            Some(gradients) if loss.is_finite() => self.optimizer.step(&gradients, lr)?,
            _ => f64::NAN,
        };
        Ok(StepReport { loss, grad_norm, tokens })
    }

    /// The mean loss over all texts of some batches, and its gradients: of one batch after the
    /// other, so that memory holds the activations of one.
    ///
    /// # Errors
    /// When memory or the device fails.
    pub fn gradients(&self, batches: &[MicroBatch]) -> Result<(f64, Option<GradStore>)> {
        let texts: usize = batches.iter().map(|part| part.labels.len()).sum();
        let mut sum: Option<GradStore> = None;
        let mut loss_sum = 0.0;
        if let Some(gradients) = &self.gradients {
            gradients.clear();
        }
        for part in batches {
            let logits = self.model.forward(&part.batch, part.dropout)?;
            let labels = Tensor::new(part.labels.as_slice(), &self.device)?;
            let share = labels.elem_count() as f64 / texts as f64;
            let loss = cross_entropy(&logits, &labels)?;
            loss_sum += f64::from(loss.to_dtype(DType::F32)?.to_scalar::<f32>()?) * share;
            if !loss_sum.is_finite() {
                return Ok((loss_sum, None));
            }
            // A single batch needs no scaling, and no node for it.
            let loss = if batches.len() > 1 { (loss * share)? } else { loss };
            let gradients = loss.backward()?;
            sum = Some(match sum {
                None => gradients,
                Some(so_far) => self.add(so_far, &gradients)?,
            });
        }
        Ok((loss_sum, sum))
    }

    fn add(&self, mut sum: GradStore, more: &GradStore) -> Result<GradStore> {
        for var in self.vars.values() {
            if let Some(gradient) = more.get(var) {
                let total = match sum.get(var) {
                    Some(so_far) => (so_far + gradient)?,
                    None => gradient.clone(),
                };
                sum.insert(var, total);
            }
        }
        Ok(sum)
    }

    /// Everything that the next step depends on, by name: weights (`weight.`), and the optimizer's
    /// running means (`mean.`, `square.`).
    ///
    /// # Errors
    /// When memory or the device fails.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for (name, var) in &self.vars {
            state.insert(format!("weight.{name}"), var.as_tensor().clone());
        }
        for (name, mean, square) in self.optimizer.state()? {
            state.insert(format!("mean.{name}"), mean);
            state.insert(format!("square.{name}"), square);
        }
        Ok(state)
    }

    /// Takes up what [`Engine::state`] gave after so many steps.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn restore(&mut self, steps: usize, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let find = |kind: &str, name: &str| {
            state
                .get(&format!("{kind}.{name}"))
                .cloned()
                .ok_or_else(|| candle_core::Error::Msg(format!("{kind}.{name} is missing")))
        };
        for (name, var) in &self.vars {
            var.set(&find("weight", name)?.to_device(&self.device)?)
                .with_context(|| format!("weight.{name}"))?;
        }
        if let Some(gradients) = &self.gradients {
            gradients.weights_changed();
        }
        self.optimizer
            .restore(steps as u64, |name| Ok((find("mean", name)?, find("square", name)?)))?;
        Ok(())
    }

    /// Gradients under the checkpoint's names, for comparison.
    ///
    /// # Errors
    /// When a variable has no gradient.
    pub fn named(&self, gradients: &GradStore) -> Result<BTreeMap<String, Tensor>> {
        let mut named = BTreeMap::new();
        for (name, var) in &self.vars {
            let slot = self.gradients.as_ref().and_then(|gradients| gradients.find(name));
            let gradient = match slot {
                Some(slot) => slot.tensor(var.shape())?,
                None => gradients.get(var).cloned(),
            };
            named
                .insert(name.clone(), gradient.with_context(|| format!("{name} has no gradient"))?);
        }
        Ok(split_fused(&named)?)
    }
}
