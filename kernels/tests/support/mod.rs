//! An encoder of any size with its parameters, and the fused one held against the plain twin.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use pagebert_kernels::dropout::normal;
use pagebert_kernels::{
    Activation, DropoutKey, Encoder, EncoderDropout, EncoderInput, EncoderOptions,
    EncoderParameters, Gradients, LayerDropout, LayerParameters, LinearParameters, LinearWeight,
    NormParameters, Parameter, Precision, Queries, Sequences, WordTable, reference,
};

pub const CPU: Device = Device::Cpu;

#[derive(Debug, Clone)]
pub struct Case {
    pub lengths: Vec<u32>,
    pub heads: usize,
    pub head_dim: usize,
    pub wide: usize,
    pub layers: usize,
    pub activation: Activation,
    pub dropout: f32,
    /// Of the linear layers' weights: large ones make huge scores.
    pub scale: f32,
}

impl Case {
    pub fn new(lengths: &[u32], heads: usize, head_dim: usize, wide: usize) -> Self {
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

    pub fn hidden(&self) -> usize {
        self.heads * self.head_dim
    }
}

pub struct Model {
    pub vars: BTreeMap<String, Var>,
    pub case: Case,
    pub scale: f32,
    /// Whether its parameters are no variables, but tensors alone.
    pub frozen: bool,
}

pub const VOCABULARY: usize = 23;
pub const POSITIONS: usize = 600;

impl Model {
    pub fn new(case: &Case) -> Self {
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

    pub fn parameters(&mut self, gradients: Option<&Gradients>) -> EncoderParameters {
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

    pub fn input(&self, queries: Queries) -> EncoderInput {
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

pub fn norm(x: &Tensor) -> f64 {
    let squares = x.to_dtype(DType::F64).unwrap().sqr().unwrap().sum_all().unwrap();
    squares.to_scalar::<f64>().unwrap().sqrt()
}

/// The difference relative to the expected value, whose absolute floor is `floor`.
#[track_caller]
pub fn close(what: &str, fused: &Tensor, plain: &Tensor, bound: f64, floor: f64) {
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
pub fn loss(out: &Tensor) -> Tensor {
    let n = out.elem_count() as u64;
    let weighting: Vec<f32> = (0..n).map(|i| normal(99, i)).collect();
    let weighting = Tensor::from_vec(weighting, out.dims(), &CPU).unwrap();
    (out * weighting).unwrap().sum_all().unwrap()
}

/// A parameter's gradient out of its slot.
pub fn from_slot(gradients: &Gradients, name: &str, like: &Tensor) -> Tensor {
    let slot = gradients.find(name).unwrap_or_else(|| panic!("{name} has no slot"));
    slot.tensor(like.shape()).unwrap().unwrap_or_else(|| panic!("{name} has no gradient"))
}

pub fn from_store(store: &GradStore, var: &Var) -> Tensor {
    store.get(var).cloned().unwrap_or_else(|| var.zeros_like().unwrap())
}

/// Compares values and gradients; `bound` is relative, by norms.
#[track_caller]
pub fn compare(case: &Case, queries: Queries, precision: Precision, checkpoint: bool, bound: f64) {
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
