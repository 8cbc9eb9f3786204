//! Self-attention within each packed sequence, a head and a block of queries at a time.
//!
//! Nothing of a sequence's length squared is kept: the backward pass makes the probabilities again,
//! as in Dao, Fu, Ermon, Rudra and Ré, FlashAttention (2022).

mod backward;
mod rows;

use std::ops::Range;

use self::rows::{Mask, softmax};
use super::element::padded;
use super::gemm::{Blocks, Into, Product, prefetch};
use super::pack::{columns_to_panels, rows_to_panels};
use super::parallel::{for_each, pieces};
use super::{Buffer, Element, Kernel};
use crate::{Dropout, Sequences};

pub use backward::backward;

/// Queries handled at once: their scores against all keys stay in the second cache.
const QUERIES: usize = 64;

/// The shape of the work.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    /// Where sequences begin and end.
    pub sequences: &'a Sequences,
    /// Heads side by side in a row.
    pub heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Dropout of the probabilities.
    pub dropout: Option<Dropout>,
}

impl Shape<'_> {
    fn hidden(&self) -> usize {
        self.heads * self.head_dim
    }

    fn ranges(&self) -> Vec<Range<usize>> {
        self.sequences.ranges().collect()
    }
}

/// qkv `[T, 3·H]` → `[T, H]`.
pub fn forward<E: Element>(qkv: &[E], shape: Shape<'_>) -> Buffer<E> {
    let hidden = shape.hidden();
    let ranges = shape.ranges();
    let mut out = Buffer::any(shape.sequences.tokens() * hidden);
    let tasks = pieces(&mut out, ranges.iter().map(|rows| rows.len() * hidden));
    for_each(tasks, |index, out| {
        let rows = ranges[index].clone();
        if rows.is_empty() {
            return;
        }
        let qkv = &qkv[rows.start * 3 * hidden..rows.end * 3 * hidden];
        let mut head = Head::<E>::new(rows.len(), shape);
        let _held = head.kernel.hold();
        head.fetch(qkv, 0, 0..rows.len());
        for number in 0..shape.heads {
            head.load(qkv, number);
            head.forward(qkv, number, rows.start, out);
        }
    });
    out
}

/// Columns of a head, padded to whole panels.
fn panel_width<E: Element>(kernel: &Kernel<E>, columns: usize) -> usize {
    kernel.panels(columns) * kernel.columns
}

/// One head of one sequence.
struct Head<'a, E: Element> {
    shape: Shape<'a>,
    kernel: Kernel<E>,
    /// The sequence's length.
    n: usize,
    /// The head's columns, padded as the summed dimension.
    depth: usize,
    /// The length, padded as the summed dimension.
    key_depth: usize,
    /// The length, padded to whole panels: columns of a score's row.
    scores_ld: usize,
    /// `[queries, depth]`
    queries: Buffer<E>,
    /// Panels of keysᵀ.
    keys: Buffer<E>,
    /// Panels of values.
    values: Buffer<E>,
    /// `[QUERIES, scores_ld]`
    scores: Buffer<f32>,
    /// `[QUERIES, key_depth]`
    dropped: Buffer<E>,
    /// A block of products with the head's columns.
    product: Buffer<f32>,
}

impl<'a, E: Element> Head<'a, E> {
    fn new(n: usize, shape: Shape<'a>) -> Self {
        let kernel = E::kernel();
        let depth = padded::<E>(shape.head_dim);
        // Rows are transposed sixteen groups at a time.
        let key_depth = n.next_multiple_of(16 * E::GROUP);
        let scores_ld = panel_width(&kernel, n).next_multiple_of(16).max(key_depth);
        let rows = n.next_multiple_of(kernel.rows);
        let block = QUERIES.min(rows);
        let width = panel_width(&kernel, shape.head_dim);
        Self {
            shape,
            kernel,
            n,
            depth,
            key_depth,
            scores_ld,
            // Rows and columns of padding stay zero throughout.
            queries: Buffer::zeros(rows * depth),
            keys: Buffer::any(kernel.panels(n) * kernel.columns * depth),
            values: Buffer::any(width * key_depth),
            scores: Buffer::any(block * scores_ld),
            dropped: Buffer::any(block * key_depth),
            product: Buffer::any(block * width),
        }
    }

    /// Has a head's part of some rows come nearer: each is a line or two in a page of its own, for
    /// which a processor that is not told of it waits.
    fn fetch(&self, qkv: &[E], head: usize, rows: Range<usize>) {
        let (d, hidden) = (self.shape.head_dim, self.shape.hidden());
        for row in rows {
            let qkv = &qkv[row * 3 * hidden + head * d..];
            (0..3).for_each(|part| prefetch(&qkv[part * hidden..][..d]));
        }
    }

    /// The same for the head behind this one, where there is one, during a block of this one's
    /// queries: a part with each block.
    fn fetch_next(&self, qkv: &[E], head: usize, block: &Range<usize>) {
        if head + 1 < self.shape.heads {
            self.fetch(qkv, head + 1, block.clone());
        }
    }

    /// Takes up one head of the sequence's rows.
    fn load(&mut self, qkv: &[E], head: usize) {
        let (d, hidden) = (self.shape.head_dim, self.shape.hidden());
        let at = |part: usize| part * hidden + head * d;
        copy_rows(&qkv[at(0)..], 3 * hidden, d, self.depth, self.n, &mut self.queries);
        let columns = self.kernel.columns;
        let keys = &qkv[at(1)..];
        columns_to_panels(keys, 3 * hidden, self.n, d, self.depth, columns, &mut self.keys);
        let values = &qkv[at(2)..];
        let depth = self.key_depth;
        rows_to_panels(values, 3 * hidden, self.n, d, depth, columns, &mut self.values);
    }

    /// Fills `scores` with a block's probabilities and `dropped` with what is left of them.
    fn probabilities(&mut self, head: usize, first_row: usize, block: &Range<usize>) {
        let rows = block.len().next_multiple_of(self.kernel.rows);
        let product = Product {
            a: &self.queries[block.start * self.depth..],
            lda: self.depth,
            b: &self.keys,
            panel_stride: self.kernel.columns * self.depth,
            depth: self.depth,
            blocks: Blocks::ONE,
            rows,
            panels: self.kernel.panels(self.n),
        };
        self.kernel.multiply(&product, &mut self.scores, self.scores_ld, Into::Replace);
        let mask = Mask {
            dropout: self.shape.dropout,
            head,
            heads: self.shape.heads,
            first_row: first_row + block.start,
        };
        let scale = 1.0 / (self.shape.head_dim as f32).sqrt();
        let scores = &mut self.scores[..block.len() * self.scores_ld];
        softmax(scores, self.scores_ld, self.n, scale, &mask, &mut self.dropped, self.key_depth);
    }

    /// out: the sequence's rows `[queries, H]`.
    fn forward(&mut self, qkv: &[E], head: usize, first_row: usize, out: &mut [E]) {
        let (d, hidden) = (self.shape.head_dim, self.shape.hidden());
        let width = panel_width(&self.kernel, d);
        for start in (0..self.n).step_by(QUERIES) {
            let block = start..(start + QUERIES).min(self.n);
            self.fetch_next(qkv, head, &block);
            self.probabilities(head, first_row, &block);
            let product = Product {
                a: &self.dropped,
                lda: self.key_depth,
                b: &self.values,
                panel_stride: self.kernel.columns * self.key_depth,
                depth: self.key_depth,
                blocks: Blocks::ONE,
                rows: block.len().next_multiple_of(self.kernel.rows),
                panels: self.kernel.panels(d),
            };
            self.kernel.multiply(&product, &mut self.product, width, Into::Replace);
            let out = &mut out[block.start * hidden + head * d..];
            round_columns(&self.product, width, d, block.len(), hidden, out);
        }
    }
}

/// Copies `count` rows of `width`, `ld` apart, to rows of `to_ld`.
fn copy_rows<E: Element>(
    from: &[E],
    ld: usize,
    width: usize,
    to_ld: usize,
    count: usize,
    to: &mut [E],
) {
    for row in 0..count {
        to[row * to_ld..][..width].copy_from_slice(&from[row * ld..][..width]);
    }
}

super::dispatch! {
/// Rounds `count` rows of `width` columns, `ld` apart, to rows `out_ld` apart.
fn round_columns<E: Element>(
    from: &[f32],
    ld: usize,
    width: usize,
    count: usize,
    out_ld: usize,
    out: &mut [E],
) {
    let Some(last) = count.checked_sub(1) else { return };
    if E::round_rows(&from[..last * ld + width], ld, width, out, out_ld) {
        return;
    }
    for row in 0..count {
        let from = &from[row * ld..][..width];
        out[row * out_ld..][..width].iter_mut().zip(from).for_each(|(out, x)| *out = E::new(*x));
    }
}
}
