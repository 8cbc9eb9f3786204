//! exp and the normal distribution for inference in integers: the same bits on every processor, in
//! as many lanes as there are. [`super::math`] has those of training, and their sources.

use super::lanes::{Lanes, ROUND};

/// e^x of x ≤ 0, within 2 units in the last place above −87, and below 1.7e-38 there.
#[inline(always)]
pub fn exp_of_negative<T: Lanes>(x: T) -> T {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.or_larger(T::splat(-87.0));
    let rounded = x * T::splat(std::f32::consts::LOG2_E) + T::splat(ROUND);
    let n = rounded - T::splat(ROUND);
    let r = x - n * T::splat(LN2_HIGH) - n * T::splat(LN2_LOW);
    let mut p = T::splat(1.987_569_1e-4);
    for next in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + T::splat(next);
    }
    (p * (r * r) + r + T::splat(1.0)) * rounded.power_of_two()
}

/// Φ(x), the normal distribution, absolute error below 3e-7.
#[inline(always)]
pub fn normal<T: Lanes>(x: T) -> T {
    let z = x.abs() * T::splat(std::f32::consts::FRAC_1_SQRT_2);
    let t = T::splat(1.0) / (z * T::splat(0.327_591_1) + T::splat(1.0));
    let mut p = T::splat(1.061_405_4);
    for next in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p * t + T::splat(next);
    }
    let tail = T::splat(0.5) * p * t * exp_of_negative(T::splat(0.0) - z * z);
    x.choose(T::splat(1.0) - tail, tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::math;

    #[test]
    fn they_are_those_of_training() {
        for i in -130_000..=130_000 {
            let x = i as f32 / 10_000.0;
            assert_eq!(normal(x).to_bits(), math::normal::<false>(x).0.to_bits(), "{x}");
            let x = -6.0 * x.abs();
            assert_eq!(exp_of_negative(x).to_bits(), math::exp::<false>(x).to_bits(), "{x}");
        }
        for x in [-88.0, -1e30, f32::NEG_INFINITY] {
            let y = exp_of_negative(x);
            assert!((0.0..1.7e-38).contains(&y), "{x}: {y}");
        }
        assert_eq!(normal(1e30), 1.0);
        assert!(normal(-1e30) < 1e-37);
        assert!(normal(f32::NAN).is_nan());
    }
}
