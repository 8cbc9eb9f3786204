//! A linear layer's three products: forward, input gradient, weight gradient.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::elementwise::{Panel, store};
use super::packed_weight::PackedWeight;
use crate::cpu::adamw::squares_of;
use crate::cpu::gemm::{Blocks, Into, MOST_COLUMNS, Product, prefetch};
use crate::cpu::pack::{Panels, round_rows, rows_to_columns, rows_to_panels};
use crate::cpu::parallel::{BLOCK, Runs, for_each, pieces, threads};
use crate::cpu::{Buffer, Element, element::padded};
use crate::gradients::GradientSlot;

/// A linear layer, packed.
pub struct Linear<E: Element> {
    /// Columns in.
    pub inputs: usize,
    /// Columns out.
    pub outputs: usize,
    /// `[out]`
    pub bias: Vec<f32>,
    /// The weight.
    pub weight: Arc<PackedWeight<E>>,
    /// Where the weight's and the bias's gradients go.
    pub gradients: Option<(GradientSlot, GradientSlot)>,
}

/// A panel's products, from the beginning of a cache line on.
#[repr(align(64))]
struct Products([f32; BLOCK * MOST_COLUMNS]);

/// Multiplies `count` rows, `ld` apart, with some panels: each with all rows, block by block, while
/// it is in the first cache. `product` gets the block's rows, the panel's number, what to compute, and
/// what to [`prefetch`] then.
fn each_product<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    panels: &Panels<E>,
    part: Range<usize>,
    mut product: impl FnMut(Range<usize>, usize, &Product<'_, E>, &[E]),
) {
    let kernel = E::kernel();
    let _held = kernel.hold();
    let operands: Vec<_> = row_blocks(count)
        .map(|block| (whole_rows(&rows[block.start * ld..], ld, block.len()), block))
        .collect();
    for panel in part.clone() {
        // All runs' tasks read all panels, which are more than a processor's own cache holds: the
        // next one comes from the shared cache behind each block's product, a part each.
        let next = if panel + 1 < part.end { panel + 1..panel + 2 } else { 0..0 };
        let next = &panels.data[next.start * panels.stride..next.end * panels.stride];
        let mut parts = next.chunks(next.len().div_ceil(operands.len().max(1)).max(1));
        for (operand, block) in &operands {
            let what = Product {
                a: operand,
                lda: ld,
                b: &panels.data[panel * panels.stride..],
                panel_stride: panels.stride,
                depth: panels.depth,
                blocks: Blocks::ONE,
                rows: block.len().next_multiple_of(kernel.rows),
                panels: 1,
            };
            product(block.clone(), panel, &what, parts.next().unwrap_or_default());
        }
    }
}

/// Multiplies `count` rows, `ld` apart, with panels. `epilogue` gets a block's rows, the first of a
/// panel's columns, and their products `[rows, columns]`, without bias.
pub fn multiply<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    panels: &Panels<E>,
    epilogue: impl FnMut(Range<usize>, usize, &mut [f32]),
) {
    multiply_part(rows, ld, count, (panels, 0..panels.count), epilogue);
}

/// The same with some of the panels.
pub fn multiply_part<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    (panels, part): (&Panels<E>, Range<usize>),
    mut epilogue: impl FnMut(Range<usize>, usize, &mut [f32]),
) {
    let kernel = E::kernel();
    let mut products = Products([0f32; BLOCK * MOST_COLUMNS]);
    let products = &mut products.0;
    each_product(rows, ld, count, panels, part, |block, panel, product, next| {
        kernel.multiply(product, products, kernel.columns, Into::Replace);
        prefetch(next);
        let products = &mut products[..block.len() * kernel.columns];
        epilogue(block, panel * kernel.columns, products);
    });
}

/// Multiplies `count` rows, `ld` apart, with panels: `[count, outputs]`, and rows behind them for
/// whole tiles, which mean nothing.
pub fn multiplied<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    panels: &Panels<E>,
    outputs: usize,
) -> Buffer<f32> {
    let kernel = E::kernel();
    let mut out = Buffer::any(count.next_multiple_of(kernel.rows) * outputs);
    if panels.count * kernel.columns == outputs {
        each_product(rows, ld, count, panels, 0..panels.count, |block, panel, product, next| {
            let out = &mut out[block.start * outputs + panel * kernel.columns..];
            kernel.multiply(product, out, outputs, Into::Replace);
            prefetch(next);
        });
    } else {
        multiply(rows, ld, count, panels, |block, first, products| {
            let panel = Panel::new(products, kernel.columns, first, outputs);
            store(panel, &mut out[block.start * outputs..], outputs);
        });
    }
    out
}

/// Rows of floats `[count, width]` as [`multiply`] reads them, [`ld`] apart: rounded, into `kept`
/// where the backward pass reads them too.
pub fn operand<'a, E: Element>(
    x: &'a [f32],
    width: usize,
    kept: Option<&'a mut [E]>,
) -> Rows<'a, E> {
    let x_ld = ld::<E>(width);
    match kept {
        Some(kept) => {
            round_rows(x, width, x_ld, kept);
            Rows::Borrowed(kept)
        }
        None => {
            if let Some(x) = E::exactly(x).filter(|_| x_ld == width) {
                return Rows::Borrowed(x);
            }
            let mut rounded = room(x.len() / width.max(1), width, x_ld);
            round_rows(x, width, x_ld, &mut rounded);
            Rows::Owned(rounded)
        }
    }
}

/// The blocks of so many rows.
fn row_blocks(count: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(BLOCK).map(move |start| start..(start + BLOCK).min(count))
}

/// Rows that a kernel may read: with rows of zeros behind them where their number asks for it.
fn whole_rows<E: Element>(rows: &[E], ld: usize, count: usize) -> Rows<'_, E> {
    let padded_rows = count.next_multiple_of(E::kernel().rows);
    if rows.len() >= padded_rows * ld {
        return Rows::Borrowed(rows);
    }
    let mut whole = Buffer::any(padded_rows * ld);
    whole[..count * ld].copy_from_slice(&rows[..count * ld]);
    whole[count * ld..].fill(E::zeroed());
    Rows::Owned(whole)
}

/// Rows where they are, or a copy with padding.
pub enum Rows<'a, E: Element> {
    /// Where they are.
    Borrowed(&'a [E]),
    /// With padding.
    Owned(Buffer<E>),
}

impl<E: Element> Deref for Rows<'_, E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        match self {
            Self::Borrowed(rows) => rows,
            Self::Owned(rows) => rows,
        }
    }
}

/// The operands of a weight's gradient, `gradᵀ · x`, made block by block of rows.
pub struct Operands<E: Element> {
    /// For each block, the gradient transposed: `[outputs, BLOCK]`.
    columns: Buffer<E>,
    columns_size: usize,
    /// For each block, panels of x.
    panels: Buffer<E>,
    panels_size: usize,
    outputs: usize,
    inputs: usize,
}

/// A run's part of [`Operands`].
pub struct OperandRun<'a, E> {
    columns: &'a mut [E],
    columns_size: usize,
    panels: &'a mut [E],
    panels_size: usize,
}

impl<E: Element> Operands<E> {
    /// Room for so many rows.
    pub fn new(rows: usize, linear: &Linear<E>) -> Self {
        let kernel = E::kernel();
        let blocks = rows.div_ceil(BLOCK);
        let columns_size = linear.outputs.next_multiple_of(kernel.rows) * BLOCK;
        let panels_size = kernel.panels(linear.inputs) * kernel.columns * BLOCK;
        Self {
            columns: Buffer::any(blocks * columns_size),
            columns_size,
            panels: Buffer::any(blocks * panels_size),
            panels_size,
            outputs: linear.outputs,
            inputs: linear.inputs,
        }
    }

    /// Each run's part.
    pub fn runs(&mut self, runs: Runs) -> Vec<OperandRun<'_, E>> {
        let (columns_size, panels_size) = (self.columns_size, self.panels_size);
        let columns = runs.cut_blocks(&mut self.columns, columns_size);
        let panels = runs.cut_blocks(&mut self.panels, panels_size);
        columns
            .into_iter()
            .zip(panels)
            .map(|(columns, panels)| OperandRun { columns, columns_size, panels, panels_size })
            .collect()
    }

    /// Rows of the gradient that one task computes, which changes none of their bits. Panels that do
    /// not stay in the second cache from one task to the next are better read by few.
    fn rows_together(&self) -> usize {
        const FEW: usize = 64;
        const MOST: usize = 192;
        const LARGE_BYTES: usize = 1 << 20;
        if size_of_val(&*self.panels) < LARGE_BYTES {
            return FEW;
        }
        self.outputs.div_ceil(threads()).next_multiple_of(FEW / 2).clamp(FEW, MOST)
    }

    /// Multiplies them and hands the weight's gradient `[out, in]` over.
    pub fn finish(&self, slot: &GradientSlot) {
        let kernel = E::kernel();
        let (inputs, width) = (self.inputs, kernel.panels(self.inputs) * kernel.columns);
        let rows_together = self.rows_together();
        let count = self.columns.len() / self.columns_size.max(1);
        // So much of a panel stays in the first cache from one tile's rows to the next one's.
        const PANEL_BYTES: usize = 28 << 10;
        let panel = BLOCK * kernel.columns;
        let blocks_together = (PANEL_BYTES / (panel * size_of::<E>())).max(1);
        let size = self.outputs * inputs;
        slot.dense_with_squares(size, self.outputs, |gradient, squares, into| {
            let starts = (0..self.outputs).step_by(rows_together);
            let lengths = starts.map(|start| rows_together.min(self.outputs - start) * inputs);
            let tasks =
                pieces(gradient, lengths).into_iter().zip(squares.chunks_mut(rows_together));
            for_each(tasks.collect(), |index, (gradient, squares): (&mut [f32], &mut [f64])| {
                let rows = squares.len();
                let padded_rows = rows.next_multiple_of(kernel.rows);
                let multiply = |to: &mut [f32], ld: usize, into: Into| {
                    let _held = kernel.hold();
                    for column in 0..kernel.panels(inputs) {
                        for first in (0..count).step_by(blocks_together) {
                            let product = Product {
                                a: &self.columns
                                    [first * self.columns_size + index * rows_together * BLOCK..],
                                lda: BLOCK,
                                b: &self.panels[first * self.panels_size + column * panel..],
                                panel_stride: panel,
                                depth: BLOCK,
                                blocks: Blocks {
                                    count: blocks_together.min(count - first),
                                    a_stride: self.columns_size,
                                    b_stride: self.panels_size,
                                },
                                rows: padded_rows,
                                panels: 1,
                            };
                            let into = if first == 0 { into } else { Into::Add };
                            kernel.multiply(&product, &mut to[column * kernel.columns..], ld, into);
                        }
                    }
                };
                if count == 0 {
                    if into == Into::Replace {
                        gradient.fill(0.0);
                    }
                } else if width == inputs && padded_rows == rows {
                    multiply(gradient, inputs, into);
                } else {
                    let mut scratch = Buffer::<f32>::any(padded_rows * width);
                    multiply(&mut scratch, width, Into::Replace);
                    for (row, from) in gradient.chunks_exact_mut(inputs).zip(scratch.chunks(width))
                    {
                        match into {
                            Into::Replace => row.copy_from_slice(&from[..inputs]),
                            Into::Add => row.iter_mut().zip(from).for_each(|(sum, x)| *sum += x),
                        }
                    }
                }
                // While the rows are at hand.
                for (row, square) in gradient.chunks_exact(inputs).zip(squares) {
                    *square = squares_of(row);
                }
            });
        });
    }
}

impl<E: Element> OperandRun<'_, E> {
    /// Takes up a run's rows of the gradient, `grad_ld` apart, and of the input, `x_ld` apart.
    pub fn fill(
        &mut self,
        linear: &Linear<E>,
        count: usize,
        (grad, grad_ld): (&[E], usize),
        (x, x_ld): (&[E], usize),
    ) {
        let columns = E::kernel().columns;
        let parts = self.columns.chunks_exact_mut(self.columns_size.max(1));
        let parts = parts.zip(self.panels.chunks_exact_mut(self.panels_size.max(1)));
        for (rows, (to_columns, to_panels)) in row_blocks(count).zip(parts) {
            let (grad, x) = (&grad[rows.start * grad_ld..], &x[rows.start * x_ld..]);
            rows_to_columns(grad, grad_ld, rows.len(), linear.outputs, BLOCK, to_columns);
            rows_to_panels(x, x_ld, rows.len(), linear.inputs, BLOCK, columns, to_panels);
        }
    }
}

/// Columns of an operand's row.
pub fn ld<E: Element>(columns: usize) -> usize {
    padded::<E>(columns)
}

/// Columns of a row of which tiles read sixteen or more at once: where the rows of one tile would
/// crowd into few sets of the first cache, they are a line apart more.
pub fn spread_ld<E: Element>(columns: usize) -> usize {
    const LINE_BYTES: usize = 64;
    let (ld, line) = (ld::<E>(columns), LINE_BYTES / size_of::<E>());
    if ld.is_multiple_of(16 * line) { ld + line } else { ld }
}

/// Room for rows of `width`, `ld` apart, which hold zeros where products read beyond their width.
pub fn room<E: Element>(rows: usize, width: usize, ld: usize) -> Buffer<E> {
    if width == padded::<E>(width) { Buffer::any(rows * ld) } else { Buffer::zeros(rows * ld) }
}
