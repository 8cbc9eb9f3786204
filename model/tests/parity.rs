//! The same numbers as PyTorch and Transformers: logits, gradients, losses.

mod support;

use candle_core::Tensor;
use pagebert_kernels::{AdamWConfig, Precision, cross_entropy};
use pagebert_model::BertForSequenceClassification;
use pagebert_model::weights::split_fused;
use support::*;

#[test]
fn logits_are_those_of_transformers() {
    let parity = parity();
    let config = tiny_config();
    let model = BertForSequenceClassification::load(&tiny_weights(&config), &config).unwrap();
    let logits = model.forward(&parity.batches[0].pack(), None).unwrap();
    let expected = Tensor::new(parity.logits, &CPU).unwrap();
    let difference = largest_difference(&logits, &expected);
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn gradients_of_all_parameters_are_those_of_pytorch() {
    let parity = parity();
    for (way, trainable) in Trainable::both() {
        gradients_are_those_of_pytorch(way, &parity, &trainable);
    }
}

fn gradients_are_those_of_pytorch(way: &str, parity: &Parity, trainable: &Trainable) {
    let logits = trainable.model.forward(&parity.batches[0].pack(), None).unwrap();
    let loss = cross_entropy(&logits, &parity.batches[0].labels()).unwrap();
    assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - parity.loss).abs() < 1e-5);
    let store = loss.backward().unwrap();
    let gradients = split_fused(&trainable.gradients(&store)).unwrap();
    let expected =
        candle_core::safetensors::load_buffer(&bytes("parity.safetensors"), &CPU).unwrap();
    assert_eq!(
        gradients.keys().collect::<Vec<_>>(),
        expected.keys().collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    );
    for (name, expected) in &expected {
        let difference = norm(&(&gradients[name] - expected).unwrap());
        // A key's bias shifts every score of a row alike, so its gradient is zero but for rounding.
        let bound = 1e-3 * norm(expected) + 1e-6;
        assert!(difference < bound, "{way}, {name}: {difference} of {}", norm(expected));
    }
}

#[test]
fn twenty_steps_of_training_are_those_of_pytorch() {
    let parity = parity();
    for (way, trainable) in Trainable::both() {
        twenty_steps_are_those_of_pytorch(way, &parity, &trainable);
    }
}

fn twenty_steps_are_those_of_pytorch(way: &str, parity: &Parity, trainable: &Trainable) {
    let config = AdamWConfig { weight_decay: parity.weight_decay, ..AdamWConfig::default() };
    let mut optimizer = trainable.optimizer(config);
    for (step, (rate, expected)) in parity.rates.iter().zip(&parity.losses).enumerate() {
        let batch = &parity.batches[step % parity.batches.len()];
        let logits = trainable.model.forward(&batch.pack(), None).unwrap();
        let loss = cross_entropy(&logits, &batch.labels()).unwrap();
        let store = loss.backward().unwrap();
        optimizer.step(&store, *rate).unwrap();
        trainable.stepped();
        let loss = f64::from(loss.to_scalar::<f32>().unwrap());
        assert!((loss - expected).abs() < 1e-4, "{way}, step {step}: {loss}, not {expected}");
    }
    // The losses alone would not show a decay of the wrong parameters.
    let fused = trainable.vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone()));
    let after = split_fused(&fused.collect()).unwrap();
    for (name, expected) in &parity.norms {
        let found = norm(&after[name]);
        assert!(
            (found / expected - 1.0).abs() < 1e-4,
            "{way}, {name}: norm {found}, not {expected}"
        );
    }
}

#[test]
fn a_hundred_losses_are_those_of_pytorch() {
    let bounds = [(Precision::F32, 1e-5), (Precision::Bf16, 1e-2), (Precision::Int8, 3e-2)];
    for (precision, bound) in bounds {
        for (way, trainable) in Trainable::both_in(precision) {
            let worst = hundred_steps(&trainable);
            assert!(worst < bound, "{way} in {precision:?}: a loss is {worst} off PyTorch's");
        }
    }
}

/// The largest difference of a loss.
fn hundred_steps(trainable: &Trainable) -> f64 {
    let curve = curve();
    assert_eq!(curve.losses.len(), 100);
    let config = AdamWConfig { weight_decay: curve.weight_decay, ..AdamWConfig::default() };
    let mut optimizer = trainable.optimizer(config);
    let mut worst = 0f64;
    for (step, (rate, expected)) in curve.rates.iter().zip(&curve.losses).enumerate() {
        let batch = &curve.batches[step % curve.batches.len()];
        let logits = trainable.model.forward(&batch.pack(), None).unwrap();
        let loss = cross_entropy(&logits, &batch.labels()).unwrap();
        optimizer.step(&loss.backward().unwrap(), *rate).unwrap();
        trainable.stepped();
        let apart = f64::from(loss.to_scalar::<f32>().unwrap()) - expected;
        worst = worst.max(apart.abs());
    }
    worst
}
