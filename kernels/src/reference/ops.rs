//! Softmax and layer norm by candle's own kernels, which have a forward pass on every device but no
//! backward pass: that is here, in ordinary operations.

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp1, CustomOp3, D, DType, Layout, Result, Shape, Storage,
    Tensor, bail,
};

/// Softmax over the last dimension, in f32 whatever x's type: x `[…, N]` → `[…, N]`.
///
/// # Errors
/// When x has no dimension, or the device fails.
pub fn softmax(x: &Tensor) -> Result<Tensor> {
    x.dim(D::Minus1)?;
    // The kernels need a row, and something in it.
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    x.apply_op1(Softmax { x: x.detach() })
}

/// Layer norm over the last dimension, in f32: x `[T, H]`, weight and bias `[H]`, all f32
/// → `[T, H]`.
///
/// # Errors
/// When shapes or types do not fit, or the device fails.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let (_, width) = x.dims2()?;
    if weight.dims1()? != width || bias.dims1()? != width {
        bail!("layer norm: {width} columns, but {:?} and {:?}", weight.shape(), bias.shape());
    }
    if x.elem_count() == 0 {
        return x.broadcast_mul(weight)?.broadcast_add(bias);
    }
    let (x, weight, bias) = (&x.contiguous()?, &weight.contiguous()?, &bias.contiguous()?);
    let op = LayerNorm { x: x.detach(), weight: weight.detach(), bias: bias.detach(), eps };
    x.apply_op3(weight, bias, op)
}

// candle lets an operation see storages, while its kernels are to be had on tensors alone: so each
// operation here holds its arguments, cut off from the graph (which keeps them anyway), and gives
// a copy of what the kernel made of them.

struct Softmax {
    x: Tensor,
}

impl Softmax {
    fn value(&self) -> Result<Tensor> {
        let x = self.x.to_dtype(DType::F32)?.contiguous()?;
        candle_nn::ops::softmax_last_dim(&x)?.to_dtype(self.x.dtype())
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        on_cpu(&self.value()?)
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        on_cuda(&self.value()?)
    }

    /// y · (g − Σ g·y), the sum over the row.
    fn bwd(&self, x: &Tensor, y: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let y = y.detach().to_dtype(DType::F32)?;
        let product = (grad.to_dtype(DType::F32)? * &y)?;
        let sum = product.sum_keepdim(D::Minus1)?;
        Ok(Some((product - y.broadcast_mul(&sum)?)?.to_dtype(x.dtype())?))
    }
}

struct LayerNorm {
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    fn centred(&self) -> Result<Tensor> {
        self.x.broadcast_sub(&self.x.mean_keepdim(D::Minus1)?)
    }

    /// candle's layer norm takes E[x²] − E[x]² for the variance, which is negative, and the result
    /// no number, for a row of equal numbers. Its RMS norm of centred rows is the same function,
    /// and has no such difference in it.
    fn value(&self) -> Result<Tensor> {
        candle_nn::ops::rms_norm(&self.centred()?, &self.weight, self.eps as f32)?
            .broadcast_add(&self.bias)
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        on_cpu(&self.value()?)
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        on_cuda(&self.value()?)
    }

    /// With n the normed rows and h = g·weight: (h − mean(h) − n · mean(h·n)) / deviation for x,
    /// Σ g·n for the weight and Σ g for the bias, the means over the row and the sums over rows.
    fn bwd(
        &self,
        _x: &Tensor,
        _weight: &Tensor,
        _bias: &Tensor,
        _y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let centred = self.centred()?;
        let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.eps)?.sqrt()?;
        let normed = centred.broadcast_div(&deviation)?;
        let weighted = grad.broadcast_mul(&self.weight)?;
        let along = (&weighted * &normed)?.mean_keepdim(D::Minus1)?;
        let of_x = weighted
            .broadcast_sub(&weighted.mean_keepdim(D::Minus1)?)?
            .sub(&normed.broadcast_mul(&along)?)?
            .broadcast_div(&deviation)?;
        let of_weight = (grad * normed)?.sum(0)?;
        Ok((Some(of_x), Some(of_weight), Some(grad.sum(0)?)))
    }
}

fn on_cpu(value: &Tensor) -> Result<(CpuStorage, Shape)> {
    match &*value.storage_and_layout().0 {
        Storage::Cpu(storage) => Ok((storage.clone(), value.shape().clone())),
        _ => bail!("a value of the processor's is on another device"),
    }
}

fn on_cuda(value: &Tensor) -> Result<(CudaStorage, Shape)> {
    let (storage, layout) = value.storage_and_layout();
    match &*storage {
        Storage::Cuda(storage) => Ok((storage.try_clone(layout)?, value.shape().clone())),
        _ => bail!("a value of a card's is on another device"),
    }
}
