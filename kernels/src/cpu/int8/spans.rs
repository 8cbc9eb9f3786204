//! Where sums of products fit 16 bits, as weights tell before any activation is there.
//!
//! Tiles that add pairs of products up in 16 bits could widen them only after every second pair if
//! they knew no more than the largest weight. But trained weights are mostly small: in nearly every
//! span of 32 of them no activations whatever make a sum that 16 bits do not hold, and there a
//! tile widens once.

use super::WEIGHT_LIMIT;

/// So much of the summed dimension is added up in 16 bits where [`fits`] says that it may be.
pub const SPAN: usize = 32;

/// What the weights of one lane may add up to, times the largest activation.
const MOST: i16 = i16::MAX / 127;

/// A lane has half of a span's weights: their sum does not overflow here.
const _: () = assert!((SPAN as i32 / 2) * (WEIGHT_LIMIT as i32) <= i16::MAX as i32);

/// Whether 16 bits hold the sums of products of one output's weights with any activations of 7 bits,
/// added up in any order. Of four consecutive weights the first two belong to one lane and the last
/// two to another.
pub fn fits(weights: &[i8; SPAN]) -> bool {
    let (mut above, mut below) = ([0i16; 4], [0i16; 4]);
    for four in weights.as_chunks::<4>().0 {
        for ((above, below), q) in above.iter_mut().zip(&mut below).zip(four) {
            *above += i16::from(*q).max(0);
            *below -= i16::from(*q).min(0);
        }
    }
    [above, below].into_iter().all(|[a, b, c, d]| a + b <= MOST && c + d <= MOST)
}
