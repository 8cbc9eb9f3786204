//! Tiles of 8 × 48 in 24 vector registers of sixteen f32, or of 8 × 32.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{Kernel, Raw};
use crate::cpu::Bf16;

pub const F32: Kernel<f32> =
    Kernel { rows: ROWS, columns: COLUMNS, run: run_f32, hold: None, split: false };
pub const BF16: Kernel<Bf16> =
    Kernel { rows: ROWS, columns: COLUMNS, run: run_bf16, hold: None, split: false };

/// With panels as wide as AMX's, which multiplies what is large ([`super::split`]).
pub const NARROW_F32: Kernel<f32> =
    Kernel { rows: ROWS, columns: 32, run: run_narrow_f32, hold: None, split: false };

const ROWS: usize = 8;
const COLUMNS: usize = 48;

/// One tile's accumulators.
type Sums<const V: usize> = [[__m512; V]; ROWS];

/// So many elements of the depth are one round of the loop in assembly.
const STEPS: usize = 4;

/// # Safety
/// The processor must have AVX-512, and the product's bounds must hold.
#[target_feature(enable = "avx512f")]
unsafe fn run_f32(product: &Raw<f32>) {
    let tile = |a: *const f32, b: *const f32, c: *mut f32| {
        // SAFETY: a tile's bounds are within the product's.
        unsafe {
            let mut sums = load(product, c);
            for block in 0..product.blocks.count {
                let a = a.add(block * product.blocks.a_stride);
                let b = b.add(block * product.blocks.b_stride);
                let steps = product.depth / STEPS;
                add_steps(steps, a, product.lda, b, &mut sums);
                for k in steps * STEPS..product.depth {
                    add(a.add(k), product.lda, b.add(k * COLUMNS), &mut sums);
                }
            }
            store(product, c, &sums);
        }
    };
    // SAFETY: the caller's bounds.
    unsafe { product.tiles((ROWS, COLUMNS), tile) };
}

/// # Safety
/// As [`run_f32`].
#[target_feature(enable = "avx512f")]
unsafe fn run_narrow_f32(product: &Raw<f32>) {
    let tile = |a: *const f32, b: *const f32, c: *mut f32| {
        // SAFETY: a tile's bounds are within the product's.
        unsafe {
            let mut sums = load::<f32, 2>(product, c);
            for block in 0..product.blocks.count {
                let a = a.add(block * product.blocks.a_stride);
                let b = b.add(block * product.blocks.b_stride);
                for k in 0..product.depth {
                    add(a.add(k), product.lda, b.add(k * 32), &mut sums);
                }
            }
            store(product, c, &sums);
        }
    };
    // SAFETY: the caller's bounds.
    unsafe { product.tiles((ROWS, 32), tile) };
}

/// Adds the products of one element of the depth.
///
/// # Safety
/// A's eight rows and a row of a panel must be there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add<const V: usize>(a: *const f32, lda: usize, b: *const f32, sums: &mut Sums<V>) {
    // SAFETY: the caller's bounds.
    unsafe {
        let columns: [__m512; V] = std::array::from_fn(|j| _mm512_loadu_ps(b.add(16 * j)));
        for (i, sums) in sums.iter_mut().enumerate() {
            let row = _mm512_set1_ps(*a.add(i * lda));
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = _mm512_fmadd_ps(row, column, *sum);
            }
        }
    }
}

/// One row's element of A times a row of a panel.
macro_rules! row {
    ($from:literal, $at:literal, $first:literal, $second:literal, $third:literal) => {
        concat!(
            concat!("vbroadcastss zmm27, dword ptr [", $from, " + ", $at, "]\n"),
            concat!("vfmadd231ps zmm", $first, ", zmm27, zmm24\n"),
            concat!("vfmadd231ps zmm", $second, ", zmm27, zmm25\n"),
            concat!("vfmadd231ps zmm", $third, ", zmm27, zmm26\n"),
        )
    };
}

/// One element of the depth: where it is in A's rows, and where the panel's row is.
macro_rules! step {
    ($at:literal, $first:literal, $second:literal, $third:literal) => {
        concat!(
            concat!("vmovups zmm24, [{b} + ", $first, "]\n"),
            concat!("vmovups zmm25, [{b} + ", $second, "]\n"),
            concat!("vmovups zmm26, [{b} + ", $third, "]\n"),
            row!("{a}", $at, 0, 1, 2),
            row!("{a} + {lda}", $at, 3, 4, 5),
            row!("{a} + 2 * {lda}", $at, 6, 7, 8),
            row!("{a3}", $at, 9, 10, 11),
            row!("{a3} + {lda}", $at, 12, 13, 14),
            row!("{a3} + 2 * {lda}", $at, 15, 16, 17),
            row!("{a6}", $at, 18, 19, 20),
            row!("{a6} + {lda}", $at, 21, 22, 23),
        )
    };
}

/// Adds the products of so many times [`STEPS`] elements. In assembly, because compilers add up each
/// row's address anew in each step: on units that multiply, too, which have no time to spare.
///
/// # Safety
/// As [`add`], for so many elements.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn add_steps(steps: usize, a: *const f32, lda: usize, b: *const f32, sums: &mut Sums<3>) {
    if steps == 0 {
        return;
    }
    let sums = sums.as_flattened_mut();
    let lda = lda * size_of::<f32>();
    // SAFETY: the assembly reads the caller's elements and writes registers.
    unsafe {
        asm!(
            "2:",
            step!(0, 0, 64, 128),
            step!(4, 192, 256, 320),
            step!(8, 384, 448, 512),
            step!(12, 576, 640, 704),
            "add {a}, 16",
            "add {a3}, 16",
            "add {a6}, 16",
            "add {b}, 768",
            "dec {steps}",
            "jnz 2b",
            a = inout(reg) a => _,
            a3 = inout(reg) a.wrapping_byte_add(3 * lda) => _,
            a6 = inout(reg) a.wrapping_byte_add(6 * lda) => _,
            lda = in(reg) lda,
            b = inout(reg) b => _,
            steps = inout(reg) steps => _,
            inout("zmm0") sums[0],
            inout("zmm1") sums[1],
            inout("zmm2") sums[2],
            inout("zmm3") sums[3],
            inout("zmm4") sums[4],
            inout("zmm5") sums[5],
            inout("zmm6") sums[6],
            inout("zmm7") sums[7],
            inout("zmm8") sums[8],
            inout("zmm9") sums[9],
            inout("zmm10") sums[10],
            inout("zmm11") sums[11],
            inout("zmm12") sums[12],
            inout("zmm13") sums[13],
            inout("zmm14") sums[14],
            inout("zmm15") sums[15],
            inout("zmm16") sums[16],
            inout("zmm17") sums[17],
            inout("zmm18") sums[18],
            inout("zmm19") sums[19],
            inout("zmm20") sums[20],
            inout("zmm21") sums[21],
            inout("zmm22") sums[22],
            inout("zmm23") sums[23],
            out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _,
            options(nostack, readonly),
        );
    }
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
            let mut sums = load::<Bf16, 3>(product, c);
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
/// C must have 8 rows of V vectors, `ldc` apart.
#[target_feature(enable = "avx512f")]
unsafe fn load<E, const V: usize>(product: &Raw<E>, c: *const f32) -> Sums<V> {
    let mut sums = [[_mm512_setzero_ps(); V]; ROWS];
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
unsafe fn store<E, const V: usize>(product: &Raw<E>, c: *mut f32, sums: &Sums<V>) {
    for (i, sums) in sums.iter().enumerate() {
        for (j, sum) in sums.iter().enumerate() {
            // SAFETY: the caller's bounds.
            unsafe { _mm512_storeu_ps(c.add(i * product.ldc + 16 * j), *sum) };
        }
    }
}
