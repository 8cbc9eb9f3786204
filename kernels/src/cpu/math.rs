//! exp and erf in f32, as straight lines of arithmetic that become vectors, sums of rows, and what keeps
//! a loop from becoming too long ones.
//!
//! `FMA` asks for fused multiply-adds, which make them a quarter faster where the processor has
//! them, and a call of a function each where it has not. Without, every processor gives the same
//! bits.

use super::Element;

/// Has a loop take its chunks one after the other. For AVX-512 compilers would rather take sixteen of
/// them at once, by gathers and scatters, which are slow; WebAssembly has none.
#[inline(always)]
pub fn one_by_one(index: usize) -> usize {
    if cfg!(target_family = "wasm") { index } else { std::hint::black_box(index) }
}

/// What `f` makes of each index. As `std::array::from_fn`, of which compilers make a function of its
/// own where there is much of it already: one for the least of processors.
#[inline(always)]
pub fn each<T: Copy + bytemuck::Zeroable, const N: usize>(f: impl Fn(usize) -> T) -> [T; N] {
    let mut all = [T::zeroed(); N];
    for (index, x) in all.iter_mut().enumerate() {
        *x = f(index);
    }
    all
}

/// Sixteen become one, by halves: one after the other they would take as long as a short row does in
/// all. Step by step, as of a loop compilers make single numbers here.
#[inline(always)]
pub fn by_halves(lanes: [f32; 16], f: impl Fn(f32, f32) -> f32) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| f(lanes[i], lanes[i + 8]));
    let four: [f32; 4] = std::array::from_fn(|i| f(eight[i], eight[i + 4]));
    let two: [f32; 2] = std::array::from_fn(|i| f(four[i], four[i + 2]));
    f(two[0], two[1])
}

/// The sum of f over two rows in sixteen lanes: a fixed order that is also a vector's.
#[inline(always)]
pub fn lanes<T: Copy + Into<f32>>(x: &[f32], y: &[T], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0f32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    let (whole_y, rest_y) = y.as_chunks::<16>();
    for (index, (x, y)) in whole.iter().zip(whole_y).enumerate() {
        one_by_one(index);
        sums = std::array::from_fn(|lane| sums[lane] + f(x[lane], y[lane].into()));
    }
    for ((sum, x), y) in sums.iter_mut().zip(rest).zip(rest_y) {
        *sum += f(*x, (*y).into());
    }
    by_halves(sums, |x, y| x + y)
}

/// The product of two rows, in four times sixteen lanes: with fewer each sum would wait for the one
/// before it.
#[inline(always)]
pub fn dot<E: Element, const FMA: bool>(x: &[f32], y: &[E]) -> f32 {
    let add = |sums: [f32; 16], x: &[f32; 16], y: &[E; 16]| -> [f32; 16] {
        each(|lane| mul_add::<FMA>(x[lane], y[lane].get(), sums[lane]))
    };
    let ((whole, rest), (whole_y, rest_y)) = (x.as_chunks::<16>(), y.as_chunks::<16>());
    let ((fours, single), (fours_y, single_y)) = (whole.as_chunks::<4>(), whole_y.as_chunks::<4>());
    let [mut a, mut b, mut c, mut d] = [[0f32; 16]; 4];
    for (index, (x, y)) in fours.iter().zip(fours_y).enumerate() {
        one_by_one(index);
        a = add(a, &x[0], &y[0]);
        b = add(b, &x[1], &y[1]);
        c = add(c, &x[2], &y[2]);
        d = add(d, &x[3], &y[3]);
    }
    for (index, (x, y)) in single.iter().zip(single_y).enumerate() {
        one_by_one(index);
        a = add(a, x, y);
    }
    for ((sum, x), y) in a.iter_mut().zip(rest).zip(rest_y) {
        *sum = mul_add::<FMA>(*x, y.get(), *sum);
    }
    let sums: [f32; 16] = each(|lane| (a[lane] + b[lane]) + (c[lane] + d[lane]));
    by_halves(sums, |x, y| x + y)
}

/// Columns whose sums stay in registers together: four vectors of 512 bits.
const WIDE: usize = 64;

/// Adds rows as wide as `out`, each times its weight, one after the other: of some columns at a time,
/// so that their sums stay in registers.
#[inline(always)]
pub fn weigh_onto<'a, E: Element, const FMA: bool>(
    rows: impl Iterator<Item = (&'a [E], f32)> + Clone,
    out: &mut [f32],
) {
    let (whole, rest) = out.as_chunks_mut::<WIDE>();
    let first_rest = WIDE * whole.len();
    for (index, out) in whole.iter_mut().enumerate() {
        let mut sums = *out;
        for (row, weight) in rows.clone() {
            for (sum, x) in sums.iter_mut().zip(&row[WIDE * index..][..WIDE]) {
                *sum = mul_add::<FMA>(weight, x.get(), *sum);
            }
        }
        *out = sums;
    }
    if rest.is_empty() {
        return;
    }
    for (row, weight) in rows {
        for (sum, x) in rest.iter_mut().zip(&row[first_rest..]) {
            *sum = mul_add::<FMA>(weight, x.get(), *sum);
        }
    }
}

/// a · b + c.
#[inline(always)]
pub fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// e^x, within 2 units in the last place; 0 below the smallest normal number.
///
/// Range reduction and polynomial of Cephes' `expf` (Moshier).
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.0, 88.0);
    // Adding 1.5 · 2^23 rounds to the nearest integer, which then is in the lower bits: a cast
    // would do as well, but it keeps compilers from making vectors of this.
    const ROUND: f32 = 12_582_912.0;
    let rounded = mul_add::<FMA>(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = mul_add::<FMA>(-n, LN2_LOW, mul_add::<FMA>(-n, LN2_HIGH, clamped));
    let mut p = 1.987_569_1e-4;
    for next in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = mul_add::<FMA>(p, r, next);
    }
    let y = mul_add::<FMA>(p, r * r, r) + 1.0;
    let scale = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x < -87.0 { 0.0 } else { y * scale }
}

/// tanh(x), absolute error below 3e-7; the same bits everywhere.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // Of the half with e^-2|x| ≤ 1, which does not overflow.
    let e = exp::<false>(-2.0 * x.abs());
    let y = (1.0 - e) / (1.0 + e);
    if x < 0.0 { -y } else { y }
}

/// Φ(x), the normal distribution, and φ(x), its density: what GELU and its derivative are made of.
/// Absolute error of Φ below 3e-7.
///
/// Abramowitz and Stegun, Handbook of mathematical functions (1964), 7.1.26.
#[inline(always)]
pub fn normal<const FMA: bool>(x: f32) -> (f32, f32) {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / mul_add::<FMA>(0.327_591_1, z, 1.0);
    let mut p = 1.061_405_4;
    for next in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = mul_add::<FMA>(p, t, next);
    }
    let gauss = exp::<FMA>(-z * z);
    let tail = 0.5 * p * t * gauss;
    let cdf = if x >= 0.0 { 1.0 - tail } else { tail };
    const INVERSE_SQRT_TAU: f32 = 0.398_942_3;
    (cdf, INVERSE_SQRT_TAU * gauss)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Φ in f64: the series around 0, the continued fraction far from it.
    fn cdf(x: f64) -> f64 {
        let z = x.abs() / std::f64::consts::SQRT_2;
        let erfc = if z < 2.5 {
            let (mut term, mut sum) = (z, z);
            for n in 1..200 {
                term *= -z * z / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            1.0 - 2.0 / std::f64::consts::PI.sqrt() * sum
        } else {
            let mut fraction = z;
            for n in (1..200).rev() {
                fraction = z + f64::from(n) / 2.0 / fraction;
            }
            (-z * z).exp() / fraction / std::f64::consts::PI.sqrt()
        };
        if x >= 0.0 { 1.0 - erfc / 2.0 } else { erfc / 2.0 }
    }

    #[test]
    fn exp_is_exp() {
        exp_is_exp_in::<true>();
        exp_is_exp_in::<false>();
    }

    fn exp_is_exp_in<const FMA: bool>() {
        for i in -870_000..880_000 {
            let x = i as f32 / 10_000.0;
            let exact = f64::from(x).exp();
            let relative = (f64::from(exp::<FMA>(x)) - exact).abs() / exact;
            assert!(relative < 2.5e-7, "{x}: {relative}");
        }
        assert_eq!([-1e30, f32::NEG_INFINITY, 0.0].map(exp::<FMA>), [0.0, 0.0, 1.0]);
        assert!(exp::<FMA>(f32::NAN).is_nan());
    }

    #[test]
    fn tanh_is_tanh() {
        for i in -120_000..=120_000 {
            let x = i as f32 / 10_000.0;
            let error = (f64::from(tanh(x)) - f64::from(x).tanh()).abs();
            assert!(error < 3e-7, "{x}: {error}");
        }
        assert_eq!([-1e30, 0.0, 1e30].map(tanh), [-1.0, 0.0, 1.0]);
        assert!(tanh(f32::NAN).is_nan());
    }

    #[test]
    fn the_normal_distribution_is_within_its_bound() {
        normal_is_within_its_bound::<true>();
        normal_is_within_its_bound::<false>();
    }

    fn normal_is_within_its_bound<const FMA: bool>() {
        for i in -120_000..=120_000 {
            let x = i as f32 / 10_000.0;
            let error = (f64::from(normal::<FMA>(x).0) - cdf(f64::from(x))).abs();
            assert!(error < 3e-7, "{x}: {error}");
            // GELU itself.
            let gelu = f64::from(x * normal::<FMA>(x).0) - f64::from(x) * cdf(f64::from(x));
            assert!(gelu.abs() < 1e-6, "{x}: {gelu}");
        }
        assert_eq!(normal::<FMA>(1e30).0, 1.0);
        assert_eq!(normal::<FMA>(-1e30).0, 0.0);
    }
}
