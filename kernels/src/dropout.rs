//! Dropout masks from a counter-based generator.
//!
//! An element's fate depends on (seed, step, site) and the element's own index alone, so a mask is
//! the same on every device, at any thread count and however the work is cut into tiles, and the
//! backward pass makes it again instead of keeping it.

/// Names one training step's randomness; [`DropoutKey::site`] gives each layer its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutKey {
    seed: u64,
    step: u64,
}

impl DropoutKey {
    /// The key of a step of a run.
    pub fn new(seed: u64, step: u64) -> Self {
        Self { seed, step }
    }

    /// The dropout of probability `p` at a place of the model that is named by `site`.
    pub fn site(&self, site: u64, p: f32) -> Dropout {
        let key = splitmix(splitmix(splitmix(self.seed) ^ self.step) ^ site);
        Dropout { p, key }
    }
}

/// One dropout: drops with probability `p`, and scales what stays by `1 / (1 - p)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// The probability that an element is dropped, in `[0, 1)`.
    pub p: f32,
    /// The generator's key.
    pub key: u64,
}

impl Dropout {
    /// What a kept element is multiplied by.
    pub fn scale(&self) -> f32 {
        1.0 / (1.0 - self.p)
    }

    /// Hash values below this are dropped.
    pub fn threshold(&self) -> u32 {
        (f64::from(self.p) * f64::from(u32::MAX)) as u32
    }

    /// The multipliers of sixteen elements from `first` on.
    #[inline(always)]
    pub fn multipliers(&self, first: u64) -> [f32; 16] {
        let (threshold, scale) = (self.threshold(), self.scale());
        let mut all = [0f32; 16];
        if first as u32 <= u32::MAX - 15 {
            // In 32 bits, which vectors have more of.
            let key = self.key ^ (first >> 32);
            for (lane, multiplier) in all.iter_mut().enumerate() {
                let low = first as u32 + lane as u32;
                *multiplier = if hash(key, u64::from(low)) < threshold { 0.0 } else { scale };
            }
        } else {
            for (lane, multiplier) in all.iter_mut().enumerate() {
                *multiplier = self.multiplier(first + lane as u64);
            }
        }
        all
    }

    /// The multiplier of element `index`: 0 or [`Dropout::scale`].
    #[inline]
    pub fn multiplier(&self, index: u64) -> f32 {
        if hash(self.key, index) < self.threshold() { 0.0 } else { self.scale() }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
/// generators, 2014).
fn splitmix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 32 well-mixed bits of (key, index): the "lowbias32" finaliser (Wellons, Prospecting for hash
/// functions, 2018), keyed before and between its rounds.
#[inline]
pub fn hash(key: u64, index: u64) -> u32 {
    let mut x = (index as u32) ^ (key as u32);
    x ^= (index >> 32) as u32;
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= (key >> 32) as u32;
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// A standard normal number for each (key, index): Box and Muller's transform of two hashes.
pub fn normal(key: u64, index: u64) -> f32 {
    let uniform = |i: u64| (f64::from(hash(key, i)) + 0.5) / 4_294_967_296.0;
    let (u, v) = (uniform(2 * index), uniform(2 * index + 1));
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_dropped_and_the_mean_is_kept() {
        const N: u64 = 1_000_000;
        for site in 0..20 {
            let dropout = DropoutKey::new(7, 3).site(site, 0.1);
            let dropped = (0..N).filter(|&i| dropout.multiplier(i) == 0.0).count() as f64;
            // Five standard deviations of a binomial with p = 0.1.
            let bound = 5.0 * (N as f64 * 0.09).sqrt();
            assert!((dropped - 0.1 * N as f64).abs() < bound, "site {site}: {dropped}");
        }
    }

    #[test]
    fn keys_and_neighbours_are_independent() {
        const N: u64 = 200_000;
        let masks: Vec<Vec<bool>> = (0..6)
            .map(|site| {
                let dropout = DropoutKey::new(1, 1 + site / 3).site(site % 3, 0.5);
                (0..N).map(|i| dropout.multiplier(i) == 0.0).collect()
            })
            .collect();
        let bound = 5.0 * (N as f64 * 0.25).sqrt();
        let equal = |a: &[bool], b: &[bool]| a.iter().zip(b).filter(|(x, y)| x == y).count() as f64;
        for (i, a) in masks.iter().enumerate() {
            for b in &masks[i + 1..] {
                assert!((equal(a, b) - N as f64 / 2.0).abs() < bound);
            }
            for lag in [1, 2, 4, 32, 384, 1536] {
                let count = equal(&a[lag..], a);
                assert!((count - (N as f64 - lag as f64) / 2.0).abs() < bound, "lag {lag}");
            }
        }
    }

    #[test]
    fn normal_numbers_are_normal() {
        let draws: Vec<f64> = (0..100_000).map(|i| f64::from(normal(5, i))).collect();
        let n = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        assert!(mean.abs() < 5.0 / n.sqrt(), "{mean}");
        assert!((variance - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{variance}");
    }
}
