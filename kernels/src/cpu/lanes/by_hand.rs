//! What is written by hand, in `gelu.s` and `probabilities.s`, which say how and why. The page's
//! engine includes both, as `int8/by_spans.rs` says.

use super::{Constant, ROUND};
use crate::cpu::int8::MOST;

/// What rounds, that and the largest integer, and the lower bits: the constants of what makes
/// integers.
pub static CUTS: [Constant; 3] =
    [Constant::new(ROUND), Constant::new(ROUND + MOST), Constant::new(f32::from_bits(127))];

unsafe extern "C" {
    /// GELU of so many eights of a row's products, at least one; `constants` are [`GELU`]'s.
    ///
    /// [`GELU`]: crate::cpu::exact::GELU
    pub fn pagebert_gelu(
        integers: *const i32,
        sums: *const i32,
        scales: *const f32,
        bias: *const f32,
        out: *mut f32,
        zero: i32,
        scale: f32,
        eights: usize,
        constants: &[Constant; 11],
        least: *mut f32,
        most: *mut f32,
    );

    /// Integers of so many sixteens, at least one, and their sum; `constants` are [`CUTS`].
    pub fn pagebert_to_bytes(
        x: *const f32,
        out: *mut u8,
        inverse: f32,
        zero: f32,
        sixteens: usize,
        constants: &[Constant; 3],
    ) -> i32;

    /// The same, wider.
    pub fn pagebert_to_words(
        x: *const f32,
        out: *mut u16,
        inverse: f32,
        zero: f32,
        sixteens: usize,
        constants: &[Constant; 3],
    ) -> i32;

    /// Probabilities of so many sixteens, at least one, as integers, and their sum; `constants` are
    /// [`EXP2`]'s.
    ///
    /// [`EXP2`]: crate::cpu::exact::EXP2
    pub fn pagebert_probabilities_to_bytes(
        scores: *const f32,
        out: *mut u8,
        most: f32,
        scale: f32,
        sixteens: usize,
        constants: &[Constant; 7],
    ) -> i32;

    /// The same, wider.
    pub fn pagebert_probabilities_to_words(
        scores: *const f32,
        out: *mut u16,
        most: f32,
        scale: f32,
        sixteens: usize,
        constants: &[Constant; 7],
    ) -> i32;

    /// Probabilities in the place of so many sixteens of scores, at least one, and their sum; the scores
    /// are given twice, and `least` is less than any.
    pub fn pagebert_softmax(
        scores: *mut f32,
        again: *mut f32,
        least: f32,
        scale: f32,
        sixteens: usize,
        constants: &[Constant; 7],
    ) -> f32;
}
