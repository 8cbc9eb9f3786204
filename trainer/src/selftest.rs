//! `pagebert devices --selftest`: does a device compute what the CPU computes?
//!
//! Owns a tiny model that is trained for ten steps on both, and the bounds within which losses and
//! gradients must agree. The device computes with the plain twins, which is all that a graphics
//! card has; on the other side are the CPU's fused operations.

use std::io::Write;

use anyhow::{Result, bail};
use candle_core::{Device, Tensor};
use pagebert_kernels::dropout::hash;
use pagebert_kernels::{DropoutKey, Precision as Products};
use pagebert_model::{Batch, BertConfig, Weights};

use crate::devices::DeviceSpec;
use crate::progress::Console;
use crate::settings::Settings;
use crate::train::engine::{Engine, MicroBatch, Route};

const STEPS: u64 = 10;
/// Devices add numbers up in different orders: f32 keeps about seven digits of each.
const LOSS_BOUND: f64 = 1e-4;
const GRADIENT_BOUND: f64 = 1e-3;

const TINY: &str = r#"{
    "vocab_size": 211, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 160, "max_position_embeddings": 64,
    "id2label": {"0": "a", "1": "b", "2": "c"}
}"#;

/// What one step showed: its loss, and every parameter's gradient by its name.
type Step = (f64, Vec<(String, Tensor)>);

/// Runs the test; the result goes to stdout.
///
/// # Errors
/// When the device can't be used, or computes something else than the CPU.
pub fn run(spec: DeviceSpec, console: &Console) -> Result<()> {
    let device = crate::inference::device(spec)?;
    console.note(format!("training a tiny BERT for {STEPS} steps on {spec} and on the CPU"));
    let config = BertConfig::from_json(TINY.as_bytes())?;
    let there = train(&config, &device, Products::F32, Route::Plain)?;
    let here = train(&config, &Device::Cpu, Products::F32, Route::Fused)?;
    let mut out = std::io::stdout().lock();
    let (mut worst_loss, mut worst_gradient) = (0f64, (0f64, String::new()));
    writeln!(out, "step  loss on {spec:<8}  loss on cpu  largest gradient difference")?;
    for (index, ((loss, gradients), (cpu_loss, cpu_gradients))) in
        there.iter().zip(&here).enumerate()
    {
        let mut largest = (0f64, String::new());
        for ((name, gradient), (_, cpu_gradient)) in gradients.iter().zip(cpu_gradients) {
            let difference = relative_difference(gradient, cpu_gradient)?;
            // NaN counts as the largest.
            if difference.is_nan() || difference > largest.0 {
                largest = (difference, name.clone());
            }
        }
        writeln!(
            out,
            "{:>4}  {loss:<16.6}  {cpu_loss:<11.6}  {:.1e} ({})",
            index + 1,
            largest.0,
            largest.1
        )?;
        let difference = (loss - cpu_loss).abs() / cpu_loss.abs();
        worst_loss = if difference <= worst_loss { worst_loss } else { difference };
        if largest.0.is_nan() || largest.0 > worst_gradient.0 {
            worst_gradient = largest;
        }
    }
    if !(worst_loss <= LOSS_BOUND && worst_gradient.0 <= GRADIENT_BOUND) {
        bail!(
            "{spec} does not compute what the CPU does: losses differ by {worst_loss:.1e} \
             (allowed {LOSS_BOUND:.0e}), gradients by {:.1e} at {} (allowed {GRADIENT_BOUND:.0e})",
            worst_gradient.0,
            worst_gradient.1
        );
    }
    writeln!(
        out,
        "passed: losses agree within {worst_loss:.1e}, gradients within {:.1e}",
        worst_gradient.0
    )?;
    Ok(())
}

fn train(
    config: &BertConfig,
    device: &Device,
    precision: Products,
    route: Route,
) -> Result<Vec<Step>> {
    let settings = Settings::load(&[], &[])?;
    let weights = Weights::random(config, 1, device)?;
    let mut engine = Engine::on(weights, config, &settings, precision, route)?;
    let mut steps = Vec::new();
    for step in 0..STEPS {
        let lengths = [1 + step as usize, 64, 17, 30];
        let texts: Vec<Vec<u32>> = lengths
            .iter()
            .enumerate()
            .map(|(text, length)| {
                (0..*length as u64)
                    .map(|i| hash(step << 8 | text as u64, i) % config.vocab_size as u32)
                    .collect()
            })
            .collect();
        let batch = Batch::pack(texts.iter().map(|text| [text.as_slice()]))?;
        let labels = (0..lengths.len() as u32).map(|text| text % 3).collect();
        let dropout = Some(DropoutKey::new(5, step));
        let parts = [MicroBatch { batch, labels, dropout }];
        let (loss, gradients) = engine.gradients(&parts)?;
        let Some(gradients) = gradients else { bail!("step {}: the loss is {loss}", step + 1) };
        let named = engine.named(&gradients)?;
        let host = named
            .into_iter()
            .map(|(name, gradient)| Ok((name, gradient.to_device(&Device::Cpu)?)))
            .collect::<Result<Vec<_>>>()?;
        steps.push((loss, host));
        engine.step(&parts, 1e-3)?;
    }
    Ok(steps)
}

/// ‖a − b‖ / ‖b‖, with a floor under the norm: a key's bias has no gradient at all.
fn relative_difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    let norm = |x: &Tensor| -> Result<f64> {
        Ok(f64::from(x.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt())
    };
    Ok(norm(&(a - b)?)? / norm(b)?.max(1e-3))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a graphics card runs, on the processor: the twins, in both precisions.
    #[test]
    fn the_twins_train_as_the_fused_operations_do() {
        let config = BertConfig::from_json(TINY.as_bytes()).unwrap();
        let fused = train(&config, &Device::Cpu, Products::F32, Route::Fused).unwrap();
        // bf16 has 8 bits, and ten steps at a high rate carry their errors on.
        for (precision, bound) in [(Products::F32, LOSS_BOUND), (Products::Bf16, 2e-2)] {
            let plain = train(&config, &Device::Cpu, precision, Route::Plain).unwrap();
            for (step, ((loss, _), (expected, _))) in plain.iter().zip(&fused).enumerate() {
                let difference = (loss - expected).abs() / expected;
                assert!(difference < bound, "{precision:?}, step {step}: {loss} {expected}");
            }
        }
    }
}
