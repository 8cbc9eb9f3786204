//! The fused encoder against its plain twin: values, and the gradients of all parameters, on sizes
//! and magnitudes that are even, odd, empty and huge.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use pagebert_kernels::dropout::normal;
use pagebert_kernels::{
    Activation, DropoutKey, Encoder, EncoderDropout, EncoderInput, EncoderOptions,
    EncoderParameters, Gradients, LayerDropout, LayerParameters, LinearParameters, LinearWeight,
    NormParameters, Parameter, Precision, Queries, Sequences, WordTable, reference,
};

const CPU: Device = Device::Cpu;

#[derive(Debug, Clone)]
struct Case {
    lengths: Vec<u32>,
    heads: usize,
    head_dim: usize,
    wide: usize,
    layers: usize,
    activation: Activation,
    dropout: f32,
    /// Of the linear layers' weights: large ones make huge scores.
    scale: f32,
}

impl Case {
    fn new(lengths: &[u32], heads: usize, head_dim: usize, wide: usize) -> Self {
        Self {
            lengths: lengths.to_vec(),
            heads,
            head_dim,
            wide,
            layers: 1,
            activation: Activation::Gelu,
            dropout: 0.1,
            scale: 1.0,
        }
    }

    fn hidden(&self) -> usize {
        self.heads * self.head_dim
    }
}

struct Model {
    vars: BTreeMap<String, Var>,
    case: Case,
    scale: f32,
    /// Whether its parameters are no variables, but tensors alone.
    frozen: bool,
}

const VOCABULARY: usize = 23;
const POSITIONS: usize = 600;

impl Model {
    fn new(case: &Case) -> Self {
        Self { vars: BTreeMap::new(), case: case.clone(), scale: case.scale, frozen: false }
    }

    /// A variable by its name; the same name is the same variable.
    fn parameter(
        &mut self,
        gradients: Option<&Gradients>,
        name: &str,
        dims: &[usize],
        (mean, deviation): (f32, f32),
    ) -> Parameter {
        let seed = 1 + self.vars.len() as u64;
        let var = self.vars.entry(name.to_string()).or_insert_with(|| {
            let n = dims.iter().product::<usize>() as u64;
            let values: Vec<f32> = (0..n).map(|i| mean + normal(seed, i) * deviation).collect();
            Var::from_tensor(&Tensor::from_vec(values, dims, &CPU).unwrap()).unwrap()
        });
        Parameter {
            value: if self.frozen { var.detach() } else { var.as_tensor().clone() },
            gradient: gradients.map(|gradients| gradients.slot(name)),
        }
    }

    fn linear(
        &mut self,
        gradients: Option<&Gradients>,
        name: &str,
        inputs: usize,
        outputs: usize,
    ) -> LinearParameters {
        let deviation = self.scale / (inputs as f32).sqrt();
        let mut one = |part: &str, dims: &[usize], spread| {
            self.parameter(gradients, &format!("{name}.{part}"), dims, (0.0, spread))
        };
        LinearParameters {
            weight: LinearWeight::Float(one("weight", &[outputs, inputs], deviation)),
            bias: one("bias", &[outputs], 0.3),
        }
    }

    fn norm(&mut self, gradients: Option<&Gradients>, name: &str) -> NormParameters {
        let hidden = self.case.hidden();
        let mut one = |part: &str, mean| {
            self.parameter(gradients, &format!("{name}.{part}"), &[hidden], (mean, 0.3))
        };
        NormParameters { weight: one("weight", 1.0), bias: one("bias", 0.0), eps: 1e-12 }
    }

    fn parameters(&mut self, gradients: Option<&Gradients>) -> EncoderParameters {
        let Case { heads, wide, layers, activation, .. } = self.case;
        let hidden = self.case.hidden();
        let mut table =
            |name: &str, rows: usize| self.parameter(gradients, name, &[rows, hidden], (0.0, 1.0));
        let word = table("word", VOCABULARY);
        let position = table("position", POSITIONS);
        let token_type = table("token_type", 2);
        let norm = self.norm(gradients, "norm");
        let layers = (0..layers).map(|index| {
            let name = |part: &str| format!("{index}.{part}");
            LayerParameters {
                qkv: self.linear(gradients, &name("qkv"), hidden, 3 * hidden),
                attention_output: self.linear(gradients, &name("attention"), hidden, hidden),
                attention_norm: self.norm(gradients, &name("attention_norm")),
                intermediate: self.linear(gradients, &name("intermediate"), hidden, wide),
                output: self.linear(gradients, &name("output"), wide, hidden),
                output_norm: self.norm(gradients, &name("output_norm")),
                heads,
                activation,
            }
        });
        let layers = layers.collect();
        EncoderParameters { word: WordTable::Float(word), position, token_type, norm, layers }
    }

    fn input(&self, queries: Queries) -> EncoderInput {
        let case = &self.case;
        let mut cu_seqlens = vec![0];
        let (mut input_ids, mut position_ids) = (Vec::new(), Vec::new());
        for length in &case.lengths {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + length);
            // Not all of the vocabulary, and some of it often.
            input_ids.extend((0..*length).map(|i| (i * i + 3 * length) % VOCABULARY as u32 / 2));
            position_ids.extend(0..*length);
        }
        let site =
            |site| (case.dropout > 0.0).then(|| DropoutKey::new(3, 5).site(site, case.dropout));
        let layers = (0..case.layers as u64).map(|layer| LayerDropout {
            probabilities: site(4 * layer + 4),
            attention_output: site(4 * layer + 5),
            output: site(4 * layer + 6),
        });
        EncoderInput {
            input_ids,
            position_ids,
            sequences: Sequences::new(cu_seqlens).unwrap(),
            queries,
            dropout: EncoderDropout { embeddings: site(0), layers: layers.collect() },
        }
    }
}

fn norm(x: &Tensor) -> f64 {
    let squares = x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap();
    squares.to_scalar::<f64>().unwrap().sqrt()
}

/// The difference relative to the expected value, whose absolute floor is `floor`.
#[track_caller]
fn close(what: &str, fused: &Tensor, plain: &Tensor, bound: f64, floor: f64) {
    assert_eq!(fused.dims(), plain.dims(), "{what}");
    let difference = norm(&(fused - plain).unwrap());
    let size = norm(plain);
    // NaN fails.
    assert!(
        difference <= bound * size + floor,
        "{what}: {difference:e} of {size:e}, {:e} relative",
        difference / size
    );
}

/// A random weighting of the outputs, so that all gradients are at work.
fn loss(out: &Tensor) -> Tensor {
    let n = out.elem_count() as u64;
    let weighting: Vec<f32> = (0..n).map(|i| normal(99, i)).collect();
    let weighting = Tensor::from_vec(weighting, out.dims(), &CPU).unwrap();
    (out * weighting).unwrap().sum_all().unwrap()
}

/// A parameter's gradient out of its slot.
fn from_slot(gradients: &Gradients, name: &str, like: &Tensor) -> Tensor {
    let slot = gradients.find(name).unwrap_or_else(|| panic!("{name} has no slot"));
    slot.tensor(like.shape()).unwrap().unwrap_or_else(|| panic!("{name} has no gradient"))
}

fn from_store(store: &GradStore, var: &Var) -> Tensor {
    store.get(var).cloned().unwrap_or_else(|| var.zeros_like().unwrap())
}

/// Compares values and gradients; `bound` is relative, by norms.
#[track_caller]
fn compare(case: &Case, queries: Queries, precision: Precision, checkpoint: bool, bound: f64) {
    let what = format!("{case:?} {queries:?} {precision:?}");
    let gradients = Gradients::default();
    let mut model = Model::new(case);
    let parameters = model.parameters(Some(&gradients));
    let options = EncoderOptions {
        precision,
        gradients: Some(gradients.clone()),
        checkpoint_layers: checkpoint,
    };
    let input = model.input(queries);
    let fused = Encoder::new(parameters, options).unwrap().forward(&input).unwrap();
    let plain = reference::encoder(&model.parameters(None), &input, Precision::F32).unwrap();
    close(&what, &fused, &plain, bound, 0.0);
    loss(&fused).backward().unwrap();
    let store = loss(&plain).backward().unwrap();
    let expected = |name: &str| from_store(&store, &model.vars[name]);
    // A key's bias moves all scores of a row alike: its gradient is 0, and what is computed of it
    // is rounding. It is held against the size of the whole bias's gradient.
    for (name, var) in &model.vars {
        let plain = expected(name);
        let floor = bound * 1e-2 * norm(&plain).max(1.0);
        close(&format!("{what}, {name}"), &from_slot(&gradients, name, var), &plain, bound, floor);
    }
}

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
    let run = |checkpoint_layers| {
        let gradients = Gradients::default();
        let mut model = Model::new(&case);
        let parameters = model.parameters(Some(&gradients));
        let options = EncoderOptions {
            precision: Precision::Bf16,
            gradients: Some(gradients.clone()),
            checkpoint_layers,
        };
        let encoder = Encoder::new(parameters, options).unwrap();
        let out = encoder.forward(&model.input(Queries::First)).unwrap();
        loss(&out).backward().unwrap();
        let gradient = |(name, var): (&String, &Var)| {
            from_slot(&gradients, name, var).flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let all: Vec<Vec<f32>> = model.vars.iter().map(gradient).collect();
        (out.flatten_all().unwrap().to_vec1::<f32>().unwrap(), all)
    };
    assert!(run(true) == run(false));
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
    for queries in [Queries::All, Queries::First] {
        let case = Case::new(&[9, 20], 2, 16, 40);
        let gradients = Gradients::default();
        let mut model = Model::new(&case);
        let parameters = model.parameters(Some(&gradients));
        let options = EncoderOptions { gradients: Some(gradients.clone()), ..Default::default() };
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
    for (precision, queries) in [Precision::F32, Precision::Bf16]
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
