//! What must hold of any BERT: every variable learns, dropout is for training, and a text's logits
//! are its own.

mod support;

use candle_core::{DType, Tensor};
use candle_transformers::models::bert as oracle;
use pagebert_kernels::dropout::hash;
use pagebert_kernels::{AdamWConfig, DropoutKey, cross_entropy};
use pagebert_model::{Batch, BertForSequenceClassification};
use support::*;

fn model() -> BertForSequenceClassification {
    let config = tiny_config();
    BertForSequenceClassification::load(&tiny_weights(&config), &config).unwrap()
}

fn texts(seed: u64, lengths: &[u32]) -> Vec<Vec<u32>> {
    let text = |(i, length): (usize, &u32)| {
        (0..*length).map(|t| hash(seed << 8 | i as u64, t.into()) % 275).collect()
    };
    lengths.iter().enumerate().map(text).collect()
}

#[test]
fn every_variable_gets_a_gradient_and_moves() {
    let parity = parity();
    for (way, trainable) in Trainable::both() {
        every_variable_moves(way, &parity, &trainable);
    }
}

fn every_variable_moves(way: &str, parity: &Parity, trainable: &Trainable) {
    let before: Vec<Tensor> =
        trainable.vars.values().map(|var| var.as_tensor().copy().unwrap()).collect();
    let mut optimizer = trainable.optimizer(AdamWConfig::default());
    let key = Some(DropoutKey::new(1, 1));
    let logits = trainable.model.forward(&parity.batches[0].pack(), key).unwrap();
    let loss = cross_entropy(&logits, &parity.batches[0].labels()).unwrap();
    optimizer.step(&loss.backward().unwrap(), 1e-3).unwrap();
    for ((name, var), before) in trainable.vars.iter().zip(&before) {
        let moved = largest_difference(var.as_tensor(), before);
        assert!(moved > 1e-6 && moved.is_finite(), "{way}, {name} moved by {moved}");
    }
}

#[test]
fn dropout_is_in_training_alone_and_follows_its_key() {
    let model = model();
    let batch = pack(&texts(1, &[20, 9, 33]));
    let plain = model.forward(&batch, None).unwrap();
    assert_eq!(largest_difference(&plain, &model.forward(&batch, None).unwrap()), 0.0);
    let dropped = |step| model.hidden_states(&batch, Some(DropoutKey::new(4, step))).unwrap();
    assert_eq!(largest_difference(&dropped(1), &dropped(1)), 0.0);
    assert!(largest_difference(&dropped(1), &dropped(2)) > 0.1);
}

#[test]
fn dropout_keeps_the_mean() {
    // Logits are linear in what the classifier's dropout drops, so there, and not behind a norm,
    // the mean over many masks is what it is without: with a scale of 1 in the place of
    // 1 / (1 - p), half of each logit would be missing.
    let mut config = tiny_config();
    config.hidden_dropout_prob = 0.0;
    config.attention_probs_dropout_prob = 0.0;
    config.classifier_dropout = Some(0.5);
    let model = BertForSequenceClassification::load(&tiny_weights(&config), &config).unwrap();
    let batch = pack(&texts(1, &[4, 9, 2, 6]));
    let plain = model.forward(&batch, None).unwrap();
    const STEPS: u64 = 2000;
    let mut sum = plain.zeros_like().unwrap();
    for step in 0..STEPS {
        sum = (sum + model.forward(&batch, Some(DropoutKey::new(9, step))).unwrap()).unwrap();
    }
    let difference = largest_difference(&(sum / STEPS as f64).unwrap(), &plain);
    // Half a pooled value of at most 1, times 32 weights of about 0.15, over 2000 masks: about 0.02.
    assert!(difference < 0.1, "{difference}");
}

#[test]
fn a_text_has_the_logits_it_has_alone_whatever_its_neighbours() {
    let model = model();
    let all = texts(2, &[5, 64, 1, 2, 30, 17, 64, 3]);
    let alone: Vec<Tensor> = all
        .iter()
        .map(|text| model.forward(&pack(std::slice::from_ref(text)), None).unwrap())
        .collect();
    let orders: [&[usize]; 4] =
        [&[0, 1, 2, 3, 4, 5, 6, 7], &[7, 6, 5, 4, 3, 2, 1, 0], &[2, 2, 1], &[3, 6]];
    for order in orders {
        let chosen: Vec<Vec<u32>> = order.iter().map(|i| all[*i].clone()).collect();
        let together = model.forward(&pack(&chosen), None).unwrap();
        for (row, i) in order.iter().enumerate() {
            let own = together.narrow(0, row, 1).unwrap();
            let difference = largest_difference(&own, &alone[*i]);
            assert!(difference < 1e-5, "text {i} in {order:?}: {difference}");
        }
    }
}

#[test]
fn a_document_has_the_mean_of_its_windows() {
    let model = model();
    let all = texts(3, &[20, 33, 7]);
    let windows: Vec<&[u32]> = all.iter().map(Vec::as_slice).collect();
    let batch = Batch::pack([vec![windows[0]], vec![windows[1], windows[2]]]).unwrap();
    let documents = model.forward(&batch, None).unwrap();
    let each = model.forward(&pack(&all), None).unwrap();
    let mean = ((each.get(1).unwrap() + each.get(2).unwrap()).unwrap() / 2.0).unwrap();
    assert!(largest_difference(&documents.get(0).unwrap(), &each.get(0).unwrap()) < 1e-5);
    assert!(largest_difference(&documents.get(1).unwrap(), &mean) < 1e-5);
}

#[test]
fn candles_own_bert_agrees() {
    let file = bytes("tiny/model.safetensors");
    let vars = candle_nn::VarBuilder::from_buffered_safetensors(file, DType::F32, &CPU).unwrap();
    let config = serde_json::from_slice(&bytes("tiny/config.json")).unwrap();
    let theirs = oracle::BertModel::load(vars, &config).unwrap();
    let ours = model();
    for text in texts(4, &[1, 2, 15, 64]) {
        let ids = Tensor::new(text.as_slice(), &CPU).unwrap().unsqueeze(0).unwrap();
        let expected = theirs.forward(&ids, &ids.zeros_like().unwrap(), None).unwrap();
        let states = ours.hidden_states(&pack(&[text]), None).unwrap();
        let difference = largest_difference(&states, &expected.squeeze(0).unwrap());
        assert!(difference < 1e-4, "{difference}");
    }
}

#[test]
fn an_empty_batch_has_no_logits() {
    let logits = model().forward(&pack(&[]), None).unwrap();
    assert_eq!(logits.dims(), [0, 3]);
}
