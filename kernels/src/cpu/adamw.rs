//! AdamW's arithmetic, and the gradient's norm.

use super::dispatch;
use super::math::mul_add;
use super::parallel::for_each;

#[cfg(not(target_family = "wasm"))]
use rayon::prelude::*;

/// One parameter's numbers for one step; see [`crate::AdamW`].
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Clipping: the gradient is multiplied by it.
    pub scale: f32,
    /// 1 − β1.
    pub mean_rate: f32,
    /// 1 − β2.
    pub square_rate: f32,
    /// Weight decay: the parameter is multiplied by it.
    pub shrink: f32,
    /// The learning rate, with the mean's correction.
    pub step_size: f32,
    /// 1 / √(1 − β2^t).
    pub inverse_root: f32,
    /// Added to the denominator.
    pub eps: f32,
}

/// Elements of one task: large enough to be worth it.
const PIECE: usize = 1 << 15;

/// A parameter, its gradient, and the running means of that and of its square.
pub struct Values<'a> {
    /// The parameter.
    pub param: &'a mut [f32],
    /// Its gradient.
    pub grad: &'a [f32],
    /// The gradient's running mean.
    pub mean: &'a mut [f32],
    /// The squared gradient's.
    pub square: &'a mut [f32],
}

impl<'a> Values<'a> {
    /// Pieces of so many elements.
    pub fn chunks(self, size: usize) -> impl Iterator<Item = Values<'a>> {
        let moments = self.mean.chunks_mut(size).zip(self.square.chunks_mut(size));
        let pieces = self.param.chunks_mut(size).zip(self.grad.chunks(size)).zip(moments);
        pieces.map(|((param, grad), (mean, square))| Values { param, grad, mean, square })
    }

    /// One step, in place, on this thread.
    pub fn step(&mut self, step: &Step) {
        piece(step, self.param, self.grad, self.mean, self.square);
    }
}

/// One step on one parameter, in place.
pub fn step(step: &Step, values: Values<'_>) {
    for_each(values.chunks(PIECE).collect(), |_, mut values: Values<'_>| values.step(step));
}

/// Some rows of a table, and their gradients.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Columns.
    pub width: usize,
    /// The rows to step, one for each of the table's.
    pub live: &'a [bool],
    /// The rows whose gradient is not 0, ascending.
    pub ids: &'a [u32],
    /// Their gradients.
    pub values: &'a [f32],
}

/// One step on a table's live rows, in place.
pub fn step_rows(
    step: &Step,
    param: &mut [f32],
    rows: Rows<'_>,
    mean: &mut [f32],
    square: &mut [f32],
) {
    let Rows { width, live, ids, values } = rows;
    let together = (PIECE / width.max(1)).max(1);
    let zeros = vec![0f32; width];
    let size = (together * width).max(1);
    let tasks = param.chunks_mut(size).zip(mean.chunks_mut(size).zip(square.chunks_mut(size)));
    for_each(tasks.collect(), |index, (param, (mean, square)): Task<'_>| {
        let first = index * together;
        let mut next = ids.partition_point(|id| (*id as usize) < first);
        let each = param.chunks_exact_mut(width);
        let each = each.zip(mean.chunks_exact_mut(width).zip(square.chunks_exact_mut(width)));
        for (row, (param, (mean, square))) in each.enumerate() {
            let row = first + row;
            let mut grad = zeros.as_slice();
            if ids.get(next).is_some_and(|id| *id as usize == row) {
                grad = &values[next * width..][..width];
                next += 1;
            }
            if live[row] {
                piece(step, param, grad, mean, square);
            }
        }
    });
}

/// A piece of a parameter with its running means.
type Task<'a> = (&'a mut [f32], (&'a mut [f32], &'a mut [f32]));

dispatch! {
fn piece(step: &Step, param: &mut [f32], grad: &[f32], mean: &mut [f32], square: &mut [f32]) {
    let moments = mean.iter_mut().zip(square);
    for ((x, g), (m, v)) in param.iter_mut().zip(grad).zip(moments) {
        let g = g * step.scale;
        *m = mul_add::<FMA>(g - *m, step.mean_rate, *m);
        *v = mul_add::<FMA>(mul_add::<FMA>(g, g, -*v), step.square_rate, *v);
        let deviation = mul_add::<FMA>(v.sqrt(), step.inverse_root, step.eps);
        *x = mul_add::<FMA>(*x, step.shrink, -step.step_size * *m / deviation);
    }
}
}

/// The sum of squares, in f64, in an order that does not depend on the number of threads.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    #[cfg(not(target_family = "wasm"))]
    let parts: Vec<f64> = x.par_chunks(PIECE).map(squares_of).collect();
    #[cfg(target_family = "wasm")]
    let parts: Vec<f64> = x.chunks(PIECE).map(squares_of).collect();
    parts.iter().sum()
}

/// The sum of a few squares, on this thread.
pub fn squares_of(x: &[f32]) -> f64 {
    let mut sum = [0f64];
    squares(x, &mut sum);
    sum[0]
}

dispatch! {
fn squares(x: &[f32], total: &mut [f64; 1]) {
    let mut sums = [0f64; 16];
    for chunk in x.chunks(16) {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    *total = [sums.iter().sum()];
}
}
