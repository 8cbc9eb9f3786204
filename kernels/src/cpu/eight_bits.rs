//! A linear layer's products in integers of 8 bits while it learns: its output, and its input's
//! gradient. Its weight's gradient, a sum over tokens, stays in floats.
//!
//! Wortsman et al., Stable and low-precision training for large-scale vision-language models (2023),
//! whose SwitchBack this is, with a scale for each output of the weight in the place of one for all.
//! Activations and gradients have a scale and a zero point a row, 8 bits and none of them spared:
//! that is for processors with products of bytes in 32 bits (VNNI, AMX). The weight's integers are the
//! same in both products. In the second one their scales belong to what is summed: the gradient is
//! multiplied by them before it becomes integers itself.

mod gradient;
mod product;
mod rows;
#[cfg(target_arch = "x86_64")]
mod vnni;
mod weight;

pub use gradient::{OperandRun8, Operands8};
pub use product::{Product, Zeros, multiply};
pub use rows::Rows8;
pub use weight::{Panels8, WeightRows8, rows_together, weight_rows};

use super::dispatch;
use super::int8::{Tile, full_range_tile};

/// Rounds to the nearest integer, ties to even, when it is added, which then is in the lower bits.
const ROUND: f32 = 12_582_912.0;

/// What is narrower than this counts as 0: its inverse would be infinite.
const LEAST: f32 = 1e-30;

/// What multiplies bytes here.
pub fn tile() -> Tile {
    full_range_tile()
}
