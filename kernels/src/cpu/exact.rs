//! Curves for inference in integers: the same bits on every processor, in as many lanes as there
//! are. What comes of them is rounded to 7 bits, or weighs what was, so they are no closer than that
//! asks for; [`super::math`] has those of training.
//!
//! Coefficients are fitted by least squares, weighted anew until the largest error is least (Lawson
//! 1961).

use super::lanes::{Constant, Lanes, ROUND};

/// 127 · 2^x of x ≤ 0, relative error below 1e-4 above −126, and below 2e-36 there.
#[inline(always)]
pub fn exp2_times_127<T: Lanes>(x: T) -> T {
    let of = |index: usize| T::constant(&EXP2[index]);
    let (x, round) = (x.or_larger(of(0)), of(1));
    let rounded = x + round;
    let r = x - (rounded - round);
    let p = of(3) * r + of(4);
    let p = p * r + of(5);
    (p * r + of(6)) * rounded.power_of_two()
}

/// The least exponent, what rounds, the integer 127, and the polynomial's coefficients from the
/// highest, where `lanes/probabilities.s` looks for them.
pub static EXP2: [Constant; 7] = [
    Constant::new(-126.0),
    Constant::new(ROUND),
    Constant::new(f32::from_bits(127)),
    Constant::new(7.006_809),
    Constant::new(30.811_632),
    Constant::new(88.044_14),
    Constant::new(126.990_87),
];

/// x · Φ(x), of the normal distribution: absolute error below 1.1e-4, or 2e-6 of a large x.
///
/// Φ(x) − ½ is odd: x times a polynomial of x², which reaches ½ at the end of its range.
#[inline(always)]
pub fn gelu<T: Lanes>(x: T) -> T {
    let of = |index: usize| T::constant(&GELU[index]);
    let x = x.or_larger(of(0));
    let within = x.or_smaller(of(1));
    let u = within * within;
    let p = of(2) * u + of(3);
    let p = p * u + of(4);
    let p = p * u + of(5);
    let p = p * u + of(6);
    let p = p * u + of(7);
    let p = p * u + of(8);
    let p = p * u + of(9);
    x * (p * within + of(10))
}

/// The range within which there is a curve, the polynomial's coefficients from the highest, and ½,
/// where `lanes/gelu.s` looks for them.
pub static GELU: [Constant; 11] = [
    Constant::new(-4.25),
    Constant::new(4.25),
    Constant::new(-8.460_349e-10),
    Constant::new(7.570_79e-8),
    Constant::new(-2.938_790_2e-6),
    Constant::new(6.552_692e-5),
    Constant::new(-9.404_461_6e-4),
    Constant::new(9.257_818e-3),
    Constant::new(-6.545_348_5e-2),
    Constant::new(0.398_420_04),
    Constant::new(0.5),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::math;

    #[test]
    fn they_are_close_to_those_of_training() {
        for i in -130_000..=130_000 {
            let x = i as f32 / 10_000.0;
            let exact = x * math::normal::<false>(x).0;
            assert!((gelu(x) - exact).abs() < 1.1e-4, "{x}");
            let x = -9.0 * x.abs();
            let exact = 127.0 * f64::from(x).exp2();
            let relative = (f64::from(exp2_times_127(x)) / exact - 1.0).abs();
            assert!(relative < 1e-4, "{x}: {relative}");
        }
        for x in [-127.0, -1e30, f32::NEG_INFINITY] {
            let y = exp2_times_127(x);
            assert!((0.0..2e-36).contains(&y), "{x}: {y}");
        }
        for x in [20.0, 1e4, 1e30] {
            assert!((gelu(x) / x - 1.0).abs() < 2e-6 && gelu(-x).abs() < 1e-5, "{x}");
        }
        assert!(gelu(f32::INFINITY) == f32::INFINITY && gelu(f32::NEG_INFINITY).abs() < 1e-5);
        assert!(gelu(f32::NAN).is_nan());
    }
}
