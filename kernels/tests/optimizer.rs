//! The optimizer against the paper.

use candle_core::{Device, Tensor, Var};
use pagebert_kernels::dropout::normal;
use pagebert_kernels::{AdamW, AdamWConfig};

const CPU: Device = Device::Cpu;

fn random(seed: u64, dims: &[usize], scale: f32) -> Var {
    let n = dims.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..n).map(|i| normal(seed, i) * scale).collect();
    Var::from_tensor(&Tensor::from_vec(values, dims, &CPU).unwrap()).unwrap()
}

type New = fn(Vec<(String, Var, bool)>, AdamWConfig) -> candle_core::Result<AdamW>;

/// For the processor's variables, and for any device's.
const WAYS: [New; 2] = [AdamW::new, AdamW::plain];

#[test]
fn adamw_is_the_papers() {
    WAYS.into_iter().for_each(is_the_papers);
}

/// AdamW as it is written in the paper, in f64.
fn is_the_papers(new: New) {
    let config = AdamWConfig { clip: 0.5, ..AdamWConfig::default() };
    let params = [random(1, &[37, 11], 1.0), random(2, &[70_001], 1.0)];
    let mut expected: Vec<Vec<f64>> = params.iter().map(values).collect();
    let mut moments: Vec<[Vec<f64>; 2]> =
        expected.iter().map(|x| [vec![0.0; x.len()], vec![0.0; x.len()]]).collect();
    let list = |i: usize| (format!("p{i}"), params[i].clone(), i == 0);
    let mut optimizer = new(vec![list(0), list(1)], config).unwrap();
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
    for new in WAYS {
        let (a, b) = (random(1, &[4], 1.0), random(2, &[4], 1.0));
        let before = values(&a);
        let params = vec![("a".to_string(), a.clone(), true), ("b".to_string(), b.clone(), true)];
        let mut optimizer = new(params, AdamWConfig::default()).unwrap();
        let store = a.sum_all().unwrap().backward().unwrap();
        let error = optimizer.step(&store, 0.1).unwrap_err().to_string();
        assert!(error.contains("b has no gradient"), "{error}");
        let infinite = ((a.as_tensor() + b.as_tensor()).unwrap() * f64::INFINITY).unwrap();
        let store = infinite.sum_all().unwrap().backward().unwrap();
        assert!(!optimizer.step(&store, 0.1).unwrap().is_finite());
        assert_eq!(values(&a), before);
    }
}

/// Of many parameters, some alike: more than a group holds in the second way, and one of a size
/// that no row has.
#[test]
fn a_saved_state_goes_on_where_it_was_in_either_way() {
    let dims: [&[usize]; 5] = [&[1500, 1500], &[7], &[1400, 1500], &[5, 11], &[1]];
    let steps = |from: New, to: New| {
        let params: Vec<Var> = (0..5).map(|i| random(i as u64, dims[i], 1.0)).collect();
        let named = || (0..5).map(|i| (format!("p{i}"), params[i].clone(), i % 2 == 0)).collect();
        let mut optimizer = from(named(), AdamWConfig::default()).unwrap();
        for step in 0..4u64 {
            if step == 2 {
                let state = optimizer.state().unwrap();
                optimizer = to(named(), AdamWConfig::default()).unwrap();
                let find = |name: &str| {
                    let (_, mean, square) = state.iter().find(|(n, ..)| n == name).unwrap();
                    Ok((mean.clone(), square.clone()))
                };
                optimizer.restore(step, find).unwrap();
            }
            let loss = params.iter().map(|x| x.sqr()?.sum_all()).reduce(|a, b| a? + b?);
            optimizer.step(&loss.unwrap().unwrap().backward().unwrap(), 0.01).unwrap();
        }
        params.iter().map(values).collect::<Vec<_>>()
    };
    let expected = steps(AdamW::new, AdamW::new);
    for (from, to) in [(WAYS[0], WAYS[1]), (WAYS[1], WAYS[0]), (WAYS[1], WAYS[1])] {
        for (x, expected) in steps(from, to).iter().zip(&expected) {
            let apart = x.iter().zip(expected).map(|(a, b)| (a - b).abs() / b.abs().max(1.0));
            let worst = apart.fold(0.0, f64::max);
            assert!(worst < 1e-6, "{worst}");
        }
    }
}
