//! Every fused operation against its plain twin: values and gradients, on sizes and magnitudes that
//! are even, odd, empty and huge.

use candle_core::{DType, Device, Result, Tensor, Var};
use pagebert_kernels::dropout::normal;
use pagebert_kernels::{
    Activation, AdamW, AdamWConfig, Dropout, DropoutKey, EmbeddingTables, LayerNorm, Sequences,
    attention, dropout_add_layer_norm, embeddings_layer_norm, linear, reference,
};

const CPU: Device = Device::Cpu;

fn random(seed: u64, dims: &[usize], scale: f32) -> Var {
    let n = dims.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..n).map(|i| normal(seed, i) * scale).collect();
    Var::from_tensor(&Tensor::from_vec(values, dims, &CPU).unwrap()).unwrap()
}

fn norm(x: &Tensor) -> f64 {
    let squares = x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap();
    squares.to_scalar::<f64>().unwrap().sqrt()
}

#[track_caller]
fn close(what: &str, fused: &Tensor, plain: &Tensor, bound: f64) {
    assert_eq!(fused.dims(), plain.dims(), "{what}");
    let difference = norm(&(fused - plain).unwrap());
    let size = norm(plain);
    // NaN fails.
    assert!(
        difference <= bound * size + 1e-7,
        "{what}: {difference:e} of {size:e}, {:e} relative",
        difference / size
    );
}

/// Compares values, and the gradients of a random weighting of the outputs.
#[track_caller]
fn compare(
    what: &str,
    inputs: &[&Var],
    fused: impl Fn() -> Result<Tensor>,
    plain: impl Fn() -> Result<Tensor>,
    bound: f64,
) {
    let (fused, plain) = (fused().unwrap(), plain().unwrap());
    close(what, &fused, &plain, bound);
    let weighting = random(99, fused.dims(), 1.0);
    let gradients = |out: &Tensor| (out * weighting.as_tensor()).unwrap().backward().unwrap();
    let (fused, plain) = (gradients(&fused), gradients(&plain));
    for (i, input) in inputs.iter().enumerate() {
        let of = |store: &candle_core::backprop::GradStore| match store.get(input) {
            Some(gradient) => gradient.clone(),
            None => input.zeros_like().unwrap(),
        };
        close(&format!("{what}, gradient of input {i}"), &of(&fused), &of(&plain), bound);
    }
}

fn drop(p: f32) -> Option<Dropout> {
    (p > 0.0).then(|| DropoutKey::new(3, 5).site(8, p))
}

#[test]
fn linear_layers() {
    let activations =
        [Activation::Identity, Activation::Gelu, Activation::GeluTanh, Activation::Relu];
    for (rows, input, output) in [(1, 1, 1), (5, 7, 3), (33, 64, 48), (100, 31, 129), (0, 8, 8)] {
        for activation in activations {
            for scale in [1.0, 1e4] {
                let x = random(1, &[rows, input], scale);
                let weight = random(2, &[output, input], 1.0);
                let bias = random(3, &[output], scale);
                compare(
                    &format!("{activation:?} {rows} × {input} → {output}, scale {scale}"),
                    &[&x, &weight, &bias],
                    || linear(&x, &weight, &bias, activation),
                    || reference::linear(&x, &weight, &bias, activation),
                    1e-5,
                );
            }
        }
    }
}

#[test]
fn attention_over_packed_sequences() {
    for (lengths, heads, head_dim) in [
        (vec![1], 1, 4),
        (vec![5, 1, 17], 2, 8),
        (vec![3, 0, 2], 3, 5),
        (vec![64, 63, 1, 2], 12, 32),
        (vec![512], 2, 16),
        (vec![130, 7], 1, 64),
    ] {
        let mut cu_seqlens = vec![0];
        for length in &lengths {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + length);
        }
        let tokens: u32 = lengths.iter().sum();
        let sequences = Sequences::new(cu_seqlens).unwrap();
        for (p, scale) in [(0.0, 1.0), (0.1, 1.0), (0.5, 3.0)] {
            let qkv = random(4, &[tokens as usize, 3 * heads * head_dim], scale);
            compare(
                &format!("attention {lengths:?}, {heads} × {head_dim}, p {p}, scale {scale}"),
                &[&qkv],
                || attention(&qkv, &sequences, heads, drop(p)),
                || reference::attention(&qkv, &sequences, heads, drop(p)),
                1e-5,
            );
        }
    }
}

#[test]
fn attention_of_huge_scores_is_finite() {
    let sequences = Sequences::new(vec![0, 9, 30]).unwrap();
    let qkv = random(4, &[30, 3 * 16], 1e6);
    let out = attention(&qkv, &sequences, 2, None).unwrap();
    let plain = reference::attention(&qkv, &sequences, 2, None).unwrap();
    close("huge scores", &out, &plain, 1e-5);
    let store = out.sum_all().unwrap().backward().unwrap();
    assert!(norm(store.get(&qkv).unwrap()).is_finite());
}

/// Not of two columns: there a norm keeps the sign alone, its gradient is 0, and what is computed
/// of it is rounding.
#[test]
fn dropout_residual_and_norm() {
    for (rows, width) in [(1, 3), (3, 17), (40, 64), (65, 33), (7, 384), (0, 16)] {
        for (p, scale) in [(0.0, 1.0), (0.1, 1.0), (0.3, 1e4), (0.0, 1e-3)] {
            let (x, residual) =
                (random(5, &[rows, width], scale), random(6, &[rows, width], scale));
            let (weight, bias) = (random(7, &[width], 1.0), random(8, &[width], 1.0));
            let norm = LayerNorm {
                weight: weight.as_tensor().clone(),
                bias: bias.as_tensor().clone(),
                eps: 1e-12,
            };
            compare(
                &format!("norm of {rows} × {width}, p {p}, scale {scale}"),
                &[&x, &residual, &weight, &bias],
                || dropout_add_layer_norm(&x, &residual, &norm, drop(p)),
                || reference::dropout_add_layer_norm(&x, &residual, &norm, drop(p)),
                2e-5,
            );
        }
    }
}

#[test]
fn embeddings() {
    let ids = Tensor::new(&[4u32, 0, 4, 9, 2, 4, 4], &CPU).unwrap();
    let positions = Tensor::new(&[0u32, 1, 2, 0, 1, 2, 3], &CPU).unwrap();
    let (word, position) = (random(1, &[11, 24], 1.0), random(2, &[5, 24], 1.0));
    let (token_type, weight) = (random(3, &[2, 24], 1.0), random(4, &[24], 1.0));
    let bias = random(5, &[24], 1.0);
    let tables = EmbeddingTables {
        word: word.as_tensor().clone(),
        position: position.as_tensor().clone(),
        token_type: token_type.as_tensor().clone(),
    };
    let norm = LayerNorm {
        weight: weight.as_tensor().clone(),
        bias: bias.as_tensor().clone(),
        eps: 1e-12,
    };
    for p in [0.0, 0.2] {
        compare(
            &format!("embeddings, p {p}"),
            &[&word, &position, &token_type, &weight, &bias],
            || embeddings_layer_norm(&ids, &positions, &tables, &norm, drop(p)),
            || reference::embeddings_layer_norm(&ids, &positions, &tables, &norm, drop(p)),
            2e-5,
        );
    }
}

/// AdamW as it is written in the paper, in f64.
#[test]
fn adamw_is_the_papers() {
    let config = AdamWConfig { clip: 0.5, ..AdamWConfig::default() };
    let params = [random(1, &[37, 11], 1.0), random(2, &[70_001], 1.0)];
    let mut expected: Vec<Vec<f64>> = params.iter().map(values).collect();
    let mut moments: Vec<[Vec<f64>; 2]> =
        expected.iter().map(|x| [vec![0.0; x.len()], vec![0.0; x.len()]]).collect();
    let list = |i: usize| (format!("p{i}"), params[i].clone(), i == 0);
    let mut optimizer = AdamW::new(vec![list(0), list(1)], config).unwrap();
    for step in 1..=5 {
        let targets = [random(10 + step, &[37, 11], 1.0), random(20 + step, &[70_001], 1.0)];
        let product = |i: usize| (params[i].as_tensor() * targets[i].as_tensor())?.sum_all();
        let loss = (product(0).unwrap() + product(1).unwrap()).unwrap();
        let store = loss.backward().unwrap();
        let lr = 0.01 * step as f64;
        let gradients: Vec<Vec<f64>> = targets.iter().map(values).collect();
        let total: f64 = gradients.iter().flatten().map(|g| g * g).sum::<f64>().sqrt();
        let reported = optimizer.step(&store, lr).unwrap();
        assert!((reported - total).abs() < 1e-5 * total);
        let scale = (config.clip / (total + 1e-6)).min(1.0);
        for i in 0..2 {
            let decay = if i == 0 { config.weight_decay } else { 0.0 };
            let [m, v] = &mut moments[i];
            for (j, x) in expected[i].iter_mut().enumerate() {
                let g = gradients[i][j] * scale;
                m[j] = config.beta1 * m[j] + (1.0 - config.beta1) * g;
                v[j] = config.beta2 * v[j] + (1.0 - config.beta2) * g * g;
                let mean = m[j] / (1.0 - config.beta1.powi(step as i32));
                let square = v[j] / (1.0 - config.beta2.powi(step as i32));
                *x -= lr * decay * *x;
                *x -= lr * mean / (square.sqrt() + config.eps);
            }
            for (x, expected) in values(&params[i]).iter().zip(&expected[i]) {
                assert!((x - expected).abs() < 1e-5, "step {step}: {x} {expected}");
            }
        }
    }
}

fn values(x: &Var) -> Vec<f64> {
    let x = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    x.into_iter().map(f64::from).collect()
}

#[test]
fn a_parameter_without_a_gradient_is_an_error_and_an_infinite_one_changes_nothing() {
    let (a, b) = (random(1, &[4], 1.0), random(2, &[4], 1.0));
    let before = values(&a);
    let params = vec![("a".to_string(), a.clone(), true), ("b".to_string(), b.clone(), true)];
    let mut optimizer = AdamW::new(params, AdamWConfig::default()).unwrap();
    let store = a.sum_all().unwrap().backward().unwrap();
    let error = optimizer.step(&store, 0.1).unwrap_err().to_string();
    assert!(error.contains("b has no gradient"), "{error}");
    let infinite = ((a.as_tensor() + b.as_tensor()).unwrap() * f64::INFINITY).unwrap();
    let store = infinite.sum_all().unwrap().backward().unwrap();
    assert!(!optimizer.step(&store, 0.1).unwrap().is_finite());
    assert_eq!(values(&a), before);
}
