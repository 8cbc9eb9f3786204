//! Operands put in the order in which [`super::gemm`] reads them.

use super::element::padded;
use super::{Buffer, Element, dispatch, transpose};

/// A weight's panels, made once a step.
#[derive(Debug)]
pub struct Panels<E: Element> {
    /// One panel behind the other.
    pub data: Buffer<E>,
    /// Elements of a panel.
    pub stride: usize,
    /// How many there are.
    pub count: usize,
    /// The summed dimension, padded.
    pub depth: usize,
}

impl<E: Element> Panels<E> {
    /// Room for a B of so many rows and columns, with zeros in its padding.
    pub fn new(depth: usize, columns: usize) -> Self {
        let kernel = E::kernel();
        let (padded, count) = (padded::<E>(depth), kernel.panels(columns));
        let stride = padded * kernel.columns;
        let whole = columns.is_multiple_of(kernel.columns) && padded == depth;
        let len = count * stride;
        let data = if whole { Buffer::any(len) } else { Buffer::zeros(len) };
        Self { data, stride, count, depth: padded }
    }
}

/// Some rows of a weight `[out, in]`, and where they go in its panels. One task's: all that it
/// writes is its own.
pub struct WeightRows<'a, E> {
    inputs: usize,
    /// For products with the weight's transpose, as in the forward pass: whole panels.
    transposed: &'a mut [E],
    /// For products with the weight itself, as in the backward pass: a piece of each panel.
    straight: Vec<&'a mut [E]>,
}

/// How many rows of a weight a task packs.
pub fn rows_together<E: Element>() -> usize {
    let columns = E::kernel().columns;
    32usize.div_ceil(columns) * columns
}

/// A weight's panels in pieces of [`rows_together`].
pub fn weight_rows<'a, E: Element>(
    inputs: usize,
    transposed: &'a mut Panels<E>,
    straight: Option<&'a mut Panels<E>>,
) -> Vec<WeightRows<'a, E>> {
    let (columns, rows) = (E::kernel().columns, rows_together::<E>());
    let size = rows / columns * transposed.stride.max(1);
    let mut pieces: Vec<_> = transposed
        .data
        .chunks_mut(size)
        .map(|transposed| WeightRows { inputs, transposed, straight: Vec::new() })
        .collect();
    if let Some(straight) = straight {
        for panel in straight.data.chunks_mut(straight.stride.max(1)) {
            // What is left over is padding.
            let parts = panel.chunks_mut(rows * columns);
            pieces.iter_mut().zip(parts).for_each(|(piece, part)| piece.straight.push(part));
        }
    }
    pieces
}

impl<E: Element> WeightRows<'_, E> {
    /// Packs the rows.
    pub fn pack(&mut self, weight: &[f32]) {
        let columns = E::kernel().columns;
        straight_rows(weight, self.inputs, columns, &mut self.straight);
        let shape = (weight.len() / self.inputs.max(1), self.inputs);
        let panel = padded::<E>(self.inputs) * columns;
        for (index, panel) in self.transposed.chunks_mut(panel.max(1)).enumerate() {
            transposed_panel(weight, shape, index * columns, columns, panel);
        }
    }
}

dispatch! {
/// Rows `[rows, width]`, and a piece of each panel for them.
fn straight_rows<E: Element>(
    weight: &[f32],
    width: usize,
    columns: usize,
    panels: &mut [&mut [E]],
) {
    for (index, panel) in panels.iter_mut().enumerate() {
        let first = index * columns;
        let here = columns.min(width - first);
        let groups = panel.chunks_exact_mut(columns * E::GROUP);
        for (group, pair) in groups.zip(weight.chunks(E::GROUP * width)) {
            let (row0, row1) = pair.split_at(width);
            let group = &mut group[..here * E::GROUP];
            let row0 = &row0[first..first + here];
            if E::GROUP == 1 {
                group.iter_mut().zip(row0).for_each(|(to, x)| *to = E::new(*x));
            } else if row1.len() == width {
                let row1 = &row1[first..first + here];
                for ((to, x), y) in group.chunks_exact_mut(2).zip(row0).zip(row1) {
                    to[0] = E::new(*x);
                    to[1] = E::new(*y);
                }
            } else {
                group.chunks_exact_mut(2).zip(row0).for_each(|(to, x)| to[0] = E::new(*x));
            }
        }
    }
}
}

dispatch! {
fn transposed_panel<E: Element>(
    weight: &[f32],
    shape: (usize, usize),
    first: usize,
    columns: usize,
    panel: &mut [E],
) {
    let (outputs, depth) = shape;
    let span = 16 * E::GROUP;
    for n0 in (first..(first + columns).min(outputs)).step_by(16) {
        let rows = 16.min(columns - (n0 - first)).min(outputs - n0);
        for k0 in (0..depth).step_by(span) {
            let mut tile = [[0u32; 16]; 16];
            for (n, tile) in tile.iter_mut().take(rows).enumerate() {
                let row = &weight[(n0 + n) * depth..][k0..(k0 + span).min(depth)];
                if E::GROUP == 1 {
                    tile.iter_mut().zip(row).for_each(|(t, x)| *t = x.to_bits());
                } else if row.len() == span {
                    for (t, pair) in tile.iter_mut().zip(row.chunks_exact(2)) {
                        *t = E::new(pair[0]).bits() | E::new(pair[1]).bits() << 16;
                    }
                } else {
                    for (t, pair) in tile.iter_mut().zip(row.chunks(2)) {
                        let second = pair.get(1).map_or(0, |x| E::new(*x).bits());
                        *t = E::new(pair[0]).bits() | second << 16;
                    }
                }
            }
            transpose(&mut tile);
            let width = rows * E::GROUP;
            let groups = (depth - k0).div_ceil(E::GROUP).min(16);
            for (k, tile) in tile.iter().take(groups).enumerate() {
                let at = ((k0 / E::GROUP + k) * columns + n0 - first) * E::GROUP;
                let bytes: &[E] = bytemuck::cast_slice(tile);
                panel[at..at + width].copy_from_slice(&bytes[..width]);
            }
        }
    }
}
}

dispatch! {
/// Rows as panels of B, summed over the rows: rows `[count, width]`, `ld` apart →
/// `[panels, depth / GROUP, columns, GROUP]`, zeros where there is no row or column.
pub fn rows_to_panels<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    width: usize,
    depth: usize,
    columns: usize,
    out: &mut [E],
) {
    for (index, panel) in out.chunks_exact_mut(depth * columns).enumerate() {
        let first = index * columns;
        let here = columns.min(width - first);
        if here < columns || count < depth {
            panel.fill(E::zeroed());
        }
        for (g, group) in panel.chunks_exact_mut(columns * E::GROUP).enumerate() {
            let row = g * E::GROUP;
            if row >= count {
                break;
            }
            let row0 = &rows[row * ld + first..][..here];
            if E::GROUP == 1 {
                group[..here].copy_from_slice(row0);
            } else if row + 1 < count {
                let row1 = &rows[(row + 1) * ld + first..][..here];
                for ((pair, x), y) in group.chunks_exact_mut(2).zip(row0).zip(row1) {
                    pair[0] = *x;
                    pair[1] = *y;
                }
            } else {
                group.chunks_exact_mut(2).zip(row0).for_each(|(pair, x)| pair[0] = *x);
            }
        }
    }
}
}

dispatch! {
/// Rows as columns of B: rows `[count, width]`, `ld` apart → `[panels, depth / GROUP, columns,
/// GROUP]`, zeros where there is none.
pub fn columns_to_panels<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    width: usize,
    depth: usize,
    columns: usize,
    out: &mut [E],
) {
    let span = 16 * E::GROUP;
    if width < depth || !count.is_multiple_of(columns) {
        out.fill(E::zeroed());
    }
    for (index, panel) in out.chunks_exact_mut(depth * columns).enumerate() {
        let first = index * columns;
        let end = (first + columns).min(count);
        for n0 in (first..end).step_by(16) {
            let here = 16.min(end - n0);
            for k0 in (0..width).step_by(span) {
                let mut tile = [[0u32; 16]; 16];
                for (n, tile) in tile.iter_mut().take(here).enumerate() {
                    let row = &rows[(n0 + n) * ld..][k0..(k0 + span).min(width)];
                    if E::GROUP == 1 {
                        tile.iter_mut().zip(row).for_each(|(t, x)| *t = x.bits());
                    } else if row.len() == span {
                        for (t, pair) in tile.iter_mut().zip(row.chunks_exact(2)) {
                            *t = pair[0].bits() | pair[1].bits() << 16;
                        }
                    } else {
                        for (t, pair) in tile.iter_mut().zip(row.chunks(2)) {
                            let second = pair.get(1).map_or(0, |x| x.bits());
                            *t = pair[0].bits() | second << 16;
                        }
                    }
                }
                transpose(&mut tile);
                let groups = (width - k0).div_ceil(E::GROUP).min(16);
                for (k, tile) in tile.iter().take(groups).enumerate() {
                    let at = ((k0 / E::GROUP + k) * columns + n0 - first) * E::GROUP;
                    let group: &[E] = bytemuck::cast_slice(tile);
                    panel[at..at + here * E::GROUP].copy_from_slice(&group[..here * E::GROUP]);
                }
            }
        }
    }
}
}

dispatch! {
/// Rows, transposed: rows `[count, width]`, `ld` apart → `[width, depth]`, zeros where there is no
/// row. The depth is a multiple of sixteen groups.
pub fn rows_to_columns<E: Element>(
    rows: &[E],
    ld: usize,
    count: usize,
    width: usize,
    depth: usize,
    out: &mut [E],
) {
    let span = 16 * E::GROUP;
    for t0 in (0..depth).step_by(span) {
        for j0 in (0..width).step_by(16) {
            let here = 16.min(width - j0);
            let mut tile = [[0u32; 16]; 16];
            for (g, tile) in tile.iter_mut().enumerate() {
                let t = t0 + g * E::GROUP;
                if t >= count {
                    break;
                }
                let row0 = &rows[t * ld + j0..][..here];
                tile.iter_mut().zip(row0).for_each(|(tile, x)| *tile = x.bits());
                if E::GROUP == 2 && t + 1 < count {
                    let row1 = &rows[(t + 1) * ld + j0..][..here];
                    tile.iter_mut().zip(row1).for_each(|(tile, x)| *tile |= x.bits() << 16);
                }
            }
            transpose(&mut tile);
            for (j, tile) in tile.iter().take(here).enumerate() {
                let column: &[E] = bytemuck::cast_slice(tile);
                out[(j0 + j) * depth + t0..][..span].copy_from_slice(column);
            }
        }
    }
}
}

dispatch! {
/// f32 rows `[count, width]` rounded to E, `ld` apart; what lies beyond the width is left.
pub fn round_rows<E: Element>(rows: &[f32], width: usize, ld: usize, out: &mut [E]) {
    if E::round_rows(rows, width, width, out, ld) {
        return;
    }
    for (row, out) in rows.chunks_exact(width).zip(out.chunks_mut(ld)) {
        out.iter_mut().zip(row).for_each(|(out, x)| *out = E::new(*x));
    }
}
}

#[cfg(test)]
mod tests;
