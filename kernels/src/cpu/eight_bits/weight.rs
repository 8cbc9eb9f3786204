//! A weight as signed integers of 8 bits, in the order in which tiles read it.

use super::{LEAST, MOST_DEPTH, ROUND, Trains};
use crate::cpu::int8::Tile;
use crate::cpu::lanes::range;
use crate::cpu::math::{each, lanes, one_by_one};
use crate::cpu::{Buffer, dispatch, transpose};

/// The largest integer.
const MOST: f32 = 127.0;

/// So many elements of the summed dimension lie together.
const GROUP: usize = 4;

/// A weight's integers for one of its products.
pub struct Panels8 {
    tile: Tile,
    /// `[panels, depth / 4, columns, 4]`
    data: Buffer<i8>,
    /// Of each column the sum of its integers, and its scale.
    sums: Vec<i32>,
    scales: Vec<f32>,
    /// What the summed dimension of the other operand is multiplied by first; empty for nothing.
    factors: Vec<f32>,
    /// How many panels there are.
    pub count: usize,
    /// The summed dimension, padded.
    depth: usize,
    /// The same without padding.
    width: usize,
    trains: Trains,
}

impl Panels8 {
    /// Room for a weight whose `depth` is summed, with factors there or with scales of `columns`.
    pub fn new(depth: usize, columns: usize, with_factors: bool) -> Self {
        assert!(depth <= MOST_DEPTH, "sums of {depth} products do not fit 32 bits");
        let tile = super::tile();
        let (padded, count) = (depth.next_multiple_of(tile.depth), columns.div_ceil(tile.columns));
        let all = count * tile.columns;
        Self {
            tile,
            data: Buffer::zeros(all * padded),
            sums: vec![0; all],
            scales: vec![1.0; all],
            factors: if with_factors { vec![0.0; depth] } else { Vec::new() },
            count,
            depth: padded,
            width: depth,
            trains: Trains::here(),
        }
    }

    /// Columns of a panel.
    pub fn columns(&self) -> usize {
        self.tile.columns
    }

    /// The summed dimension, padded.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The summed dimension.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How it is multiplied.
    pub fn tile(&self) -> &Tile {
        &self.tile
    }

    /// What rows are multiplied by, column by column, before they become integers; empty for
    /// nothing.
    pub fn factors(&self) -> &[f32] {
        &self.factors
    }

    /// A panel's integers.
    pub fn data(&self, panel: usize) -> &[i8] {
        let size = self.depth * self.tile.columns;
        &self.data[panel * size..][..size]
    }

    /// A panel's integers, and its columns' sums and scales.
    pub(super) fn panel(&self, panel: usize) -> (&[i8], &[i32], &[f32]) {
        let columns = panel * self.tile.columns..(panel + 1) * self.tile.columns;
        (self.data(panel), &self.sums[columns.clone()], &self.scales[columns])
    }

    /// The integers of all panels.
    #[cfg(test)]
    pub fn all(&self) -> (&[i8], &[i32], &[f32], &[f32]) {
        (&self.data, &self.sums, &self.scales, &self.factors)
    }

    /// Adds the columns' sums up, of pieces of the summed dimension.
    pub fn add_up(&mut self, pieces: &[i32], columns: usize) {
        self.sums[..columns].fill(0);
        for piece in pieces.chunks_exact(columns.max(1)) {
            self.sums.iter_mut().zip(piece).for_each(|(sum, x)| *sum += x);
        }
    }
}

/// Some rows of a weight `[out, in]`, and where they go. One task's: all that it writes is its own.
pub struct WeightRows8<'a> {
    inputs: usize,
    columns: usize,
    depth: usize,
    /// Whole panels for the forward product, and their columns' sums and scales.
    transposed: &'a mut [i8],
    sums: &'a mut [i32],
    scales: &'a mut [f32],
    /// For the backward product a piece of each panel, the factors, and the sums `[in]` of these
    /// rows; empty where there is none.
    straight: Vec<&'a mut [i8]>,
    factors: &'a mut [f32],
    partial: &'a mut [i32],
    _trains: Trains,
}

/// How many rows of a weight a task packs: whole panels, and whole groups.
pub fn rows_together() -> usize {
    let columns = super::tile().columns;
    48usize.div_ceil(columns) * columns
}

/// A weight's panels in pieces of [`rows_together`]; `partial` is room for each one's sums, `[in]`.
pub fn weight_rows<'a>(
    inputs: usize,
    forward: &'a mut Panels8,
    backward: Option<&'a mut Panels8>,
    partial: &'a mut [i32],
) -> Vec<WeightRows8<'a>> {
    let (columns, rows) = (forward.tile.columns, rows_together());
    let (depth, trains) = (forward.depth, forward.trains);
    let parts = forward.data.chunks_mut((rows * depth).max(1));
    let parts = parts.zip(forward.sums.chunks_mut(rows)).zip(forward.scales.chunks_mut(rows));
    let mut pieces: Vec<_> = parts
        .map(|((transposed, sums), scales)| {
            let (straight, factors, partial) = Default::default();
            WeightRows8 {
                inputs,
                columns,
                depth,
                transposed,
                sums,
                scales,
                straight,
                factors,
                partial,
                _trains: trains,
            }
        })
        .collect();
    if let Some(backward) = backward {
        for panel in backward.data.chunks_mut((backward.depth * columns).max(1)) {
            // What is left over is padding.
            let parts = panel.chunks_mut(rows * columns);
            pieces.iter_mut().zip(parts).for_each(|(piece, part)| piece.straight.push(part));
        }
        let parts = backward.factors.chunks_mut(rows).zip(partial.chunks_mut(inputs.max(1)));
        for (piece, (factors, partial)) in pieces.iter_mut().zip(parts) {
            (piece.factors, piece.partial) = (factors, partial);
        }
    }
    pieces
}

impl WeightRows8<'_> {
    /// Packs the rows.
    pub fn pack(&mut self, weight: &[f32]) {
        let Self { inputs, columns, depth, .. } = *self;
        let count = weight.len() / inputs.max(1);
        // Rows of whole groups of sixteen, and as many rows as there may be.
        let ld = inputs.next_multiple_of(16 * GROUP);
        let mut integers = Buffer::<i8>::zeros(count.next_multiple_of(16) * ld);
        let each = weight.chunks_exact(inputs.max(1)).zip(integers.chunks_exact_mut(ld.max(1)));
        let (scales, sums) = (&mut self.scales[..count], &mut self.sums[..count]);
        for ((weight, integers), (scale, sum)) in each.zip(scales.iter_mut().zip(sums)) {
            quantise(weight, &mut integers[..inputs], scale, sum);
        }
        for (index, panel) in self.transposed.chunks_mut((depth * columns).max(1)).enumerate() {
            let rows = columns.min(count.saturating_sub(index * columns));
            let first = (index * columns * ld).min(integers.len());
            transposed_panel(&integers[first..], ld, rows, depth, columns, panel);
        }
        if self.factors.is_empty() {
            return;
        }
        self.factors.copy_from_slice(&self.scales[..count]);
        self.partial.fill(0);
        for row in integers.chunks_exact(ld.max(1)).take(count) {
            add(row, self.partial);
        }
        for (index, panel) in self.straight.iter_mut().enumerate() {
            straight_panel(
                &integers[index * columns..],
                ld,
                count,
                inputs - index * columns,
                columns,
                panel,
            );
        }
    }
}

dispatch! {
/// A row's integers, their scale and their sum.
fn quantise(weight: &[f32], integers: &mut [i8], scale: &mut f32, sum: &mut i32) {
    let (least, most) = range(weight);
    let most = if most < -least { -least } else { most };
    // No number stays none, nor does an infinite one pass for another.
    let bad = lanes(weight, weight, |x, _| 0.0 * x);
    *sum = 0;
    if most < LEAST {
        *scale = bad;
        integers.fill(0);
        return;
    }
    let inverse = MOST / most;
    *scale = most / MOST + bad;
    let (whole, rest) = weight.as_chunks::<16>();
    let (whole_out, rest_out) = integers.as_chunks_mut::<16>();
    let mut sums = [0i32; 16];
    for (index, (x, out)) in whole.iter().zip(whole_out).enumerate() {
        one_by_one(index);
        *out = each(|i| integer(x[i], inverse));
        sums = each(|i| sums[i] + i32::from(out[i]));
    }
    for (x, out) in rest.iter().zip(rest_out) {
        *out = integer(*x, inverse);
        *sum += i32::from(*out);
    }
    *sum += sums.iter().sum::<i32>();
}
}

#[inline(always)]
fn integer(x: f32, inverse: f32) -> i8 {
    (x * inverse + ROUND).clamp(ROUND - MOST, ROUND + MOST).to_bits() as i8
}

dispatch! {
fn add(row: &[i8], sums: &mut [i32]) {
    sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += i32::from(*x));
}
}

dispatch! {
/// Rows `[rows, depth]`, `ld` apart, as columns of a panel.
fn transposed_panel(
    integers: &[i8],
    ld: usize,
    rows: usize,
    depth: usize,
    columns: usize,
    panel: &mut [i8],
) {
    const SPAN: usize = 16 * GROUP;
    for n0 in (0..rows).step_by(16) {
        let here = 16.min(rows - n0);
        for k0 in (0..depth).step_by(SPAN) {
            let mut tile = [[0u32; 16]; 16];
            for (n, tile) in tile.iter_mut().take(here).enumerate() {
                let row = &integers[(n0 + n) * ld + k0..][..SPAN];
                for (t, four) in tile.iter_mut().zip(row.as_chunks::<GROUP>().0) {
                    *t = u32::from_le_bytes(four.map(|x| x as u8));
                }
            }
            transpose(&mut tile);
            let groups = ((depth - k0) / GROUP).min(16);
            for (k, tile) in tile.iter().take(groups).enumerate() {
                let at = ((k0 / GROUP + k) * columns + n0) * GROUP;
                let bytes: &[i8; SPAN] = bytemuck::cast_ref(tile);
                match panel[at..].first_chunk_mut() {
                    Some(to) if here == 16 => *to = *bytes,
                    _ => panel[at..at + GROUP * here].copy_from_slice(&bytes[..GROUP * here]),
                }
            }
        }
    }
}
}

dispatch! {
/// Rows, `ld` apart, as rows of a panel: of the first `width` columns as many as a panel has.
fn straight_panel(
    integers: &[i8],
    ld: usize,
    count: usize,
    width: usize,
    columns: usize,
    panel: &mut [i8],
) {
    let here = columns.min(width);
    for (index, group) in panel.chunks_exact_mut(columns * GROUP).enumerate() {
        let first = index * GROUP;
        if first >= count {
            break;
        }
        // Behind the last row there are rows of zeros.
        let rows = |k: usize| &integers[(first + k) * ld..][..here];
        let rows = [rows(0), rows(1), rows(2), rows(3)];
        let group = group.as_chunks_mut::<GROUP>().0;
        for (column, to) in group[..here].iter_mut().enumerate() {
            *to = each(|k| rows[k][column]);
        }
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dropout::normal;

    #[test]
    fn weights_are_what_both_forms_say() {
        for (outputs, inputs) in [(1, 1), (5, 70), (33, 16), (96, 64), (130, 31)] {
            let mut weight: Vec<f32> =
                (0..(outputs * inputs) as u64).map(|i| normal(1, i)).collect();
            if outputs > 4 {
                weight[..inputs].fill(0.0);
                weight[inputs..2 * inputs].iter_mut().for_each(|x| *x *= 1e30);
                weight[2 * inputs] = f32::NAN;
                weight[4 * inputs - 1] = f32::INFINITY;
            }
            let mut forward = Panels8::new(inputs, outputs, false);
            let mut backward = Panels8::new(outputs, inputs, true);
            let mut partial = vec![7; outputs.div_ceil(rows_together()) * inputs];
            // Whatever was there before.
            for _ in 0..2 {
                let pieces = weight_rows(inputs, &mut forward, Some(&mut backward), &mut partial);
                let parts = weight.chunks(rows_together() * inputs);
                pieces.into_iter().zip(parts).for_each(|(mut piece, part)| piece.pack(part));
                backward.add_up(&partial, inputs);
            }
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(backward.factors()), bits(&forward.scales[..outputs]));
            let columns = forward.columns();
            let at = |panels: &Panels8, k: usize, column: usize| {
                let in_panel = (k / GROUP * columns + column % columns) * GROUP + k % GROUP;
                i32::from(panels.data(column / columns)[in_panel])
            };
            let mut sums = vec![0; inputs];
            for (output, row) in weight.chunks(inputs).enumerate() {
                let scale = forward.scales[output];
                let integers: Vec<i32> = (0..inputs).map(|k| at(&forward, k, output)).collect();
                assert_eq!(forward.sums[output], integers.iter().sum::<i32>());
                for (k, (q, x)) in integers.iter().zip(row).enumerate() {
                    assert_eq!(*q, at(&backward, output, k), "both have the same integers");
                    sums[k] += q;
                    if outputs > 4 && (2..4).contains(&output) {
                        assert!(!scale.is_finite(), "what is no number stays none");
                    } else {
                        assert!((*q as f32 * scale - x).abs() <= 0.5001 * scale, "{x}: {q}");
                    }
                }
            }
            assert_eq!(&backward.sums[..inputs], sums);
            // Padding is zeros.
            let count = |panels: &Panels8| panels.all().0.iter().filter(|q| **q != 0).count();
            let there = (0..outputs)
                .map(|output| (0..inputs).filter(|k| at(&forward, *k, output) != 0).count());
            let there: usize = there.sum();
            assert!(count(&forward) == there && count(&backward) == there);
        }
    }
}
