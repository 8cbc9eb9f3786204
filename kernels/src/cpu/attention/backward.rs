//! The gradients of queries, keys and values.

use std::ops::Range;

use super::rows::{Mask, scores_backward};
use super::{Head, QUERIES, Shape, copy_rows, panel_width, round_columns};
use crate::cpu::gemm::{Blocks, Into, Product};
use crate::cpu::pack::{columns_to_panels, rows_to_columns, rows_to_panels};
use crate::cpu::parallel::{for_each, pieces};
use crate::cpu::{Buffer, Element, dispatch};

/// The gradient of qkv `[T, 3·H]`, of which `out` `[T, H]` came and has the gradient `grad`.
pub fn backward<E: Element>(qkv: &[E], out: &[E], grad: &[E], shape: Shape<'_>) -> Buffer<E> {
    let hidden = shape.hidden();
    let ranges = shape.ranges();
    let mut dqkv = Buffer::any(qkv.len());
    let tasks = pieces(&mut dqkv, ranges.iter().map(|rows| rows.len() * 3 * hidden));
    for_each(tasks, |index, dqkv| {
        let rows = ranges[index].clone();
        if rows.is_empty() {
            return;
        }
        let here = rows.start * hidden..rows.end * hidden;
        let sequence = Sequence {
            qkv: &qkv[rows.start * 3 * hidden..rows.end * 3 * hidden],
            out: &out[here.clone()],
            grad: &grad[here],
            first_row: rows.start,
        };
        let mut head = Head::<E>::new(rows.len(), shape);
        let _held = head.kernel.hold();
        let mut gradients = Gradients::new(&head);
        head.fetch(sequence.qkv, 0, 0..rows.len());
        for number in 0..shape.heads {
            head.load(sequence.qkv, number);
            gradients.head(&mut head, number, &sequence, dqkv);
        }
    });
    dqkv
}

/// One sequence's rows.
struct Sequence<'a, E> {
    qkv: &'a [E],
    out: &'a [E],
    grad: &'a [E],
    first_row: usize,
}

/// Room for one head's backward pass.
struct Gradients<E: Element> {
    /// A head's columns, padded to whole panels.
    width: usize,
    /// Rows of the transposed operands, padded.
    key_rows: usize,
    /// The output's gradient, `[queries, depth]`.
    grad: Buffer<E>,
    /// Panels of valuesᵀ.
    values_t: Buffer<E>,
    /// Panels of keys.
    keys: Buffer<E>,
    /// Panels of a block of queries, and of the output's gradient.
    block_panels: Buffer<E>,
    /// `[QUERIES, scores_ld]`
    dprobabilities: Buffer<f32>,
    /// `[QUERIES, key_depth]`
    dscores: Buffer<E>,
    /// A block of probabilities, or of scores' gradients, transposed: `[key_rows, QUERIES]`.
    transposed: Buffer<E>,
    /// `[key_rows, width]`
    dkeys: Buffer<f32>,
    /// `[key_rows, width]`
    dvalues: Buffer<f32>,
}

impl<E: Element> Gradients<E> {
    fn new(head: &Head<'_, E>) -> Self {
        let kernel = head.kernel;
        let width = panel_width(&kernel, head.shape.head_dim);
        let key_rows = head.n.next_multiple_of(kernel.rows);
        Self {
            width,
            key_rows,
            grad: Buffer::zeros(head.queries.len()),
            values_t: Buffer::any(head.keys.len()),
            keys: Buffer::any(head.values.len()),
            block_panels: Buffer::any(width * QUERIES),
            dprobabilities: Buffer::any(head.scores.len()),
            dscores: Buffer::any(head.dropped.len()),
            transposed: Buffer::any(key_rows * QUERIES),
            dkeys: Buffer::any(key_rows * width),
            dvalues: Buffer::any(key_rows * width),
        }
    }

    fn head(
        &mut self,
        head: &mut Head<'_, E>,
        number: usize,
        sequence: &Sequence<'_, E>,
        dqkv: &mut [E],
    ) {
        let (d, hidden) = (head.shape.head_dim, head.shape.hidden());
        let at = |part: usize| part * hidden + number * d;
        let columns = head.kernel.columns;
        let values = &sequence.qkv[at(2)..];
        columns_to_panels(values, 3 * hidden, head.n, d, head.depth, columns, &mut self.values_t);
        let keys = &sequence.qkv[at(1)..];
        rows_to_panels(keys, 3 * hidden, head.n, d, head.key_depth, columns, &mut self.keys);
        copy_rows(&sequence.grad[at(0)..], hidden, d, head.depth, head.n, &mut self.grad);
        self.dkeys.fill(0.0);
        self.dvalues.fill(0.0);
        for start in (0..head.n).step_by(QUERIES) {
            let block = start..(start + QUERIES).min(head.n);
            head.fetch_next(sequence.qkv, number, &block);
            self.block(head, number, sequence, &block, dqkv);
        }
        let (dkeys, dvalues) = (&self.dkeys, &self.dvalues);
        round_columns(dkeys, self.width, d, head.n, 3 * hidden, &mut dqkv[at(1)..]);
        round_columns(dvalues, self.width, d, head.n, 3 * hidden, &mut dqkv[at(2)..]);
    }

    fn block(
        &mut self,
        head: &mut Head<'_, E>,
        number: usize,
        sequence: &Sequence<'_, E>,
        block: &Range<usize>,
        dqkv: &mut [E],
    ) {
        let Shape { head_dim: d, heads, dropout, .. } = head.shape;
        let (hidden, kernel) = (head.shape.hidden(), head.kernel);
        head.probabilities(number, sequence.first_row, block);
        let rows = block.len().next_multiple_of(kernel.rows);
        let product = Product {
            a: &self.grad[block.start * head.depth..],
            lda: head.depth,
            b: &self.values_t,
            panel_stride: kernel.columns * head.depth,
            depth: head.depth,
            blocks: Blocks::ONE,
            rows,
            panels: kernel.panels(head.n),
        };
        kernel.multiply(&product, &mut self.dprobabilities, head.scores_ld, Into::Replace);

        let mut along = [0f32; QUERIES];
        let at = block.start * hidden + number * d;
        dots(&sequence.out[at..], &sequence.grad[at..], hidden, d, &mut along[..block.len()]);
        let mask =
            Mask { dropout, head: number, heads, first_row: sequence.first_row + block.start };
        let scale = 1.0 / (d as f32).sqrt();
        let here = block.len() * head.scores_ld;
        scores_backward(
            &head.scores[..here],
            &self.dprobabilities[..here],
            head.scores_ld,
            head.n,
            scale,
            &mask,
            &along,
            &mut self.dscores,
            head.key_depth,
        );

        // Queries: dscores · keys.
        let product = Product {
            a: &self.dscores,
            lda: head.key_depth,
            b: &self.keys,
            panel_stride: kernel.columns * head.key_depth,
            depth: head.key_depth,
            blocks: Blocks::ONE,
            rows,
            panels: kernel.panels(d),
        };
        kernel.multiply(&product, &mut head.product, self.width, Into::Replace);
        let out = &mut dqkv[block.start * 3 * hidden + number * d..];
        round_columns(&head.product, self.width, d, block.len(), 3 * hidden, out);

        // Values: droppedᵀ · grad. Keys: dscoresᵀ · queries.
        let grads = &self.grad[block.start * head.depth..];
        let queries = &head.queries[block.start * head.depth..];
        for (rows, operand, sums) in
            [(&head.dropped, grads, &mut self.dvalues), (&self.dscores, queries, &mut self.dkeys)]
        {
            let depth = block.len().next_multiple_of(16 * E::GROUP);
            let ld = head.key_depth;
            rows_to_columns(rows, ld, block.len(), head.n, depth, &mut self.transposed);
            let panels = &mut self.block_panels[..self.width * depth];
            rows_to_panels(operand, head.depth, block.len(), d, depth, kernel.columns, panels);
            let product = Product {
                a: &self.transposed,
                lda: depth,
                b: panels,
                panel_stride: kernel.columns * depth,
                depth,
                blocks: Blocks::ONE,
                rows: self.key_rows,
                panels: kernel.panels(d),
            };
            kernel.multiply(&product, sums, self.width, Into::Add);
        }
    }
}

dispatch! {
/// The products of rows of `width`, `ld` apart, with one another, summed.
fn dots<E: Element>(x: &[E], y: &[E], ld: usize, width: usize, sums: &mut [f32]) {
    for (row, sum) in sums.iter_mut().enumerate() {
        let (x, y) = (&x[row * ld..][..width], &y[row * ld..][..width]);
        let mut lanes = [0f32; 16];
        for (x, y) in x.chunks(16).zip(y.chunks(16)) {
            lanes.iter_mut().zip(x).zip(y).for_each(|((lane, x), y)| *lane += x.get() * y.get());
        }
        *sum = lanes.iter().sum();
    }
}
}
