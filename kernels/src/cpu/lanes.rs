//! One body of arithmetic for a number and for several at once.
//!
//! Where compilers make vectors of plain loops this is for numbers alone. In a browser, and for
//! AVX2, they make poor ones: comparisons become masks, and narrowing goes lane by lane. There the
//! same body is computed for several at once, and gives the same bits, as no operation here rounds
//! more than once.

use std::ops::{Add, Mul, Sub};

#[cfg(target_arch = "x86_64")]
use super::{Isa, isa};

/// A number, or several.
pub trait Lanes: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> {
    /// The same number in each lane.
    fn splat(x: f32) -> Self;
    /// A number that is known beforehand, in each lane: see [`constant`].
    fn constant(x: &'static Constant) -> Self;
    /// `other` where it is larger, or else itself.
    fn or_larger(self, other: Self) -> Self;
    /// `other` where it is smaller, or else itself.
    fn or_smaller(self, other: Self) -> Self;
    /// Of n + 1.5 · 2^23, whose lower bits are n: 2^n.
    fn power_of_two(self) -> Self;
}

impl Lanes for f32 {
    #[inline(always)]
    fn splat(x: f32) -> Self {
        x
    }

    #[inline(always)]
    fn constant(x: &'static Constant) -> Self {
        x.0[0]
    }

    #[inline(always)]
    fn or_larger(self, other: Self) -> Self {
        if self < other { other } else { self }
    }

    #[inline(always)]
    fn or_smaller(self, other: Self) -> Self {
        if other < self { other } else { self }
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        f32::from_bits(self.to_bits().wrapping_add(127) << 23)
    }
}

/// A number as often as there are lanes.
#[repr(align(16))]
pub struct Constant(pub [f32; 4]);

/// A number that is known beforehand, in each lane of a type. In a page it lies in memory: as part
/// of the code, engines make it anew for each use, in three instructions.
macro_rules! constant {
    ($lanes:ty, $x:expr) => {{
        static CONSTANT: $crate::cpu::lanes::Constant = $crate::cpu::lanes::Constant([$x; 4]);
        <$lanes as $crate::cpu::lanes::Lanes>::constant(&CONSTANT)
    }};
}

pub(crate) use constant;

/// What happens to each number.
pub trait Map: Copy {
    /// In as many lanes as there are.
    fn on<T: Lanes>(self, x: T) -> T;
}

/// Added to a float of up to 2^22, it rounds it to the nearest integer, ties to even, which then
/// is in the lower bits.
pub const ROUND: f32 = 12_582_912.0;

/// Each number's image, which must be an integer of 0…127 with [`ROUND`] added; gives their sum.
#[inline(always)]
pub fn map_to_bytes(map: impl Map, x: &[f32], out: &mut [u8]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx2 {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::map_to_bytes(map, x, out) };
    }
    let (x, out, mut sum) = wide::map_to_bytes(map, x, out);
    for (out, x) in out.iter_mut().zip(x) {
        let q = (map.on(*x).to_bits() & 127) as i32;
        *out = q as u8;
        sum += q;
    }
    sum
}

/// Each product of two numbers, rounded to the nearest integer, ties to even, of −most…most, which
/// are of a byte.
#[inline(always)]
pub fn round_products(x: &[f32], y: &[f32], most: f32, out: &mut [i8]) {
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx2 {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::round_products(x, y, most, out) };
    }
    let (x, y, out) = wide::round_products(x, y, most, out);
    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
        *out = rounded(x * y, most).to_bits() as i8;
    }
}

#[inline(always)]
fn rounded<T: Lanes>(x: T, most: f32) -> T {
    (x + T::splat(ROUND)).or_larger(T::splat(ROUND - most)).or_smaller(T::splat(ROUND + most))
}

/// The least and the largest, 0 among them.
#[inline(always)]
pub fn range(x: &[f32]) -> (f32, f32) {
    #[cfg(target_arch = "x86_64")]
    if isa() >= Isa::Avx2 {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::range(x) };
    }
    let (x, mut least, mut most) = wide::range(x);
    for x in x {
        (least, most) = (least.or_smaller(*x), most.or_larger(*x));
    }
    (least, most)
}

/// What compilers do not do by themselves, as far as whole vectors go, and the rest.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod wide {
    use super::{Lanes, Map};

    #[inline(always)]
    pub fn map_to_bytes<'a>(
        _: impl Map,
        x: &'a [f32],
        out: &'a mut [u8],
    ) -> (&'a [f32], &'a mut [u8], i32) {
        (x, out, 0)
    }

    #[inline(always)]
    pub fn round_products<'a>(
        x: &'a [f32],
        y: &'a [f32],
        _: f32,
        out: &'a mut [i8],
    ) -> (&'a [f32], &'a [f32], &'a mut [i8]) {
        (x, y, out)
    }

    #[inline(always)]
    pub fn range(x: &[f32]) -> (&[f32], f32, f32) {
        let (mut least, mut most) = ([0f32; 16], [0f32; 16]);
        let (whole, rest) = x.as_chunks::<16>();
        for chunk in whole {
            for ((least, most), x) in least.iter_mut().zip(&mut most).zip(chunk) {
                (*least, *most) = (least.or_smaller(*x), most.or_larger(*x));
            }
        }
        let least = least.into_iter().fold(0.0, f32::or_smaller);
        (rest, least, most.into_iter().fold(0.0, f32::or_larger))
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wide;

mod finish;

pub use finish::{Extremes, Finish, Products, finish};

#[cfg(target_arch = "x86_64")]
mod avx2;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Twice;

    impl Map for Twice {
        fn on<T: Lanes>(self, x: T) -> T {
            x + x + T::splat(ROUND)
        }
    }

    #[test]
    fn what_is_done_to_many_is_what_is_done_to_each() {
        for count in [0, 1, 15, 16, 17, 63] {
            let x: Vec<f32> = (0..count).map(|i| (i * 37 % 64) as f32).collect();
            let mut bytes = vec![0; count];
            let sum = map_to_bytes(Twice, &x, &mut bytes);
            let most = x.iter().copied().fold(0f32, f32::max);
            for (x, byte) in x.iter().zip(&bytes) {
                assert_eq!(f32::from(*byte), 2.0 * x);
            }
            assert_eq!(sum as f32, 2.0 * x.iter().sum::<f32>());
            let (mut halves, mut signed) = (vec![-1.5; count], vec![0i8; count]);
            halves.iter_mut().skip(1).step_by(2).for_each(|x| *x = 0.5);
            round_products(&x, &halves, 63.0, &mut signed);
            for ((x, half), q) in x.iter().zip(&halves).zip(&signed) {
                assert_eq!(f32::from(*q), (x * half).round_ties_even().clamp(-63.0, 63.0));
            }
            assert_eq!(range(&x), (0.0, most));
            let mut with_others = x.clone();
            with_others.extend([f32::NAN, -1.0, f32::NAN]);
            assert_eq!(range(&with_others), (-1.0, most));
            let below: Vec<f32> = x.iter().map(|x| -x).collect();
            assert_eq!(range(&below), (-most, 0.0));
        }
    }
}
