//! Attention over packed sequences.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{slice, with};
use crate::cpu::attention;
use crate::{Dropout, Sequences};

pub(super) struct Attention {
    pub sequences: Sequences,
    pub heads: usize,
    pub dropout: Option<Dropout>,
}

impl Attention {
    fn shape(&self, width: usize) -> attention::Shape<'_> {
        attention::Shape {
            sequences: &self.sequences,
            heads: self.heads,
            head_dim: width / 3 / self.heads,
            dropout: self.dropout,
        }
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (tokens, width) = layout.shape().dims2()?;
        let out = attention::forward(slice(qkv, layout)?, self.shape(width));
        Ok((CpuStorage::F32(out), Shape::from((tokens, width / 3))))
    }

    fn bwd(&self, qkv: &Tensor, _out: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let shape = self.shape(qkv.dim(1)?);
        let gradient =
            with(qkv, |qkv| with(grad, |grad| Ok(attention::backward(qkv, grad, shape))))?;
        Ok(Some(Tensor::from_vec(gradient, qkv.shape(), qkv.device())?))
    }
}
