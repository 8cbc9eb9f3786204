//! The layers in integers, for inference: equal to the bit on every processor, and without dropout.
//!
//! A block of rows goes from attention's context to the next layer's queries, keys and values
//! while most of it is in the second cache, so threads wait for one another twice a layer, and
//! once more in the last where few rows ask.

use std::ops::Range;
use std::sync::Arc;

use super::elementwise::gelu_tanh;
use super::one_query::OneQuery;
use super::{Norm, add_norm};
use crate::cpu::Buffer;
use crate::cpu::encoder::Queries;
use crate::cpu::exact::gelu;
use crate::cpu::gemm::prefetch;
use crate::cpu::int8::{self, Biased, Gelu, Int8Panels, Plain, QuantizedRows};
use crate::cpu::lanes::{Extremes, range, times};
use crate::cpu::parallel::{Runs, for_each};
use crate::{Activation, Sequences};

/// A linear layer.
pub struct Int8Linear {
    /// The weight `[out, in]`.
    pub weight: Arc<Int8Panels>,
    /// `[out]`
    pub bias: Vec<f32>,
}

/// One layer's weights; see [`super::Layer`].
pub struct Int8Layer {
    /// Queries, keys and values side by side.
    pub qkv: Int8Linear,
    /// Behind attention.
    pub attention_output: Int8Linear,
    /// Behind that.
    pub attention_norm: Norm,
    /// The wide layer.
    pub intermediate: Int8Linear,
    /// Back from it.
    pub output: Int8Linear,
    /// Behind that.
    pub output_norm: Norm,
    /// Attention's heads.
    pub heads: usize,
    /// Behind the wide layer.
    pub activation: Activation,
}

/// The layers, and the last one's attention where one row of each sequence asks.
pub struct Int8Layers {
    layers: Vec<Int8Layer>,
    one_query: Option<Box<OneQuery>>,
}

impl Int8Layers {
    /// Takes layers up, in their order.
    pub fn new(layers: Vec<Int8Layer>) -> Self {
        let last = layers.last();
        let one_query = last.map(|layer| Box::new(OneQuery::new(&layer.qkv, layer.heads)));
        Self { layers, one_query }
    }

    /// x `[T, H]` through all layers → `[rows, H]`: the rows that are asked for of the last one.
    pub fn forward(
        &self,
        mut x: Buffer<f32>,
        sequences: &Sequences,
        queries: Queries,
    ) -> Buffer<f32> {
        let Some(first) = self.layers.first() else { return x };
        let one_query = self.one_query.as_deref().filter(|_| queries == Queries::First);
        // Of how many layers all rows ask.
        let whole = self.layers.len() - usize::from(one_query.is_some());
        let (hidden, tokens) = (first.output.bias.len(), sequences.tokens());
        let mut qkv = Buffer::<f32>::any(if whole > 0 { tokens * 3 * hidden } else { 0 });
        let runs = Runs::of_independent(tokens);
        if whole > 0 {
            for_each(runs.cut(&mut qkv, 3 * hidden), |index, qkv| {
                let (mut room, count) = (Room::default(), qkv.len() / (3 * hidden));
                let x = &x[runs.row(index) * hidden..];
                room.begin(&first.qkv, count);
                x.chunks_exact(hidden).take(count).for_each(|x| room.push(&first.qkv, x));
                first.qkv.with_bias(&mut room, qkv);
            });
        }
        for (index, layer) in self.layers[..whole].iter().enumerate() {
            let next = self.layers[..whole].get(index + 1);
            let context = int8::attention(&qkv, sequences, layer.heads);
            let mut out = Buffer::<f32>::any(tokens * hidden);
            // Attention is done with this layer's.
            let next_qkv = runs.cut(&mut qkv, if next.is_some() { 3 * hidden } else { 0 });
            let tasks = runs.cut(&mut out, hidden).into_iter().zip(next_qkv).collect();
            for_each(tasks, |task, (out, next_qkv): (&mut [f32], &mut [f32])| {
                let first_row = runs.row(task);
                let residual = |row| &x[(first_row + row) * hidden..][..hidden];
                let mut room = Room::default();
                let context = |row, out: &mut [f32]| context.gather(first_row + row, out);
                layer.behind_attention(context, residual, (out, next), &mut room);
                if let Some(next) = next {
                    next.qkv.with_bias(&mut room, next_qkv);
                }
            });
            x = out;
        }
        match (one_query, self.layers.last()) {
            (Some(one_query), Some(last)) => last.of_first_rows(one_query, &x, sequences),
            _ => x,
        }
    }
}

/// What a task needs from one product to the next.
#[derive(Default)]
struct Room {
    /// The rows that are to be multiplied.
    rows: QuantizedRows,
    products: Vec<i32>,
    /// A row times its factors.
    scaled: Vec<f32>,
}

impl Room {
    /// Room for so many rows that this layer multiplies.
    fn begin(&mut self, to: &Int8Linear, count: usize) {
        self.rows.begin(to.weight.tile(), count, to.weight.inputs());
    }

    /// Takes up a row, as this layer reads it.
    fn push(&mut self, to: &Int8Linear, x: &[f32]) {
        let factors = to.weight.input_factors();
        if factors.is_empty() {
            return self.rows.push(to.weight.tile(), x, range(x));
        }
        self.scaled.resize(x.len(), 0.0);
        let range = times(x, factors, &mut self.scaled);
        self.rows.push(to.weight.tile(), &self.scaled, range);
    }
}

impl Int8Linear {
    /// The product with the rows at hand and the bias, `[rows, out]`.
    fn with_bias(&self, room: &mut Room, out: &mut [f32]) {
        self.part_with_bias(0..self.bias.len(), room, out);
    }

    /// Some of its columns, from the first on.
    fn part_with_bias(&self, outputs: Range<usize>, room: &mut Room, out: &mut [f32]) {
        let finish = (Biased, Some(self.bias.as_slice()));
        let out = (out, outputs.end);
        self.weight.multiply_part(outputs, &room.rows, finish, out, &mut [], &mut room.products);
    }

    /// The product alone.
    fn without_bias(&self, room: &mut Room, out: &mut [f32]) {
        let out = (out, self.bias.len());
        self.weight.multiply(&room.rows, (Plain, None), out, &mut [], &mut room.products);
    }
}

impl Int8Layer {
    /// x `[T, H]` → the first rows of sequences that have some, `[rows, H]`.
    fn of_first_rows(&self, one_query: &OneQuery, x: &[f32], sequences: &Sequences) -> Buffer<f32> {
        let hidden = self.output.bias.len();
        let ranges: Vec<_> = sequences.ranges().filter(|rows| !rows.is_empty()).collect();
        let row = |index: usize| &x[ranges[index].start * hidden..][..hidden];
        let mut queries = Buffer::<f32>::any(ranges.len() * hidden);
        let runs = Runs::of_independent(ranges.len());
        for_each(runs.cut(&mut queries, hidden), |index, queries| {
            let (mut room, first) = (Room::default(), runs.row(index));
            let count = queries.len() / hidden;
            room.begin(&self.qkv, count);
            (first..first + count).for_each(|index| room.push(&self.qkv, row(index)));
            self.qkv.part_with_bias(0..hidden, &mut room, queries);
        });
        let context = one_query.context(x, &ranges, &queries);
        let mut out = Buffer::<f32>::any(ranges.len() * hidden);
        for_each(runs.cut(&mut out, hidden), |index, out| {
            let first = runs.row(index);
            let context = |row: usize, out: &mut [f32]| {
                out.copy_from_slice(&context[(first + row) * hidden..][..hidden]);
            };
            let residual = |index| row(first + index);
            self.behind_attention(context, residual, (out, None), &mut Room::default());
        });
        out
    }

    /// Of some rows, of which attention's context and input can be had, what comes out of the layer,
    /// `[rows, H]`: there and, where a layer follows, at hand for its first product.
    fn behind_attention<'a>(
        &self,
        context: impl Fn(usize, &mut [f32]),
        residual: impl Fn(usize) -> &'a [f32],
        (out, next): (&mut [f32], Option<&Int8Layer>),
        room: &mut Room,
    ) {
        let (hidden, wide) = (self.output.bias.len(), self.intermediate.bias.len());
        let count = out.len() / hidden;
        let mut row = vec![0f32; hidden];
        room.begin(&self.attention_output, count);
        for index in 0..count {
            context(index, &mut row);
            room.push(&self.attention_output, &row);
        }
        let mut y = Buffer::<f32>::any(count * hidden);
        self.attention_output.without_bias(room, &mut y);
        let mut attended = Buffer::<f32>::any(count * hidden);
        let bias = &self.attention_output.bias;
        let to = Some(&self.intermediate);
        add_and_norm((&mut y, bias), residual, &self.attention_norm, &mut attended, room, to);
        let mut inner = Buffer::<f32>::any(count * wide);
        self.widen(&mut inner, room);
        self.output.without_bias(room, &mut y);
        let residual = |row: usize| &attended[row * hidden..][..hidden];
        let (bias, to) = (&self.output.bias, next.map(|next| &next.qkv));
        add_and_norm((&mut y, bias), residual, &self.output_norm, out, room, to);
    }

    /// The wide layer of the rows at hand, `[rows, wide]`, which then are at hand instead.
    fn widen(&self, inner: &mut [f32], room: &mut Room) {
        let wide = self.intermediate.bias.len();
        let count = inner.len() / wide;
        if self.activation == Activation::Gelu && self.output.weight.input_factors().is_empty() {
            let (weight, bias) = (&self.intermediate.weight, self.intermediate.bias.as_slice());
            let mut extremes = vec![Extremes::ZERO; count];
            let out = (&mut *inner, wide);
            weight.multiply(&room.rows, (Gelu, Some(bias)), out, &mut extremes, &mut room.products);
            room.begin(&self.output, count);
            for (row, extremes) in inner.chunks_exact(wide).zip(&extremes) {
                room.rows.push(self.output.weight.tile(), row, extremes.range());
            }
            return;
        }
        self.intermediate.with_bias(room, inner);
        inner.iter_mut().for_each(|x| match self.activation {
            Activation::Identity => {}
            Activation::Gelu => *x = gelu(*x),
            Activation::GeluTanh => *x = gelu_tanh(*x).0,
            Activation::Relu => *x = x.max(0.0),
        });
        room.begin(&self.output, count);
        inner.chunks_exact(wide).for_each(|row| room.push(&self.output, row));
    }
}

/// `LayerNorm(y + bias + residual)` of rows: there, and at hand for what multiplies them. y is
/// overwritten.
fn add_and_norm<'a>(
    (y, bias): (&mut [f32], &[f32]),
    residual: impl Fn(usize) -> &'a [f32],
    norm: &Norm,
    out: &mut [f32],
    room: &mut Room,
    to: Option<&Int8Linear>,
) {
    let hidden = bias.len();
    let count = out.len() / hidden;
    if let Some(to) = to {
        room.begin(to, count);
    }
    let rows = y.chunks_exact_mut(hidden).zip(out.chunks_exact_mut(hidden));
    for (row, (y, out)) in rows.enumerate() {
        // The next row comes from a farther cache meanwhile.
        if row + 1 < count {
            prefetch(residual(row + 1));
        }
        add_norm::norm_alone(y, bias, residual(row), norm, out);
        if let Some(to) = to {
            room.push(to, out);
        }
    }
}
