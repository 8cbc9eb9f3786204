//! A weight in panels, and products with it.

use std::ops::Range;

use bytemuck::Zeroable;

use super::rows::QuantizedRows;
use super::spans::{SPAN, fits};
use super::{Panel, Tile};
use crate::cpu::buffer::Line;
use crate::cpu::lanes::{self, Extremes, Finish, Products};

/// Columns whose products are finished together: whole panels of every tile, so that what happens to
/// them runs in long vectors, and few enough that those of 64 rows stay in the first cache.
const STRIP: usize = 96;

/// A quantised weight `[out, in]`, `w = q · scale[out]`, in the order in which tiles read it.
#[derive(Debug)]
pub struct Int8Panels {
    tile: Tile,
    /// `[panels, depth / group, columns, group]`
    data: Vec<Line>,
    /// `[panels, spans]`: whether all sums of a span's products fit 16 bits.
    fits: Vec<bool>,
    spans: usize,
    /// `[out]`, zeros behind them up to a whole panel.
    scales: Vec<f32>,
    /// Of each output the sum of its weights.
    sums: Vec<i32>,
    outputs: usize,
    inputs: usize,
    depth: usize,
    /// `[in]`, or nothing.
    input_factors: Vec<f32>,
}

/// A weight's integers, to be packed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Integers<'a> {
    /// `[out, in]`
    ByOutput(&'a [i8]),
    /// `[in, out]`
    ByInput(&'a [i8]),
}

impl Int8Panels {
    /// Panels of integers `[out, in]`, each with its output's scale. `row` fills in an output's.
    #[cfg(any(test, feature = "checks"))]
    pub(in crate::cpu) fn with(
        tile: Tile,
        mut row: impl FnMut(usize, &mut [i8]),
        scales: &[f32],
        inputs: usize,
    ) -> Self {
        let mut panels = Self::empty(tile);
        panels.reset(scales, inputs);
        let mut integers = vec![0; inputs];
        for (output, scale) in scales.iter().enumerate() {
            row(output, &mut integers);
            panels.put_trained(output, &integers, *scale);
        }
        panels
    }

    /// A weight without outputs, to be filled.
    pub(super) fn empty(tile: Tile) -> Self {
        let (data, fits, scales, sums, input_factors) = Default::default();
        let (spans, outputs, inputs, depth) = Default::default();
        Self { tile, data, fits, spans, scales, sums, outputs, inputs, depth, input_factors }
    }

    /// Puts another weight into the same memory.
    pub(super) fn fill(&mut self, integers: Integers<'_>, scales: &[f32], inputs: usize) {
        self.reset(scales, inputs);
        // What is multiplied once is not worth a look.
        self.spans = 0;
        match integers {
            Integers::ByOutput(rows) => {
                let rows = rows.chunks_exact(inputs.max(1)).enumerate();
                rows.zip(scales).for_each(|((output, row), scale)| self.put(output, row, *scale));
            }
            Integers::ByInput(rows) => self.put_inputs(rows, scales.len().max(1)),
        }
    }

    /// Room for a weight, all of it zeros.
    pub(super) fn reset(&mut self, scales: &[f32], inputs: usize) {
        (self.outputs, self.inputs) = (scales.len(), inputs);
        self.depth = inputs.next_multiple_of(self.tile.depth);
        let padded = scales.len().next_multiple_of(self.tile.columns);
        self.scales.clear();
        self.scales.extend_from_slice(scales);
        self.scales.resize(padded, 0.0);
        self.sums.clear();
        self.sums.resize(padded, 0);
        self.data.clear();
        let lines = (padded * self.depth).div_ceil(size_of::<Line>());
        self.data.resize(lines, Line::zeroed());
        self.spans = if self.tile.asks_for_spans { inputs / SPAN } else { 0 };
        self.fits.clear();
        self.fits.resize(padded / self.tile.columns * self.spans, true);
    }

    /// One output's weights and their scale, of a weight that is multiplied often: which of its spans
    /// fit 16 bits is worth knowing.
    pub(super) fn put_trained(&mut self, output: usize, row: &[i8], scale: f32) {
        self.put(output, row, scale);
        let panel = output / self.tile.columns;
        let here = &mut self.fits[panel * self.spans..][..self.spans];
        for (all, span) in here.iter_mut().zip(row.as_chunks().0) {
            *all &= fits(span);
        }
    }

    /// One output's weights and their scale.
    fn put(&mut self, output: usize, row: &[i8], scale: f32) {
        let Tile { columns, group, .. } = self.tile;
        let (panel, column) = (output / columns, output % columns);
        let data: &mut [i8] = bytemuck::cast_slice_mut(&mut self.data);
        let panel = &mut data[panel * columns * self.depth..][..columns * self.depth];
        let to = &mut panel[column * group..];
        match group {
            2 => put_groups::<2>(row, columns, to),
            4 => put_groups::<4>(row, columns, to),
            _ => unreachable!("no tile has such groups"),
        }
        self.sums[output] = row.iter().map(|q| i32::from(*q)).sum();
        self.scales[output] = scale;
    }

    /// One output's weights as floats.
    pub fn row(&self, output: usize, out: &mut [f32]) {
        let scale = self.scales[output];
        self.each(output, out, |q| f32::from(q) * scale);
    }

    /// One output's weights as they are stored, to be multiplied by its scale.
    pub fn integers(&self, output: usize, out: &mut [i8]) {
        self.each(output, out, |q| q);
    }

    /// What `f` makes of each of an output's weights.
    fn each<T>(&self, output: usize, out: &mut [T], f: impl Fn(i8) -> T) {
        let Tile { columns, group, .. } = self.tile;
        let (panel, column) = (output / columns, output % columns);
        let panel = &self.data()[panel * columns * self.depth..][..columns * self.depth];
        for (out, from) in out.chunks_mut(group).zip(panel.chunks_exact(columns * group)) {
            let from = &from[column * group..];
            out.iter_mut().zip(from).for_each(|(x, q)| *x = f(*q));
        }
    }

    /// The outputs' scales, `[out]`.
    pub fn scales(&self) -> &[f32] {
        &self.scales[..self.outputs]
    }

    /// Weights `[in, out]`.
    fn put_inputs(&mut self, rows: &[i8], outputs: usize) {
        let Tile { columns, group, .. } = self.tile;
        let data: &mut [i8] = bytemuck::cast_slice_mut(&mut self.data);
        let panels = data.chunks_exact_mut(columns * self.depth);
        for (panel, first) in panels.zip((0..outputs).step_by(columns)) {
            let width = columns.min(outputs - first);
            let rows = &rows[first.min(rows.len())..];
            match group {
                2 => put_columns::<2>(rows, outputs, width, columns, panel),
                4 => put_columns::<4>(rows, outputs, width, columns, panel),
                _ => unreachable!("no tile has such groups"),
            }
        }
        for row in rows.chunks_exact(outputs) {
            self.sums.iter_mut().zip(row).for_each(|(sum, q)| *sum += i32::from(*q));
        }
    }

    /// All panels' weights.
    fn data(&self) -> &[i8] {
        bytemuck::cast_slice(&self.data)
    }

    /// Columns out.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns in.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// What inputs are multiplied by before they become integers, `[in]`, the weights being those of
    /// such inputs; empty where that is nothing.
    pub fn input_factors(&self) -> &[f32] {
        &self.input_factors
    }

    /// Has inputs multiplied by these before they become integers.
    ///
    /// # Panics
    /// When they are not as many as there are inputs: a caller's mistake.
    pub fn set_input_factors(&mut self, factors: Vec<f32>) {
        assert_eq!(factors.len(), self.inputs, "a factor an input");
        self.input_factors = factors;
    }

    /// Multiplies quantised rows, without bias where there is none: `finish` makes of the products
    /// what goes to `out`, rows `ld` apart. Where there are extremes, one a row, they take up what
    /// came out. `integers` is room for the products.
    pub fn multiply<'a>(
        &'a self,
        rows: &QuantizedRows,
        finish: (impl Finish, Option<&'a [f32]>),
        out: (&mut [f32], usize),
        extremes: &mut [Extremes],
        integers: &mut Vec<i32>,
    ) {
        self.multiply_part(0..self.outputs, rows, finish, out, extremes, integers);
    }

    /// The same for some of the outputs, which have their usual place in `out`. Some before them may
    /// be computed, too, and be taken up by the extremes: panels are whole.
    pub fn multiply_part<'a>(
        &'a self,
        outputs: Range<usize>,
        rows: &QuantizedRows,
        (finish, bias): (impl Finish, Option<&'a [f32]>),
        (out, ld): (&mut [f32], usize),
        extremes: &mut [Extremes],
        integers: &mut Vec<i32>,
    ) {
        let padded = rows.scales.len().next_multiple_of(self.tile.rows);
        if integers.len() < padded * STRIP {
            integers.resize(padded * STRIP, 0);
        }
        let a = (rows.data(), rows.stride);
        debug_assert!(rows.stride >= self.tile.row_bytes(self.depth), "rows of other columns");
        let _held = self.tile.hold();
        let begin = outputs.start / self.tile.columns * self.tile.columns;
        for first in (begin..outputs.end).step_by(STRIP) {
            let wanted = first..(first + STRIP).min(outputs.end);
            for column in (0..wanted.len()).step_by(self.tile.columns) {
                let panel = (first + column) / self.tile.columns;
                let size = self.tile.columns * self.depth;
                let (data, next) = self.data()[panel * size..].split_at(size);
                let fits = &self.fits[panel * self.spans..][..self.spans];
                let more = first + column + self.tile.columns < outputs.end;
                let next = next.get(..size).filter(|_| more).unwrap_or_default();
                let panel = Panel { data, fits, next };
                self.tile.multiply(a, panel, self.depth, padded, (&mut integers[column..], STRIP));
            }
            let scales = &self.scales[wanted.clone()];
            let products = Products {
                integers,
                ld: STRIP,
                row_scales: &rows.scales,
                zeros: &rows.zeros,
                sums: &self.sums[wanted.clone()],
                scales,
                // Who has none does not look at it.
                bias: bias.map_or(scales, |bias| &bias[wanted]),
            };
            lanes::finish(finish, &products, &mut out[first..], ld, extremes);
        }
    }

    /// How it is multiplied.
    pub fn tile(&self) -> &Tile {
        &self.tile
    }
}

/// Puts groups of one output's weights where they lie in its panel, `columns` groups apart. Groups
/// of a known length: what copies slices is a call in a page.
#[inline(always)]
fn put_groups<const GROUP: usize>(row: &[i8], columns: usize, to: &mut [i8]) {
    let (whole, rest) = row.as_chunks::<GROUP>();
    let mut at = 0;
    for group in whole {
        to[at..at + GROUP].copy_from_slice(group);
        at += columns * GROUP;
    }
    if !rest.is_empty() {
        to[at..at + rest.len()].copy_from_slice(rest);
    }
}

/// Puts some columns of weights `[in, out]`, rows `ld` apart, into a panel.
#[inline(always)]
fn put_columns<const GROUP: usize>(
    rows: &[i8],
    ld: usize,
    width: usize,
    columns: usize,
    panel: &mut [i8],
) {
    let groups = panel.chunks_exact_mut(columns * GROUP).zip(rows.chunks(GROUP * ld));
    for (to, rows) in groups {
        let to = to.as_chunks_mut::<GROUP>().0;
        if rows.len() >= (GROUP - 1) * ld + width {
            let rows: [&[i8]; GROUP] = std::array::from_fn(|k| &rows[k * ld..][..width]);
            for (column, to) in to[..width].iter_mut().enumerate() {
                *to = std::array::from_fn(|k| rows[k][column]);
            }
        } else {
            for (k, row) in rows.chunks(ld).enumerate() {
                to.iter_mut().zip(&row[..width]).for_each(|(to, from)| to[k] = *from);
            }
        }
    }
}
