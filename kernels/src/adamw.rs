//! AdamW over all parameters, with the gradient's norm clipped first.
//!
//! Loshchilov and Hutter, Decoupled weight decay regularization (2019), as in `torch.optim.AdamW`;
//! clipping as in `torch.nn.utils.clip_grad_norm_`.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, Var, bail};

use crate::cpu;

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
    moments: Moments,
}

/// Running means of the gradient and of its square.
#[derive(Debug, Clone)]
enum Moments {
    Host { m: Vec<f32>, v: Vec<f32> },
    Device { m: Tensor, v: Tensor },
}

/// The optimizer and its state.
pub struct AdamW {
    config: AdamWConfig,
    slots: Vec<Slot>,
    step: u64,
}

impl AdamW {
    /// Takes parameters as (name, variable, whether weight decay applies), all f32.
    pub fn new(params: Vec<(String, Var, bool)>, config: AdamWConfig) -> Result<Self> {
        let mut slots = Vec::with_capacity(params.len());
        for (name, var, decays) in params {
            let moments = if var.device().is_cpu() {
                let n = var.elem_count();
                Moments::Host { m: vec![0.0; n], v: vec![0.0; n] }
            } else {
                Moments::Device { m: var.zeros_like()?, v: var.zeros_like()? }
            };
            slots.push(Slot { name, var, decays, moments });
        }
        Ok(Self { config, slots, step: 0 })
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
            let Some(grad) = grads.get(&slot.var) else {
                bail!("parameter {} has no gradient", slot.name)
            };
            squares += sum_of_squares(grad)?;
        }
        let norm = squares.sqrt();
        if !norm.is_finite() {
            return Ok(norm);
        }
        let scale = match self.config.clip {
            clip if clip > 0.0 => (clip / (norm + 1e-6)).min(1.0),
            _ => 1.0,
        };
        self.step += 1;
        let exponent = self.step as i32;
        for slot in &mut self.slots {
            let Some(grad) = grads.get(&slot.var) else { continue };
            let weight_decay = if slot.decays { self.config.weight_decay } else { 0.0 };
            let update = Update {
                beta1: self.config.beta1,
                beta2: self.config.beta2,
                eps: self.config.eps,
                scale,
                shrink: 1.0 - lr * weight_decay,
                step_size: lr / (1.0 - self.config.beta1.powi(exponent)),
                root_correction: (1.0 - self.config.beta2.powi(exponent)).sqrt(),
            };
            match &mut slot.moments {
                Moments::Host { m, v } => update.on_host(&slot.var, grad, m, v)?,
                Moments::Device { m, v } => update.on_device(&slot.var, grad, m, v)?,
            }
        }
        Ok(norm)
    }

    /// The state, to be saved: (name, mean, mean square), each of its parameter's shape.
    pub fn state(&self) -> Result<Vec<(String, Tensor, Tensor)>> {
        let mut state = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let (m, v) = match &slot.moments {
                Moments::Host { m, v } => {
                    let tensor =
                        |x: &[f32]| Tensor::from_slice(x, slot.var.shape(), slot.var.device());
                    (tensor(m)?, tensor(v)?)
                }
                Moments::Device { m, v } => (m.clone(), v.clone()),
            };
            state.push((slot.name.clone(), m, v));
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
            match &mut slot.moments {
                Moments::Host { m, v } => {
                    *m = mean.flatten_all()?.to_vec1()?;
                    *v = square.flatten_all()?.to_vec1()?;
                }
                Moments::Device { m, v } => {
                    *m = mean.to_device(slot.var.device())?;
                    *v = square.to_device(slot.var.device())?;
                }
            }
        }
        self.step = step;
        Ok(())
    }
}

fn sum_of_squares(grad: &Tensor) -> Result<f64> {
    if grad.device().is_cpu() && grad.dtype() == candle_core::DType::F32 {
        let grad = grad.contiguous()?;
        let (storage, layout) = grad.storage_and_layout();
        if let (candle_core::Storage::Cpu(CpuStorage::F32(data)), Some((from, to))) =
            (&*storage, layout.contiguous_offsets())
        {
            return Ok(cpu::adamw::sum_of_squares(&data[from..to]));
        }
    }
    let sum = grad.sqr()?.sum_all()?.to_dtype(candle_core::DType::F32)?;
    Ok(f64::from(sum.to_scalar::<f32>()?))
}

/// One parameter's update.
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
    fn on_host(&self, var: &Var, grad: &Tensor, m: &mut [f32], v: &mut [f32]) -> Result<()> {
        let grad = grad.contiguous()?;
        let cell = std::sync::Mutex::new((m, v));
        var.inplace_op2(&grad, &HostUpdate { update: self, moments: &cell })
    }

    fn on_device(&self, var: &Var, grad: &Tensor, m: &mut Tensor, v: &mut Tensor) -> Result<()> {
        let grad = (grad.to_dtype(var.dtype())? * self.scale)?;
        *m = ((&*m * self.beta1)? + (&grad * (1.0 - self.beta1))?)?;
        *v = ((&*v * self.beta2)? + (grad.sqr()? * (1.0 - self.beta2))?)?;
        let denominator = ((v.sqrt()? / self.root_correction)? + self.eps)?;
        let next = ((var.as_tensor() * self.shrink)? - ((&*m / denominator)? * self.step_size)?)?;
        var.set(&next)
    }
}

/// Running means borrowed for one in-place operation: candle hands the operation itself out shared.
type BorrowedMoments<'a> = std::sync::Mutex<(&'a mut [f32], &'a mut [f32])>;

struct HostUpdate<'a, 'b> {
    update: &'a Update,
    moments: &'a BorrowedMoments<'b>,
}

impl InplaceOp2 for HostUpdate<'_, '_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        param: &mut CpuStorage,
        layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(param), CpuStorage::F32(grad)) = (param, grad) else {
            bail!("adamw: parameters and gradients must be f32")
        };
        let (Some(p), Some(g)) = (layout.contiguous_offsets(), grad_layout.contiguous_offsets())
        else {
            bail!("adamw: parameters and gradients must be contiguous")
        };
        let Ok(mut moments) = self.moments.lock() else { bail!("adamw: poisoned") };
        let (m, v) = &mut *moments;
        let Update { beta1, beta2, eps, scale, shrink, step_size, root_correction } = *self.update;
        let step = cpu::adamw::Step {
            scale: scale as f32,
            mean_rate: (1.0 - beta1) as f32,
            square_rate: (1.0 - beta2) as f32,
            shrink: shrink as f32,
            step_size: step_size as f32,
            inverse_root: (1.0 / root_correction) as f32,
            eps: eps as f32,
        };
        cpu::adamw::step(&step, &mut param[p.0..p.1], &grad[g.0..g.1], m, v);
        Ok(())
    }
}
