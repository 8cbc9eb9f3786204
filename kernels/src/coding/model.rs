//! How often each integer comes.

use super::{CodingError, MOST_MODELS};

/// Frequencies add up to two to this power.
pub(super) const BITS: u32 = 12;
pub(super) const TOTAL: u32 = 1 << BITS;

/// Frequencies of consecutive integers, as a decoder looks them up.
pub(super) struct Model {
    /// For each number below [`TOTAL`]: the integer's byte, its frequency less 1 from bit 8 on, and the number less the
    /// first of the integer's from bit 20 on.
    slots: Box<[u32; TOTAL as usize]>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").finish_non_exhaustive()
    }
}

impl Model {
    /// The integer that a state begins with, and the state without it.
    #[inline(always)]
    pub(super) fn decode(&self, state: u32) -> (i8, u32) {
        let slot = self.slots[(state % TOTAL) as usize];
        let frequency = (slot >> 8) % TOTAL + 1;
        (slot as u8 as i8, frequency * (state >> BITS) + (slot >> 20))
    }

    /// From the least integer on; `None` unless frequencies add up.
    fn new(least: i8, frequencies: impl Iterator<Item = u16>) -> Option<Self> {
        let mut slots = Vec::with_capacity(TOTAL as usize);
        for (offset, frequency) in frequencies.enumerate() {
            let integer = i8::try_from(i32::from(least) + offset as i32).ok()?;
            for within in 0..u32::from(frequency) {
                slots.push(
                    u32::from(integer as u8) | (u32::from(frequency) - 1) << 8 | within << 20,
                );
            }
            if slots.len() > TOTAL as usize {
                return None;
            }
        }
        Some(Self { slots: slots.into_boxed_slice().try_into().ok()? })
    }
}

/// The models that lie `at` so many bytes, and where they end: their number; for each its least integer, how many
/// integers less 1, and their frequencies in 16 bits.
pub(super) fn read_all(bytes: &[u8], at: usize) -> Result<(Vec<Model>, usize), CodingError> {
    let short = |expected| CodingError::Length { found: bytes.len(), expected };
    let count = usize::from(*bytes.get(at).ok_or_else(|| short(at + 1))?);
    if count > MOST_MODELS {
        return Err(CodingError::Model(MOST_MODELS));
    }
    let (mut models, mut at) = (Vec::with_capacity(count), at + 1);
    for index in 0..count {
        let head = bytes.get(at..at + 2).ok_or_else(|| short(at + 2))?;
        let end = at + 2 + 2 * (usize::from(head[1]) + 1);
        let frequencies = bytes.get(at + 2..end).ok_or_else(|| short(end))?;
        let frequencies = frequencies.as_chunks().0.iter().map(|pair| u16::from_le_bytes(*pair));
        models.push(Model::new(head[0] as i8, frequencies).ok_or(CodingError::Model(index))?);
        at = end;
    }
    Ok((models, at))
}
