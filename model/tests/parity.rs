//! The same numbers as PyTorch and Transformers: logits, gradients, losses, names.

mod support;

use std::collections::BTreeMap;

use candle_core::Tensor;
use pagebert_kernels::{AdamW, AdamWConfig, cross_entropy};
use pagebert_model::weights::{Missing, decays, split_fused};
use pagebert_model::{BertConfig, BertForSequenceClassification, Weights};
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
    let trainable = Trainable::tiny();
    let logits = trainable.model.forward(&parity.batches[0].pack(), None).unwrap();
    let loss = cross_entropy(&logits, &parity.batches[0].labels()).unwrap();
    assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - parity.loss).abs() < 1e-5);
    let store = loss.backward().unwrap();
    let gradients: BTreeMap<String, Tensor> = trainable
        .vars
        .iter()
        .map(|(name, var)| (name.clone(), store.get(var).expect(name).clone()))
        .collect();
    let gradients = split_fused(&gradients).unwrap();
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
        assert!(difference < bound, "{name}: {difference} of {}", norm(expected));
    }
}

#[test]
fn twenty_training_losses_are_those_of_pytorch() {
    let parity = parity();
    let trainable = Trainable::tiny();
    let parameters =
        trainable.vars.iter().map(|(name, var)| (name.clone(), var.clone(), decays(name)));
    let mut optimizer = AdamW::new(parameters.collect(), AdamWConfig::default()).unwrap();
    for (step, (rate, expected)) in parity.rates.iter().zip(&parity.losses).enumerate() {
        let batch = &parity.batches[step % parity.batches.len()];
        let logits = trainable.model.forward(&batch.pack(), None).unwrap();
        let loss = cross_entropy(&logits, &batch.labels()).unwrap();
        let store = loss.backward().unwrap();
        optimizer.step(&store, *rate).unwrap();
        let loss = f64::from(loss.to_scalar::<f32>().unwrap());
        assert!((loss - expected).abs() < 1e-3, "step {step}: {loss}, not {expected}");
    }
}

#[test]
fn a_checkpoint_comes_back_as_it_was() {
    let config = tiny_config();
    let file = bytes("tiny/model.safetensors");
    let written = tiny_weights(&config).to_safetensors(candle_core::DType::F32).unwrap();
    let load = |bytes: &[u8]| candle_core::safetensors::load_buffer(bytes, &CPU).unwrap();
    let (before, after) = (load(&file), load(&written));
    assert_eq!(before.len(), after.len());
    for (name, tensor) in &before {
        assert_eq!(largest_difference(tensor, &after[name]), 0.0, "{name}");
    }
}

#[test]
fn names_of_the_first_checkpoints_load_and_what_they_lack_is_told() {
    let config = BertConfig::from_json(&bytes("tiny-old/config.json")).unwrap();
    let file = bytes("tiny-old/model.safetensors");
    let (weights, report) =
        Weights::from_safetensors(&file, &config, Missing::Initialise { seed: 1 }, &CPU).unwrap();
    let fresh = [
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    ];
    assert_eq!(report.initialised, fresh);
    assert!(report.unused.is_empty());
    let error = Weights::from_safetensors(&file, &config, Missing::Refuse, &CPU).unwrap_err();
    assert!(error.to_string().contains("bert.pooler.dense.weight"), "{error}");

    let old = BertForSequenceClassification::load(&weights, &config).unwrap();
    let config = tiny_config();
    let new = BertForSequenceClassification::load(&tiny_weights(&config), &config).unwrap();
    let batch = parity().batches[0].pack();
    let states = [old, new].map(|model| model.hidden_states(&batch, None).unwrap());
    assert_eq!(largest_difference(&states[0], &states[1]), 0.0);
}

#[test]
fn fresh_weights_depend_on_the_seed_alone() {
    let config = tiny_config();
    let classifier = |seed| {
        let weights = Weights::random(&config, seed, &CPU).unwrap();
        weights.get("classifier.weight").unwrap().clone()
    };
    assert_eq!(largest_difference(&classifier(3), &classifier(3)), 0.0);
    assert!(largest_difference(&classifier(3), &classifier(4)) > 0.0);
    let deviation = norm(&classifier(3)) / (classifier(3).elem_count() as f64).sqrt();
    assert!((deviation / config.initializer_range - 1.0).abs() < 0.2, "{deviation}");
}

#[test]
fn malformed_weights_are_named() {
    let config = tiny_config();
    let whole = bytes("tiny/model.safetensors");
    let load = |bytes: &[u8], config: &BertConfig| {
        Weights::from_safetensors(bytes, config, Missing::Refuse, &CPU).unwrap_err().to_string()
    };
    let mut not_a_number = whole.clone();
    let end = not_a_number.len();
    not_a_number[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut wider = config.clone();
    wider.intermediate_size += 8;
    for (what, message, named) in [
        ("empty", load(b"", &config), "safetensors"),
        ("cut off", load(&whole[..whole.len() / 2], &config), "safetensors"),
        ("cut header", load(&whole[..20], &config), "safetensors"),
        ("not safetensors", load(b"PK\x03\x04 and so on", &config), "safetensors"),
        ("NaN", load(&not_a_number, &config), "NaN"),
        ("other shape", load(&whole, &wider), "intermediate.dense"),
    ] {
        assert!(message.contains(named), "{what}: {message}");
    }
}
