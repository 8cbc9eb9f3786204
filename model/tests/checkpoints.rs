//! Checkpoints of any age and make: what loads, what is told of it, and how a bad file is refused.

mod support;

use candle_core::{DType, Tensor};
use pagebert_model::weights::Missing;
use pagebert_model::{BertConfig, BertForSequenceClassification, Weights};
use serde_json::{Map, Value, json};
use support::*;

#[test]
fn a_checkpoint_comes_back_as_it_was() {
    let config = tiny_config();
    let file = bytes("tiny/model.safetensors");
    let written = tiny_weights(&config).to_safetensors(DType::F32).unwrap();
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

/// A safetensors file of another header in front of the same data.
fn with_header(file: &[u8], change: impl FnOnce(&mut Map<String, Value>)) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let (header, data) = file[8..].split_at(length);
    let mut header = serde_json::from_slice(header).unwrap();
    change(&mut header);
    let header = serde_json::to_vec(&header).unwrap();
    [&(header.len() as u64).to_le_bytes(), header.as_slice(), data].concat()
}

#[test]
fn halves_load_as_what_they_round_to() {
    let config = tiny_config();
    let whole = tiny_weights(&config);
    let file = whole.to_safetensors(DType::F16).unwrap();
    let (halves, _) = Weights::from_safetensors(&file, &config, Missing::Refuse, &CPU).unwrap();
    for (name, tensor) in whole.iter() {
        let rounded = tensor.to_dtype(DType::F16).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(largest_difference(halves.get(name).unwrap(), &rounded), 0.0, "{name}");
    }
    let huge = Tensor::full(1e6f32, (32,), &CPU).unwrap();
    let weights = Weights::from_tensors([("x".to_string(), huge)]);
    assert!(weights.to_safetensors(DType::F16).unwrap_err().to_string().contains("use f32"));
}

#[test]
fn a_classifier_of_other_classes_is_replaced_and_what_is_not_berts_is_told() {
    let mut config = tiny_config();
    config.set_labels(&["yes".into(), "no".into()]);
    let file = with_header(&bytes("tiny/model.safetensors"), |header| {
        let bias = header.remove("bert.pooler.dense.bias").unwrap();
        header.insert("cls.predictions.bias".into(), bias);
    });
    let (weights, report) =
        Weights::from_safetensors(&file, &config, Missing::Initialise { seed: 1 }, &CPU).unwrap();
    let fresh = ["bert.pooler.dense.bias", "classifier.weight", "classifier.bias"];
    assert_eq!(report.initialised, fresh);
    assert_eq!(report.unused, ["cls.predictions.bias"]);
    assert_eq!(weights.get("classifier.weight").unwrap().dims(), [2, 32]);
}

#[test]
fn malformed_weights_are_named() {
    let config = tiny_config();
    let whole = bytes("tiny/model.safetensors");
    const NAME: &str = "bert.encoder.layer.1.output.dense.bias";
    let changed =
        |field: &str, value: Value| with_header(&whole, |header| header[NAME][field] = value);
    let mut not_a_number = whole.clone();
    let end = not_a_number.len();
    not_a_number[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let mut endless_header = whole.clone();
    endless_header[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut wider = config.clone();
    wider.intermediate_size += 8;
    let cases = [
        ("empty", Vec::new(), "safetensors"),
        ("cut off", whole[..whole.len() / 2].to_vec(), "safetensors"),
        ("a cut header", whole[..20].to_vec(), "safetensors"),
        ("an endless header", endless_header, "safetensors"),
        ("a zip file", b"PK\x03\x04 and so on".to_vec(), "safetensors"),
        ("more data than named", [whole.as_slice(), &[0; 4]].concat(), "safetensors"),
        ("offsets that overlap", changed("data_offsets", json!([0, 128])), "safetensors"),
        ("a size that is not its shape's", changed("shape", json!([31])), "safetensors"),
        ("a shape that overflows", changed("shape", json!([1u64 << 62, 8])), "safetensors"),
        ("a type that does not exist", changed("dtype", json!("F31")), "safetensors"),
        ("integers", changed("dtype", json!("I32")), "I32"),
        ("two dimensions in place of one", changed("shape", json!([4, 8])), NAME),
        ("not a number", not_a_number, "NaN"),
        ("a tensor left out", bytes("tiny-old/model.safetensors"), "bert.pooler.dense.weight"),
    ];
    let load = |bytes: &[u8], config: &BertConfig| {
        Weights::from_safetensors(bytes, config, Missing::Refuse, &CPU).unwrap_err().to_string()
    };
    for (what, file, named) in cases {
        let message = load(&file, &config);
        assert!(message.contains(named), "{what}: {message}");
    }
    let message = load(&whole, &wider);
    assert!(message.contains("intermediate.dense"), "another configuration: {message}");
}
