//! The three tables' rows added up, normalised and dropped; their gradients by row.

use super::encoder::Norm;
use super::int8::{CodedTable, DecodedRows};
use super::parallel::{BLOCK, add_up, blocks, for_each};
use super::{Buffer, dispatch, encoder};
use crate::Dropout;
use crate::gradients::GradientSlot;

/// The tables' rows that a batch needs, and where their gradients go.
pub struct Tables<'a> {
    /// The word table.
    pub word: Words<'a>,
    /// `[P, H]`
    pub position: &'a [f32],
    /// The first segment's row, `[H]`.
    pub segment: &'a [f32],
}

/// The word table.
#[derive(Debug, Clone, Copy)]
pub enum Words<'a> {
    /// `[V, H]`
    Float(&'a [f32]),
    /// In coded integers.
    Coded(&'a CodedTable),
}

/// What a batch needs of it.
enum WordRows<'a> {
    Float(&'a [f32]),
    Decoded(DecodedRows<'a>),
}

impl<'a> WordRows<'a> {
    /// Or the least id whose row is damaged.
    fn of(words: Words<'a>, ids: &[u32]) -> Result<Self, u32> {
        Ok(match words {
            Words::Float(word) => Self::Float(word),
            Words::Coded(table) => Self::Decoded(table.decode(ids)?),
        })
    }

    fn row(&self, id: u32, out: &mut [f32]) {
        let hidden = out.len();
        match self {
            Self::Float(word) => out.copy_from_slice(&word[id as usize * hidden..][..hidden]),
            Self::Decoded(rows) => rows.expand(id, out),
        }
    }
}

/// Where the tables' gradients go.
#[derive(Debug, Clone)]
pub struct TableGradients {
    /// Rows of the word table.
    pub word: GradientSlot,
    /// The position table.
    pub position: GradientSlot,
    /// The segment table.
    pub segment: GradientSlot,
}

/// Which rows, and what happens to them.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    /// `[T]`
    pub input_ids: &'a [u32],
    /// `[T]`
    pub position_ids: &'a [u32],
    /// The embeddings' norm.
    pub norm: &'a Norm,
    /// Behind the norm.
    pub dropout: Option<Dropout>,
}

/// What the backward pass needs.
pub struct SavedEmbeddings {
    /// `[T, H]`
    normed: Buffer<f32>,
    /// `[T]`
    inverse: Buffer<f32>,
}

/// → `[T, H]`.
///
/// # Errors
/// The least id whose row of the word table is damaged.
pub fn forward(
    tables: &Tables<'_>,
    lookup: Lookup<'_>,
    keep: bool,
) -> Result<(Buffer<f32>, Option<SavedEmbeddings>), u32> {
    let hidden = lookup.norm.weight.len();
    let tokens = lookup.input_ids.len();
    let mut out = Buffer::<f32>::any(tokens * hidden);
    let mut saved =
        SavedEmbeddings { normed: Buffer::any(tokens * hidden), inverse: Buffer::any(tokens) };
    let tasks = blocks(&mut out, tokens, hidden).into_iter();
    let tasks = tasks.zip(blocks(&mut saved.normed, tokens, hidden));
    let tasks = tasks.zip(blocks(&mut saved.inverse, tokens, 1)).collect();
    type Task<'a> = ((&'a mut [f32], &'a mut [f32]), &'a mut [f32]);
    let words = WordRows::of(tables.word, lookup.input_ids)?;
    for_each(tasks, |index, ((out, normed), inverse): Task<'_>| {
        let mut sum = vec![0f32; hidden];
        for (row, inverse) in inverse.iter_mut().enumerate() {
            let token = index * BLOCK + row;
            let at = row * hidden..(row + 1) * hidden;
            words.row(lookup.input_ids[token], &mut sum);
            let position = lookup.position_ids[token] as usize * hidden;
            encoder::norm_row(
                &mut sum,
                tables.segment,
                &tables.position[position..][..hidden],
                lookup.norm,
                &mut out[at.clone()],
                &mut normed[at.clone()],
                inverse,
            );
            drop_row(&mut out[at], lookup.dropout, (token * hidden) as u64);
        }
    });
    Ok((out, keep.then_some(saved)))
}

/// Hands the tables' and the norm's gradients over. `rows` is the position table's number of rows,
/// `segments` the segment table's.
pub fn backward(
    saved: &SavedEmbeddings,
    grad: &[f32],
    lookup: Lookup<'_>,
    gradients: &TableGradients,
    (rows, segments): (usize, usize),
) {
    let hidden = lookup.norm.weight.len();
    let tokens = lookup.input_ids.len();
    let mut dz = Buffer::<f32>::any(tokens * hidden);
    let mut partial = vec![0f32; tokens.div_ceil(BLOCK) * 3 * hidden];
    let tasks = blocks(&mut dz, tokens, hidden).into_iter().zip(partial.chunks_mut(3 * hidden));
    for_each(tasks.collect(), |index, (dz, sums): (&mut [f32], &mut [f32])| {
        let mut row_grad = vec![0f32; hidden];
        let mut same = vec![0f32; hidden];
        let mut x = vec![0f32; hidden];
        for (row, dz) in dz.chunks_exact_mut(hidden).enumerate() {
            let token = index * BLOCK + row;
            let at = token * hidden;
            row_grad.copy_from_slice(&grad[at..][..hidden]);
            drop_row(&mut row_grad, lookup.dropout, at as u64);
            let normed = &saved.normed[at..][..hidden];
            let inverse = saved.inverse[token];
            encoder::norm_row_backward(
                &row_grad,
                normed,
                inverse,
                &lookup.norm.weight,
                &mut x,
                dz,
                &mut same,
                sums,
            );
        }
    });
    let mut sums = vec![0f32; 3 * hidden];
    add_up(&partial, &mut sums);
    if let Some((weight, bias)) = &lookup.norm.gradients {
        weight.put(&sums[..hidden]);
        bias.put(&sums[hidden..2 * hidden]);
    }
    // The third sum is that of all rows, which are all of the first segment.
    let mut segment = vec![0f32; segments * hidden];
    segment[..hidden].copy_from_slice(&sums[2 * hidden..]);
    gradients.segment.put(&segment);

    let (ids, word) = sum_by_row(lookup.input_ids, &dz, hidden);
    gradients.word.put_rows(ids, word, hidden);
    let (ids, sums) = sum_by_row(lookup.position_ids, &dz, hidden);
    let mut position = vec![0f32; rows * hidden];
    for (id, sums) in ids.iter().zip(sums.chunks_exact(hidden)) {
        position[*id as usize * hidden..][..hidden].copy_from_slice(sums);
    }
    gradients.position.put(&position);
}

/// Adds rows of the same number up, in their order: the numbers, ascending, and the sums.
fn sum_by_row(ids: &[u32], rows: &[f32], width: usize) -> (Vec<u32>, Vec<f32>) {
    let mut order: Vec<(u32, u32)> =
        ids.iter().enumerate().map(|(row, id)| (*id, row as u32)).collect();
    order.sort_unstable();
    let mut distinct: Vec<u32> = order.iter().map(|(id, _)| *id).collect();
    distinct.dedup();
    let mut sums = vec![0f32; distinct.len() * width];
    let mut starts = Vec::with_capacity(distinct.len());
    for (at, (id, _)) in order.iter().enumerate() {
        if at == 0 || order[at - 1].0 != *id {
            starts.push(at);
        }
    }
    starts.push(order.len());
    // Many rows a task: one is too little work.
    const ROWS: usize = 64;
    let tasks = sums.chunks_mut((ROWS * width).max(1)).collect();
    for_each(tasks, |index, sums: &mut [f32]| {
        for (i, sum) in sums.chunks_exact_mut(width).enumerate() {
            let which = index * ROWS + i;
            for (_, row) in &order[starts[which]..starts[which + 1]] {
                add(&rows[*row as usize * width..][..width], sum);
            }
        }
    });
    (distinct, sums)
}

dispatch! {
fn add(x: &[f32], sum: &mut [f32]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
}
}

dispatch! {
/// Multiplies a row by its dropout; `at` is the first element's index.
fn drop_row(row: &mut [f32], dropout: Option<Dropout>, at: u64) {
    if let Some(dropout) = dropout {
        for (index, chunk) in row.chunks_mut(16).enumerate() {
            let multipliers = dropout.multipliers(at + 16 * index as u64);
            chunk.iter_mut().zip(multipliers).for_each(|(x, multiplier)| *x *= multiplier);
        }
    }
}
}
