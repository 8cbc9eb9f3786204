//! The two linear layers of a token's own, with residual and norm.

use super::Layer;
use super::add_norm::{self, NormRun, SavedNorm};
use super::attention_block::finish;
use super::elementwise::{Panel, activate, activate_backward, add_to};
use super::linear::{ld, multiplied, multiply, operand, room, spread_ld};
use super::weight_gradient::Operands;
use crate::Dropout;
use crate::cpu::parallel::{BLOCK, Runs, add_up, for_each};
use crate::cpu::{Buffer, Element};

/// What the backward pass needs.
pub struct SavedFeedForward<E: Element> {
    /// The input's rows, `ld` apart.
    x: Buffer<E>,
    /// What went into the activation; the rest is made again. For each block of rows and each panel
    /// of columns `[rows, columns]`, so that a panel is read in one piece.
    before: Buffer<E>,
    norm: SavedNorm<E>,
}

impl<E: Element> Layer<E> {
    /// x `[rows, H]` → `[rows, H]`.
    pub(super) fn feed_forward(
        &self,
        x: &[f32],
        drop: Option<Dropout>,
        keep: bool,
    ) -> (Buffer<f32>, Option<SavedFeedForward<E>>) {
        let (hidden, wide) = (self.output.outputs, self.intermediate.outputs);
        let (x_ld, wide_ld) = (ld::<E>(hidden), spread_ld::<E>(wide));
        let rows = x.len() / hidden;
        let (weight, out_weight) = (self.intermediate.weight.read(), self.output.weight.read());
        let (forward, out_forward) = (&weight.forward, &out_weight.forward);
        let columns = forward.columns();
        let mut out = Buffer::<f32>::any(rows * hidden);
        // Nothing but the backward pass looks at these again.
        let kept = if keep { rows } else { 0 };
        let mut rounded = room(kept, hidden, x_ld);
        let panels_width = forward.count() * columns;
        let mut before = Buffer::any(kept * panels_width);
        let mut norm = SavedNorm::new(kept, hidden);
        let (runs, kept_runs) = (Runs::of(rows), Runs::of(kept));
        let mut rounded_runs = kept_runs.cut(&mut rounded, x_ld).into_iter();
        let mut before_runs = kept_runs.cut(&mut before, panels_width).into_iter();
        let mut norm_runs = norm.cut(kept_runs).into_iter();
        let mut kept_run = || Some((rounded_runs.next()?, before_runs.next()?, norm_runs.next()?));
        let tasks = runs.cut(&mut out, hidden).into_iter();
        let tasks = tasks.map(|out| (out, kept_run())).collect();
        type Kept<'a, E> = Option<(&'a mut [E], &'a mut [E], NormRun<'a, E>)>;
        for_each(tasks, |index, (out, kept): (&mut [f32], Kept<'_, E>)| {
            let count = out.len() / hidden;
            let first_row = runs.row(index);
            let x = &x[first_row * hidden..][..count * hidden];
            // What went into the activation is kept, or passes through one panel's room.
            let (spare, panel_at) = if kept.is_none() { (count.min(BLOCK), 0) } else { (0, 1) };
            let mut spare = Buffer::any(spare * columns);
            let (rounded, before, mut norm) = match kept {
                Some((rounded, before, norm)) => (Some(rounded), before, norm),
                None => (None, &mut *spare, NormRun::spare(hidden)),
            };
            let rounded = operand(x, hidden, rounded);
            let mut inner = room(count.next_multiple_of(E::kernel().rows), wide, wide_ld);
            multiply(&rounded, x_ld, count, forward, |rows, first, products| {
                let panel = Panel::new(products, columns, first, wide);
                let at = panel_at * (rows.start * panels_width + first * rows.len());
                let before = &mut before[at..][..columns * rows.len()];
                let inner = &mut inner[rows.start * wide_ld..];
                activate(panel, &self.intermediate.bias, self.activation, before, inner, wide_ld);
            });
            let mut y = multiplied(&inner, wide_ld, count, out_forward, hidden);
            for row in 0..count {
                let at = row * hidden..(row + 1) * hidden;
                let (normed, inverse) = norm.row(row);
                add_norm::forward(
                    &mut y[at.clone()],
                    &self.output.bias,
                    &x[at.clone()],
                    drop,
                    ((first_row + row) * hidden) as u64,
                    &self.output_norm,
                    &mut out[at],
                    normed,
                    inverse,
                );
            }
        });
        (out, keep.then_some(SavedFeedForward { x: rounded, before, norm }))
    }

    /// The gradient of x, `[rows, H]`.
    pub(super) fn feed_forward_backward(
        &self,
        saved: &SavedFeedForward<E>,
        grad: &[f32],
        drop: Option<Dropout>,
    ) -> Buffer<f32> {
        let (hidden, wide) = (self.output.outputs, self.intermediate.outputs);
        let (x_ld, wide_ld) = (ld::<E>(hidden), spread_ld::<E>(wide));
        let rows = grad.len() / hidden;
        let mut dx = Buffer::<f32>::any(grad.len());
        let (weight, out_weight) = (self.intermediate.weight.read(), self.output.weight.read());
        let (Some(output_back), Some(intermediate_back)) = (&out_weight.backward, &weight.backward)
        else {
            dx.fill(0.0);
            return dx;
        };
        let (columns, intermediate_panels) = (weight.forward.columns(), weight.forward.count());
        let mut outer_operands = Operands::new(rows, &self.output);
        let mut inner_operands = Operands::new(rows, &self.intermediate);
        // For each block: sums for the norm and the second bias, then for the first bias.
        let count_blocks = rows.div_ceil(BLOCK);
        let mut partial = vec![0f32; count_blocks * 3 * hidden];
        let mut inner_partial = vec![0f32; count_blocks * wide];
        let runs = Runs::of(rows);
        let tasks = runs.cut(&mut dx, hidden).into_iter();
        let tasks = tasks.zip(outer_operands.runs(runs)).zip(inner_operands.runs(runs));
        let tasks = tasks.zip(
            runs.cut_blocks(&mut partial, 3 * hidden)
                .into_iter()
                .zip(runs.cut_blocks(&mut inner_partial, wide)),
        );
        for_each(tasks.collect(), |index, (((dx, mut outer), mut inner), (sums, inner_sums))| {
            let (dx, inner_sums): (&mut [f32], &mut [f32]) = (dx, inner_sums);
            let count = dx.len() / hidden;
            let first_row = runs.row(index);
            let padded_rows = count.next_multiple_of(E::kernel().rows);
            let mut dy = room::<E>(padded_rows, hidden, x_ld);
            let mut x_row = vec![0f32; hidden];
            for row in 0..count {
                let at = (first_row + row) * hidden;
                add_norm::backward(
                    &grad[at..][..hidden],
                    &saved.norm.normed[at..][..hidden],
                    saved.norm.inverse[first_row + row],
                    &self.output_norm.weight,
                    drop,
                    at as u64,
                    &mut x_row,
                    &mut dx[row * hidden..][..hidden],
                    &mut dy[row * x_ld..][..hidden],
                    &mut sums[row / BLOCK * 3 * hidden..][..3 * hidden],
                );
            }
            let panels_width = intermediate_panels * columns;
            let before = &saved.before[first_row * panels_width..][..count * panels_width];
            let mut dinner = room::<E>(padded_rows, wide, wide_ld);
            let mut again = Buffer::any(count * wide_ld);
            let mut made = Buffer::any(BLOCK.min(count) * columns);
            multiply(&dy, x_ld, count, output_back, |rows, first, products| {
                let panel = Panel::new(products, columns, first, wide);
                let at = rows.start * panels_width + first * rows.len();
                let row = rows.start * wide_ld;
                activate_backward(
                    panel,
                    self.activation,
                    &before[at..][..columns * rows.len()],
                    &mut dinner[row..],
                    &mut again[row..],
                    wide_ld,
                    &mut inner_sums[rows.start / BLOCK * wide..][..wide],
                    &mut made,
                );
            });
            multiply(&dinner, wide_ld, count, intermediate_back, |rows, first, products| {
                let panel = Panel::new(products, columns, first, hidden);
                add_to(panel, &mut dx[rows.start * hidden..], hidden);
            });
            outer.fill(&self.output, count, (&dy, x_ld), (&again, wide_ld));
            let x = &saved.x[first_row * x_ld..];
            inner.fill(&self.intermediate, count, (&dinner, wide_ld), (x, x_ld));
        });
        finish(&self.output, &self.output_norm, &outer_operands, &partial);
        if let Some((weight, bias)) = &self.intermediate.gradients {
            inner_operands.finish(&self.intermediate, weight);
            let mut sums = vec![0f32; wide];
            add_up(&inner_partial, &mut sums);
            bias.put(&sums);
        }
        dx
    }
}
