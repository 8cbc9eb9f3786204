//! A weight in panels, and products with it.

use super::rows::{QuantizedRows, rounded};
use super::{DEPTH, Tile, WEIGHT_LIMIT, tile};
use crate::cpu::dispatch;

/// A quantised weight `[out, in]`, `w = q · scale[out]`, in the order in which tiles read it.
#[derive(Debug)]
pub struct Int8Panels {
    tile: Tile,
    data: Vec<i8>,
    /// `[out]`, zeros behind them up to a whole panel.
    scales: Vec<f32>,
    /// Of each output the sum of its weights.
    sums: Vec<i32>,
    inputs: usize,
    outputs: usize,
    depth: usize,
}

impl Int8Panels {
    /// Panels of integers `[out, in]`, each with its output's scale.
    pub fn new(values: impl Fn(usize, usize) -> i8, scales: &[f32], inputs: usize) -> Self {
        Self::with(tile(), values, scales, inputs)
    }

    pub(super) fn with(
        tile: Tile,
        values: impl Fn(usize, usize) -> i8,
        scales: &[f32],
        inputs: usize,
    ) -> Self {
        let mut panels = Self {
            tile,
            data: Vec::new(),
            scales: Vec::new(),
            sums: Vec::new(),
            inputs: 0,
            outputs: 0,
            depth: 0,
        };
        panels.fill(values, scales, inputs);
        panels
    }

    /// An empty weight, to be filled.
    pub(super) fn empty() -> Self {
        Self::with(tile(), |_, _| 0, &[], 0)
    }

    /// Puts another weight into the same memory.
    pub(super) fn fill(
        &mut self,
        values: impl Fn(usize, usize) -> i8,
        scales: &[f32],
        inputs: usize,
    ) {
        let Tile { columns, group, .. } = self.tile;
        (self.inputs, self.outputs) = (inputs, scales.len());
        self.depth = inputs.next_multiple_of(DEPTH);
        let padded = self.outputs.next_multiple_of(columns);
        self.scales.clear();
        self.scales.extend_from_slice(scales);
        self.scales.resize(padded, 0.0);
        self.sums.clear();
        self.sums.resize(padded, 0);
        self.data.clear();
        self.data.resize(padded * self.depth, 0);
        for output in 0..self.outputs {
            let (panel, column) = (output / columns, output % columns);
            let panel = &mut self.data[panel * columns * self.depth..];
            let mut sum = 0;
            for input in 0..inputs {
                let value = values(output, input);
                panel[(input / group * columns + column) * group + input % group] = value;
                sum += i32::from(value);
            }
            self.sums[output] = sum;
        }
    }

    /// Columns of a panel.
    pub fn columns(&self) -> usize {
        self.tile.columns
    }

    /// How many panels.
    pub fn count(&self) -> usize {
        self.scales.len() / self.tile.columns
    }

    /// Multiplies rows `[count, in]`, `ld` apart. `epilogue` gets, panel by panel, the first of its
    /// columns, and the products `[count, columns]`, without bias.
    pub fn multiply(
        &self,
        x: &[f32],
        ld: usize,
        count: usize,
        epilogue: impl FnMut(usize, &[f32]),
    ) {
        let mut rows = QuantizedRows::default();
        rows.quantise(&self.tile, x, ld, (count, self.inputs));
        self.multiply_rows(&rows, epilogue);
    }

    /// As [`Self::multiply`], of rows that are quantised already.
    pub(super) fn multiply_rows(
        &self,
        rows: &QuantizedRows,
        mut epilogue: impl FnMut(usize, &[f32]),
    ) {
        let columns = self.tile.columns;
        let count = rows.scales.len();
        let padded = count.next_multiple_of(self.tile.rows);
        let mut integers = vec![0i32; padded * columns];
        let mut products = vec![0f32; count * columns];
        for panel in 0..self.count() {
            let b = &self.data[panel * columns * self.depth..];
            let a = (rows.data.as_slice(), rows.stride);
            self.tile.multiply(a, b, self.depth, padded, &mut integers);
            let first = panel * columns;
            let (sums, scales) = (&self.sums[first..][..columns], &self.scales[first..][..columns]);
            dequantise(&integers, rows, sums, scales, &mut products);
            epilogue(first, &products);
        }
    }

    pub(super) fn tile(&self) -> &Tile {
        &self.tile
    }
}

dispatch! {
/// Integer products `[rows, columns]` → `(sum − zero · Σ w) · (scale of the row · of the column)`.
fn dequantise(
    integers: &[i32],
    rows: &QuantizedRows,
    sums: &[i32],
    scales: &[f32],
    out: &mut [f32],
) {
    let columns = sums.len();
    let each = integers.chunks_exact(columns).zip(out.chunks_exact_mut(columns));
    for ((integers, out), (scale, zero)) in each.zip(rows.scales.iter().zip(&rows.zeros)) {
        let of_columns = sums.iter().zip(scales);
        for ((out, integer), (sum, column_scale)) in out.iter_mut().zip(integers).zip(of_columns) {
            *out = (integer - zero * sum) as f32 * (scale * column_scale);
        }
    }
}
}

/// A row of weights as integers: their scale; 1 where all are 0.
pub fn quantise_weights(
    x: impl Iterator<Item = f32> + Clone,
    mut put: impl FnMut(usize, i8),
) -> f32 {
    let limit = f32::from(WEIGHT_LIMIT);
    let most = x.clone().fold(0f32, |most, x| if x.abs() > most { x.abs() } else { most });
    if most < 1e-30 {
        x.enumerate().for_each(|(i, _)| put(i, 0));
        return 1.0;
    }
    let inverse = limit / most;
    for (i, x) in x.enumerate() {
        let q = rounded(x * inverse).clamp(-i32::from(WEIGHT_LIMIT), i32::from(WEIGHT_LIMIT));
        put(i, q as i8);
    }
    most / limit
}
