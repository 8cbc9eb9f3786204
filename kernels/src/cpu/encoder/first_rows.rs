//! Attention where one row of each sequence asks, as in a classifier's last layer, in floats and with
//! its gradients: without keys and values. [`super::one_query`] does the same beside integers.
//!
//! A head scores a row x for a query q by q · (K·x + b) = (Kᵀ·q) · x + q · b. The last term moves all
//! scores of q alike, so it changes nothing, and b's gradient is 0. Of what a head has seen of the
//! rows, its context is Σ p · (V·x + b) = V · (Σ p · x) + b · Σ p. A task has a head of all sequences
//! to itself: its weights, 150 KB of MiniLM's, come from the second cache each time but the first.
//! Weights are as they are, and not rounded as products' operands.

use std::ops::Range;

use crate::Dropout;
use crate::cpu::gemm::Into;
use crate::cpu::math::{dot, exp, lanes, weigh_onto};
use crate::cpu::parallel::{for_each, pieces};
use crate::cpu::{Buffer, Element, adamw::squares_of, dispatch};
use crate::reference::attention_index;

/// What attention is computed of.
#[derive(Clone, Copy)]
pub struct Asked<'a, E> {
    /// Rows `[T, H]`, `ld` apart.
    pub x: &'a [E],
    /// Elements from one row to the next.
    pub ld: usize,
    /// Where sequences begin and end; none is empty, and they are all rows.
    pub ranges: &'a [Range<usize>],
    /// Of queries, keys and values, `[3·H, H]`.
    pub weight: &'a [f32],
    /// `[3·H]`
    pub bias: &'a [f32],
    /// Heads side by side in a row.
    pub heads: usize,
    /// Of the probabilities.
    pub dropout: Option<Dropout>,
}

/// What the backward pass needs, head by head.
pub struct Seen {
    /// `[heads, B, head_dim]`
    queries: Buffer<f32>,
    /// Kᵀ·q, `[heads, B, H]`.
    turned: Buffer<f32>,
    /// Σ p · x, `[heads, B, H]`.
    sums: Buffer<f32>,
    /// Before dropout, `[heads, T]`.
    probabilities: Buffer<f32>,
    /// Σ p, which dropout makes another number than 1, `[heads, B]`.
    kept: Buffer<f32>,
}

/// A head's part of [`Asked`].
#[derive(Clone, Copy)]
struct Head<'a, E> {
    asked: Asked<'a, E>,
    number: usize,
    hidden: usize,
    head_dim: usize,
}

impl<'a, E: Element> Asked<'a, E> {
    fn hidden(&self) -> usize {
        self.bias.len() / 3
    }

    fn head_dim(&self) -> usize {
        self.hidden() / self.heads.max(1)
    }

    fn tokens(&self) -> usize {
        self.ranges.last().map_or(0, |rows| rows.end)
    }

    fn head(self, number: usize) -> Head<'a, E> {
        Head { asked: self, number, hidden: self.hidden(), head_dim: self.head_dim() }
    }

    /// The context `[B, H]`.
    pub fn forward(&self) -> (Buffer<E>, Seen) {
        let (hidden, head_dim, count) = (self.hidden(), self.head_dim(), self.ranges.len());
        let room = |width: usize| Buffer::<f32>::any(self.heads * width);
        let mut seen = Seen {
            queries: room(count * head_dim),
            turned: room(count * hidden),
            sums: room(count * hidden),
            probabilities: room(self.tokens()),
            kept: room(count),
        };
        let mut contexts = room(count * head_dim);
        let tasks = chunks(&mut seen.queries, count * head_dim)
            .zip(chunks(&mut seen.turned, count * hidden))
            .zip(chunks(&mut seen.sums, count * hidden))
            .zip(chunks(&mut seen.probabilities, self.tokens()))
            .zip(chunks(&mut seen.kept, count))
            .zip(chunks(&mut contexts, count * head_dim));
        let tasks = tasks.map(|(((((queries, turned), sums), probabilities), kept), context)| {
            Forward { queries, turned, sums, probabilities, kept, context }
        });
        for_each(tasks.collect(), |number, mut out: Forward<'_>| {
            let mut dropped = Buffer::any(self.longest());
            attend(self.head(number), &mut out, &mut dropped);
        });
        let mut context = Buffer::any(count * hidden);
        for (sequence, row) in context.chunks_exact_mut(hidden.max(1)).enumerate() {
            for (head, out) in row.chunks_exact_mut(head_dim).enumerate() {
                let from = &contexts[(head * count + sequence) * head_dim..][..head_dim];
                out.iter_mut().zip(from).for_each(|(out, x)| *out = E::new(*x));
            }
        }
        (context, seen)
    }

    fn longest(&self) -> usize {
        self.ranges.iter().map(|rows| rows.len()).max().unwrap_or(0)
    }

    /// From the gradient of the context `[B, H]` and that of the residual `[B, H]` the gradient of x,
    /// `[T, H]`. The weight's goes to `gradient` `[3·H, H]`, each row's sum of squares to `squares`;
    /// the bias's comes back, too.
    pub fn backward(
        &self,
        seen: &Seen,
        dcontext: &[E],
        residual: &[f32],
        (gradient, squares, into): (&mut [f32], &mut [f64], Into),
    ) -> (Buffer<f32>, Vec<f32>) {
        let (hidden, head_dim, count) = (self.hidden(), self.head_dim(), self.ranges.len());
        let (tokens, heads) = (self.tokens(), self.heads);
        if count == 0 && into == Into::Replace {
            gradient.fill(0.0);
            squares.fill(0.0);
        }
        let room = |width: usize| Buffer::<f32>::any(heads * width);
        let (mut dsums, mut dfirst) = (room(count * hidden), room(count * hidden));
        let (mut passed, mut dscores) = (room(tokens), room(tokens));
        let mut dbias = vec![0f32; 3 * hidden];
        let mut weights = chunks(gradient, head_dim * hidden);
        let mut squares = chunks(squares, head_dim);
        let mut biases = chunks(&mut dbias, head_dim);
        // Of queries, keys and values.
        let mut parts = || -> Vec<Part<'_>> {
            let next = || Some(Part(weights.next()?, squares.next()?, biases.next()?));
            std::iter::from_fn(next).take(heads).collect()
        };
        let parts = parts().into_iter().zip(parts()).zip(parts());
        let tasks = chunks(&mut dsums, count * hidden)
            .zip(chunks(&mut dfirst, count * hidden))
            .zip(chunks(&mut passed, tokens))
            .zip(chunks(&mut dscores, tokens))
            .zip(parts);
        let tasks = tasks.map(|((((dsums, dfirst), passed), dscores), ((query, key), value))| {
            Backward { dsums, dfirst, passed, dscores, query, key, value }
        });
        for_each(tasks.collect(), |number, mut out: Backward<'_>| {
            attend_backward(self.head(number), seen, dcontext, &mut out, into);
        });
        let mut dx = Buffer::<f32>::any(tokens * hidden);
        let tasks = pieces(&mut dx, self.ranges.iter().map(|rows| rows.len() * hidden));
        for_each(tasks, |sequence, dx: &mut [f32]| {
            let first = self.ranges[sequence].start;
            dx.fill(0.0);
            for (row, dx) in dx.chunks_exact_mut(hidden).enumerate() {
                for (weights, rows) in [(&passed, &dsums), (&dscores, &seen.turned)] {
                    let rows = Strided { rows, first: sequence * hidden, ld: count * hidden };
                    add_weighed(rows, &weights[first + row..], tokens, heads, dx);
                }
            }
            let dx = &mut dx[..hidden];
            dx.iter_mut().zip(&residual[sequence * hidden..]).for_each(|(dx, x)| *dx += x);
            for head in 0..heads {
                let from = &dfirst[(head * count + sequence) * hidden..][..hidden];
                dx.iter_mut().zip(from).for_each(|(dx, x)| *dx += x);
            }
        });
        (dx, dbias)
    }
}

/// Pieces of so many elements; none where they are of none.
fn chunks<T>(all: &mut [T], size: usize) -> std::slice::ChunksExactMut<'_, T> {
    all.chunks_exact_mut(size.max(1))
}

/// Where a head's forward pass writes.
struct Forward<'a> {
    queries: &'a mut [f32],
    turned: &'a mut [f32],
    sums: &'a mut [f32],
    probabilities: &'a mut [f32],
    kept: &'a mut [f32],
    context: &'a mut [f32],
}

/// Some rows of the weight: their gradient, its squares, and the bias's gradient.
struct Part<'a>(&'a mut [f32], &'a mut [f64], &'a mut [f32]);

/// Where a head's backward pass writes.
struct Backward<'a> {
    /// The gradients of Σ p · x, `[B, H]`.
    dsums: &'a mut [f32],
    /// Those of first rows through queries, `[B, H]`.
    dfirst: &'a mut [f32],
    /// Probabilities behind dropout, `[T]`.
    passed: &'a mut [f32],
    /// The gradients of (Kᵀ·q) · x, `[T]`.
    dscores: &'a mut [f32],
    query: Part<'a>,
    key: Part<'a>,
    value: Part<'a>,
}

impl<'a, E: Element> Head<'a, E> {
    fn row(&self, row: usize) -> &'a [E] {
        &self.asked.x[row * self.asked.ld..][..self.hidden]
    }

    fn rows(&self, rows: &Range<usize>) -> impl Iterator<Item = &'a [E]> + Clone + use<'a, E> {
        let Self { asked, hidden, .. } = *self;
        asked.x[rows.start * asked.ld..]
            .chunks(asked.ld)
            .take(rows.len())
            .map(move |x| &x[..hidden])
    }

    /// The rows of the queries', the keys' or the values' weight, and the bias.
    fn weight(&self, part: usize) -> (std::slice::ChunksExact<'a, f32>, &'a [f32]) {
        let first = part * self.hidden + self.number * self.head_dim;
        let rows = &self.asked.weight[first * self.hidden..][..self.head_dim * self.hidden];
        (rows.chunks_exact(self.hidden), &self.asked.bias[first..][..self.head_dim])
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    /// What dropout multiplies each probability of a sequence by.
    #[inline(always)]
    fn multipliers(&self, first: usize, out: &mut [f32]) {
        let Some(dropout) = self.asked.dropout else { return out.fill(1.0) };
        for (index, out) in out.chunks_mut(16).enumerate() {
            let at = attention_index(self.number, self.asked.heads, first, 16 * index);
            out.iter_mut().zip(dropout.multipliers(at)).for_each(|(out, x)| *out = x);
        }
    }
}

dispatch! {
/// A head's forward pass. `dropped` has room for the longest sequence.
fn attend<E: Element>(head: Head<'_, E>, out: &mut Forward<'_>, dropped: &mut [f32]) {
    let (hidden, d) = (head.hidden, head.head_dim);
    for (sequence, rows) in head.asked.ranges.iter().enumerate() {
        let query = &mut out.queries[sequence * d..][..d];
        let (weights, bias) = head.weight(0);
        for ((q, weight), bias) in query.iter_mut().zip(weights).zip(bias) {
            *q = dot::<E, FMA>(weight, head.row(rows.start)) + bias;
        }
        let turned = &mut out.turned[sequence * hidden..][..hidden];
        turned.fill(0.0);
        weigh_onto::<f32, FMA>(head.weight(1).0.zip(query.iter().copied()), turned);
        let probabilities = &mut out.probabilities[rows.clone()];
        let mut most = f32::NEG_INFINITY;
        for (score, x) in probabilities.iter_mut().zip(head.rows(rows)) {
            *score = dot::<E, FMA>(turned, x);
            most = if *score > most { *score } else { most };
        }
        // Taken away before the scale, so that a huge score is not infinite less itself.
        let scale = head.scale();
        probabilities.iter_mut().for_each(|x| *x = exp::<FMA>((*x - most) * scale));
        let inverse = 1.0 / lanes(probabilities, probabilities, |x, _| x);
        let dropped = &mut dropped[..rows.len()];
        head.multipliers(rows.start, dropped);
        for (p, dropped) in probabilities.iter_mut().zip(&mut *dropped) {
            *p *= inverse;
            *dropped *= *p;
        }
        let kept = lanes(dropped, dropped, |x, _| x);
        out.kept[sequence] = kept;
        let sums = &mut out.sums[sequence * hidden..][..hidden];
        sums.fill(0.0);
        weigh_onto::<E, FMA>(head.rows(rows).zip(dropped.iter().copied()), sums);
        let (weights, bias) = head.weight(2);
        let context = &mut out.context[sequence * d..][..d];
        for ((out, weight), bias) in context.iter_mut().zip(weights).zip(bias) {
            *out = dot::<f32, FMA>(weight, sums) + bias * kept;
        }
    }
}
}

dispatch! {
/// A head's backward pass.
fn attend_backward<E: Element>(
    head: Head<'_, E>,
    seen: &Seen,
    dcontext: &[E],
    out: &mut Backward<'_>,
    into: Into,
) {
    let (hidden, d) = (head.hidden, head.head_dim);
    let ranges = head.asked.ranges;
    let (count, tokens) = (ranges.len(), out.passed.len());
    let queries = &seen.queries[head.number * count * d..][..count * d];
    let all_sums = &seen.sums[head.number * count * hidden..][..count * hidden];
    let probabilities = &seen.probabilities[head.number * tokens..][..tokens];
    let kept = &seen.kept[head.number * count..][..count];
    let (mut dqueries, mut gradients) = (vec![0f32; count * d], vec![0f32; count * d]);
    let mut dturned = Buffer::<f32>::zeros(count * hidden);
    let scale = head.scale();
    for (sequence, rows) in ranges.iter().enumerate() {
        let gradient = &mut gradients[sequence * d..][..d];
        let from = &dcontext[sequence * hidden + head.number * d..][..d];
        gradient.iter_mut().zip(from).for_each(|(x, from)| *x = from.get());
        let dsums = &mut out.dsums[sequence * hidden..][..hidden];
        dsums.fill(0.0);
        let (weights, bias) = head.weight(2);
        weigh_onto::<f32, FMA>(weights.zip(gradient.iter().copied()), dsums);
        let shift: f32 = bias.iter().zip(&*gradient).map(|(bias, x)| bias * x).sum();
        let probabilities = &probabilities[rows.clone()];
        let (passed, dscores) = (&mut out.passed[rows.clone()], &mut out.dscores[rows.clone()]);
        head.multipliers(rows.start, passed);
        for ((passed, dscore), (p, x)) in
            passed.iter_mut().zip(&mut *dscores).zip(probabilities.iter().zip(head.rows(rows)))
        {
            // The probability's gradient first.
            *dscore = (dot::<E, FMA>(dsums, x) + shift) * *passed;
            *passed *= p;
        }
        let along = dot::<f32, FMA>(probabilities, dscores);
        for (dscore, p) in dscores.iter_mut().zip(probabilities) {
            *dscore = p * (*dscore - along) * scale;
        }
        let dturned = &mut dturned[sequence * hidden..][..hidden];
        weigh_onto::<E, FMA>(head.rows(rows).zip(dscores.iter().copied()), dturned);
        let dquery = &mut dqueries[sequence * d..][..d];
        for (dq, weight) in dquery.iter_mut().zip(head.weight(1).0) {
            *dq = dot::<f32, FMA>(weight, dturned);
        }
        let dfirst = &mut out.dfirst[sequence * hidden..][..hidden];
        dfirst.fill(0.0);
        weigh_onto::<f32, FMA>(head.weight(0).0.zip(dquery.iter().copied()), dfirst);
    }
    let mut room = Buffer::<f32>::any(hidden);
    for column in 0..d {
        let of = |all: &[f32], sequence: usize| all[sequence * d + column];
        let put = |part: &mut Part<'_>, sum: &[f32], bias: f32| {
            let row = &mut part.0[column * hidden..][..hidden];
            match into {
                Into::Replace => row.copy_from_slice(sum),
                Into::Add => row.iter_mut().zip(sum).for_each(|(row, x)| *row += x),
            }
            part.1[column] = squares_of(row);
            part.2[column] = bias;
        };
        let each = 0..count;
        room.fill(0.0);
        let first = |sequence: usize| head.row(ranges[sequence].start);
        weigh_onto::<E, FMA>(each.clone().map(|b| (first(b), of(&dqueries, b))), &mut room);
        put(&mut out.query, &room, each.clone().map(|b| of(&dqueries, b)).sum());
        room.fill(0.0);
        let rows = dturned.chunks_exact(hidden).zip(each.clone().map(|b| of(queries, b)));
        weigh_onto::<f32, FMA>(rows, &mut room);
        put(&mut out.key, &room, 0.0);
        room.fill(0.0);
        let rows = all_sums.chunks_exact(hidden).zip(each.clone().map(|b| of(&gradients, b)));
        weigh_onto::<f32, FMA>(rows, &mut room);
        put(&mut out.value, &room, each.map(|b| of(&gradients, b) * kept[b]).sum());
    }
}
}

/// Rows of floats, each `ld` behind the one before.
#[derive(Clone, Copy)]
struct Strided<'a> {
    rows: &'a [f32],
    first: usize,
    ld: usize,
}

dispatch! {
/// Adds so many rows, each times a weight; weights are `stride` apart.
fn add_weighed(rows: Strided<'_>, weights: &[f32], stride: usize, count: usize, out: &mut [f32]) {
    let width = out.len();
    let Strided { rows, first, ld } = rows;
    let each = (0..count).map(|i| (&rows[first + i * ld..][..width], weights[i * stride]));
    weigh_onto::<f32, FMA>(each, out);
}
}
