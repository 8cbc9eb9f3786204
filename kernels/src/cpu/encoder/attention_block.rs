//! Attention between its two linear layers, with residual and norm.

use std::ops::Range;

use super::add_norm::{self, NormRun, SavedNorm};
use super::elementwise::{Panel, add_bias, add_to, column_sums, store};
use super::first_rows::{self, Asked};
use super::linear::{self, ld, multiplied, multiply, room};
use super::weight_gradient::Operands;
use super::{Layer, LayerDropout, Rows};
use crate::cpu::attention::{self, Shape};
use crate::cpu::gemm::Into;
use crate::cpu::pack::round_rows;
use crate::cpu::parallel::{BLOCK, Runs, add_up, for_each};
use crate::cpu::{Buffer, Element};

/// What the backward pass needs.
pub struct SavedAttention<E: Element> {
    /// The input's rows, `ld` apart.
    x: Buffer<E>,
    seen: Seen<E>,
    /// Attention's rows `[rows, H]`.
    context: Buffer<E>,
    norm: SavedNorm<E>,
}

/// What attention itself needs there.
enum Seen<E: Element> {
    /// Queries, keys and values `[T, 3·H]`.
    All(Buffer<E>),
    /// Of first rows that ask.
    First(first_rows::Seen),
}

impl<E: Element> Layer<E> {
    fn hidden(&self) -> usize {
        self.attention_output.outputs
    }

    fn shape<'a>(&self, rows: Rows<'a>, drop: LayerDropout) -> Shape<'a> {
        Shape {
            sequences: rows.sequences,
            heads: self.heads,
            head_dim: self.hidden() / self.heads,
            dropout: drop.probabilities,
        }
    }

    /// x `[T, H]` as products read it, in rows `ld` apart.
    fn rounded(&self, x: &[f32]) -> Buffer<E> {
        let hidden = self.hidden();
        let (tokens, x_ld) = (x.len() / hidden, ld::<E>(hidden));
        let mut rounded = room(tokens, hidden, x_ld);
        let runs = Runs::of(tokens);
        for_each(runs.cut(&mut rounded, x_ld), |index, rounded| {
            let count = rounded.len() / x_ld;
            round_rows(&x[runs.row(index) * hidden..][..count * hidden], hidden, x_ld, rounded);
        });
        rounded
    }

    /// Attention where first rows alone ask, of rounded rows.
    fn asked<'a>(
        &'a self,
        x: &'a [E],
        ranges: &'a [Range<usize>],
        drop: LayerDropout,
    ) -> Asked<'a, E> {
        Asked {
            x,
            ld: ld::<E>(self.hidden()),
            ranges,
            weight: &self.qkv_weight,
            bias: &self.qkv.bias,
            heads: self.heads,
            dropout: drop.probabilities,
        }
    }

    /// x `[T, H]` → the context `[T, H]`, and the rounded rows and qkv where they are kept.
    fn attend_to_all(
        &self,
        x: &[f32],
        rows: Rows<'_>,
        drop: LayerDropout,
        keep: bool,
    ) -> (Buffer<E>, Buffer<E>, Buffer<E>) {
        let hidden = self.hidden();
        let (tokens, x_ld) = (rows.sequences.tokens(), ld::<E>(hidden));
        let weight = self.qkv.weight.read();
        // Nothing but the backward pass looks at these again.
        let kept = if keep { tokens } else { 0 };
        let mut rounded = room(kept, hidden, x_ld);
        let mut qkv = Buffer::any(tokens * 3 * hidden);
        let (runs, kept_runs) = (Runs::of(tokens), Runs::of(kept));
        let mut rounded_runs = kept_runs.cut(&mut rounded, x_ld).into_iter();
        let tasks = runs.cut(&mut qkv, 3 * hidden).into_iter();
        let tasks = tasks.map(|qkv| (qkv, rounded_runs.next())).collect();
        let columns = weight.forward.columns();
        for_each(tasks, |index, (qkv, kept): (&mut [E], Option<&mut [E]>)| {
            let count = qkv.len() / (3 * hidden);
            let x = &x[runs.row(index) * hidden..][..count * hidden];
            let x = linear::operand(x, hidden, kept);
            multiply(&x, x_ld, count, &weight.forward, |rows, first, products| {
                let panel = Panel::new(products, columns, first, 3 * hidden);
                let qkv = &mut qkv[rows.start * 3 * hidden..];
                add_bias(panel, &self.qkv.bias, qkv, 3 * hidden);
            });
        });
        let context = attention::forward(&qkv, self.shape(rows, drop));
        // What comes next may have their memory.
        (context, rounded, if keep { qkv } else { Buffer::any(0) })
    }

    /// x `[T, H]` → `[rows, H]`.
    pub(super) fn attention_forward(
        &self,
        x: &[f32],
        rows: Rows<'_>,
        drop: LayerDropout,
        keep: bool,
    ) -> (Buffer<f32>, Option<SavedAttention<E>>) {
        let (hidden, x_ld) = (self.hidden(), ld::<E>(self.hidden()));
        let out_weight = self.attention_output.weight.read();
        let out_forward = &out_weight.forward;
        let asking = rows.asking();
        let (context, rounded, seen) = match &asking {
            None => {
                let (context, rounded, qkv) = self.attend_to_all(x, rows, drop, keep);
                (context, rounded, Seen::All(qkv))
            }
            Some(ranges) => {
                // Rows that need no rounding are read where they are, unless they are kept.
                let exact = E::exactly(x).filter(|_| !keep && x_ld == hidden);
                let rounded = if exact.is_some() { Buffer::any(0) } else { self.rounded(x) };
                let asked = self.asked(exact.unwrap_or(&rounded), ranges, drop);
                let (context, seen) = asked.forward();
                (context, rounded, Seen::First(seen))
            }
        };
        // Nothing but the backward pass looks at these again.
        let saved = keep.then_some((rounded, seen));
        let kept = |rows| if keep { rows } else { 0 };
        let out_rows = context.len() / hidden;
        let mut out = Buffer::<f32>::any(out_rows * hidden);
        let mut norm = SavedNorm::new(kept(out_rows), hidden);
        let (runs, kept_runs) = (Runs::of(out_rows), Runs::of(kept(out_rows)));
        let mut norm_runs = norm.cut(kept_runs).into_iter();
        let tasks = runs.cut(&mut out, hidden).into_iter();
        let tasks = tasks.map(|out| (out, norm_runs.next())).collect();
        for_each(tasks, |index, (out, norm): (&mut [f32], Option<NormRun<'_, E>>)| {
            let count = out.len() / hidden;
            let first_row = runs.row(index);
            let context = &context[first_row * hidden..][..count * hidden];
            let operand = operand(context, hidden, x_ld, count);
            let mut y = multiplied(&operand, x_ld, count, out_forward, hidden);
            let mut norm = norm.unwrap_or_else(|| NormRun::spare(hidden));
            for row in 0..count {
                let from = first_row + row;
                let from = asking.as_ref().map_or(from, |ranges| ranges[from].start);
                let at = row * hidden..(row + 1) * hidden;
                let (normed, inverse) = norm.row(row);
                add_norm::forward(
                    &mut y[at.clone()],
                    &self.attention_output.bias,
                    &x[from * hidden..][..hidden],
                    drop.attention_output,
                    ((first_row + row) * hidden) as u64,
                    &self.attention_norm,
                    &mut out[at],
                    normed,
                    inverse,
                );
            }
        });
        (out, saved.map(|(x, seen)| SavedAttention { x, seen, context, norm }))
    }

    /// The gradient of x, `[T, H]`.
    pub(super) fn attention_backward(
        &self,
        saved: &SavedAttention<E>,
        grad: &[f32],
        rows: Rows<'_>,
        drop: LayerDropout,
    ) -> Buffer<f32> {
        let hidden = self.hidden();
        let x_ld = ld::<E>(hidden);
        let out_rows = saved.context.len() / hidden;
        let out_weight = self.attention_output.weight.read();
        let Some(output_back) = &out_weight.backward else {
            return Buffer::zeros(rows.sequences.tokens() * hidden);
        };
        let columns = output_back.columns();

        // The residual's gradient, and that of the context.
        let mut residual = Buffer::<f32>::any(out_rows * hidden);
        let mut dcontext = Buffer::<E>::any(out_rows * hidden);
        let mut operands = Operands::new(out_rows, &self.attention_output);
        let mut partial = vec![0f32; out_rows.div_ceil(BLOCK) * 3 * hidden];
        let runs = Runs::of(out_rows);
        let tasks = runs.cut(&mut residual, hidden).into_iter();
        let tasks = tasks.zip(runs.cut(&mut dcontext, hidden)).zip(operands.runs(runs));
        let tasks = tasks.zip(runs.cut_blocks(&mut partial, 3 * hidden)).collect();
        for_each(tasks, |index, (((residual, dcontext), mut operands), sums)| {
            let residual: &mut [f32] = residual;
            let dcontext: &mut [E] = dcontext;
            let count = residual.len() / hidden;
            let first_row = runs.row(index);
            let mut dy = room::<E>(count.next_multiple_of(E::kernel().rows), hidden, x_ld);
            let mut x_row = vec![0f32; hidden];
            for row in 0..count {
                let at = (first_row + row) * hidden;
                add_norm::backward(
                    &grad[at..][..hidden],
                    &saved.norm.normed[at..][..hidden],
                    saved.norm.inverse[first_row + row],
                    &self.attention_norm.weight,
                    drop.attention_output,
                    at as u64,
                    &mut x_row,
                    &mut residual[row * hidden..][..hidden],
                    &mut dy[row * x_ld..][..hidden],
                    &mut sums[row / BLOCK * 3 * hidden..][..3 * hidden],
                );
            }
            multiply(&dy, x_ld, count, output_back, |rows, first, products| {
                let panel = Panel::new(products, columns, first, hidden);
                store(panel, &mut dcontext[rows.start * hidden..], hidden);
            });
            let context = &saved.context[first_row * hidden..];
            operands.fill(&self.attention_output, count, (&dy, x_ld), (context, hidden));
        });
        finish(&self.attention_output, &self.attention_norm, &operands, &partial);

        match &saved.seen {
            Seen::All(qkv) => {
                let shape = self.shape(rows, drop);
                let dqkv = attention::backward(qkv, &saved.context, &dcontext, shape);
                self.qkv_backward(&dqkv, &saved.x, residual)
            }
            Seen::First(seen) => {
                let ranges = rows.asking().unwrap_or_default();
                let asked = self.asked(&saved.x, &ranges, drop);
                self.asked_backward(asked, seen, &dcontext, &residual)
            }
        }
    }

    /// The gradient of x, `[T, H]`, where first rows alone asked.
    fn asked_backward(
        &self,
        asked: Asked<'_, E>,
        seen: &first_rows::Seen,
        dcontext: &[E],
        residual: &[f32],
    ) -> Buffer<f32> {
        let rows = self.qkv.outputs;
        let size = rows * self.qkv.inputs;
        let Some((weight, bias)) = &self.qkv.gradients else {
            let (mut gradient, mut squares) = (vec![0f32; size], vec![0f64; rows]);
            let nobody = (&mut *gradient, &mut *squares, Into::Replace);
            return asked.backward(seen, dcontext, residual, nobody).0;
        };
        let (dx, dbias) = weight.dense_with_squares(size, rows, |gradient, squares, into| {
            asked.backward(seen, dcontext, residual, (gradient, squares, into))
        });
        bias.put(&dbias);
        dx
    }

    /// The gradient of x, `[T, H]`, from that of queries, keys and values `[T, 3·H]`; `dx` holds the
    /// residual's.
    fn qkv_backward(&self, dqkv: &[E], x: &[E], mut dx: Buffer<f32>) -> Buffer<f32> {
        let hidden = self.hidden();
        let (tokens, x_ld) = (dx.len() / hidden, ld::<E>(hidden));
        let weight = self.qkv.weight.read();
        let Some(back) = &weight.backward else { return dx };
        let columns = back.columns();
        let mut operands = Operands::new(tokens, &self.qkv);
        let mut partial = vec![0f32; tokens.div_ceil(BLOCK) * 3 * hidden];
        let runs = Runs::of(tokens);
        let tasks = runs.cut(&mut dx, hidden).into_iter().zip(operands.runs(runs));
        let tasks = tasks.zip(runs.cut_blocks(&mut partial, 3 * hidden)).collect();
        let qkv_ld = ld::<E>(3 * hidden);
        for_each(tasks, |index, ((dx, mut operands), sums)| {
            let dx: &mut [f32] = dx;
            let count = dx.len() / hidden;
            let first_row = runs.row(index);
            let dqkv = &dqkv[first_row * 3 * hidden..][..count * 3 * hidden];
            let blocks = dqkv.chunks(BLOCK * 3 * hidden);
            for (block, sums) in blocks.zip(sums.chunks_exact_mut(3 * hidden)) {
                column_sums(block, 3 * hidden, 3 * hidden, sums);
            }
            let operand = operand(dqkv, 3 * hidden, qkv_ld, count);
            multiply(&operand, qkv_ld, count, back, |rows, first, products| {
                let panel = Panel::new(products, columns, first, hidden);
                add_to(panel, &mut dx[rows.start * hidden..], hidden);
            });
            let x = &x[first_row * x_ld..];
            operands.fill(&self.qkv, count, (dqkv, 3 * hidden), (x, x_ld));
        });
        if let Some((weight, bias)) = &self.qkv.gradients {
            operands.finish(&self.qkv, weight);
            let mut sums = vec![0f32; 3 * hidden];
            add_up(&partial, &mut sums);
            bias.put(&sums);
        }
        dx
    }
}

/// Hands over the gradients of a linear layer and of the norm behind it. `partial`: for each block
/// of rows, the sums for the norm's weight, its bias, and the linear layer's bias.
pub(super) fn finish<E: Element>(
    linear: &super::Linear<E>,
    norm: &super::Norm,
    operands: &Operands<E>,
    partial: &[f32],
) {
    let hidden = linear.outputs;
    let mut sums = vec![0f32; 3 * hidden];
    add_up(partial, &mut sums);
    if let Some((weight, bias)) = &linear.gradients {
        operands.finish(linear, weight);
        bias.put(&sums[2 * hidden..]);
    }
    if let Some((weight, bias)) = &norm.gradients {
        weight.put(&sums[..hidden]);
        bias.put(&sums[hidden..2 * hidden]);
    }
}

/// Rows `[count, width]` that a kernel may read, `to_ld` apart.
fn operand<E: Element>(
    rows: &[E],
    width: usize,
    to_ld: usize,
    count: usize,
) -> super::linear::Rows<'_, E> {
    if width == to_ld {
        return super::linear::Rows::Borrowed(rows);
    }
    let mut padded = Buffer::zeros(count.next_multiple_of(E::kernel().rows) * to_ld);
    for (from, to) in rows.chunks_exact(width).zip(padded.chunks_exact_mut(to_ld)) {
        to[..width].copy_from_slice(from);
    }
    super::linear::Rows::Owned(padded)
}
