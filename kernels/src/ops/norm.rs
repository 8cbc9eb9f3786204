//! Dropout, residual and layer norm.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{slice, with};
use crate::Dropout;
use crate::cpu::norm::{self, Norm};

pub(super) struct DropoutAddLayerNorm {
    pub eps: f32,
    pub dropout: Option<Dropout>,
}

impl DropoutAddLayerNorm {
    fn norm<'a>(&self, parameters: &'a [f32]) -> Norm<'a> {
        let (weight, bias) = parameters.split_at(parameters.len() / 2);
        Norm { weight, bias, eps: self.eps, dropout: self.dropout }
    }
}

impl CustomOp3 for DropoutAddLayerNorm {
    fn name(&self) -> &'static str {
        "dropout-add-layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        residual: &CpuStorage,
        residual_layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let norm = self.norm(slice(parameters, parameters_layout)?);
        let (x, residual) = (slice(x, x_layout)?, slice(residual, residual_layout)?);
        Ok((CpuStorage::F32(norm::forward(x, residual, norm)), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        residual: &Tensor,
        parameters: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dx, dresidual, dparameters) = with(x, |x| {
            with(residual, |residual| {
                with(parameters, |parameters| {
                    with(grad, |grad| Ok(norm::backward(x, residual, grad, self.norm(parameters))))
                })
            })
        })?;
        let tensor = |data, like: &Tensor| Tensor::from_vec(data, like.shape(), like.device());
        Ok((
            Some(tensor(dx, x)?),
            Some(tensor(dresidual, residual)?),
            Some(tensor(dparameters, parameters)?),
        ))
    }
}
