//! The operands of a weight's gradient, `gradᵀ · x`, as integers of 8 bits.

use super::product::{Product, Zeros, multiply};
use super::{LEAST, ROUND};
use crate::cpu::gemm::{Blocks, Into};
use crate::cpu::int8::Tile;
use crate::cpu::math::{each, one_by_one};
use crate::cpu::parallel::{BLOCK, Runs};
use crate::cpu::{Buffer, Element, dispatch, transpose};

/// The largest integer.
const MOST: f32 = 127.0;

/// The gradient's zero point, whose integers are unsigned.
const ZERO: u32 = 128;

/// So many tokens lie together.
const GROUP: usize = 4;

/// Such groups in a block: as many as [`transpose`] turns over.
const GROUPS: usize = BLOCK / GROUP;

/// The operands, made block by block of rows. In each block every column has a scale of its own: sums
/// of a block's products are exact, and those of blocks are added in floats.
pub struct Operands8 {
    tile: Tile,
    /// For each block, the gradient transposed: `[outputs, BLOCK]`, rows for whole tiles.
    columns: Buffer<u8>,
    /// Their scales.
    row_scales: Buffer<f32>,
    /// For each block, panels of x.
    panels: Buffer<i8>,
    /// Their columns' scales, and sums times [`ZERO`].
    scales: Buffer<f32>,
    sums: Buffer<i32>,
    /// Outputs and inputs with their padding.
    rows: usize,
    width: usize,
}

/// A run's part of [`Operands8`].
pub struct OperandRun8<'a> {
    columns: &'a mut [u8],
    row_scales: &'a mut [f32],
    panels: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
    panel: usize,
    rows: usize,
    width: usize,
}

impl Operands8 {
    /// Room for so many tokens.
    pub fn new(tokens: usize, (outputs, inputs): (usize, usize)) -> Self {
        let (tile, blocks) = (super::tile(), tokens.div_ceil(BLOCK));
        let (rows, width) =
            (outputs.next_multiple_of(tile.rows), inputs.next_multiple_of(tile.columns));
        Self {
            tile,
            columns: Buffer::any(blocks * rows * BLOCK),
            row_scales: Buffer::any(blocks * rows),
            panels: Buffer::any(blocks * width * BLOCK),
            scales: Buffer::any(blocks * width),
            sums: Buffer::any(blocks * width),
            rows,
            width,
        }
    }

    /// Each run's part.
    pub fn runs(&mut self, runs: Runs) -> Vec<OperandRun8<'_>> {
        let (rows, width, panel) = (self.rows, self.width, self.tile.columns);
        let columns = runs.cut_blocks(&mut self.columns, rows * BLOCK).into_iter();
        let columns = columns.zip(runs.cut_blocks(&mut self.row_scales, rows));
        let panels = runs.cut_blocks(&mut self.panels, width * BLOCK).into_iter();
        let of_panels = runs.cut_blocks(&mut self.scales, width).into_iter();
        let of_panels = of_panels.zip(runs.cut_blocks(&mut self.sums, width));
        let all = columns.zip(panels.zip(of_panels));
        all.map(|((columns, row_scales), (panels, (scales, sums)))| OperandRun8 {
            columns,
            row_scales,
            panels,
            scales,
            sums,
            panel,
            rows,
            width,
        })
        .collect()
    }

    /// How many blocks of tokens there are.
    pub fn blocks(&self) -> usize {
        self.columns.len() / (self.rows * BLOCK).max(1)
    }

    /// How it is multiplied.
    pub fn tile(&self) -> &Tile {
        &self.tile
    }

    /// Bytes of the panels.
    pub fn panel_bytes(&self) -> usize {
        self.panels.len()
    }

    /// Columns with their padding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The gradient's rows from `first` on, `rows` of them for whole tiles: all columns, rows of `to`
    /// `ld` apart.
    pub fn multiply(&self, first: usize, rows: usize, to: &mut [f32], ld: usize, into: Into) {
        // So much of the panels stays in the first cache from one tile's rows to the next one's.
        const PANEL_BYTES: usize = 24 << 10;
        let (count, panel) = (self.blocks(), self.tile.columns);
        let together = (PANEL_BYTES / (panel * BLOCK)).max(1);
        let _held = self.tile.hold();
        for column in (0..self.width).step_by(panel) {
            for block in (0..count).step_by(together) {
                let product = Product {
                    a: (&self.columns[(block * self.rows + first) * BLOCK..], BLOCK),
                    b: &self.panels[(block * self.width + column) * BLOCK..],
                    depth: BLOCK,
                    rows,
                    blocks: Blocks {
                        count: together.min(count - block),
                        a_stride: self.rows * BLOCK,
                        b_stride: self.width * BLOCK,
                    },
                    row_scales: (&self.row_scales[block * self.rows + first..], self.rows),
                    zeros: Zeros::InSums,
                    sums: &self.sums[block * self.width + column..],
                    scales: &self.scales[block * self.width + column..],
                    column_stride: self.width,
                };
                let into = if block == 0 { into } else { Into::Add };
                multiply(&self.tile, &product, &mut to[column..], ld, into);
            }
        }
    }
}

impl OperandRun8<'_> {
    /// Takes up a run's rows of the gradient `[count, outputs]`, `grad_ld` apart, and of the input
    /// `[count, inputs]`, `x_ld` apart.
    pub fn fill<E: Element>(
        &mut self,
        count: usize,
        (grad, grad_ld, outputs): (&[E], usize, usize),
        (x, x_ld, inputs): (&[E], usize, usize),
    ) {
        let (rows, width) = (self.rows.max(1), self.width.max(1));
        let columns = self.columns.chunks_exact_mut(rows * BLOCK);
        let columns = columns.zip(self.row_scales.chunks_exact_mut(rows));
        let panels = self.panels.chunks_exact_mut(width * BLOCK);
        let panels =
            panels.zip(self.scales.chunks_exact_mut(width).zip(self.sums.chunks_exact_mut(width)));
        let blocks = (0..count).step_by(BLOCK).zip(columns.zip(panels));
        for (first, ((columns, row_scales), (panels, (scales, sums)))) in blocks {
            let here = BLOCK.min(count - first);
            let grad = (&grad[first * grad_ld..], grad_ld, outputs);
            to_columns(grad, here, row_scales, bytemuck::cast_slice_mut(columns));
            let x = (&x[first * x_ld..], x_ld, inputs);
            let panels = bytemuck::cast_slice_mut(panels);
            to_panels(x, here, self.panel, (scales, sums), panels);
        }
    }
}

/// Rows, the elements from one to the next, and their width.
type Rows<'a, E> = (&'a [E], usize, usize);

/// Some columns of up to a block of rows as integers.
struct Columns {
    /// Of each group of rows, a byte for each row, with as much added as was asked for.
    groups: [[u32; 16]; GROUPS],
    scales: [f32; 16],
    /// Of the integers without what was added.
    sums: [i32; 16],
}

/// Sixteen numbers of a row from `first` on, zeros behind its end.
#[inline(always)]
fn sixteen<E: Element>((rows, ld, width): Rows<'_, E>, row: usize, first: usize) -> [f32; 16] {
    let row = &rows[row * ld..][..width];
    match row[first..].first_chunk::<16>() {
        Some(whole) => each(|i| whole[i].get()),
        None => each(|i| row.get(first + i).map_or(0.0, |x| x.get())),
    }
}

/// Quantises sixteen columns from `first` on of `count` rows, at most a block; rows that are missing
/// are zeros.
#[inline(always)]
fn quantise<E: Element>(rows: Rows<'_, E>, count: usize, first: usize, zero: u32) -> Columns {
    // As their bits, numbers are ordered by their size, and what is none is beyond them.
    let mut most = [0u32; 16];
    for row in 0..count {
        let x = sixteen(rows, one_by_one(row), first);
        most = each(|i| most[i].max(x[i].to_bits() & (u32::MAX >> 1)));
    }
    let most = most.map(f32::from_bits);
    let inverses = most.map(|most| if most < LEAST { 0.0 } else { MOST / most });
    let shift = ROUND + zero as f32;
    let mut columns =
        Columns { groups: [[0; 16]; GROUPS], scales: most.map(|most| most / MOST), sums: [0; 16] };
    let mut sums = [0u32; 16];
    for (index, group) in columns.groups.iter_mut().enumerate() {
        let first_row = GROUP * one_by_one(index);
        let mut bytes = [[shift.to_bits(); 16]; GROUP];
        for (k, bytes) in bytes.iter_mut().enumerate() {
            if first_row + k < count {
                let x = sixteen(rows, first_row + k, first);
                *bytes = each(|i| (x[i] * inverses[i] + shift).to_bits());
            }
        }
        let [a, b, c, d] = bytes;
        sums = each(|i| {
            let pairs = a[i].wrapping_add(b[i]).wrapping_add(c[i].wrapping_add(d[i]));
            sums[i].wrapping_add(pairs)
        });
        *group = each(|i| (a[i] & 255) | (b[i] & 255) << 8 | (c[i] & 255) << 16 | d[i] << 24);
    }
    let added = shift.to_bits().wrapping_mul(BLOCK as u32);
    columns.sums = sums.map(|sum| sum.wrapping_sub(added) as i32);
    columns
}

/// The first `count` of sixteen: as one vector where they are all of them.
#[inline(always)]
fn copy<T: Copy>(from: &[T; 16], count: usize, to: &mut [T]) {
    match to.first_chunk_mut() {
        Some(to) if count == 16 => *to = *from,
        _ => to[..count].copy_from_slice(&from[..count]),
    }
}

dispatch! {
/// Rows, transposed: of each column a block of unsigned bytes.
fn to_columns<E: Element>(
    rows: Rows<'_, E>,
    count: usize,
    scales: &mut [f32],
    out: &mut [u32],
) {
    let width = rows.2;
    for first in (0..width).step_by(16) {
        let here = 16.min(width - first);
        let mut columns = quantise(rows, count, first, ZERO);
        scales[first..first + here].copy_from_slice(&columns.scales[..here]);
        transpose(&mut columns.groups);
        let out = out[first * GROUPS..].as_chunks_mut::<GROUPS>().0;
        columns.groups.iter().zip(out).take(here).for_each(|(column, out)| *out = *column);
    }
}
}

dispatch! {
/// Rows as panels of signed bytes, summed over the rows, and their columns' scales and sums.
fn to_panels<E: Element>(
    rows: Rows<'_, E>,
    count: usize,
    panel: usize,
    of_columns: (&mut [f32], &mut [i32]),
    out: &mut [u32],
) {
    let (width, together) = (rows.2, panel.min(16));
    let (scales, sums) = of_columns;
    if width < scales.len() {
        scales[width..].fill(0.0);
        sums[width..].fill(0);
        let last = width / panel * panel * GROUPS;
        out[last..].fill(0);
    }
    for first in (0..width).step_by(together) {
        let here = together.min(width - first);
        let columns = quantise(rows, count, first, 0);
        scales[first..first + here].copy_from_slice(&columns.scales[..here]);
        for (to, sum) in sums[first..first + here].iter_mut().zip(&columns.sums) {
            // Of what is no number it may be anything.
            *to = sum.wrapping_mul(ZERO as i32);
        }
        let at = first / panel * panel * GROUPS + first % panel;
        for (group, out) in columns.groups.iter().zip(out[at..].chunks_mut(panel)) {
            copy(group, here, out);
        }
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Bf16;
    use crate::dropout::normal;

    fn check<E: Element>(tokens: usize, (outputs, inputs): (usize, usize)) {
        let (grad_ld, x_ld) = (outputs + 2, inputs + 1);
        let random =
            |seed, n: usize| -> Vec<E> { (0..n as u64).map(|i| E::new(normal(seed, i))).collect() };
        let (mut grad, mut x) = (random(1, tokens * grad_ld), random(2, tokens * x_ld));
        // A column of zeros, and others of other sizes.
        for (row, grad) in grad.chunks_mut(grad_ld).enumerate() {
            grad[0] = E::new(0.0);
            grad[outputs / 2] =
                E::new(grad[outputs / 2].get() * if row < 64 { 1e20 } else { 1e-20 });
        }
        x.chunks_mut(x_ld).for_each(|x| x[inputs / 2] = E::new(x[inputs / 2].get() * 1e-12));
        let mut operands = Operands8::new(tokens, (outputs, inputs));
        let (rows, width) = (operands.rows, operands.width());
        let runs = Runs::of(tokens);
        for (index, mut run) in operands.runs(runs).into_iter().enumerate() {
            let first = runs.row(index);
            let count = runs.row(index + 1) - first;
            let grad = (&grad[first * grad_ld..], grad_ld, outputs);
            run.fill(count, grad, (&x[first * x_ld..], x_ld, inputs));
        }
        for into in [Into::Replace, Into::Add] {
            let mut found = vec![0.5f32; rows * width];
            operands.multiply(0, rows, &mut found, width, into);
            for (output, found) in found.chunks(width).take(outputs).enumerate() {
                for (input, found) in found[..inputs].iter().enumerate() {
                    let (mut sum, mut size) = (0f64, 0f64);
                    for token in 0..tokens {
                        let g = f64::from(grad[token * grad_ld + output].get());
                        let x = f64::from(x[token * x_ld + input].get());
                        (sum, size) = (sum + g * x, size + (g * x).powi(2));
                    }
                    // As much as errors of half a step of both may come to, by chance.
                    let bound = 0.06 * size.sqrt() + 1e-6;
                    sum += if into == Into::Add { 0.5 } else { 0.0 };
                    let error = (f64::from(*found) - sum).abs();
                    assert!(error <= bound, "{output}, {input} of {tokens}: {found} {sum} {bound}");
                }
            }
        }
    }

    #[test]
    fn gradients_are_sums_over_tokens() {
        for (tokens, shape) in
            [(1, (1, 1)), (63, (5, 7)), (64, (48, 48)), (130, (70, 50)), (200, (9, 97))]
        {
            check::<f32>(tokens, shape);
            check::<Bf16>(tokens, shape);
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        for (bad, in_x) in
            [f32::NAN, f32::INFINITY].into_iter().flat_map(|x| [(x, false), (x, true)])
        {
            let (mut grad, mut x) = (vec![1f32; 70 * 3], vec![1f32; 70 * 2]);
            *if in_x { &mut x[66 * 2 + 1] } else { &mut grad[66 * 3 + 1] } = bad;
            let mut operands = Operands8::new(70, (3, 2));
            let runs = Runs::of(70);
            for (index, mut run) in operands.runs(runs).into_iter().enumerate() {
                let (first, last) = (runs.row(index), runs.row(index + 1));
                run.fill(last - first, (&grad[3 * first..], 3, 3), (&x[2 * first..], 2, 2));
            }
            let (rows, width) = (operands.rows, operands.width());
            let mut found = vec![0f32; rows * width];
            operands.multiply(0, rows, &mut found, width, Into::Replace);
            for output in 0..3 {
                for input in 0..2 {
                    let finite = found[output * width + input].is_finite();
                    let expected = if in_x { input != 1 } else { output != 1 };
                    assert_eq!(finite, expected, "{bad} in x: {in_x}; {output}, {input}");
                }
            }
        }
    }
}
