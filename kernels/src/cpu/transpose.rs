//! Sixteen by sixteen, turned over.

#[cfg(target_arch = "x86_64")]
use super::{Isa, isa};

/// Transposes in place.
#[inline]
pub fn transpose(tile: &mut [[u32; 16]; 16]) {
    #[cfg(target_arch = "x86_64")]
    if isa() >= Isa::Avx512 {
        // SAFETY: the processor has AVX-512.
        return unsafe { avx512(tile) };
    }
    let from = *tile;
    for (i, row) in tile.iter_mut().enumerate() {
        row.iter_mut().zip(&from).for_each(|(x, from)| *x = from[i]);
    }
}

/// Pairs of 32 bits, then of 64, then quarters: the usual way, four shuffles an element.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(tile: &mut [[u32; 16]; 16]) {
    use std::arch::x86_64::*;
    let zero = _mm512_setzero_si512();
    let (mut a, mut b) = ([zero; 16], [zero; 16]);
    for (a, row) in a.iter_mut().zip(&*tile) {
        // SAFETY: a row is 64 bytes.
        *a = unsafe { _mm512_loadu_si512(row.as_ptr().cast()) };
    }
    for i in (0..16).step_by(2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    // a[4 · i + j]: in each quarter q, column 4 · q + j of rows 4 · i and the three after it.
    for i in (0..16).step_by(4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for j in 0..4 {
        let low = (
            _mm512_shuffle_i32x4::<0x88>(a[j], a[j + 4]),
            _mm512_shuffle_i32x4::<0x88>(a[j + 8], a[j + 12]),
        );
        let high = (
            _mm512_shuffle_i32x4::<0xdd>(a[j], a[j + 4]),
            _mm512_shuffle_i32x4::<0xdd>(a[j + 8], a[j + 12]),
        );
        b[j] = _mm512_shuffle_i32x4::<0x88>(low.0, low.1);
        b[j + 8] = _mm512_shuffle_i32x4::<0xdd>(low.0, low.1);
        b[j + 4] = _mm512_shuffle_i32x4::<0x88>(high.0, high.1);
        b[j + 12] = _mm512_shuffle_i32x4::<0xdd>(high.0, high.1);
    }
    for (row, b) in tile.iter_mut().zip(b) {
        // SAFETY: a row is 64 bytes.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), b) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        let mut tile = [[0u32; 16]; 16];
        for (i, row) in tile.iter_mut().enumerate() {
            row.iter_mut().enumerate().for_each(|(j, x)| *x = (16 * i + j) as u32);
        }
        transpose(&mut tile);
        for (i, row) in tile.iter().enumerate() {
            for (j, x) in row.iter().enumerate() {
                assert_eq!(*x, (16 * j + i) as u32);
            }
        }
    }
}
