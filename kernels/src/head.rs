//! A small linear layer on top of the encoder.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor, bail};

use crate::encoder::Parameter;
use crate::gradients::GradientSlot;
use crate::{Activation, reference};

/// `x · weightᵀ + bias`: x `[B, in]`, weight `[out, in]`, bias `[out]` → `[B, out]`.
///
/// The parameters' gradients go to their slots, where they have some: candle's autograd would add a
/// weight's to zeros, twice, with threads of its own, and for these a step would wait while
/// rayon's have the cores.
///
/// # Errors
/// When shapes do not fit, or the device fails.
pub fn linear(x: &Tensor, weight: &Parameter, bias: &Parameter) -> Result<Tensor> {
    let (Some(of_weight), Some(of_bias)) = (&weight.gradient, &bias.gradient) else {
        return reference::linear(x, &weight.value, &bias.value, Activation::Identity);
    };
    x.apply_op1(Linear {
        x: x.detach(),
        weight: weight.value.detach(),
        bias: bias.value.detach(),
        gradients: (of_weight.clone(), of_bias.clone()),
    })
}

struct Linear {
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    /// The weight's and the bias's.
    gradients: (GradientSlot, GradientSlot),
}

impl CustomOp1 for Linear {
    fn name(&self) -> &'static str {
        "head"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let y = reference::linear(&self.x, &self.weight, &self.bias, Activation::Identity)?;
        match &*y.storage_and_layout().0 {
            Storage::Cpu(storage) => Ok((storage.clone(), y.shape().clone())),
            _ => bail!("a value of the processor's is on another device"),
        }
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (grad, x) = (grad.detach(), x.detach());
        let of_weight = grad.t()?.matmul(&x)?;
        self.gradients.0.put(&of_weight.flatten_all()?.to_vec1::<f32>()?);
        self.gradients.1.put(&grad.sum(0)?.to_vec1::<f32>()?);
        grad.matmul(&self.weight).map(Some)
    }
}
