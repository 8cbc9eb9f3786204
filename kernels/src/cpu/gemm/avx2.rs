//! Tiles of 6 × 16 in twelve vector registers of eight f32. Panels of 16 columns, because heads of
//! 32 or 64 are whole ones.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::{Kernel, Raw};
use crate::cpu::Bf16;

pub const F32: Kernel<f32> =
    Kernel { rows: ROWS, columns: COLUMNS, run: run_f32, hold: None, split: false };
pub const BF16: Kernel<Bf16> =
    Kernel { rows: ROWS, columns: COLUMNS, run: run_bf16, hold: None, split: false };

/// Sums of six rows keep both multipliers busy; of four they almost do. Any even number of rows is
/// made of these, and of two where there are but two.
const ROWS: usize = 2;
const COLUMNS: usize = 16;

/// So many elements of the depth are one round of a loop over f32: of one element a round, the loop's
/// own instructions take up to a fifth more time.
const STEPS: usize = 8;

/// So much of a bf16 panel's depth is made f32 at once: it stays in the first cache.
const WIDE: usize = 256;
/// A part of a bf16 panel as f32.
#[repr(align(64))]
struct Wide(MaybeUninit<[f32; WIDE * COLUMNS]>);

/// A tile's accumulators.
type Sums<const R: usize> = [[__m256; 2]; R];

/// Calls `tile` with the height of each tile of so many rows and its first row.
#[inline(always)]
fn heights(rows: usize, mut tile: impl FnMut(usize, usize)) {
    let mut row = 0;
    while row < rows {
        let height = match rows - row {
            2 => 2,
            4 | 8 => 4,
            _ => 6,
        };
        tile(height, row);
        row += height;
    }
}

/// # Safety
/// The processor must have AVX2 and FMA, and the product's bounds must hold.
#[target_feature(enable = "avx2,fma")]
unsafe fn run_f32(product: &Raw<f32>) {
    for panel in 0..product.panels {
        heights(product.rows, |height, row| {
            // SAFETY: so many rows from this one on, and this panel, are within the bounds that
            // were checked for the whole product.
            unsafe {
                let a = product.a.add(row * product.lda);
                let b = product.b.add(panel * product.panel_stride);
                let c = product.c.add(row * product.ldc + panel * COLUMNS);
                match height {
                    6 => tile_f32::<6>(product, a, b, c),
                    4 => tile_f32::<4>(product, a, b, c),
                    _ => tile_f32::<2>(product, a, b, c),
                }
            }
        });
    }
}

/// # Safety
/// As [`run_f32`], for R rows of A and C, and a panel.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_f32<const R: usize>(product: &Raw<f32>, a: *const f32, b: *const f32, c: *mut f32) {
    // SAFETY: the caller's bounds.
    unsafe {
        let mut sums = load::<R>(c, product.ldc, product.add);
        for block in 0..product.blocks.count {
            let mut a = a.add(block * product.blocks.a_stride);
            let mut b = b.add(block * product.blocks.b_stride);
            let steps = product.depth / STEPS;
            for _ in 0..steps {
                add::<R, STEPS>(a, product.lda, b, &mut sums);
                (a, b) = (a.add(STEPS), b.add(STEPS * COLUMNS));
            }
            for _ in steps * STEPS..product.depth {
                add::<R, 1>(a, product.lda, b, &mut sums);
                (a, b) = (a.add(1), b.add(COLUMNS));
            }
        }
        store(c, product.ldc, &sums);
    }
}

/// Adds the products of N elements of the depth.
///
/// # Safety
/// As [`tile_f32`], for so many elements.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add<const R: usize, const N: usize>(
    a: *const f32,
    lda: usize,
    b: *const f32,
    sums: &mut Sums<R>,
) {
    for k in 0..N {
        // SAFETY: the caller's bounds.
        unsafe {
            let b = b.add(k * COLUMNS);
            let columns = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = _mm256_broadcast_ss(&*a.add(i * lda + k));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm256_fmadd_ps(x, column, *sum);
                }
            }
        }
    }
}

/// # Safety
/// As [`run_f32`].
#[target_feature(enable = "avx2,fma")]
unsafe fn run_bf16(product: &Raw<Bf16>) {
    let mut wide = Wide(MaybeUninit::uninit());
    let wide = wide.0.as_mut_ptr().cast::<f32>();
    for panel in 0..product.panels {
        let mut add = product.add;
        for block in 0..product.blocks.count {
            for first in (0..product.depth).step_by(WIDE) {
                let depth = WIDE.min(product.depth - first);
                // SAFETY: this part of the panel is within the bounds that were checked for the
                // whole product, and fits the array; so are the rows of each tile.
                unsafe {
                    let b = panel * product.panel_stride + block * product.blocks.b_stride;
                    widen(product.b.add(b + first * COLUMNS), depth, wide);
                    heights(product.rows, |height, row| {
                        let a = block * product.blocks.a_stride + row * product.lda + first;
                        let c = row * product.ldc + panel * COLUMNS;
                        let (a, c) = (product.a.add(a), product.c.add(c));
                        match height {
                            6 => tile_bf16::<6>(product, add, a, wide, depth, c),
                            4 => tile_bf16::<4>(product, add, a, wide, depth, c),
                            _ => tile_bf16::<2>(product, add, a, wide, depth, c),
                        }
                    });
                }
                add = true;
            }
        }
    }
}

/// Pairs of bf16 `[depth / 2, 16, 2]` → f32 `[depth, 16]`: a bf16 is an f32's upper half.
///
/// # Safety
/// As [`run_f32`]; the depth is even, and both arrays are there.
#[target_feature(enable = "avx2,fma")]
unsafe fn widen(pairs: *const Bf16, depth: usize, wide: *mut f32) {
    let upper = _mm256_set1_epi32(!0xffff);
    for k in (0..depth).step_by(2) {
        for j in [0, 8] {
            // SAFETY: the caller's bounds.
            unsafe {
                let both = _mm256_loadu_si256(pairs.add(k * COLUMNS + 2 * j).cast());
                let first = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both));
                let second = _mm256_castsi256_ps(_mm256_and_si256(both, upper));
                _mm256_store_ps(wide.add(k * COLUMNS + j), first);
                _mm256_store_ps(wide.add((k + 1) * COLUMNS + j), second);
            }
        }
    }
}

/// A's elements are widened as they are read, by the two units that do not multiply. Written as
/// assembly, because a compiler would read pairs once and keep them, for which there is no register.
///
/// # Safety
/// As [`tile_f32`]; b is [`widen`]'s, and the depth even.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_bf16<const R: usize>(
    product: &Raw<Bf16>,
    add: bool,
    a: *const Bf16,
    b: *const f32,
    depth: usize,
    c: *mut f32,
) {
    let upper = _mm256_set1_epi32(!0xffff);
    // SAFETY: the caller's bounds; the assembly reads a pair of A's and writes a register.
    unsafe {
        let mut sums = load::<R>(c, product.ldc, add);
        for k in (0..depth).step_by(2) {
            let b = b.add(k * COLUMNS);
            let columns = [_mm256_load_ps(b), _mm256_load_ps(b.add(8))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let x: __m256;
                asm!(
                    "vpbroadcastd {x}, dword ptr [{pair}]",
                    "vpslld {x}, {x}, 16",
                    x = out(ymm_reg) x,
                    pair = in(reg) a.add(i * product.lda + k),
                    options(pure, readonly, nostack, preserves_flags),
                );
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm256_fmadd_ps(x, column, *sum);
                }
            }
            let columns = [_mm256_load_ps(b.add(16)), _mm256_load_ps(b.add(24))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let x: __m256;
                asm!(
                    "vpbroadcastd {x}, dword ptr [{pair}]",
                    "vpand {x}, {x}, {upper}",
                    x = out(ymm_reg) x,
                    pair = in(reg) a.add(i * product.lda + k),
                    upper = in(ymm_reg) upper,
                    options(pure, readonly, nostack, preserves_flags),
                );
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm256_fmadd_ps(x, column, *sum);
                }
            }
        }
        store(c, product.ldc, &sums);
    }
}

/// # Safety
/// C must have R rows of 16, `ldc` apart.
#[target_feature(enable = "avx2,fma")]
unsafe fn load<const R: usize>(c: *const f32, ldc: usize, add: bool) -> Sums<R> {
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    if add {
        for (i, sums) in sums.iter_mut().enumerate() {
            for (j, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the caller's bounds.
                *sum = unsafe { _mm256_loadu_ps(c.add(i * ldc + 8 * j)) };
            }
        }
    }
    sums
}

/// # Safety
/// As [`load`].
#[target_feature(enable = "avx2,fma")]
unsafe fn store<const R: usize>(c: *mut f32, ldc: usize, sums: &Sums<R>) {
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's bounds.
            unsafe { _mm256_storeu_ps(c.add(i * ldc + 8 * j), *sum) };
        }
    }
}
