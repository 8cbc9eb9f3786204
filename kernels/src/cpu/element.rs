//! What the operands of products are kept in.

use bytemuck::{Pod, Zeroable};

use super::gemm::{Kernel, Split};
use super::{bf16, gemm, isa};

/// The type of a product's operands. Sums are f32 always.
pub trait Element: Pod + Send + Sync + PartialEq + std::fmt::Debug {
    /// So many elements, consecutive in the dimension that is summed, lie together in packed
    /// operands.
    const GROUP: usize;
    /// The summed dimension of packed operands is padded with zeros to a multiple of this.
    const DEPTH: usize;

    /// Rounds to nearest, ties to even.
    fn new(x: f32) -> Self;

    /// Rounds rows of `width` floats, `from_ld` apart, to rows `ld` apart, where that is an
    /// instruction; says whether it is. Numbers that are not normal may become 0.
    fn round_rows(from: &[f32], from_ld: usize, width: usize, out: &mut [Self], ld: usize) -> bool;

    /// Floats as they are, where they need no rounding.
    fn exactly(x: &[f32]) -> Option<&[Self]>;

    /// The exact value.
    fn get(self) -> f32;

    /// Its bits, in the lower part.
    fn bits(self) -> u32;

    /// The best kernel there is on this processor.
    fn kernel() -> Kernel<Self>;

    /// What is better still for operands that are worth being made ready for it.
    fn split() -> Option<Split<Self>>;
}

impl Element for f32 {
    const GROUP: usize = 1;
    const DEPTH: usize = 1;

    #[inline(always)]
    fn new(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn round_rows(_: &[f32], _: usize, _: usize, _: &mut [Self], _: usize) -> bool {
        false
    }

    fn exactly(x: &[f32]) -> Option<&[Self]> {
        Some(x)
    }

    #[inline(always)]
    fn get(self) -> f32 {
        self
    }

    #[inline(always)]
    fn bits(self) -> u32 {
        self.to_bits()
    }

    fn kernel() -> Kernel<f32> {
        gemm::f32_kernel(isa())
    }

    fn split() -> Option<Split<f32>> {
        gemm::split_f32(isa())
    }
}

/// The upper half of an f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Pod, Zeroable)]
#[repr(transparent)]
#[cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "pages have none"))]
pub struct Bf16(u16);

impl Element for Bf16 {
    const GROUP: usize = 2;
    // A row of one of the processor's tiles.
    const DEPTH: usize = 32;

    #[inline(always)]
    fn new(x: f32) -> Self {
        let bits = x.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16;
        // Rounding could carry a NaN into an infinity.
        Self(if x.is_nan() { (bits >> 16) as u16 | 0x40 } else { rounded })
    }

    fn round_rows(from: &[f32], from_ld: usize, width: usize, out: &mut [Self], ld: usize) -> bool {
        bf16::round_rows(from, from_ld, width, out, ld)
    }

    fn exactly(_: &[f32]) -> Option<&[Self]> {
        None
    }

    #[inline(always)]
    fn get(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self.0)
    }

    fn kernel() -> Kernel<Bf16> {
        gemm::bf16_kernel(isa())
    }

    fn split() -> Option<Split<Bf16>> {
        None
    }
}

/// The summed dimension, padded.
pub fn padded<E: Element>(depth: usize) -> usize {
    depth.next_multiple_of(E::DEPTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_to_nearest_even_and_keeps_what_is_no_number() {
        for (bits, expected) in [
            (0x3f80_0000, 0x3f80u16),
            (0x3f80_8000, 0x3f80),
            (0x3f81_8000, 0x3f82),
            (0x3f80_8001, 0x3f81),
            (0xbf80_7fff, 0xbf80),
            (0x7f80_0000, 0x7f80),
            (0x7f7f_ffff, 0x7f80),
            (0x7f80_0001, 0x7fc0),
        ] {
            assert_eq!(Bf16::new(f32::from_bits(bits)), Bf16(expected), "{bits:x}");
        }
        assert_eq!(Bf16::new(-2.5).get(), -2.5);
    }
}
