//! A linear layer's products with its weight: forward and input gradient.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::elementwise::{Panel, store};
use super::packed_weight::{PackedWeight, ProductsIn, WeightPanels};
use crate::cpu::eight_bits::{self, Panels8, Rows8};
use crate::cpu::gemm::{Blocks, Into, Kernel, MOST_COLUMNS, Product, Split, prefetch};
use crate::cpu::pack::{Panels, round_rows};
use crate::cpu::parallel::BLOCK;
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
    /// What its products are computed in.
    pub products_in: ProductsIn,
    /// Where the weight's and the bias's gradients go.
    pub gradients: Option<(GradientSlot, GradientSlot)>,
}

/// A panel's products, from the beginning of a cache line on.
#[repr(align(64))]
struct Products([f32; BLOCK * MOST_COLUMNS]);

/// What multiplies linear layers' operands, made ready for it where it asks for that.
pub(super) fn large_kernel<E: Element>() -> Kernel<E> {
    E::split().map_or_else(E::kernel, |split| split.kernel)
}

/// Computes a block's products with a panel: where to, and from one row to the next there.
type Compute<'a> = dyn FnMut(&mut [f32], usize) + 'a;

/// Multiplies `count` rows, `ld` apart, with panels: each with all rows, block by block, while
/// it is in the first cache. `product` gets the block's rows, the panel's number, and what computes
/// them.
fn each_product<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    panels: &WeightPanels<E>,
    product: impl FnMut(Range<usize>, usize, &mut Compute<'_>),
) {
    match panels {
        WeightPanels::Floats(panels) => each_of_floats(rows, ld, count, panels, product),
        WeightPanels::Integers(panels) => each_of_integers(rows, ld, count, panels, product),
    }
}

/// The part of what lies behind a panel that each block's product is to [`prefetch`]. All runs' tasks
/// read all panels, which are more than a processor's own cache holds: the next one comes from the
/// shared cache behind each block's product, a part each.
fn parts<T>(next: &[T], blocks: usize) -> std::slice::Chunks<'_, T> {
    next.chunks(next.len().div_ceil(blocks.max(1)).max(1))
}

fn each_of_floats<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    panels: &Panels<E>,
    mut product: impl FnMut(Range<usize>, usize, &mut Compute<'_>),
) {
    let (kernel, split) = (large_kernel::<E>(), E::split());
    let _held = kernel.hold();
    let (lda, depth) = match split {
        Some(_) => split_ld(&kernel, panels.depth),
        None => (ld, panels.depth),
    };
    let operands: Vec<_> = row_blocks(count)
        .map(|block| {
            let rows = &rows[block.start * ld..];
            let whole = match &split {
                Some(split) => split_rows(split, (rows, ld), panels.depth, block.len(), lda),
                None => whole_rows(rows, ld, block.len()),
            };
            (whole, block)
        })
        .collect();
    let mut split_panel =
        Buffer::any(split.map_or(0, |_| kernel.operand_len(depth * kernel.columns)));
    for panel in 0..panels.count {
        let next = if panel + 1 < panels.count { panel + 1..panel + 2 } else { 0..0 };
        let next = &panels.data[next.start * panels.stride..next.end * panels.stride];
        let mut parts = parts(next, operands.len());
        let mut b = &panels.data[panel * panels.stride..];
        if let Some(split) = &split {
            split.panel(&b[..panels.stride], &mut split_panel);
            b = &split_panel;
        }
        for (operand, block) in &operands {
            let what = Product {
                a: operand,
                lda,
                b,
                panel_stride: panels.stride,
                depth,
                blocks: Blocks::ONE,
                rows: block.len().next_multiple_of(kernel.rows),
                panels: 1,
            };
            product(block.clone(), panel, &mut |c, ldc| {
                kernel.multiply(&what, c, ldc, Into::Replace);
                prefetch(parts.next().unwrap_or_default());
            });
        }
    }
}

fn each_of_integers<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    panels: &Panels8,
    mut product: impl FnMut(Range<usize>, usize, &mut Compute<'_>),
) {
    let tile = panels.tile();
    let _held = tile.hold();
    let operands: Vec<_> = row_blocks(count)
        .map(|block| {
            let shape = (block.len(), panels.width());
            (Rows8::of(tile, (&rows[block.start * ld..], ld), shape, panels.factors()), block)
        })
        .collect();
    for panel in 0..panels.count {
        let next = if panel + 1 < panels.count { panels.data(panel + 1) } else { &[] };
        let mut parts = parts(next, operands.len());
        for (operand, block) in &operands {
            product(block.clone(), panel, &mut |c, ldc| {
                let product = operand.product(panels, panel);
                eight_bits::multiply(tile, &product, c, ldc, Into::Replace);
                prefetch(parts.next().unwrap_or_default());
            });
        }
    }
}

/// From one split row of so many elements to the next, and their depth.
fn split_ld<E: Element>(kernel: &Kernel<E>, width: usize) -> (usize, usize) {
    let depth = Split::<E>::depth(width);
    (spread::<E>(kernel.operand_len(depth)), depth)
}

/// Rows of `width`, split, with rows of zeros behind them for whole tiles.
fn split_rows<E: Element>(
    split: &Split<E>,
    (rows, ld): (&[E], usize),
    width: usize,
    count: usize,
    lda: usize,
) -> Rows<'static, E> {
    let mut whole = Buffer::any(count.next_multiple_of(split.kernel.rows) * lda);
    let (there, rest) = whole.split_at_mut(count * lda);
    split.rows(&rows[..(count - 1) * ld + width], ld, width, there, lda);
    rest.fill(E::zeroed());
    Rows::Owned(whole)
}

/// Multiplies `count` rows, `ld` apart, with panels. `epilogue` gets a block's rows, the first of a
/// panel's columns, and their products `[rows, columns]`, without bias.
pub fn multiply<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    panels: &WeightPanels<E>,
    mut epilogue: impl FnMut(Range<usize>, usize, &mut [f32]),
) {
    let columns = panels.columns();
    let mut products = Products([0f32; BLOCK * MOST_COLUMNS]);
    let products = &mut products.0;
    each_product(rows, ld, count, panels, |block, panel, compute| {
        compute(products, columns);
        let products = &mut products[..block.len() * columns];
        epilogue(block, panel * columns, products);
    });
}

/// Multiplies `count` rows, `ld` apart, with panels: `[count, outputs]`, and rows behind them for
/// whole tiles, which mean nothing.
pub fn multiplied<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    panels: &WeightPanels<E>,
    outputs: usize,
) -> Buffer<f32> {
    let columns = panels.columns();
    let mut out = Buffer::any(count.next_multiple_of(panels.tile_rows()) * outputs);
    if panels.count() * columns == outputs {
        each_product(rows, ld, count, panels, |block, panel, compute| {
            compute(&mut out[block.start * outputs + panel * columns..], outputs);
        });
    } else {
        multiply(rows, ld, count, panels, |block, first, products| {
            let panel = Panel::new(products, columns, first, outputs);
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
pub(super) fn row_blocks(count: usize) -> impl Iterator<Item = Range<usize>> {
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

/// Columns of an operand's row.
pub fn ld<E: Element>(columns: usize) -> usize {
    padded::<E>(columns)
}

/// Columns of a row of which tiles read sixteen or more at once.
pub fn spread_ld<E: Element>(columns: usize) -> usize {
    spread::<E>(ld::<E>(columns))
}

/// Where the rows of one tile would crowd into few sets of the first cache, they are a line apart
/// more.
fn spread<E>(ld: usize) -> usize {
    let line = 64 / size_of::<E>();
    if ld.is_multiple_of(16 * line) { ld + line } else { ld }
}

/// Room for rows of `width`, `ld` apart, which hold zeros where products read beyond their width.
pub fn room<E: Element>(rows: usize, width: usize, ld: usize) -> Buffer<E> {
    if width == padded::<E>(width) { Buffer::any(rows * ld) } else { Buffer::zeros(rows * ld) }
}
