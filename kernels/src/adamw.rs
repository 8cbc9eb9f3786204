//! AdamW over all parameters, with the gradient's norm clipped first.
//!
//! Loshchilov and Hutter, Decoupled weight decay regularization (2019), as in `torch.optim.AdamW`;
//! clipping as in `torch.nn.utils.clip_grad_norm_`.

mod plain;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, Var, bail};

use crate::cpu;
use crate::cpu::adamw::Values;
use crate::gradients::{GradientSlot, Gradients};

/// What stays the same over a run; the learning rate comes with each step.
#[derive(Debug, Clone, Copy)]
pub struct AdamWConfig {
    /// Decay of the gradient's running mean.
    pub beta1: f64,
    /// Decay of the squared gradient's running mean.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decay of the parameters that ask for it, as a fraction of the learning rate.
    pub weight_decay: f64,
    /// The largest norm that the gradient of all parameters together may have; 0 for any.
    pub clip: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, clip: 1.0 }
    }
}

/// The optimizer's state for one parameter, on the host.
struct Slot {
    name: String,
    var: Var,
    decays: bool,
    /// Running means of the gradient and of its square.
    mean: Vec<f32>,
    square: Vec<f32>,
    /// Where a fused operation puts the gradient; candle's autograd has it otherwise.
    gradient: Option<GradientSlot>,
    /// Of a table whose gradients come by rows: which rows a batch has ever touched.
    live: Vec<bool>,
}

/// The optimizer and its state.
pub struct AdamW {
    config: AdamWConfig,
    slots: Vec<Slot>,
    /// The parameters that are on another device.
    groups: Vec<plain::Group>,
    /// Who is to hear of a step.
    gradients: Option<Gradients>,
    step: u64,
}

impl AdamW {
    /// Takes parameters as (name, variable, whether weight decay applies), all f32.
    pub fn new(params: Vec<(String, Var, bool)>, config: AdamWConfig) -> Result<Self> {
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            params.into_iter().partition(|(_, var, _)| var.device().is_cpu());
        let slot = |(name, var, decays): (String, Var, bool)| {
            let (mean, square) = (vec![0.0; var.elem_count()], vec![0.0; var.elem_count()]);
            Slot { name, var, decays, mean, square, gradient: None, live: Vec::new() }
        };
        let slots = here.into_iter().map(slot).collect();
        Ok(Self { config, slots, groups: plain::Group::of(elsewhere)?, gradients: None, step: 0 })
    }

    /// As [`AdamW::new`], in the ordinary operations that other devices than the processor compute,
    /// wherever parameters are.
    ///
    /// # Errors
    /// When memory or the device fails.
    pub fn plain(params: Vec<(String, Var, bool)>, config: AdamWConfig) -> Result<Self> {
        let groups = plain::Group::of(params)?;
        Ok(Self { config, slots: Vec::new(), groups, gradients: None, step: 0 })
    }

    /// Takes gradients from the slots that a model has asked for, in the place of autograd's, and
    /// counts its steps as changes of the weights there.
    pub fn with_gradients(mut self, gradients: &Gradients) -> Self {
        for slot in &mut self.slots {
            slot.gradient = gradients.find(&slot.name);
        }
        self.gradients = Some(gradients.clone());
        self
    }

    /// How many steps were taken.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One step; gives the gradient's norm before clipping. With a norm that is not finite nothing
    /// is changed: the caller sees the norm and decides.
    ///
    /// # Errors
    /// When a parameter has no gradient: it is cut off from the loss, which is a bug in a model.
    pub fn step(&mut self, grads: &GradStore, lr: f64) -> Result<f64> {
        let mut squares = 0f64;
        for slot in &self.slots {
            squares += slot.sum_of_squares(grads)?;
        }
        let of_groups = self.groups.iter().map(|group| group.gradient(grads));
        let of_groups = of_groups.collect::<Result<Vec<_>>>()?;
        squares += plain::sum_of_squares(&of_groups)?;
        let norm = squares.sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let scale = match self.config.clip {
            clip if clip > 0.0 => (clip / (norm + 1e-6)).min(1.0),
            _ => 1.0,
        };
        self.step += 1;
        // Before the first of them, so that a step that fails has changed them too.
        let version = self.gradients.as_ref().map_or(0, Gradients::weights_changed);
        let exponent = self.step as i32;
        let config = self.config;
        let update = |decays: bool| Update {
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            scale,
            shrink: 1.0 - lr * if decays { config.weight_decay } else { 0.0 },
            step_size: lr / (1.0 - config.beta1.powi(exponent)),
            root_correction: (1.0 - config.beta2.powi(exponent)).sqrt(),
        };
        for slot in &mut self.slots {
            slot.update(&update(slot.decays), grads, version)?;
        }
        for (group, gradient) in self.groups.iter_mut().zip(&of_groups) {
            group.update(&update(group.decays), gradient)?;
        }
        Ok(norm)
    }

    /// The state, to be saved: (name, mean, mean square), each of its parameter's shape.
    pub fn state(&self) -> Result<Vec<(String, Tensor, Tensor)>> {
        let mut state = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let tensor = |x: &[f32]| Tensor::from_slice(x, slot.var.shape(), slot.var.device());
            state.push((slot.name.clone(), tensor(&slot.mean)?, tensor(&slot.square)?));
        }
        for group in &self.groups {
            state.append(&mut group.state()?);
        }
        Ok(state)
    }

    /// Takes up a saved state. `find` gives a parameter's (mean, mean square) by its name.
    ///
    /// # Errors
    /// When `find` fails or gives a tensor of another shape.
    pub fn restore(
        &mut self,
        step: u64,
        mut find: impl FnMut(&str) -> Result<(Tensor, Tensor)>,
    ) -> Result<()> {
        for slot in &mut self.slots {
            let (mean, square) = find(&slot.name)?;
            if mean.shape() != slot.var.shape() || square.shape() != slot.var.shape() {
                bail!("optimizer state of {} has another shape than the parameter", slot.name);
            }
            slot.mean = mean.flatten_all()?.to_vec1()?;
            slot.square = square.flatten_all()?.to_vec1()?;
            // A row that was touched has moved; it is live again when it matters.
            slot.live.clear();
        }
        for group in &mut self.groups {
            group.restore(&mut find)?;
        }
        self.step = step;
        Ok(())
    }
}

impl Slot {
    fn autograd<'a>(&self, grads: &'a GradStore) -> Result<&'a Tensor> {
        match grads.get(&self.var) {
            Some(grad) => Ok(grad),
            None => bail!("parameter {} has no gradient", self.name),
        }
    }

    fn sum_of_squares(&self, grads: &GradStore) -> Result<f64> {
        if let Some(slot) = &self.gradient {
            return match slot.lock().sum_of_squares() {
                Some(squares) => Ok(squares),
                None => bail!("parameter {} has no gradient", self.name),
            };
        }
        with(self.autograd(grads)?, |grad| Ok(cpu::adamw::sum_of_squares(grad)))
    }

    fn update(&mut self, update: &Update, grads: &GradStore, version: u64) -> Result<()> {
        let slot = self.gradient.clone();
        let (m, v) = (&mut self.mean, &mut self.square);
        let step = update.on_host();
        let Some(slot) = slot else {
            let Some(grad) = grads.get(&self.var) else { return Ok(()) };
            return with(grad, |grad| {
                in_place(&self.var, |param| {
                    cpu::adamw::step(&step, Values { param, grad, mean: m, square: v });
                })
            });
        };
        let follower = slot.follower();
        let gradient = slot.lock();
        let Some(grad) = gradient.values() else { return Ok(()) };
        let Some(ids) = gradient.rows() else {
            return in_place(&self.var, |param| {
                let values = Values { param, grad, mean: m, square: v };
                match follower {
                    Some(follower) => follower.step(version, &step, values),
                    None => cpu::adamw::step(&step, values),
                }
            });
        };
        if self.decays {
            bail!("parameter {}: rows that no batch touches would not decay", self.name);
        }
        let rows = self.var.dim(0)?;
        let width = self.var.elem_count() / rows.max(1);
        if self.live.len() != rows {
            let moved = |(m, v): (&[f32], &[f32])| m.iter().chain(v).any(|x| *x != 0.0);
            self.live = m.chunks(width).zip(v.chunks(width)).map(moved).collect();
        }
        ids.iter().for_each(|id| self.live[*id as usize] = true);
        let table = cpu::adamw::Rows { width, live: &self.live, ids, values: grad };
        in_place(&self.var, |param| cpu::adamw::step_rows(&step, param, table, m, v))
    }
}

/// Lends a tensor's elements out.
fn with<T>(tensor: &Tensor, use_it: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((from, to))) => use_it(&data[from..to]),
        _ => bail!("adamw: gradients must be f32"),
    }
}

/// What a step does to a parameter.
#[derive(Debug, Clone, Copy)]
struct Update {
    beta1: f64,
    beta2: f64,
    eps: f64,
    /// Clipping: the gradient is multiplied by it.
    scale: f64,
    /// Weight decay: the parameter is multiplied by it.
    shrink: f64,
    step_size: f64,
    root_correction: f64,
}

impl Update {
    fn on_host(&self) -> cpu::adamw::Step {
        cpu::adamw::Step {
            scale: self.scale as f32,
            mean_rate: (1.0 - self.beta1) as f32,
            square_rate: (1.0 - self.beta2) as f32,
            shrink: self.shrink as f32,
            step_size: self.step_size as f32,
            inverse_root: (1.0 / self.root_correction) as f32,
            eps: self.eps as f32,
        }
    }
}

/// Lends a variable's elements out, to be changed.
fn in_place(var: &Var, change: impl FnOnce(&mut [f32])) -> Result<()> {
    var.inplace_op1(&Change(std::sync::Mutex::new(Some(change))))
}

/// A change that is made once: candle hands the operation itself out shared.
struct Change<F>(std::sync::Mutex<Option<F>>);

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Change<F> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, param: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(param), Some((from, to))) = (param, layout.contiguous_offsets())
        else {
            bail!("adamw: parameters must be contiguous f32")
        };
        let change = self.0.lock().ok().and_then(|mut change| change.take());
        match change {
            Some(change) => change(&mut param[from..to]),
            None => bail!("adamw: a change was asked for twice"),
        }
        Ok(())
    }
}
