//! One body of arithmetic for a number and for several at once.
//!
//! Where compilers make vectors of plain loops this is for numbers alone. In a browser, and for
//! AVX2, they make poor ones: comparisons become masks, and narrowing goes lane by lane. There the
//! same body is computed for several at once, and gives the same bits, as no operation here rounds
//! more than once. With AVX-512 that is for what ends in one number of many (`lanes/avx512.rs`). In a page what takes longest is written by hand besides (`lanes/gelu.s`,
//! `lanes/probabilities.s`), operation by operation the same.

use std::ops::{Add, Mul, Sub};

use super::dispatch;
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
#[repr(C, align(16))]
pub struct Constant(pub [f32; 4]);

impl Constant {
    /// The same in each lane.
    pub const fn new(x: f32) -> Self {
        Self([x; 4])
    }
}

/// A number that is known beforehand, in each lane of a type. In a page it lies in memory: as part
/// of the code, engines make it anew for each use, in three instructions.
macro_rules! constant {
    ($lanes:ty, $x:expr) => {{
        static CONSTANT: $crate::cpu::lanes::Constant = $crate::cpu::lanes::Constant::new($x);
        <$lanes as $crate::cpu::lanes::Lanes>::constant(&CONSTANT)
    }};
}

pub(crate) use constant;

/// What happens to each number.
pub trait Map: Copy {
    /// In as many lanes as there are.
    fn on<T: Lanes>(self, x: T) -> T;

    /// [`map_to_integers`] of the first, a multiple of 16 and at least that.
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    fn by_hand(self, x: &[f32], out: Destination<'_>) -> i32;
}

/// Where integers go.
#[derive(Debug)]
pub enum Destination<'a> {
    /// As bytes.
    Bytes(&'a mut [u8]),
    /// As wider ones.
    Words(&'a mut [u16]),
}

impl Destination<'_> {
    /// Those from one on.
    fn from(&mut self, first: usize) -> Destination<'_> {
        match self {
            Self::Bytes(out) => Destination::Bytes(&mut out[first..]),
            Self::Words(out) => Destination::Words(&mut out[first..]),
        }
    }
}

/// Added to a float of up to 2^22, it rounds it to the nearest integer, ties to even, which then
/// is in the lower bits.
pub const ROUND: f32 = 12_582_912.0;

/// Each number's image, which must be an integer of 0…127 with [`ROUND`] added; gives their sum.
#[inline(always)]
pub fn map_to_integers(map: impl Map, x: &[f32], mut out: Destination<'_>) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if let (Isa::Avx2, Destination::Bytes(out)) = (isa(), &mut out) {
        // SAFETY: the processor has AVX2.
        return unsafe { avx2::map_to_bytes(map, x, out) };
    }
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    let (mut sum, done) = match x.len() / 16 * 16 {
        0 => (0, 0),
        done => (map.by_hand(&x[..done], out.from(0)), done),
    };
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    let (mut sum, done) = (0, 0);
    let mut each = |x: &f32| {
        let q = (map.on(*x).to_bits() & 127) as u8;
        sum += i32::from(q);
        q
    };
    match out.from(done) {
        Destination::Bytes(out) => {
            out.iter_mut().zip(&x[done..]).for_each(|(out, x)| *out = each(x))
        }
        Destination::Words(out) => {
            out.iter_mut().zip(&x[done..]).for_each(|(out, x)| *out = u16::from(each(x)));
        }
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

/// Each product of two numbers; gives the least and the largest, 0 among them.
pub fn times(x: &[f32], y: &[f32], out: &mut [f32]) -> (f32, f32) {
    #[cfg(target_arch = "x86_64")]
    if isa() >= Isa::Avx512 {
        // SAFETY: the processor has AVX-512.
        return unsafe { avx512::times(x, y, out) };
    }
    products(x, y, out);
    range(out)
}

dispatch! {
fn products(x: &[f32], y: &[f32], out: &mut [f32]) {
    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
        *out = x * y;
    }
}
}

/// What compilers do not do by themselves, as far as whole vectors go, and the rest.
#[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
mod wide {
    use super::Lanes;

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
mod by_hand;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wide;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub use wide::{add_weighted_bytes, dot_bytes, probabilities, quantise, softmax};

mod finish;

pub use finish::{Extremes, Finish, Products, finish};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    struct Twice;

    impl Map for Twice {
        fn on<T: Lanes>(self, x: T) -> T {
            x + x + T::splat(ROUND)
        }

        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        fn by_hand(self, _: &[f32], _: Destination<'_>) -> i32 {
            unreachable!("unit tests run natively")
        }
    }

    #[test]
    fn what_is_done_to_many_is_what_is_done_to_each() {
        for count in [0, 1, 15, 16, 17, 63] {
            let x: Vec<f32> = (0..count).map(|i| (i * 37 % 64) as f32).collect();
            let mut bytes = vec![0; count];
            let sum = map_to_integers(Twice, &x, Destination::Bytes(&mut bytes));
            let mut words = vec![0; count];
            assert_eq!(map_to_integers(Twice, &x, Destination::Words(&mut words)), sum);
            let most = x.iter().copied().fold(0f32, f32::max);
            for (x, byte) in x.iter().zip(&bytes) {
                assert_eq!(f32::from(*byte), 2.0 * x);
            }
            assert!(words.iter().zip(&bytes).all(|(word, byte)| *word == u16::from(*byte)));
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
            let mut products = vec![7f32; with_others.len()];
            let found = times(&with_others, &vec![-2.0; with_others.len()], &mut products);
            assert_eq!(found, (-2.0 * most, 2.0));
            let same = |(x, y): (&f32, &f32)| y.to_bits() == (x * -2.0).to_bits() || x.is_nan();
            assert!(with_others.iter().zip(&products).all(same));
            let below: Vec<f32> = x.iter().map(|x| -x).collect();
            assert_eq!(range(&below), (-most, 0.0));
        }
    }
}
