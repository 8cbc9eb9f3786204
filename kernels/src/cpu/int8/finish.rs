//! What becomes of products.

use crate::cpu::exact::gelu;
use crate::cpu::lanes::{Finish, Lanes};

/// The product itself.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

/// With the bias.
#[derive(Debug, Clone, Copy)]
pub struct Biased;

/// GELU of the product with its bias.
#[derive(Debug, Clone, Copy)]
pub struct Gelu;

impl Finish for Plain {
    #[inline(always)]
    fn on<T: Lanes>(self, product: T, _: T) -> T {
        product
    }
}

impl Finish for Biased {
    #[inline(always)]
    fn on<T: Lanes>(self, product: T, bias: T) -> T {
        product + bias
    }
}

impl Finish for Gelu {
    const IS_GELU: bool = true;

    #[inline(always)]
    fn on<T: Lanes>(self, product: T, bias: T) -> T {
        gelu(product + bias)
    }
}
