//! The twins' softmax and layer norm, whose values candle's kernels compute, against the same in
//! elementary operations and f64: values and gradients.

use candle_core::{D, DType, Device, Tensor, Var};
use pagebert_kernels::dropout::normal;
use pagebert_kernels::reference::{self, LayerNorm};
use pagebert_kernels::{DropoutKey, dropout};

const CPU: Device = Device::Cpu;
const EPS: f64 = 1e-12;
/// Relative, by norms.
const F32_BOUND: f64 = 1e-5;
/// A bf16 is off by 2^-9 of its size at most. Of such are the result, and the gradient that comes
/// back to it.
const BF16_BOUND: f64 = 4e-3;

fn bound(dtype: DType) -> f64 {
    if dtype == DType::BF16 { BF16_BOUND } else { F32_BOUND }
}

/// Normal numbers of that mean and deviation, in numbers that the type can hold.
fn random(seed: u64, dims: &[usize], (mean, deviation): (f32, f32), dtype: DType) -> Tensor {
    let n = dims.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..n).map(|i| mean + deviation * normal(seed, i)).collect();
    Tensor::from_vec(values, dims, &CPU).unwrap().to_dtype(dtype).unwrap()
}

fn wide(x: &Tensor) -> Tensor {
    x.to_dtype(DType::F64).unwrap()
}

fn norm(x: &Tensor) -> f64 {
    wide(x).sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

/// The difference relative to the expected value, with a floor for values that are 0.
#[track_caller]
fn close(what: &str, computed: &Tensor, expected: &Tensor, bound: f64, floor: f64) {
    assert_eq!(computed.dims(), expected.dims(), "{what}");
    let difference = norm(&(wide(computed) - wide(expected)).unwrap());
    let size = norm(expected);
    // NaN fails.
    assert!(difference <= bound * size + floor, "{what}: {difference:e} of {size:e}");
}

/// Values and gradients of `twin` on some arguments against those of `plain` on the same in f64.
/// Gradients may be off by `cancels` of the size of (value · the value's gradient), too.
#[track_caller]
fn compare(
    what: &str,
    arguments: &[Tensor],
    twin: impl Fn(&[Tensor]) -> Tensor,
    plain: impl Fn(&[Tensor]) -> Tensor,
    bound: f64,
    cancels: f64,
) {
    let run = |arguments: Vec<Tensor>, f: &dyn Fn(&[Tensor]) -> Tensor| {
        let vars: Vec<Var> = arguments.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let out = f(&tensors);
        // A random weighting of the outputs, so that all gradients are at work.
        let weighting = random(99, out.dims(), (0.0, 1.0), DType::BF16);
        let loss = (wide(&out) * wide(&weighting)).unwrap().sum_all().unwrap();
        let mut store = loss.backward().unwrap();
        let gradient = |var: &Var| store.remove(var).unwrap_or_else(|| var.zeros_like().unwrap());
        let gradients: Vec<Tensor> = vars.iter().map(gradient).collect();
        let terms = norm(&(wide(&out) * wide(&weighting)).unwrap());
        (out, gradients, terms)
    };
    let (out, gradients, _) = run(arguments.to_vec(), &twin);
    let (expected, expected_gradients, terms) = run(arguments.iter().map(wide).collect(), &plain);
    close(what, &out, &expected, bound, 0.0);
    for (i, (gradient, expected)) in gradients.iter().zip(&expected_gradients).enumerate() {
        assert_eq!(gradient.dtype(), arguments[i].dtype(), "{what}");
        let what = format!("{what}, gradient {i}");
        close(&what, gradient, expected, bound, cancels * terms);
    }
}

fn plain_softmax(x: &[Tensor]) -> Tensor {
    let largest = x[0].max_keepdim(D::Minus1).unwrap().detach();
    let powers = x[0].broadcast_sub(&largest).unwrap().exp().unwrap();
    powers.broadcast_div(&powers.sum_keepdim(D::Minus1).unwrap()).unwrap()
}

/// A softmax's gradient is the difference of two terms, which where one number is far above the
/// others are equal: what is left of it is rounding.
fn compare_softmax(what: &str, x: Tensor) {
    let (bound, rounding) = match x.dtype() {
        DType::BF16 => (BF16_BOUND, 1.0 / 512.0),
        _ => (F32_BOUND, 1e-7),
    };
    compare(what, &[x], softmax, plain_softmax, bound, rounding);
}

fn softmax(x: &[Tensor]) -> Tensor {
    reference::softmax(&x[0]).unwrap()
}

fn plain_layer_norm(x: &[Tensor]) -> Tensor {
    let centred = x[0].broadcast_sub(&x[0].mean_keepdim(D::Minus1).unwrap()).unwrap();
    let variance = centred.sqr().unwrap().mean_keepdim(D::Minus1).unwrap();
    let normed = centred.broadcast_div(&(variance + EPS).unwrap().sqrt().unwrap()).unwrap();
    normed.broadcast_mul(&x[1]).unwrap().broadcast_add(&x[2]).unwrap()
}

fn layer_norm(x: &[Tensor]) -> Tensor {
    let norm = LayerNorm { weight: x[1].clone(), bias: x[2].clone(), eps: EPS };
    reference::layer_norm(&x[0], &norm).unwrap()
}

/// x in that type, and a norm's parameters.
fn norm_arguments(rows: usize, width: usize, spread: (f32, f32), dtype: DType) -> Vec<Tensor> {
    vec![
        random(1, &[rows, width], spread, dtype),
        random(2, &[width], (1.0, 0.3), DType::F32),
        random(3, &[width], (0.0, 0.3), DType::F32),
    ]
}

#[test]
fn softmax_is_what_it_is_made_of() {
    for dtype in [DType::F32, DType::BF16] {
        for dims in [&[1, 1][..], &[1, 7], &[5, 2], &[33, 31], &[3, 1025], &[7], &[2, 3, 5, 17]] {
            for deviation in [1.0, 30.0, 1e4] {
                let x = random(1, dims, (0.0, deviation), dtype);
                let what = format!("{dims:?} {deviation} {dtype:?}");
                compare_softmax(&what, x);
            }
        }
    }
}

#[test]
fn softmax_of_masked_keys_is_zero_there() {
    let hidden = f32::NEG_INFINITY;
    let x = Tensor::new(&[[0f32, 1.0, hidden, hidden], [-1e4, hidden, -1e4, hidden]], &CPU);
    for dtype in [DType::F32, DType::BF16] {
        let x = x.as_ref().unwrap().to_dtype(dtype).unwrap();
        compare_softmax("masked", x);
    }
}

#[test]
fn softmax_sees_through_strides() {
    let swapped = |x: &[Tensor]| x[0].t().unwrap().narrow(1, 2, 5).unwrap();
    let x = random(1, &[9, 6], (0.0, 2.0), DType::F32);
    compare(
        "strides",
        &[x],
        |x| softmax(&[swapped(x)]),
        |x| plain_softmax(&[swapped(x)]),
        F32_BOUND,
        0.0,
    );
}

#[test]
fn layer_norm_is_what_it_is_made_of() {
    for dtype in [DType::F32, DType::BF16] {
        for (rows, width) in [(1, 4), (1, 384), (5, 33), (64, 7), (3, 1025)] {
            for spread in [(0.0, 1.0), (0.5, 1.0), (0.0, 1e4), (0.0, 1e-4)] {
                let arguments = norm_arguments(rows, width, spread, dtype);
                let what = format!("{rows} × {width} {spread:?} {dtype:?}");
                compare(&what, &arguments, layer_norm, plain_layer_norm, bound(dtype), 0.0);
            }
        }
    }
}

/// f32 has a thousandth for the digits of a number of 10,000.
#[test]
fn layer_norm_keeps_the_digits_of_numbers_far_from_0() {
    let arguments = norm_arguments(5, 384, (1e4, 1.0), DType::F32);
    compare("far", &arguments, layer_norm, plain_layer_norm, 1e-3, 0.0);
}

/// A mean is off by some of its last digits, and what they leave of a number is divided by no less
/// than the root of 1e-12.
#[test]
fn layer_norm_of_equal_numbers_is_the_bias() {
    for value in [0.0, 0.1, -3.3, 1e4] {
        for width in [1, 3, 7, 384] {
            let arguments = norm_arguments(2, width, (value, 0.0), DType::F32);
            let computed = layer_norm(&arguments);
            let rows = |x: &Tensor| x.broadcast_as((2, width)).unwrap();
            let left = (f64::from(value.abs()) * 2f64.powi(-21) / EPS.sqrt()).min(1.0);
            let what = format!("{width} × {value}");
            let bound = left * norm(&rows(&arguments[1]));
            close(&what, &computed, &rows(&arguments[2]), 1e-6, bound);
        }
    }
}

#[test]
fn nothing_stays_nothing() {
    for dtype in [DType::F32, DType::BF16] {
        for dims in [&[0, 5][..], &[3, 0], &[2, 0, 4]] {
            let x = random(1, dims, (0.0, 1.0), dtype);
            compare(&format!("{dims:?}"), &[x], softmax, |x| x[0].clone(), 0.0, 0.0);
        }
        let arguments = norm_arguments(0, 5, (0.0, 1.0), dtype);
        compare("no rows", &arguments, layer_norm, |x| x[0].clone(), 0.0, 0.0);
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let mut arguments = norm_arguments(2, 5, (0.0, 1.0), DType::F32);
    arguments[1] = arguments[1].narrow(0, 0, 4).unwrap();
    let norm = LayerNorm { weight: arguments[1].clone(), bias: arguments[2].clone(), eps: EPS };
    let error = reference::layer_norm(&arguments[0], &norm).unwrap_err().to_string();
    assert!(error.contains("layer norm: 5 columns, but [4] and [5]"), "{error}");
    assert!(reference::softmax(&Tensor::new(1f32, &CPU).unwrap()).is_err());
}

/// Masks are made in pieces: no element's fate depends on where they are cut.
#[test]
fn a_mask_is_what_its_counter_says() {
    let drop = DropoutKey::new(3, 5).site(2, 0.3);
    for n in [0, 1, 15, 17, (1 << 14) - 1, (1 << 14) + 1, 40_003] {
        let ones = Tensor::ones(n, DType::F32, &CPU).unwrap();
        let mask = dropout(&ones, Some(drop)).unwrap().to_vec1::<f32>().unwrap();
        let expected: Vec<f32> = (0..n as u64).map(|i| drop.multiplier(i)).collect();
        assert!(mask == expected, "{n}");
    }
}
