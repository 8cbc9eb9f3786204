//! Rounding to bf16 by the instruction that processors have which multiply it.

use super::Bf16;
#[cfg(target_arch = "x86_64")]
use super::{Isa, isa};

/// Rounds rows of `width` floats, `from_ld` apart, to rows `ld` apart, where the processor has an
/// instruction for it; says whether it has. Numbers below the least normal one become 0, which
/// [`Element::new`](super::Element::new) keeps.
#[cfg(target_arch = "x86_64")]
pub fn round_rows(from: &[f32], from_ld: usize, width: usize, out: &mut [Bf16], ld: usize) -> bool {
    if isa() < Isa::Avx512Bf16 {
        return false;
    }
    // SAFETY: the processor has what the function was compiled for.
    unsafe { by_instruction(from, from_ld, width, out, ld) };
    true
}

/// Elsewhere there is none.
#[cfg(not(target_arch = "x86_64"))]
#[cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "pages have none"))]
pub fn round_rows(_: &[f32], _: usize, _: usize, _: &mut [Bf16], _: usize) -> bool {
    false
}

/// # Safety
/// The processor must have AVX-512 with bf16.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn by_instruction(from: &[f32], from_ld: usize, width: usize, out: &mut [Bf16], ld: usize) {
    use std::arch::x86_64::*;
    for (from, out) in from.chunks(from_ld.max(1)).zip(out.chunks_mut(ld.max(1))) {
        let (from, out) = (&from[..width], &mut out[..width]);
        let ((from, from_rest), (out, out_rest)) =
            (from.as_chunks::<32>(), out.as_chunks_mut::<32>());
        for (from, out) in from.iter().zip(out) {
            // SAFETY: 32 elements are there in both; vectors are 64 bytes without meaning.
            unsafe {
                let (low, high) =
                    (_mm512_loadu_ps(&raw const from[0]), _mm512_loadu_ps(&raw const from[16]));
                let pairs: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(out.as_mut_ptr().cast(), pairs);
            }
        }
        let ((half, from_rest), (out_half, out_rest)) =
            (from_rest.as_chunks::<16>(), out_rest.as_chunks_mut::<16>());
        for (from, out) in half.iter().zip(out_half) {
            // SAFETY: sixteen elements are there in both; vectors are 32 bytes without meaning.
            unsafe {
                let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(from.as_ptr()));
                let rounded: __m256i = std::mem::transmute(rounded);
                _mm256_storeu_si256(out.as_mut_ptr().cast(), rounded);
            }
        }
        // By a mask, which some processors take long to store through, what is left alone.
        if !from_rest.is_empty() {
            let (from, out) = (from_rest, out_rest);
            let mask = u16::MAX >> (16 - from.len());
            // SAFETY: as many elements as the mask has bits are there, and no others are touched.
            unsafe {
                let some = _mm512_maskz_loadu_ps(mask, from.as_ptr());
                let some: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(some));
                _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), mask, some);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Element;
    use crate::dropout::{hash, normal};

    #[test]
    fn the_instruction_rounds_as_arithmetic_does() {
        for (rows, width, from_ld, ld) in [
            (1, 1, 1, 1),
            (3, 15, 16, 40),
            (2, 16, 16, 16),
            (5, 31, 48, 33),
            (4, 32, 32, 384),
            (1, 4096, 4096, 4096),
            (7, 83, 90, 96),
        ] {
            // Numbers of every size, and some that are none.
            let from: Vec<f32> = (0..(rows * from_ld) as u64)
                .map(|i| match i % 5 {
                    0 => f32::from_bits(hash(3, i)),
                    1 => f32::from_bits(hash(4, i) | 0x7f80_0000),
                    _ => normal(5, i),
                })
                .map(|x| if x.is_subnormal() { 0.0 } else { x })
                .collect();
            let mut out = vec![Bf16::new(0.5); rows * ld];
            if !round_rows(&from, from_ld, width, &mut out, ld) {
                return;
            }
            for (row, (from, out)) in from.chunks(from_ld).zip(out.chunks(ld)).enumerate() {
                for (column, out) in out.iter().enumerate() {
                    let expected =
                        if column < width { Bf16::new(from[column]) } else { Bf16::new(0.5) };
                    assert_eq!(out.bits(), expected.bits(), "{row} {column} of {width}");
                }
            }
        }
    }
}
