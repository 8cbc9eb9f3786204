//! Weights and tables in few bits: what stores them, and what must be equal to the bit everywhere.

use candle_core::{CpuStorage, Device, Result, Storage, Tensor, bail};

use crate::cpu::int8::{self, TABLE_GROUP, WEIGHT_ZERO};
use crate::cpu::math::tanh;

/// Columns of a table's row that share a scale.
pub const GROUP: usize = TABLE_GROUP;

/// A weight `[out, in]` as bytes, `(byte − 64) · scale[out]`: the bytes and the scales.
pub fn quantise_weight(weight: &[f32], inputs: usize) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = vec![0; weight.len()];
    let rows = weight.chunks(inputs.max(1)).zip(bytes.chunks_mut(inputs.max(1)));
    let mut integers = vec![0; inputs];
    let scales = rows.map(|(row, bytes)| {
        let scale = int8::quantise_weights(row, &mut integers[..row.len()]);
        for (byte, q) in bytes.iter_mut().zip(&integers) {
            *byte = q.wrapping_add(WEIGHT_ZERO as i8) as u8;
        }
        scale
    });
    let scales = scales.collect();
    (bytes, scales)
}

/// A table `[rows, columns]` in 4 bits: two columns a byte, the first in the lower half, as 0…15
/// for −8…7, and a scale for each [`GROUP`] columns. The columns must be a multiple of that.
pub fn quantise_table(table: &[f32]) -> (Vec<u8>, Vec<half::f16>) {
    let mut bytes = Vec::with_capacity(table.len() / 2);
    let mut scales = Vec::with_capacity(table.len() / GROUP);
    for group in table.chunks(GROUP) {
        let (scale, quantised) = best(group);
        scales.push(scale);
        bytes.extend(quantised.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&8) << 4));
    }
    (bytes, scales)
}

/// Of some scales the one with the least squared error, and the group in it.
fn best(group: &[f32]) -> (half::f16, [u8; GROUP]) {
    let most =
        group.iter().copied().fold(0f32, |most, x| if x.abs() > most.abs() { x } else { most });
    let mut found = (f32::INFINITY, half::f16::ZERO, [8; GROUP]);
    // The largest becomes −8, or less where it is cut off.
    for step in 0..=16 {
        let scale = half::f16::from_f32(most / -8.0 * (1.0 - 0.025 * step as f32));
        let wide = scale.to_f32();
        if wide == 0.0 || !wide.is_finite() {
            continue;
        }
        let mut quantised = [8u8; GROUP];
        let mut error = 0.0;
        for (x, q) in group.iter().zip(&mut quantised) {
            let nearest = (x / wide).round_ties_even().clamp(-8.0, 7.0);
            *q = (nearest + 8.0) as u8;
            error += (x - nearest * wide).powi(2);
        }
        if error < found.0 {
            found = (error, scale, quantised);
        }
    }
    (found.1, found.2)
}

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
    let mut y = Vec::with_capacity(batch * outputs);
    with(x, |x| {
        with(weight, |weight| {
            with(bias, |bias| {
                for x in x.chunks_exact(inputs.max(1)) {
                    for (weight, bias) in weight.chunks_exact(inputs.max(1)).zip(bias) {
                        let sum = dot(x, weight) + bias;
                        y.push(if squash == Squash::Tanh { tanh(sum) } else { sum });
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

/// In sixteen sums, which are then added by halves.
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    for (x, y) in x.chunks(16).zip(y.chunks(16)) {
        for ((sum, x), y) in sums.iter_mut().zip(x).zip(y) {
            *sum += x * y;
        }
    }
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

fn with<T>(tensor: &Tensor, use_it: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(data)), Some((from, to))) => use_it(&data[from..to]),
        _ => bail!("a tensor that is not f32 on the processor"),
    }
}
