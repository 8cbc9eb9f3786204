//! Attention in 8-bit integers: both its products are those of a linear layer whose weights are a
//! head's keys, and its values transposed. That of short sequences is `short.rs`'s.

use std::ops::Range;

use super::panels::Integers;
use super::weights::{quantise_columns, quantise_weights};
use super::{Int8Panels, Plain, QuantizedRows, short, tile};
use crate::Sequences;
use crate::cpu::Buffer;
use crate::cpu::gemm::prefetch;
use crate::cpu::lanes::Extremes;
use crate::cpu::parallel::{for_each, pieces};

/// Queries handled at once.
const QUERIES: usize = 64;

/// Heads of a short sequence that are one task: each by itself would be less work than its memory
/// costs.
const TOGETHER: usize = 3;

/// Attention's context, each head's rows by themselves, so that heads are tasks of their own.
pub struct ByHead {
    /// For each sequence `[heads, n, head_dim]`.
    context: Buffer<f32>,
    /// The first row of each sequence, and behind them the number of rows.
    starts: Vec<usize>,
    hidden: usize,
    head_dim: usize,
}

impl ByHead {
    /// Rows from `first` on, heads side by side: as many as there is room for, `[rows, H]`.
    pub fn gather(&self, first: usize, out: &mut [f32]) {
        let mut sequence = self.starts.partition_point(|start| *start <= first).max(1) - 1;
        for (row, out) in (first..).zip(out.chunks_exact_mut(self.hidden)) {
            while self.starts[sequence + 1] <= row {
                sequence += 1;
            }
            let start = self.starts[sequence];
            let size = (self.starts[sequence + 1] - start) * self.head_dim;
            let heads = &self.context[start * self.hidden + (row - start) * self.head_dim..];
            for (head, out) in out.chunks_exact_mut(self.head_dim).enumerate() {
                out.copy_from_slice(&heads[head * size..][..self.head_dim]);
            }
        }
    }
}

/// Attention of qkv `[T, 3·H]`.
pub fn forward(qkv: &[f32], sequences: &Sequences, heads: usize) -> ByHead {
    let hidden = qkv.len() / 3 / sequences.tokens().max(1);
    let head_dim = hidden / heads;
    let ranges: Vec<_> = sequences.ranges().collect();
    let mut context = Buffer::<f32>::any(sequences.tokens() * hidden);
    let groups = ranges.iter().flat_map(|rows| {
        let together = if rows.len() > QUERIES { 1 } else { TOGETHER };
        let firsts = (0..heads).step_by(together);
        firsts.map(move |first| (rows, first..(first + together).min(heads)))
    });
    let lengths = groups.clone().map(|(rows, heads)| rows.len() * heads.len() * head_dim);
    let tasks = pieces(&mut context, lengths).into_iter().zip(groups);
    for_each(tasks.collect(), |_, (out, (rows, heads)): (&mut [f32], (&Range<usize>, _))| {
        if rows.is_empty() {
            return;
        }
        let qkv = &qkv[rows.start * 3 * hidden..rows.end * 3 * hidden];
        let heads =
            Range::<usize>::into_iter(heads).zip(out.chunks_exact_mut(rows.len() * head_dim));
        let head = |head| Head { qkv, hidden, head_dim, first: head * head_dim, n: rows.len() };
        if rows.len() <= short::LONGEST {
            let mut room = short::Room::default();
            heads.for_each(|(index, out)| head(index).forward_short(out, &mut room));
        } else {
            let mut room = Room::new();
            heads.for_each(|(index, out)| head(index).forward(out, &mut room));
        }
    });
    let mut starts = vec![0];
    starts.extend(ranges.iter().map(|rows| rows.end));
    ByHead { context, starts, hidden, head_dim }
}

/// What heads need one after the other.
struct Room {
    integers: Vec<i8>,
    scales: Vec<f32>,
    keys: Int8Panels,
    values: Int8Panels,
    queries: QuantizedRows,
    scores: Vec<f32>,
    extremes: Vec<Extremes>,
    probabilities: QuantizedRows,
    products: Vec<i32>,
}

impl Room {
    fn new() -> Self {
        let (keys, values) = (Int8Panels::empty(tile()), Int8Panels::empty(tile()));
        let (queries, probabilities): (QuantizedRows, QuantizedRows) = Default::default();
        let (integers, scales, scores, extremes, products) = Default::default();
        Self { integers, scales, keys, values, queries, scores, extremes, probabilities, products }
    }
}

/// One head of one sequence.
struct Head<'a> {
    /// `[n, 3·H]`
    qkv: &'a [f32],
    hidden: usize,
    head_dim: usize,
    /// The head's first column.
    first: usize,
    n: usize,
}

impl Head<'_> {
    /// Of queries, keys and values (0, 1, 2) a row's columns.
    fn row(&self, part: usize, row: usize) -> &[f32] {
        &self.qkv[(row * 3 + part) * self.hidden + self.first..][..self.head_dim]
    }

    /// Has a row's queries, keys and values come nearer.
    fn fetch(&self, row: usize) {
        (0..3).for_each(|part| prefetch(self.row(part, row)));
    }

    /// The head behind this one, of which nothing may be fetched if there is none.
    fn next(&self) -> (Self, Range<usize>) {
        let next = Head { first: self.first + self.head_dim, ..*self };
        let rows = if next.first < self.hidden { 0..self.n } else { 0..0 };
        (next, rows)
    }

    /// The context of a short sequence's rows, `[n, head_dim]`.
    fn forward_short(&self, out: &mut [f32], room: &mut short::Room) {
        let head = short::Head {
            qkv: &self.qkv[self.first..],
            ld: 3 * self.hidden,
            keys: self.hidden,
            values: 2 * self.hidden,
            head_dim: self.head_dim,
            n: self.n,
            has_next: self.first + self.head_dim < self.hidden,
        };
        short::attend(head, out, room);
    }

    /// The context of all rows, `[n, head_dim]`.
    ///
    /// A row's part is a line or two in a page of its own, for which a processor that is not told of
    /// it waits each time: so what a head reads is fetched while the head before it is at work.
    fn forward(&self, out: &mut [f32], room: &mut Room) {
        let (n, d, ld) = (self.n, self.head_dim, 3 * self.hidden);
        if self.first == 0 {
            (0..n).for_each(|row| self.fetch(row));
        }
        let (next, mut to_fetch) = self.next();
        room.integers.resize(n * d, 0);
        room.scales.clear();
        for (row, integers) in (0..n).zip(room.integers.chunks_exact_mut(d)) {
            room.scales.push(quantise_weights(self.row(1, row), integers));
        }
        room.keys.fill(Integers::ByOutput(&room.integers), &room.scales, d);
        room.scales.resize(d, 0.0);
        let values = &self.qkv[2 * self.hidden + self.first..];
        quantise_columns(values, ld, &mut room.scales[..d], &mut room.integers);
        room.values.fill(Integers::ByInput(&room.integers), &room.scales[..d], n);

        let scale = 1.0 / (d as f32).sqrt();
        for (index, out) in out.chunks_mut(QUERIES * d).enumerate() {
            let (first, count) = (index * QUERIES, out.len() / d);
            let x = &self.qkv[first * ld + self.first..];
            room.queries.quantise(room.keys.tile(), x, ld, (count, d));
            room.scores.resize(count * n, 0.0);
            room.extremes.clear();
            room.extremes.resize(count, Extremes::NONE);
            let scores = (room.scores.as_mut_slice(), n);
            let (extremes, products) = (&mut room.extremes, &mut room.products);
            room.keys.multiply(&room.queries, (Plain, None), scores, extremes, products);
            room.probabilities.begin(room.values.tile(), count, n);
            for (scores, extremes) in room.scores.chunks_exact(n).zip(&room.extremes) {
                to_fetch.by_ref().take(1).for_each(|row| next.fetch(row));
                let (_, most) = extremes.range();
                room.probabilities.push_probabilities(room.values.tile(), scores, most, scale);
            }
            let probabilities = &room.probabilities;
            room.values.multiply(
                probabilities,
                (Plain, None),
                (out, d),
                &mut [],
                &mut room.products,
            );
        }
    }
}
