//! A linear layer's third product: its weight's gradient.

use super::Linear;
use super::linear::{large_kernel, row_blocks};
use super::packed_weight::ProductsIn;
use crate::cpu::adamw::squares_of;
use crate::cpu::eight_bits::{OperandRun8, Operands8};
use crate::cpu::gemm::{Blocks, Into, Product};
use crate::cpu::pack::{rows_to_columns, rows_to_panels};
use crate::cpu::parallel::{BLOCK, Runs, for_each, pieces, threads};
use crate::cpu::{Buffer, Element};
use crate::gradients::GradientSlot;

/// The operands of a weight's gradient, `gradᵀ · x`, made block by block of rows.
pub enum Operands<E: Element> {
    /// As they are.
    Floats(FloatOperands<E>),
    /// As integers.
    Integers(Operands8),
}

/// A run's part of [`Operands`].
pub enum OperandRun<'a, E> {
    /// Of floats.
    Floats(FloatRun<'a, E>),
    /// Of integers.
    Integers(OperandRun8<'a>),
}

impl<E: Element> Operands<E> {
    /// Room for so many rows.
    pub fn new(rows: usize, linear: &Linear<E>) -> Self {
        let shape = (linear.outputs, linear.inputs);
        match linear.products_in {
            ProductsIn::Floats => Self::Floats(FloatOperands::new(rows, shape)),
            ProductsIn::EightBits => Self::Integers(Operands8::new(rows, shape)),
        }
    }

    /// Each run's part.
    pub fn runs(&mut self, runs: Runs) -> Vec<OperandRun<'_, E>> {
        match self {
            Self::Floats(operands) => {
                operands.runs(runs).into_iter().map(OperandRun::Floats).collect()
            }
            Self::Integers(operands) => {
                operands.runs(runs).into_iter().map(OperandRun::Integers).collect()
            }
        }
    }

    /// Multiplies them and hands the weight's gradient `[out, in]` over.
    pub fn finish(&self, linear: &Linear<E>, slot: &GradientSlot) {
        let shape = (linear.outputs, linear.inputs);
        match self {
            Self::Floats(operands) => {
                let kernel = large_kernel::<E>();
                let how = Multiply {
                    blocks: operands.blocks(),
                    panel_bytes: size_of_val(&*operands.panels),
                    rows: kernel.rows,
                    width: kernel.panels(linear.inputs) * kernel.columns,
                };
                hand_over(slot, shape, how, |first, rows, to, ld, into| {
                    operands.multiply(first, rows, to, ld, into);
                });
            }
            Self::Integers(operands) => {
                let how = Multiply {
                    blocks: operands.blocks(),
                    panel_bytes: operands.panel_bytes(),
                    rows: operands.tile().rows,
                    width: operands.width(),
                };
                hand_over(slot, shape, how, |first, rows, to, ld, into| {
                    operands.multiply(first, rows, to, ld, into);
                });
            }
        }
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
        match self {
            Self::Floats(run) => run.fill(linear, count, (grad, grad_ld), (x, x_ld)),
            Self::Integers(run) => {
                run.fill(count, (grad, grad_ld, linear.outputs), (x, x_ld, linear.inputs));
            }
        }
    }
}

/// What multiplying operands is like.
struct Multiply {
    /// How many blocks of tokens there are.
    blocks: usize,
    /// Bytes of all panels.
    panel_bytes: usize,
    /// Rows of a tile.
    rows: usize,
    /// Columns of all panels.
    width: usize,
}

impl Multiply {
    /// Rows of the gradient that one task computes, which changes none of their bits. Panels that do
    /// not stay in the second cache from one task to the next are better read by few.
    fn rows_together(&self, outputs: usize) -> usize {
        const FEW: usize = 64;
        const MOST: usize = 192;
        const LARGE_BYTES: usize = 1 << 20;
        if self.panel_bytes < LARGE_BYTES {
            return FEW;
        }
        outputs.div_ceil(threads()).next_multiple_of(FEW / 2).clamp(FEW, MOST)
    }
}

/// Hands a weight's gradient `[out, in]` over. `multiply` computes rows from the first on, so many, to
/// where it is told, which are so far apart there.
fn hand_over(
    slot: &GradientSlot,
    (outputs, inputs): (usize, usize),
    how: Multiply,
    multiply: impl Fn(usize, usize, &mut [f32], usize, Into) + Sync,
) {
    let (rows_together, width) = (how.rows_together(outputs), how.width);
    // The same for all rows, however they are cut: sums that begin with what is there have other bits
    // than those that are added to it.
    let whole = width == inputs && outputs.is_multiple_of(how.rows);
    slot.dense_with_squares(outputs * inputs, outputs, |gradient, squares, into| {
        let starts = (0..outputs).step_by(rows_together);
        let lengths = starts.map(|start| rows_together.min(outputs - start) * inputs);
        let tasks = pieces(gradient, lengths).into_iter().zip(squares.chunks_mut(rows_together));
        for_each(tasks.collect(), |index, (gradient, squares): (&mut [f32], &mut [f64])| {
            let (first, rows) = (index * rows_together, squares.len());
            let padded_rows = rows.next_multiple_of(how.rows);
            if how.blocks == 0 {
                if into == Into::Replace {
                    gradient.fill(0.0);
                }
            } else if whole {
                multiply(first, rows, gradient, inputs, into);
            } else {
                let mut scratch = Buffer::<f32>::any(padded_rows * width);
                multiply(first, padded_rows, &mut scratch, width, Into::Replace);
                for (row, from) in gradient.chunks_exact_mut(inputs).zip(scratch.chunks(width)) {
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

/// Operands of floats.
pub struct FloatOperands<E: Element> {
    /// For each block, the gradient transposed: `[outputs, ld]`, rows for whole tiles.
    columns: Buffer<E>,
    columns_size: usize,
    /// From one of its rows to the next.
    ld: usize,
    /// For each block, panels of x.
    panels: Buffer<E>,
    panels_size: usize,
}

/// A run's part of [`FloatOperands`].
pub struct FloatRun<'a, E> {
    columns: &'a mut [E],
    columns_size: usize,
    panels: &'a mut [E],
    panels_size: usize,
}

impl<E: Element> FloatOperands<E> {
    fn new(rows: usize, (outputs, inputs): (usize, usize)) -> Self {
        let kernel = large_kernel::<E>();
        let blocks = rows.div_ceil(BLOCK);
        let ld = kernel.operand_len(BLOCK);
        let columns_size = outputs.next_multiple_of(kernel.rows) * ld;
        let panels_size = kernel.panels(inputs) * kernel.columns * ld;
        Self {
            columns: Buffer::any(blocks * columns_size),
            columns_size,
            ld,
            panels: Buffer::any(blocks * panels_size),
            panels_size,
        }
    }

    fn runs(&mut self, runs: Runs) -> Vec<FloatRun<'_, E>> {
        let (columns_size, panels_size) = (self.columns_size, self.panels_size);
        let columns = runs.cut_blocks(&mut self.columns, columns_size);
        let panels = runs.cut_blocks(&mut self.panels, panels_size);
        columns
            .into_iter()
            .zip(panels)
            .map(|(columns, panels)| FloatRun { columns, columns_size, panels, panels_size })
            .collect()
    }

    fn blocks(&self) -> usize {
        self.columns.len() / self.columns_size.max(1)
    }

    /// See [`hand_over`].
    fn multiply(&self, first_row: usize, rows: usize, to: &mut [f32], ld: usize, into: Into) {
        let (kernel, count) = (large_kernel::<E>(), self.blocks());
        // So much of a panel stays in the first cache from one tile's rows to the next one's.
        const PANEL_BYTES: usize = 28 << 10;
        let panel = self.ld * kernel.columns;
        let blocks_together = (PANEL_BYTES / (panel * size_of::<E>())).max(1);
        let _held = kernel.hold();
        for column in 0..self.panels_size / panel {
            for first in (0..count).step_by(blocks_together) {
                let product = Product {
                    a: &self.columns[first * self.columns_size + first_row * self.ld..],
                    lda: self.ld,
                    b: &self.panels[first * self.panels_size + column * panel..],
                    panel_stride: panel,
                    depth: BLOCK,
                    blocks: Blocks {
                        count: blocks_together.min(count - first),
                        a_stride: self.columns_size,
                        b_stride: self.panels_size,
                    },
                    rows,
                    panels: 1,
                };
                let into = if first == 0 { into } else { Into::Add };
                kernel.multiply(&product, &mut to[column * kernel.columns..], ld, into);
            }
        }
    }
}

impl<E: Element> FloatRun<'_, E> {
    fn fill(
        &mut self,
        linear: &Linear<E>,
        count: usize,
        (grad, grad_ld): (&[E], usize),
        (x, x_ld): (&[E], usize),
    ) {
        let (kernel, split) = (large_kernel::<E>(), E::split());
        let panels = kernel.panels(linear.inputs) * kernel.columns * BLOCK;
        let mut unsplit = split.map(|_| (Buffer::any(linear.outputs * BLOCK), Buffer::any(panels)));
        let parts = self.columns.chunks_exact_mut(self.columns_size.max(1));
        let parts = parts.zip(self.panels.chunks_exact_mut(self.panels_size.max(1)));
        for (rows, (to_columns, to_panels)) in row_blocks(count).zip(parts) {
            let (grad, x) = (&grad[rows.start * grad_ld..], &x[rows.start * x_ld..]);
            let pack = |columns: &mut [E], panels: &mut [E]| {
                rows_to_columns(grad, grad_ld, rows.len(), linear.outputs, BLOCK, columns);
                let width = kernel.columns;
                rows_to_panels(x, x_ld, rows.len(), linear.inputs, BLOCK, width, panels);
            };
            let (Some(split), Some((columns, panels))) = (&split, &mut unsplit) else {
                pack(to_columns, to_panels);
                continue;
            };
            pack(columns, panels);
            split.rows(columns, BLOCK, BLOCK, to_columns, kernel.operand_len(BLOCK));
            let size = BLOCK * kernel.columns;
            let to_panels = to_panels.chunks_exact_mut(kernel.operand_len(size));
            let panels = panels.chunks_exact(size).zip(to_panels);
            panels.for_each(|(panel, out)| split.panel(panel, out));
        }
    }
}
