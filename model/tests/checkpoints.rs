//! Checkpoints of any age and make: what loads, what is told of it, and how a bad file is refused.

mod support;

use candle_core::{DType, Tensor};
use pagebert_kernels::coding::{CodedShape, encode};
use pagebert_model::weights::{Missing, RoundedWeights, Rounding, WeightsStream};
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

/// The file of these weights in integers.
fn in_integers(weights: &Weights, rounding: &Rounding) -> Vec<u8> {
    RoundedWeights::of(weights, rounding).unwrap().to_safetensors().unwrap()
}

/// What is known of some texts, their batch, and the logits of a model in floats.
fn a_look(weights: &Weights, config: &BertConfig) -> (Rounding, pagebert_model::Batch, Tensor) {
    let model = BertForSequenceClassification::load(weights, config).unwrap();
    let texts: Vec<Vec<u32>> =
        (0..200u32).map(|i| (0..5 + i % 9).map(|j| (i * 31 + j * 17) % 90 + 4).collect()).collect();
    let batch = pack(&texts);
    let mut seen = Rounding::default();
    texts.iter().for_each(|ids| seen.count(ids, config.vocab_size));
    seen.look(&model, &batch).unwrap();
    let logits = model.forward(&batch, None).unwrap();
    (seen, batch, logits)
}

#[test]
fn integers_that_are_malformed_are_named() {
    let config = tiny_config();
    let (seen, ..) = a_look(&tiny_weights(&config), &config);
    let good = in_integers(&tiny_weights(&config), &seen);
    let load = |bytes: &[u8]| Weights::from_safetensors(bytes, &config, Missing::Refuse, &CPU);
    let (weights, report) = load(&good).unwrap();
    assert!(report.unused.is_empty(), "{report:?}");
    assert!(weights.table().is_some());

    let file = safetensors::SafeTensors::deserialize(&good).unwrap();
    let weight = "bert.encoder.layer.1.intermediate.dense.weight";
    let scale = format!("{weight}_scale");
    let factors = "bert.encoder.layer.1.intermediate.dense.input_factors";
    // One tensor replaced, or left out.
    type Change<'a> = Option<&'a dyn Fn(&mut Vec<u8>)>;
    let broken = |name: &str, change: Change<'_>| {
        let mut parts = Vec::new();
        for (found, view) in file.tensors() {
            let (mut data, mut shape) = (view.data().to_vec(), view.shape().to_vec());
            if found == name {
                let Some(change) = change else { continue };
                change(&mut data);
                if view.dtype() == safetensors::Dtype::U8 {
                    shape = vec![data.len()];
                }
            }
            parts.push((found, view.dtype(), shape, data));
        }
        let views = parts.iter().map(|(name, dtype, shape, data)| {
            (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        load(&bytes).unwrap_err().to_string()
    };
    let coded = |rows: usize, columns: usize, block: usize, integer: i8| {
        encode(&vec![integer; rows * columns], CodedShape { rows, columns, block })
    };
    let nan = |data: &mut Vec<u8>| data[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    let swapped = |data: &mut Vec<u8>| *data = coded(32, 80, 16, 1);
    let other_blocks = |data: &mut Vec<u8>| *data = coded(80, 32, 4, 1);
    let too_large = |data: &mut Vec<u8>| *data = coded(80, 32, 16, 64);
    let cut_off = |data: &mut Vec<u8>| data.truncate(data.len() - 2);
    let damaged = |data: &mut Vec<u8>| *data.last_mut().unwrap() ^= 1;
    let cases: [(&str, Change<'_>, &str); 7] = [
        (&scale, None, "weight_scale is missing"),
        (&scale, Some(&nan), "holds NaN at 1"),
        (weight, Some(&swapped), "has shape [32, 80]"),
        (weight, Some(&other_blocks), "blocks of 4 rows"),
        (weight, Some(&too_large), "out of range, in row 0"),
        (weight, Some(&cut_off), "bytes of coded integers"),
        (weight, Some(&damaged), "damaged in block 4"),
    ];
    for (name, change, expected) in cases {
        let said = broken(name, change);
        assert!(said.contains(expected) && said.contains(weight), "{said}");
    }
    let half = |x: f32| half::f16::from_f32(x).to_le_bytes();
    let cases: [(&str, f32); 3] =
        [("holds NaN at 1", f32::NAN), ("holds 0", 0.0), ("holds -2", -2.0)];
    for (expected, bad) in cases {
        let said = broken(factors, Some(&|data| data[2..4].copy_from_slice(&half(bad))));
        assert!(said.contains(expected) && said.contains(factors), "{said}");
    }
    // Factors of a layer in floats would change its answers.
    let floats = tiny_weights(&config).to_safetensors(DType::F32).unwrap();
    let floats = safetensors::SafeTensors::deserialize(&floats).unwrap();
    let lone = safetensors::tensor::TensorView::new(
        safetensors::Dtype::F16,
        file.tensor(factors).unwrap().shape().to_vec(),
        file.tensor(factors).unwrap().data(),
    );
    let mut tensors = floats.tensors();
    tensors.push((factors.to_string(), lone.unwrap()));
    let said = load(&safetensors::serialize(tensors, None).unwrap()).unwrap_err().to_string();
    assert!(said.contains(factors) && said.contains("no integers"), "{said}");
}

#[test]
fn weights_that_arrive_piece_by_piece_are_the_same() {
    let config = tiny_config();
    let weights = tiny_weights(&config);
    let files =
        [in_integers(&weights, &Rounding::default()), weights.to_safetensors(DType::F16).unwrap()];
    let batch = pack(&[vec![2, 7, 19, 4, 3], vec![2, 3]]);
    let logits = |weights: &Weights| -> Vec<Vec<f32>> {
        let model = BertForSequenceClassification::load(weights, &config).unwrap();
        model.forward(&batch, None).unwrap().to_vec2().unwrap()
    };
    for file in &files {
        let (whole, _) = Weights::from_safetensors(file, &config, Missing::Refuse, &CPU).unwrap();
        let expected = logits(&whole);
        for size in [1, 7, 1000, file.len()] {
            let mut stream = WeightsStream::new(&config).unwrap();
            for chunk in file.chunks(size) {
                stream.receive(chunk).unwrap();
            }
            let (found, report) = stream.finish().unwrap();
            assert!(report.unused.is_empty() && logits(&found) == expected, "{size}");
        }
        let mut cut = WeightsStream::new(&config).unwrap();
        cut.receive(&file[..file.len() - 1]).unwrap();
        assert!(cut.finish().unwrap_err().to_string().contains("cut off"));
        let mut longer = WeightsStream::new(&config).unwrap();
        longer.receive(file).unwrap();
        assert!(longer.receive(b"!").unwrap_err().to_string().contains("behind its last"));
    }
    let endless = WeightsStream::new(&config).unwrap().receive(&[255; 8]).unwrap_err();
    assert!(endless.to_string().contains("header"), "{endless}");
}

#[test]
fn a_look_at_texts_makes_integers_that_keep_the_models_answers() {
    let config = tiny_config();
    let weights = tiny_weights(&config);
    let (mut seen, batch, expected) = a_look(&weights, &config);
    let logits = |file: &[u8]| {
        let (rounded, _) = Weights::from_safetensors(file, &config, Missing::Refuse, &CPU).unwrap();
        let rounded = BertForSequenceClassification::load(&rounded, &config).unwrap();
        rounded.forward(&batch, None).unwrap()
    };
    let error = |rounding: &Rounding| {
        norm(&(logits(&in_integers(&weights, rounding)) - &expected).unwrap())
    };
    let (with, without) = (error(&seen), error(&Rounding::default()));
    assert!(with < without, "{with} with a look, {without} without");
    // Knowing which layers matter, the same error takes fewer bytes, or a smaller one as many.
    let before = in_integers(&weights, &seen).len();
    seen.weigh(&weights, &config, std::slice::from_ref(&batch)).unwrap();
    let after = in_integers(&weights, &seen).len();
    let weighed = error(&seen);
    assert!(weighed < with || after < before, "{weighed} of {after} bytes, {with} of {before}");
}

#[test]
fn logits_are_shifted_by_what_is_asked_for() {
    let config = tiny_config();
    let (seen, batch, _) = a_look(&tiny_weights(&config), &config);
    let mut rounded = RoundedWeights::of(&tiny_weights(&config), &seen).unwrap();
    let logits = |rounded: &RoundedWeights| {
        let file = rounded.to_safetensors().unwrap();
        let (weights, _) =
            Weights::from_safetensors(&file, &config, Missing::Refuse, &CPU).unwrap();
        let model = BertForSequenceClassification::load(&weights, &config).unwrap();
        model.window_logits(&batch, None).unwrap()
    };
    let before = logits(&rounded);
    let shift: Vec<f32> = (0..before.dim(1).unwrap()).map(|class| 0.5 - class as f32).collect();
    rounded.shift_logits(&shift);
    let expected = before.broadcast_add(&Tensor::new(shift, &CPU).unwrap()).unwrap();
    assert!(largest_difference(&logits(&rounded), &expected) < 1e-5);
}

#[test]
fn smoothed_inputs_give_the_twins_states() {
    let config = tiny_config();
    let (seen, batch, expected) = a_look(&tiny_weights(&config), &config);
    let file = in_integers(&tiny_weights(&config), &seen);
    let (weights, _) = Weights::from_safetensors(&file, &config, Missing::Refuse, &CPU).unwrap();
    let factors = |name: &str| weights.linear(name).unwrap().input_factors().to_vec();
    let of_qkv = factors("bert.encoder.layer.0.attention.self.qkv.weight");
    assert!(of_qkv.len() == config.hidden_size && of_qkv.iter().any(|x| *x != of_qkv[0]));
    assert!(factors("bert.encoder.layer.0.output.dense.weight").is_empty());
    let model = BertForSequenceClassification::load(&weights, &config).unwrap();
    let found = model.forward(&batch, None).unwrap();
    let scale = norm(&expected);
    assert!(norm(&(found - expected).unwrap()) < 0.05 * scale, "{scale}");
}
