//! exp and the normal distribution for inference in integers: the same bits on every processor, in
//! as many lanes as there are. [`super::math`] has those of training, and their sources.

use super::lanes::{Lanes, ROUND, constant};

/// e^x of x ≤ 0, within 2 units in the last place above −87, and below 1.7e-38 there.
#[inline(always)]
pub fn exp_of_negative<T: Lanes>(x: T) -> T {
    let x = x.or_larger(constant!(T, -87.0));
    let rounded = x * constant!(T, std::f32::consts::LOG2_E) + constant!(T, ROUND);
    let n = rounded - constant!(T, ROUND);
    // ln 2 in two parts.
    let r = x - n * constant!(T, 0.693_359_4) - n * constant!(T, -2.121_944_4e-4);
    let p = constant!(T, 1.987_569_1e-4) * r + constant!(T, 1.398_2e-3);
    let p = p * r + constant!(T, 8.333_452e-3);
    let p = p * r + constant!(T, 4.166_579_6e-2);
    let p = p * r + constant!(T, 1.666_666_5e-1);
    let p = p * r + constant!(T, 0.5);
    (p * (r * r) + r + constant!(T, 1.0)) * rounded.power_of_two()
}

/// Φ(x), the normal distribution, absolute error below 3e-7.
#[inline(always)]
pub fn normal<T: Lanes>(x: T) -> T {
    let one = constant!(T, 1.0);
    let z = x.abs() * constant!(T, std::f32::consts::FRAC_1_SQRT_2);
    let t = one / (z * constant!(T, 0.327_591_1) + one);
    let p = constant!(T, 1.061_405_4) * t + constant!(T, -1.453_152);
    let p = p * t + constant!(T, 1.421_413_7);
    let p = p * t + constant!(T, -0.284_496_74);
    let p = p * t + constant!(T, 0.254_829_6);
    let tail = constant!(T, 0.5) * p * t * exp_of_negative(T::splat(0.0) - z * z);
    x.choose(one - tail, tail)
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
