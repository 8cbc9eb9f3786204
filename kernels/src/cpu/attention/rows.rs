//! What happens to rows of scores between the products.

use crate::Dropout;
use crate::cpu::math::{by_halves, exp, one_by_one};
use crate::cpu::{Element, dispatch};
use crate::reference::attention_index;

/// Where a block of scores lies, which is what its dropout goes by.
#[derive(Debug, Clone, Copy)]
pub struct Mask {
    /// The probabilities' dropout.
    pub dropout: Option<Dropout>,
    /// The head.
    pub head: usize,
    /// Of how many.
    pub heads: usize,
    /// The packed row of the block's first query.
    pub first_row: usize,
}

impl Mask {
    /// The multipliers of a row's keys, from `first` on.
    #[inline(always)]
    fn multipliers(&self, row: usize, first: usize) -> [f32; 16] {
        let Some(dropout) = self.dropout else { return [1.0; 16] };
        let base = attention_index(self.head, self.heads, self.first_row + row, first);
        dropout.multipliers(base)
    }
}

/// The larger of two.
#[inline(always)]
fn larger(x: f32, y: f32) -> f32 {
    if y > x { y } else { x }
}

dispatch! {
/// Scores `[rows, ld]`, n of them in a row, become probabilities; dropped `[rows, dropped_ld]` are
/// those after dropout, and 0 beyond n.
pub fn softmax<E: Element>(
    scores: &mut [f32],
    ld: usize,
    n: usize,
    scale: f32,
    mask: &Mask,
    dropped: &mut [E],
    dropped_ld: usize,
) {
    let width = n.next_multiple_of(16);
    for (row, (scores, dropped)) in
        scores.chunks_exact_mut(ld).zip(dropped.chunks_exact_mut(dropped_ld)).enumerate()
    {
        let mut most = [f32::NEG_INFINITY; 16];
        for (index, chunk) in scores[..width].as_chunks_mut::<16>().0.iter_mut().enumerate() {
            // A whole vector is written back: behind single numbers the next pass would wait.
            let there = n.saturating_sub(16 * one_by_one(index)).min(16) as i32;
            let x: [f32; 16] = std::array::from_fn(|lane| {
                if (lane as i32) < there { chunk[lane] } else { f32::NEG_INFINITY }
            });
            most = std::array::from_fn(|lane| larger(most[lane], x[lane]));
            *chunk = x;
        }
        let most = by_halves(most, larger);
        let mut sums = [0f32; 16];
        for chunk in scores[..width].chunks_exact_mut(16) {
            for (x, sum) in chunk.iter_mut().zip(&mut sums) {
                // Taken away before the scale, so that a huge score is not infinite less itself.
                *x = exp::<FMA>((*x - most) * scale);
                *sum += *x;
            }
        }
        let inverse = 1.0 / by_halves(sums, |x, y| x + y);
        let chunks = scores[..width].chunks_exact_mut(16).zip(dropped.chunks_exact_mut(16));
        for (index, (chunk, dropped)) in chunks.enumerate() {
            let multipliers = mask.multipliers(row, 16 * one_by_one(index));
            for ((x, dropped), multiplier) in chunk.iter_mut().zip(dropped).zip(multipliers) {
                *x *= inverse;
                *dropped = E::new(*x * multiplier);
            }
        }
        if width < dropped_ld {
            dropped[width..].fill(E::zeroed());
        }
    }
}
}

dispatch! {
/// The scores' gradients, before their scale: probabilities `[rows, ld]` and the gradients of what
/// was left of them, `grad` `[rows, ld]` → dscores `[rows, dscores_ld]`, 0 beyond n. `along` is,
/// for each row, Σ dropped · grad, which is Σ output · gradient of the output.
pub fn scores_backward<E: Element>(
    probabilities: &[f32],
    grad: &[f32],
    ld: usize,
    n: usize,
    scale: f32,
    mask: &Mask,
    along: &[f32],
    dscores: &mut [E],
    dscores_ld: usize,
) {
    let width = n.next_multiple_of(16);
    let rows = probabilities.chunks_exact(ld).zip(grad.chunks_exact(ld));
    for (row, ((probabilities, grad), dscores)) in
        rows.zip(dscores.chunks_exact_mut(dscores_ld)).enumerate()
    {
        let along = along[row];
        let chunks = probabilities[..width].chunks_exact(16).zip(grad[..width].chunks_exact(16));
        for (index, ((p, g), out)) in chunks.zip(dscores.chunks_exact_mut(16)).enumerate() {
            let multipliers = mask.multipliers(row, 16 * one_by_one(index));
            for (((p, g), out), multiplier) in p.iter().zip(g).zip(out).zip(multipliers) {
                *out = E::new(p * (g * multiplier - along) * scale);
            }
        }
        dscores[n..].fill(E::zeroed());
    }
}
}
