//! A linear layer's three products in integers of 8 bits while it learns.
//!
//! Wortsman et al., Stable and low-precision training for large-scale vision-language models (2023),
//! whose SwitchBack this is in the first two products, with a scale for each output of the weight in
//! the place of one for all. Activations and gradients have a scale and a zero point a row there, and
//! 8 bits, none of them spared: that is for processors which add products of bytes up in 32 bits
//! (VNNI, AMX). The weight's integers are the same in both products. In the second one, the input's
//! gradient, their scales belong to what is summed: the output's gradient is multiplied by them before
//! it becomes integers itself. The third, the weight's gradient, is a sum over tokens: there each
//! column of a block of tokens has a scale, on both sides.

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
use super::lanes::ROUND;

/// What there is only where such products are. A page does not train: nothing that holds this exists
/// there, so that what is done with it takes no room in the page's engine.
#[derive(Debug, Clone, Copy)]
pub struct Trains {
    #[cfg(target_arch = "wasm32")]
    _never: std::convert::Infallible,
}

impl Trains {
    /// # Panics
    /// In a page, where no encoder of such products is made (`Encoder::new`).
    fn here() -> Self {
        #[cfg(target_arch = "wasm32")]
        panic!("a page does not train");
        #[cfg(not(target_arch = "wasm32"))]
        Self {}
    }
}

/// So much may be summed: of the largest integers 32 bits hold no more.
pub const MOST_DEPTH: usize = 1 << 16;

/// What is narrower than this counts as 0: its inverse would be infinite.
const LEAST: f32 = 1e-30;

/// What multiplies bytes here.
pub fn tile() -> Tile {
    full_range_tile()
}
