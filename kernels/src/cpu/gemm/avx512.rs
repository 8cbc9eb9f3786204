//! Tiles of 8 × 48 in 24 vector registers of sixteen f32.

use std::arch::x86_64::*;

use super::{Kernel, Raw};
use crate::cpu::Bf16;

pub const F32: Kernel<f32> = Kernel { rows: ROWS, columns: COLUMNS, run: run_f32, hold: None };
pub const BF16: Kernel<Bf16> = Kernel { rows: ROWS, columns: COLUMNS, run: run_bf16, hold: None };

const ROWS: usize = 8;
const COLUMNS: usize = 48;

/// One tile's accumulators.
type Sums = [[__m512; 3]; ROWS];

/// # Safety
/// The processor must have AVX-512, and the product's bounds must hold.
#[target_feature(enable = "avx512f")]
unsafe fn run_f32(product: &Raw<f32>) {
    let tile = |a: *const f32, b: *const f32, c: *mut f32| {
        // SAFETY: a tile's bounds are within the product's.
        unsafe {
            let mut sums = load(product, c);
            for block in 0..product.blocks.count {
                let mut a = a.add(block * product.blocks.a_stride);
                let mut b = b.add(block * product.blocks.b_stride);
                for _ in 0..product.depth {
                    let columns = [
                        _mm512_loadu_ps(b),
                        _mm512_loadu_ps(b.add(16)),
                        _mm512_loadu_ps(b.add(32)),
                    ];
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let row = _mm512_set1_ps(*a.add(i * product.lda));
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum = _mm512_fmadd_ps(row, column, *sum);
                        }
                    }
                    a = a.add(1);
                    b = b.add(COLUMNS);
                }
            }
            store(product, c, &sums);
        }
    };
    // SAFETY: the caller's bounds.
    unsafe { product.tiles((ROWS, COLUMNS), tile) };
}

/// # Safety
/// The processor must have AVX-512 with bf16, and the product's bounds must hold.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn run_bf16(product: &Raw<Bf16>) {
    /// # Safety
    /// 64 bytes must be there.
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn pairs(from: *const Bf16) -> __m512bh {
        // SAFETY: the caller's bytes; both types are 64 bytes without meaning.
        unsafe { std::mem::transmute(_mm512_loadu_si512(from.cast())) }
    }
    let tile = |a: *const Bf16, b: *const Bf16, c: *mut f32| {
        // SAFETY: a tile's bounds are within the product's.
        unsafe {
            let mut sums = load(product, c);
            for block in 0..product.blocks.count {
                let mut a = a.add(block * product.blocks.a_stride);
                let mut b = b.add(block * product.blocks.b_stride);
                for _ in 0..product.depth / 2 {
                    let columns = [pairs(b), pairs(b.add(32)), pairs(b.add(64))];
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let pair = a.add(i * product.lda).cast::<i32>().read_unaligned();
                        let row: __m512bh = std::mem::transmute(_mm512_set1_epi32(pair));
                        for (sum, column) in sums.iter_mut().zip(columns) {
                            *sum = _mm512_dpbf16_ps(*sum, row, column);
                        }
                    }
                    a = a.add(2);
                    b = b.add(2 * COLUMNS);
                }
            }
            store(product, c, &sums);
        }
    };
    // SAFETY: the caller's bounds.
    unsafe { product.tiles((ROWS, COLUMNS), tile) };
}

/// # Safety
/// C must have 8 rows of 48, `ldc` apart.
#[target_feature(enable = "avx512f")]
unsafe fn load<E>(product: &Raw<E>, c: *const f32) -> Sums {
    let mut sums = [[_mm512_setzero_ps(); 3]; ROWS];
    if product.add {
        for (i, sums) in sums.iter_mut().enumerate() {
            for (j, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's bounds.
                *sum = unsafe { _mm512_loadu_ps(c.add(i * product.ldc + 16 * j)) };
            }
        }
    }
    sums
}

/// # Safety
/// As [`load`].
#[target_feature(enable = "avx512f")]
unsafe fn store<E>(product: &Raw<E>, c: *mut f32, sums: &Sums) {
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's bounds.
            unsafe { _mm512_storeu_ps(c.add(i * product.ldc + 16 * j), *sum) };
        }
    }
}
