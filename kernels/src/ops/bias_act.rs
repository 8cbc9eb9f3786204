//! A bias and a non-linearity behind a product.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::{slice, with};
use crate::Activation;
use crate::cpu::bias_act;

pub(super) struct BiasAct(pub Activation);

impl CustomOp2 for BiasAct {
    fn name(&self) -> &'static str {
        "bias-activation"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, bias) = (slice(x, x_layout)?, slice(bias, bias_layout)?);
        let out = bias_act::forward(x, bias, self.0);
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        bias: &Tensor,
        _out: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dx, dbias) = with(x, |x| {
            with(bias, |bias| with(grad, |grad| Ok(bias_act::backward(x, bias, grad, self.0))))
        })?;
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        let dbias = Tensor::from_vec(dbias, bias.shape(), bias.device())?;
        Ok((Some(dx), Some(dbias)))
    }
}
