//! Attention in 8-bit integers: both its products are those of a linear layer whose weights are a
//! head's keys, and its values transposed. That of short sequences is `short.rs`'s.

use std::ops::Range;

use super::panels::Integers;
use super::short::{self, LONGEST};
use super::weights::{quantise_columns, quantise_weights};
use super::{Int8Panels, Plain, QuantizedRows, tile};
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

/// Attention of qkv `[T, 3·H]`, of which heads have equal parts.
pub fn forward(qkv: &[f32], sequences: &Sequences, heads: usize) -> ByHead {
    let hidden = qkv.len() / 3 / sequences.tokens().max(1);
    debug_assert_eq!(qkv.len(), sequences.tokens() * 3 * hidden);
    let head_dim = hidden / heads;
    let ranges: Vec<_> = sequences.ranges().collect();
    let mut context = Buffer::<f32>::any(sequences.tokens() * hidden);
    let groups = ranges.iter().flat_map(|rows| {
        let together = if rows.len() > LONGEST { 1 } else { TOGETHER };
        let firsts = (0..heads).step_by(together);
        firsts.map(move |first| (rows.clone(), first..(first + together).min(heads)))
    });
    let lengths = groups.clone().map(|(rows, heads)| rows.len() * heads.len() * head_dim);
    let tasks = pieces(&mut context, lengths).into_iter().zip(groups);
    type Task<'a> = (&'a mut [f32], (Range<usize>, Range<usize>));
    for_each(tasks.collect(), |_, (out, (rows, heads)): Task<'_>| {
        let (n, mut room) = (rows.len(), short::Room::default());
        if n == 0 {
            return;
        }
        let qkv = &qkv[rows.start * 3 * hidden..rows.end * 3 * hidden];
        for (index, out) in heads.zip(out.chunks_exact_mut(n * head_dim)) {
            let head = Head { qkv, hidden, head_dim, first: index * head_dim, n };
            if n > LONGEST {
                head.forward(out);
            } else {
                short::attend(head.short(), out, &mut room);
            }
        }
    });
    let mut starts = vec![0];
    starts.extend(ranges.iter().map(|rows| rows.end));
    ByHead { context, starts, hidden, head_dim }
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

    fn has_next(&self) -> bool {
        self.first + self.head_dim < self.hidden
    }

    /// What attention of a short sequence reads of it.
    fn short(&self) -> short::Head<'_> {
        short::Head {
            qkv: &self.qkv[self.first..],
            ld: 3 * self.hidden,
            keys: self.hidden,
            values: 2 * self.hidden,
            head_dim: self.head_dim,
            n: self.n,
            has_next: self.has_next(),
        }
    }

    /// The context of all rows, `[n, head_dim]`.
    ///
    /// A row's part is a line or two in a page of its own, for which a processor that is not told of
    /// it waits each time: so what a head reads is fetched while the head before it is at work.
    fn forward(&self, out: &mut [f32]) {
        let (n, d, ld) = (self.n, self.head_dim, 3 * self.hidden);
        if self.first == 0 {
            (0..n).for_each(|row| self.fetch(row));
        }
        let next = Head { first: self.first + d, ..*self };
        let mut to_fetch = if self.has_next() { 0..n } else { 0..0 };
        let (mut keys, mut values) = (Int8Panels::empty(tile()), Int8Panels::empty(tile()));
        let mut integers = vec![0; n * d];
        let (rows, each) = ((0..n).map(|row| self.row(1, row)), integers.chunks_exact_mut(d));
        let scales: Vec<f32> = rows.zip(each).map(|(x, q)| quantise_weights(x, q)).collect();
        keys.fill(Integers::ByOutput(&integers), &scales, d);
        let mut scales = vec![0.0; d];
        let x = &self.qkv[2 * self.hidden + self.first..];
        quantise_columns(x, ld, &mut scales, &mut integers);
        values.fill(Integers::ByInput(&integers), &scales, n);

        let scale = 1.0 / (d as f32).sqrt();
        let (mut queries, mut probabilities) = <(QuantizedRows, QuantizedRows)>::default();
        let (mut scores, mut products) = (vec![0.0; QUERIES.min(n) * n], Vec::new());
        for (index, out) in out.chunks_mut(QUERIES * d).enumerate() {
            let (first, count) = (index * QUERIES, out.len() / d);
            let x = &self.qkv[first * ld + self.first..];
            queries.quantise(keys.tile(), x, ld, (count, d));
            let scores = &mut scores[..count * n];
            let mut extremes = vec![Extremes::NONE; count];
            let to = (&mut *scores, n);
            keys.multiply(&queries, (Plain, None), to, &mut extremes, &mut products);
            probabilities.begin(values.tile(), count, n);
            for (scores, extremes) in scores.chunks_exact(n).zip(&extremes) {
                if let Some(row) = to_fetch.next() {
                    next.fetch(row);
                }
                let (_, most) = extremes.range();
                probabilities.push_probabilities(values.tile(), scores, most, scale);
            }
            values.multiply(&probabilities, (Plain, None), (out, d), &mut [], &mut products);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::dropout::normal;

    const HEADS: usize = 3;
    /// Of a head: no vectors of AVX-512, and whole ones.
    const HEAD_DIMS: [usize; 2] = [24, 32];

    /// Attention of sequences of these lengths, `[T, H]`, and what it was computed from.
    fn of(lengths: &[usize], head_dim: usize) -> (Vec<f32>, Vec<f32>) {
        let hidden = HEADS * head_dim;
        let mut ends = vec![0];
        ends.extend(lengths.iter().scan(0, |end, n| {
            *end += *n as u32;
            Some(*end)
        }));
        let sequences = Sequences::new(ends).unwrap();
        let tokens = sequences.tokens();
        let qkv: Vec<f32> = (0..(tokens * 3 * hidden) as u64).map(|i| normal(3, i)).collect();
        let context = forward(&qkv, &sequences, HEADS);
        let mut out = vec![0.0; tokens * hidden];
        context.gather(0, &mut out);
        (out, qkv)
    }

    #[test]
    fn short_and_long_sequences_have_attention_of_their_own_rows() {
        let lengths = [0, 1, 17, LONGEST, LONGEST + 1, 0, 2 * LONGEST + 3, 0];
        for head_dim in HEAD_DIMS {
            rows_have_attention_of_their_own(&lengths, head_dim);
        }
    }

    fn rows_have_attention_of_their_own(lengths: &[usize], head_dim: usize) {
        let (hidden, (out, qkv)) = (HEADS * head_dim, of(lengths, head_dim));
        let mut start = 0;
        for &n in lengths {
            let mut squares = 0.0;
            for (query, head) in (0..n).flat_map(|query| (0..HEADS).map(move |head| (query, head)))
            {
                let number = |row: usize, part: usize, column: usize| {
                    let row = (start + row) * 3 + part;
                    f64::from(qkv[row * hidden + head * head_dim + column])
                };
                let weight = |key| {
                    let each = (0..head_dim).map(|k| number(query, 0, k) * number(key, 1, k));
                    (each.sum::<f64>() / (head_dim as f64).sqrt()).exp()
                };
                let weights: Vec<f64> = (0..n).map(weight).collect();
                let total: f64 = weights.iter().sum();
                for column in 0..head_dim {
                    let each = weights.iter().enumerate();
                    let expected: f64 = each.map(|(key, w)| w * number(key, 2, column)).sum();
                    let found = out[(start + query) * hidden + head * head_dim + column];
                    let error = f64::from(found) - expected / total;
                    assert!(error.abs() < 0.06, "{n}: {found} {}", expected / total);
                    squares += error * error;
                }
            }
            // Integers of 7 bits are right within some thousandths of values of 1.
            let mean = (squares / (n * hidden).max(1) as f64).sqrt();
            assert!(mean < if n > LONGEST { 8e-3 } else { 1e-4 }, "{n}: {mean}");
            start += n;
        }
    }

    /// What a processor is chosen by, and what another one is to print.
    const ISA: &str = "PAGEBERT_ISA";
    const PRINT: &str = "PAGEBERT_TEST_PRINTS";

    #[test]
    fn every_processor_gives_the_same_bits() {
        let out = HEAD_DIMS.map(|head_dim| of(&[5, 40, LONGEST, 100], head_dim).0).concat();
        let bits = format!("{:x?}", out.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        if std::env::var_os(PRINT).is_some() {
            return println!("{bits}");
        }
        for isa in ["base", "avx2", "avx512"] {
            let name = "cpu::int8::attention::tests::every_processor_gives_the_same_bits";
            let mut again = Command::new(std::env::current_exe().unwrap());
            let said = again.args(["--exact", name, "--nocapture"]).env(ISA, isa).env(PRINT, "1");
            let said = String::from_utf8(said.output().unwrap().stdout).unwrap();
            assert!(said.contains(&bits), "{isa}");
        }
    }
}
