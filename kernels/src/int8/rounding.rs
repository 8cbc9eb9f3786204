//! Weights as integers, rounded so that what comes out changes little.
//!
//! An error that one integer makes is taken back by those after it, as far as their inputs come together. Chee et al.,
//! QuIP: 2-bit quantization of large language models with guarantees (2023), LDLQ; its integers are those of GPTQ
//! (Frantar et al., 2022).

use crate::cpu::int8::WEIGHT_LIMIT;
use crate::cpu::parallel::{BLOCK, for_each};

/// The largest integer.
const LIMIT: f32 = WEIGHT_LIMIT as f32;
/// The step of a row whose largest weight is the geometric mean of all rows' is so much of that. Errors weigh alike in
/// all rows, so steps are the same, as far as the largest integer allows: coded, narrow rows take fewer bits then. On
/// MiniLM 5 bits a weight, and the label of one text in a hundred.
const STEP: f32 = 1.0 / 45.0;
/// So much of the mean of the moments' diagonal is added to it: the inputs that were seen are not all there are.
const DAMPING: f64 = 0.01;
/// What is smaller than this counts as 0: its inverse would be infinite.
const LEAST: f32 = 1e-30;

/// What an error at each input asks of those behind it.
#[derive(Debug)]
pub struct Feedback {
    /// The inputs in the order in which they are rounded, those that are large first.
    order: Vec<usize>,
    /// For each of them, in this order, the shares that it takes of the errors of those before it.
    shares: Vec<Vec<f32>>,
}

impl Feedback {
    /// From second moments of inputs: the sum of `xᵀ · x` over them, `[in, in]`. `None` where nothing was seen.
    ///
    /// # Panics
    /// When there are not `inputs²` moments: a caller's mistake.
    pub fn of(moments: &[f32], inputs: usize) -> Option<Self> {
        assert_eq!(moments.len(), inputs * inputs, "moments of {inputs} inputs");
        let diagonal: Vec<f32> = (0..inputs).map(|i| moments[i * inputs + i]).collect();
        let mean = diagonal.iter().map(|x| f64::from(*x)).sum::<f64>() / inputs.max(1) as f64;
        // Written so that NaN fails.
        if !(mean > 0.0 && mean.is_finite()) {
            return None;
        }
        let mut order: Vec<usize> = (0..inputs).collect();
        order.sort_by(|a, b| diagonal[*b].total_cmp(&diagonal[*a]));
        // The lower triangle, in this order. It becomes (U + 1) · D · (U + 1)ᵀ, U's columns in the place of its rows.
        let mut rows: Vec<Vec<f64>> = order
            .iter()
            .enumerate()
            .map(|(i, row)| {
                let of_row = order[..=i].iter().map(|j| f64::from(moments[row * inputs + j]));
                let mut of_row: Vec<f64> = of_row.collect();
                of_row[i] += DAMPING * mean;
                of_row
            })
            .collect();
        let mut shares = vec![Vec::new(); inputs];
        for pivot in (0..inputs).rev() {
            let (before, after) = rows.split_at_mut(pivot);
            let row = std::mem::take(&mut after[0]);
            // Damped moments are positive; what rounding makes of it is held above 0.
            let d = row[pivot].max(DAMPING * mean * 1e-3);
            for_each(before.chunks_mut(BLOCK).collect(), |index, rows: &mut [Vec<f64>]| {
                for (i, of_row) in rows.iter_mut().enumerate() {
                    let share = row[index * BLOCK + i] / d;
                    of_row.iter_mut().zip(&row).for_each(|(x, y)| *x -= share * y);
                }
            });
            shares[pivot] = row[..pivot].iter().map(|x| (x / d) as f32).collect();
        }
        Some(Self { order, shares })
    }
}

/// A weight `[out, in]` as integers within ±63, `q · scale[out]`: each the nearest one, or, with feedback, what keeps the
/// products.
/// With `coarseness` steps are so many times as large as usual.
pub fn round_weight(
    weight: &[f32],
    inputs: usize,
    coarseness: f32,
    feedback: Option<&Feedback>,
) -> (Vec<i8>, Vec<f32>) {
    let inputs = inputs.max(1);
    let mut integers = vec![0i8; weight.len()];
    let mut scales = steps(weight, inputs, STEP * coarseness);
    let tasks = integers.chunks_mut(inputs).zip(&mut scales).zip(weight.chunks(inputs));
    for_each(tasks.collect(), |_, ((integers, scale), row): ((&mut [i8], &mut f32), &[f32])| {
        match feedback {
            Some(feedback) => round_row(row, *scale, feedback, integers),
            None => integers.iter_mut().zip(row).for_each(|(q, x)| *q = nearest(*x, *scale)),
        }
    });
    (integers, scales)
}

/// Each row's step, `step` of the usual largest weight; 1 where it is all zeros.
fn steps(weight: &[f32], inputs: usize, step: f32) -> Vec<f32> {
    let largest = |row: &[f32]| row.iter().fold(0f32, |most, x| most.max(x.abs()));
    let largest: Vec<f32> = weight.chunks(inputs).map(largest).collect();
    let logarithms = largest.iter().filter(|most| **most >= LEAST).map(|most| f64::from(most.ln()));
    let (count, sum) = logarithms.fold((0, 0.0), |(count, sum), x| (count + 1, sum + x));
    let step = (sum / f64::from(count.max(1))).exp() as f32 * step;
    let of_row = |most: &f32| if *most < LEAST { 1.0 } else { step.max(most / LIMIT) };
    largest.iter().map(of_row).collect()
}

fn nearest(x: f32, scale: f32) -> i8 {
    (x / scale).round_ties_even().clamp(-LIMIT, LIMIT) as i8
}

fn round_row(row: &[f32], scale: f32, feedback: &Feedback, integers: &mut [i8]) {
    let mut errors = Vec::with_capacity(row.len());
    for (input, shares) in feedback.order.iter().zip(&feedback.shares) {
        let x = row[*input];
        let q = nearest(x + dot(&errors, shares), scale);
        integers[*input] = q;
        errors.push(x - f32::from(q) * scale);
    }
}

/// In sixteen sums, so that it becomes vectors.
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0f32; 16];
    let (x, y) = (x.as_chunks::<16>(), y.as_chunks::<16>());
    for (x, y) in x.0.iter().zip(y.0) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += x * y;
        }
    }
    let rest: f32 = x.1.iter().zip(y.1).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dropout::normal;

    /// Inputs that come together, `[n, inputs]`, and their second moments.
    fn moments(n: usize, inputs: usize) -> Vec<f32> {
        let mut sums = vec![0f32; inputs * inputs];
        for token in 0..n {
            let common = normal(5, token as u64);
            let x: Vec<f32> = (0..inputs)
                .map(|i| normal(6, (token * inputs + i) as u64) + 2.0 * common * (i % 3) as f32)
                .collect();
            for i in 0..inputs {
                for j in 0..inputs {
                    sums[i * inputs + j] += x[i] * x[j];
                }
            }
        }
        sums
    }

    /// The mean square by which products change.
    fn error(weight: &[f32], (integers, scales): &(Vec<i8>, Vec<f32>), moments: &[f32]) -> f64 {
        let inputs = weight.len() / scales.len();
        let mut sum = 0.0;
        for (row, scale) in scales.iter().enumerate() {
            let at = |i: usize| row * inputs + i;
            let e: Vec<f64> = (0..inputs)
                .map(|i| f64::from(weight[at(i)] - f32::from(integers[at(i)]) * scale))
                .collect();
            for i in 0..inputs {
                for j in 0..inputs {
                    sum += e[i] * e[j] * f64::from(moments[i * inputs + j]);
                }
            }
        }
        sum
    }

    #[test]
    fn feedback_keeps_products_better_than_the_nearest_integers() {
        for inputs in [1, 7, 48, 130] {
            let weight: Vec<f32> = (0..20 * inputs as u64).map(|i| normal(1, i)).collect();
            let moments = moments(40, inputs);
            let feedback = Feedback::of(&moments, inputs).unwrap();
            let nearest = error(&weight, &round_weight(&weight, inputs, 1.0, None), &moments);
            let fed =
                error(&weight, &round_weight(&weight, inputs, 1.0, Some(&feedback)), &moments);
            let bound = if inputs > 40 { 0.5 } else { 1.0 };
            assert!(fed <= bound * nearest, "{inputs}: {fed} of {nearest}");
        }
    }

    #[test]
    fn without_anything_in_common_it_is_the_nearest_integers() {
        let inputs = 33;
        let weight: Vec<f32> = (0..5 * inputs as u64).map(|i| normal(2, i)).collect();
        let mut moments = vec![0f32; inputs * inputs];
        (0..inputs).for_each(|i| moments[i * inputs + i] = 1.0 + i as f32);
        let feedback = Feedback::of(&moments, inputs).unwrap();
        let fed = round_weight(&weight, inputs, 1.0, Some(&feedback));
        assert_eq!(fed, round_weight(&weight, inputs, 1.0, None));
    }

    #[test]
    fn rows_of_zeros_and_moments_of_nothing_are_borne() {
        let (integers, scales) = round_weight(&[0.0; 6], 3, 1.0, None);
        assert_eq!((integers, scales), (vec![0; 6], vec![1.0; 2]));
        assert!(Feedback::of(&[0.0; 9], 3).is_none());
        assert!(Feedback::of(&[f32::NAN; 9], 3).is_none());
        assert!(Feedback::of(&[], 0).is_none());
        assert_eq!(round_weight(&[], 0, 1.0, None), (vec![], vec![]));
        // Inputs that always come together, as one.
        let same = Feedback::of(&[4.0; 9], 3).unwrap();
        let (integers, scales) = round_weight(&[0.3, -45.0, 1.7], 3, 1.0, Some(&same));
        assert!(integers[1] == -45 && (scales[0] - 1.0).abs() < 1e-6, "{integers:?} {scales:?}");
    }

    #[test]
    fn steps_are_equal_as_far_as_integers_reach() {
        let weight = [1.0, -1.0, 0.5, 0.0, 0.0, 90.0];
        let (integers, scales) = round_weight(&weight, 1, 1.0, None);
        assert!(scales[0] == scales[1] && scales[1] == scales[2] && scales[3] == 1.0, "{scales:?}");
        assert_eq!((integers[5], integers[3]), (WEIGHT_LIMIT, 0));
        assert!(integers[0] == -integers[1] && integers[0] > integers[2], "{integers:?}");
        let (_, coarser) = round_weight(&weight, 1, 2.0, None);
        assert!(coarser[0] == 2.0 * scales[0] && coarser[5] == scales[5], "{coarser:?}");
    }
}
