//! Weights and tables in few bits: what stores them, and what must be equal to the bit everywhere.

use candle_core::{CpuStorage, Device, Result, Storage, Tensor, bail};

mod rounding;

pub use rounding::{Feedback, round_weight};

pub use crate::cpu::int8::{CodedTable, Int8Panels, WEIGHT_LIMIT};
use crate::cpu::int8::{linear_row, tanh_row};

/// `x · weightᵀ + bias`, or tanh of it: x `[B, in]`, weight `[out, in]`, bias `[out]`, f32 on the
/// processor → `[B, out]`, equal to the bit on every processor.
///
/// # Errors
/// When shapes or types do not fit.
pub fn exact_linear(x: &Tensor, weight: &Tensor, bias: &Tensor, squash: Squash) -> Result<Tensor> {
    let ((batch, inputs), (outputs, width)) = (x.dims2()?, weight.dims2()?);
    if width != inputs || bias.dims() != [outputs] {
        bail!("{inputs} columns for a weight of {:?}, bias {:?}", weight.dims(), bias.dims());
    }
    let mut y = vec![0f32; batch * outputs];
    with(x, |x| {
        with(weight, |weight| {
            with(bias, |bias| {
                let rows = x.chunks_exact(inputs.max(1)).zip(y.chunks_exact_mut(outputs.max(1)));
                for (x, y) in rows {
                    linear_row(x, weight, bias, y);
                    if squash == Squash::Tanh {
                        tanh_row(y);
                    }
                }
                Ok(())
            })
        })
    })?;
    Tensor::from_vec(y, (batch, outputs), &Device::Cpu)
}

/// What follows a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Squash {
    /// Nothing.
    None,
    /// The hyperbolic tangent.
    Tanh,
}

fn with<T>(tensor: &Tensor, use_it: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((from, to))) => use_it(&data[from..to]),
        _ => bail!("a tensor that is not f32 on the processor"),
    }
}
