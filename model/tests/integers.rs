//! Weights in integers: what a look at texts gains, how they arrive, and how bad ones are refused.

mod support;

use candle_core::{DType, Tensor};
use pagebert_kernels::coding::{CodedShape, encode};
use pagebert_model::weights::{Missing, RoundedWeights, Rounding, WeightsStream};
use pagebert_model::{BertConfig, BertForSequenceClassification, Weights};
use support::*;

/// The file of these weights in integers.
fn in_integers(weights: &Weights, rounding: &Rounding) -> Vec<u8> {
    RoundedWeights::of(weights, rounding, || ()).unwrap().to_safetensors().unwrap()
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
    seen.weigh(&weights, &config, std::slice::from_ref(&batch), || ()).unwrap();
    let after = in_integers(&weights, &seen).len();
    let weighed = error(&seen);
    assert!(weighed < with || after < before, "{weighed} of {after} bytes, {with} of {before}");
}

#[test]
fn logits_are_shifted_by_what_is_asked_for() {
    let config = tiny_config();
    let (seen, batch, _) = a_look(&tiny_weights(&config), &config);
    let mut rounded = RoundedWeights::of(&tiny_weights(&config), &seen, || ()).unwrap();
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
fn factors_of_inputs_and_their_inverse_in_weights_change_nothing() {
    let config = tiny_config();
    let weights = tiny_weights(&config);
    let plain = in_integers(&weights, &Rounding::default());
    let file = safetensors::SafeTensors::deserialize(&plain).unwrap();
    let mut parts = Vec::new();
    for (name, view) in file.tensors() {
        let mut data = view.data().to_vec();
        if name.ends_with("_scale") && name.contains("encoder") {
            for scale in data.as_chunks_mut().0 {
                *scale = (0.5 * f32::from_le_bytes(*scale)).to_le_bytes();
            }
        }
        parts.push((name, view.dtype(), view.shape().to_vec(), data));
    }
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let layers = [
        ("attention.self", hidden),
        ("attention.output.dense", hidden),
        ("intermediate.dense", hidden),
        ("output.dense", wide),
    ];
    for number in 0..config.num_hidden_layers {
        for (layer, inputs) in layers {
            let name = format!("bert.encoder.layer.{number}.{layer}.input_factors");
            let data = half::f16::from_f32(2.0).to_le_bytes().repeat(inputs);
            parts.push((name, safetensors::Dtype::F16, vec![inputs], data));
        }
    }
    let views = parts.iter().map(|(name, dtype, shape, data)| {
        (name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let scaled = safetensors::serialize(views, None).unwrap();
    let batch = pack(&[vec![2, 7, 19, 4, 3], vec![2, 3], (2..40).collect()]);
    let logits = |file: &[u8]| {
        let (weights, report) =
            Weights::from_safetensors(file, &config, Missing::Refuse, &CPU).unwrap();
        assert!(report.unused.is_empty(), "{report:?}");
        let model = BertForSequenceClassification::load(&weights, &config).unwrap();
        model.window_logits(&batch, None).unwrap().to_vec2::<f32>().unwrap()
    };
    // Twice an input, half a weight: powers of two change no bit.
    assert_eq!(logits(&scaled), logits(&plain));
}

#[test]
fn integers_do_not_drop_out() {
    let config = tiny_config();
    let file = in_integers(&tiny_weights(&config), &Rounding::default());
    let (weights, _) = Weights::from_safetensors(&file, &config, Missing::Refuse, &CPU).unwrap();
    let model = BertForSequenceClassification::load(&weights, &config).unwrap();
    let key = pagebert_kernels::DropoutKey::new(1, 1);
    let error = model.forward(&pack(&[vec![2, 7, 3]]), Some(key)).unwrap_err().to_string();
    assert!(error.contains("drops nothing out"), "{error}");
}

#[test]
fn smoothed_inputs_keep_the_logits() {
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
