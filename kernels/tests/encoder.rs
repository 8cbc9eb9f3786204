//! The fused encoder against its plain twin: values, and the gradients of all parameters, on sizes
//! and magnitudes that are even, odd, empty and huge.

mod support;

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use pagebert_kernels::{Activation, Encoder, EncoderOptions, Gradients, Precision, Queries};
use support::{CPU, Case, Model, POSITIONS, VOCABULARY, close, compare, from_slot, loss, norm};

/// More short sequences than a task takes, some of them empty.
fn many() -> Vec<u32> {
    (0..50).map(|index| index % 4).collect()
}

fn cases() -> Vec<Case> {
    let base = Case::new(&[26, 31, 7], 4, 32, 96);
    vec![
        Case::new(&[1], 1, 4, 8),
        Case::new(&[5, 1, 17], 2, 8, 24),
        Case::new(&[3, 2], 3, 5, 7),
        Case::new(&[5, 33], 3, 15, 37),
        Case::new(&many(), 3, 15, 37),
        Case::new(&[130, 64, 7], 1, 64, 100),
        Case::new(&[512], 2, 32, 33),
        Case { layers: 3, ..Case::new(&[26, 31, 7, 64, 1], 12, 32, 192) },
        Case { dropout: 0.0, ..base.clone() },
        Case { dropout: 0.5, ..base.clone() },
        Case { activation: Activation::GeluTanh, ..base.clone() },
        Case { activation: Activation::Relu, ..base.clone() },
        Case { activation: Activation::Identity, ..base },
    ]
}

#[test]
fn f32_equals_the_twin() {
    for case in cases() {
        for queries in [Queries::All, Queries::First] {
            compare(&case, queries, Precision::F32, false, 1e-5);
        }
    }
}

/// bf16 keeps 8 bits of each operand, so that a product of independent errors is off by some 2^-9
/// of its size; a layer has five behind one another, and its gradients ten. In rows of a few columns
/// a norm's gradient is the small difference of large terms, and errors have no others to cancel
/// them: what is held there is that the right things are added up. ReLU has an edge, too, on whose
/// other side rounding puts some.
#[test]
fn bf16_is_within_its_precision_of_the_twin() {
    for case in cases() {
        for queries in [Queries::All, Queries::First] {
            let bound = if case.hidden() < 32 { 0.25 } else { 4e-2 };
            compare(&case, queries, Precision::Bf16, false, bound * case.layers as f64);
        }
    }
}

/// An integer of 8 bits is off by up to half a 127th of the largest number beside it, some 2^-7 of
/// their usual size: about four times what bf16 is. Of a single token with a few columns nothing
/// cancels a rounding.
#[test]
fn int8_is_within_its_precision_of_the_twin() {
    for case in cases() {
        for queries in [Queries::All, Queries::First] {
            let bound = if case.hidden() < 32 { 0.4 } else { 0.1 };
            compare(&case, queries, Precision::Int8, false, bound * case.layers as f64);
        }
    }
}

/// Without keys and values, so not to the bit; with gradients and without it is the same to the bit. Rows
/// are shorter than what sums take at once, and longer with a rest.
#[test]
fn first_rows_are_those_of_all_with_gradients_and_without() {
    let lengths = many();
    let starts = lengths.iter().scan(0, |next, length| {
        *next += *length as usize;
        Some((*next - *length as usize, *length))
    });
    let starts: Vec<usize> =
        starts.filter(|(_, length)| *length > 0).map(|(start, _)| start).collect();
    let sizes = [(3, 5), (3, 15), (5, 15), (3, 32)];
    let precisions = [Precision::F32, Precision::Bf16];
    for ((heads, head_dim), precision) in
        sizes.into_iter().flat_map(|size| precisions.map(|precision| (size, precision)))
    {
        let case = Case { dropout: 0.0, layers: 2, ..Case::new(&lengths, heads, head_dim, 37) };
        let rows = |queries, frozen: bool| {
            let gradients = (!frozen).then(Gradients::default);
            let mut model = Model { frozen, ..Model::new(&case) };
            let parameters = model.parameters(gradients.as_ref());
            let options = EncoderOptions { precision, gradients, ..Default::default() };
            let out = Encoder::new(parameters, options).unwrap().forward(&model.input(queries));
            out.unwrap().to_vec2::<f32>().unwrap()
        };
        let (first, all) = (rows(Queries::First, true), rows(Queries::All, true));
        assert_eq!(first.len(), starts.len());
        let tensor = |rows: Vec<Vec<f32>>| Tensor::new(rows, &CPU).unwrap();
        let expected = tensor(starts.iter().map(|start| all[*start].clone()).collect());
        let bound = if precision == Precision::F32 { 1e-5 } else { 4e-2 };
        close(&format!("{case:?}"), &tensor(first.clone()), &expected, bound, 0.0);
        assert!(first == rows(Queries::First, false), "{case:?}");
    }
}

#[test]
fn computing_layers_again_changes_nothing() {
    let case = Case { layers: 3, ..Case::new(&[70, 3, 29], 2, 16, 40) };
    let run = |precision, checkpoint_layers| {
        let gradients = Gradients::default();
        let mut model = Model::new(&case);
        let parameters = model.parameters(Some(&gradients));
        let options =
            EncoderOptions { precision, gradients: Some(gradients.clone()), checkpoint_layers };
        let encoder = Encoder::new(parameters, options).unwrap();
        let out = encoder.forward(&model.input(Queries::First)).unwrap();
        loss(&out).backward().unwrap();
        let gradient = |(name, var): (&String, &Var)| {
            from_slot(&gradients, name, var).flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let all: Vec<Vec<f32>> = model.vars.iter().map(gradient).collect();
        (out.flatten_all().unwrap().to_vec1::<f32>().unwrap(), all)
    };
    for precision in [Precision::Bf16, Precision::Int8] {
        assert!(run(precision, true) == run(precision, false), "{precision:?}");
    }
}

/// What clipping goes by, which some operations add up along with the gradients.
#[track_caller]
fn squares_are_those_of_the_gradient(gradients: &Gradients, name: &str) {
    let slot = gradients.find(name).unwrap_or_else(|| panic!("{name} has no slot"));
    let gradient = slot.lock();
    let values = gradient.values().unwrap_or_else(|| panic!("{name} has no gradient"));
    let expected: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
    let found = gradient.sum_of_squares().unwrap();
    assert!((found - expected).abs() <= 1e-9 * expected, "{name}: {found} {expected}");
}

#[test]
fn gradients_of_two_batches_add_up() {
    let precisions = [Precision::F32, Precision::Int8];
    let each = precisions.map(|precision| [(precision, Queries::All), (precision, Queries::First)]);
    // Of 40 columns tiles are whole, and of 37 they are not.
    for ((precision, queries), wide) in each.into_iter().flatten().zip([40, 37, 40, 37]) {
        let case = Case::new(&[9, 20], 2, 16, wide);
        let gradients = Gradients::default();
        let mut model = Model::new(&case);
        let parameters = model.parameters(Some(&gradients));
        let options =
            EncoderOptions { precision, gradients: Some(gradients.clone()), ..Default::default() };
        let encoder = Encoder::new(parameters, options).unwrap();
        let input = model.input(queries);
        let once = || {
            loss(&encoder.forward(&input).unwrap()).backward().unwrap();
            model.vars.keys().for_each(|name| squares_are_those_of_the_gradient(&gradients, name));
        };
        once();
        let singles: BTreeMap<&String, Tensor> =
            model.vars.iter().map(|(name, var)| (name, from_slot(&gradients, name, var))).collect();
        once();
        for (name, single) in &singles {
            let double = from_slot(&gradients, name, single);
            close(name, &double, &(single * 2.0).unwrap(), 1e-6, 0.0);
        }
        gradients.clear();
        once();
        for (name, single) in &singles {
            close(name, &from_slot(&gradients, name, single), single, 0.0, 0.0);
        }
    }
}

#[test]
fn huge_scores_stay_finite() {
    let case = Case { scale: 1e4, dropout: 0.0, ..Case::new(&[30, 9], 2, 16, 32) };
    for (precision, queries) in [Precision::F32, Precision::Bf16, Precision::Int8]
        .into_iter()
        .flat_map(|precision| [Queries::All, Queries::First].map(|queries| (precision, queries)))
    {
        let gradients = Gradients::default();
        let mut model = Model::new(&case);
        let parameters = model.parameters(Some(&gradients));
        let options =
            EncoderOptions { precision, gradients: Some(gradients.clone()), ..Default::default() };
        let encoder = Encoder::new(parameters, options).unwrap();
        let out = encoder.forward(&model.input(queries)).unwrap();
        loss(&out).backward().unwrap();
        assert!(norm(&out).is_finite());
        for (name, var) in &model.vars {
            let gradient = norm(&from_slot(&gradients, name, var));
            assert!(gradient.is_finite(), "{name} {precision:?} {queries:?}");
        }
    }
}

#[test]
fn nothing_to_encode_is_no_rows() {
    let case = Case::new(&[], 2, 16, 32);
    let mut model = Model::new(&case);
    let encoder = Encoder::new(model.parameters(None), EncoderOptions::default()).unwrap();
    for queries in [Queries::All, Queries::First] {
        let out = encoder.forward(&model.input(queries)).unwrap();
        assert_eq!(out.dims(), [0, 32], "{queries:?}");
    }
}

#[test]
fn an_id_without_a_row_is_an_error() {
    let case = Case::new(&[3], 2, 16, 32);
    let mut model = Model::new(&case);
    let encoder = Encoder::new(model.parameters(None), EncoderOptions::default()).unwrap();
    let mut input = model.input(Queries::All);
    input.input_ids[1] = VOCABULARY as u32;
    let error = encoder.forward(&input).unwrap_err().to_string();
    assert!(error.contains("token id 23 has no row in a table of 23"), "{error}");
    let mut input = model.input(Queries::All);
    input.position_ids[2] = POSITIONS as u32;
    assert!(encoder.forward(&input).unwrap_err().to_string().contains("position 600"));
}

#[test]
fn integers_are_for_the_fused_encoder_and_for_sums_that_fit() {
    let new = |case: &Case, gradients: Option<Gradients>| {
        let mut model = Model { frozen: false, ..Model::new(case) };
        let parameters = model.parameters(gradients.as_ref());
        let options =
            EncoderOptions { precision: Precision::Int8, gradients, ..Default::default() };
        Encoder::new(parameters, options).map(|_| ()).map_err(|error| error.to_string())
    };
    let case = Case::new(&[3], 1, 2, 5);
    assert_eq!(new(&case, Some(Gradients::default())), Ok(()));
    let error = new(&case, None).unwrap_err();
    assert!(error.contains("Choose f32 or bf16"), "{error}");
    let wide = Case::new(&[3], 1, 2, (1 << 16) + 1);
    let error = new(&wide, Some(Gradients::default())).unwrap_err();
    assert!(error.contains("sums of 65537 products") && error.contains("choose f32"), "{error}");
}
