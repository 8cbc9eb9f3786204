//! Products of f32 by AMX, which multiplies bf16: ten times as fast as vectors multiply f32.
//!
//! A float is the sum of three bf16, exactly: high + middle + low. Of the nine products of two such
//! sums, three are below a float's precision: what is left adds up to as good a sum as floats give.
//! Henry, Tang, Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For
//! Higher-Precision Computations", 2019. Infinities, and what rounds to one in bf16 (beyond 3.39e38),
//! become NaN; differences below the least normal number are lost.
//!
//! A's rows have for each 32 elements the 32 highs, the 32 middles and the 32 lows: what are three
//! tiles' rows lie together. B's panels have for each 32 elements of the depth three tiles' pairs.

use std::arch::x86_64::*;

use super::amx::{COLUMNS, ROWS, TwoByTwo, hold, two_by_two_of};
use super::{Kernel, Raw, SPLIT_DEPTH, Split};

pub const BY_AMX: Split<f32> = Split {
    kernel: Kernel { rows: ROWS, columns: COLUMNS, run, hold: Some(hold), split: true },
    rows,
    panel,
};

/// Three bf16, each in the upper half of 32 bits.
type Parts = [__m512i; 3];

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn parts(x: __m512) -> Parts {
    let high = upper(x);
    let rest = _mm512_sub_ps(x, _mm512_castsi512_ps(high));
    let middle = upper(rest);
    // No more bits are left than a bf16 has, but where the number is one of the least.
    let low = _mm512_castps_si512(_mm512_sub_ps(rest, _mm512_castsi512_ps(middle)));
    [high, middle, _mm512_and_si512(low, _mm512_set1_epi32(!0xffff))]
}

/// The nearest bf16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn upper(x: __m512) -> __m512i {
    let rounded = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
    _mm512_and_si512(rounded, _mm512_set1_epi32(!0xffff))
}

/// # Safety
/// The processor must have AVX-512; rows have `width` elements, and room for what is made of them.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn rows(from: &[f32], from_ld: usize, width: usize, out: &mut [f32], ld: usize) {
    // Two vectors' upper halves, side by side.
    let halves: [i16; 32] = std::array::from_fn(|i| 2 * i as i16 + 1);
    // SAFETY: 64 bytes.
    let halves = unsafe { _mm512_loadu_si512(halves.as_ptr().cast()) };
    for (from, out) in from.chunks(from_ld.max(1)).zip(out.chunks_mut(ld.max(1))) {
        let groups = from[..width].chunks(SPLIT_DEPTH).zip(out.chunks_exact_mut(48));
        for (from, out) in groups {
            let mask = u32::MAX >> (SPLIT_DEPTH - from.len());
            // SAFETY: as many elements as the masks have bits are there; of the three vectors that
            // are written each has 16 elements.
            unsafe {
                let low = _mm512_maskz_loadu_ps(mask as u16, from.as_ptr());
                let high =
                    _mm512_maskz_loadu_ps((mask >> 16) as u16, from.as_ptr().wrapping_add(16));
                for (part, (low, high)) in parts(low).into_iter().zip(parts(high)).enumerate() {
                    let both = _mm512_permutex2var_epi16(low, halves, high);
                    _mm512_storeu_si512(out.as_mut_ptr().add(16 * part).cast(), both);
                }
            }
        }
    }
}

/// # Safety
/// The processor must have AVX-512; `from` must be whole rows of 32, and `out` have room for what is
/// made of them.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn panel(from: &[f32], out: &mut [f32]) {
    const STEP: usize = SPLIT_DEPTH * COLUMNS;
    for (from, out) in from.chunks(STEP).zip(out.chunks_exact_mut(STEP * 3 / 2)) {
        if from.len() < STEP {
            out.fill(0.0);
        }
        for (pair, rows) in from.chunks(2 * COLUMNS).enumerate() {
            for column in [0, 16] {
                // SAFETY: a row has 32 elements; a pair of them makes 32 of each part's 512.
                unsafe {
                    let first = parts(_mm512_loadu_ps(rows.as_ptr().add(column)));
                    let second = match rows.get(COLUMNS + column..) {
                        Some(row) if row.len() >= 16 => parts(_mm512_loadu_ps(row.as_ptr())),
                        _ => parts(_mm512_setzero_ps()),
                    };
                    for (part, (first, second)) in first.into_iter().zip(second).enumerate() {
                        let pairs = _mm512_or_si512(_mm512_srli_epi32::<16>(first), second);
                        let at = part * STEP / 2 + pair * COLUMNS + column;
                        _mm512_storeu_si512(out.as_mut_ptr().add(at).cast(), pairs);
                    }
                }
            }
        }
    }
}

/// # Safety
/// Tiles must be usable, and the product's bounds must hold.
unsafe fn run(product: &Raw<f32>) {
    // SAFETY: the caller's word for it.
    let _held = unsafe { hold() };
    // SAFETY: the caller's bounds; `tile` stays within those of one tile.
    unsafe { product.tiles((ROWS, COLUMNS), |a, b, c| tile(product, a, b, c)) };
}

/// Four products of the tiles at hand.
macro_rules! products {
    () => {
        concat!(
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "tdpbf16ps tmm2, tmm5, tmm6\n",
            "tdpbf16ps tmm3, tmm5, tmm7\n",
        )
    };
}

/// One part of A's tiles.
macro_rules! part_of_a {
    ($at:literal) => {
        concat!(
            concat!("tileloadd tmm4, [{a} + {lda} + ", $at, "]\n"),
            concat!("tileloadd tmm5, [{a_below} + {lda} + ", $at, "]\n"),
        )
    };
}

/// One part of B's.
macro_rules! part_of_b {
    ($left:literal, $right:literal) => {
        concat!(
            concat!("tileloadd tmm6, [{b} + {ldb} + ", $left, "]\n"),
            concat!("tileloadd tmm7, [{b} + {ldb} + ", $right, "]\n"),
        )
    };
}

/// # Safety
/// Tiles must be configured. A: 32 rows of `depth` split elements, `lda` apart, in each block; B:
/// `depth` by 32 split elements in each block; C: 32 rows of 32, `ldc` apart.
#[inline(always)]
unsafe fn tile(product: &Raw<f32>, a: *const f32, b: *const f32, c: *mut f32) {
    let (depth, blocks) = (product.depth as isize, product.blocks);
    let operands = TwoByTwo {
        steps: product.depth / SPLIT_DEPTH,
        next_a: 4 * blocks.a_stride as isize - 6 * depth,
        next_b: 4 * blocks.b_stride as isize - 6 * depth * COLUMNS as isize,
        blocks: blocks.count,
        a: a.cast(),
        lda: 4 * product.lda,
        b: b.cast(),
        c: c.cast(),
        ldc: 4 * product.ldc,
        add: product.add,
    };
    // SAFETY: the caller's bounds. Products without blocks or depth do not come here.
    unsafe {
        two_by_two_of!(
            concat!(
                // high · (high, middle, low)
                part_of_a!(0),
                part_of_b!(0, 64),
                products!(),
                part_of_b!(2048, 2112),
                products!(),
                part_of_b!(4096, 4160),
                products!(),
                // middle · (middle, high)
                part_of_a!(64),
                part_of_b!(2048, 2112),
                products!(),
                part_of_b!(0, 64),
                products!(),
                // low · high
                part_of_a!(128),
                products!(),
            ),
            192,
            6144,
            &operands
        )
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::gemm::{Blocks, Into, Product, split_f32};
    use crate::cpu::{Buffer, Isa, isa};
    use crate::dropout::{hash, normal};

    /// Numbers of sizes from 2^-20 to 2^20.
    fn uneven(seed: u64, i: u64) -> f32 {
        normal(seed, i) * ((hash(seed + 1, i) % 41) as f32 - 20.0).exp2()
    }

    /// A number's three parts add up to it, in rows as in panels, and nothing stands behind them.
    #[test]
    fn parts_are_exact_and_lie_where_tiles_read_them() {
        if isa() < Isa::Avx512 {
            return;
        }
        let part = |of: &[f32], at: usize| -> f32 {
            let halves: &[u16] = bytemuck::cast_slice(of);
            f32::from_bits(u32::from(halves[at]) << 16)
        };
        for (count, width) in [(1, 1), (3, 33), (32, 64), (7, 16), (2, 47)] {
            let from: Vec<f32> = (0..(count * width) as u64).map(|i| uneven(3, i)).collect();
            let ld = Split::<f32>::depth(width) * 3 / 2;
            let mut out = vec![7f32; count * ld];
            BY_AMX.rows(&from, width, width, &mut out, ld);
            for (row, out) in out.chunks(ld).enumerate() {
                for at in 0..Split::<f32>::depth(width) {
                    let parts = [0, 1, 2].map(|p| part(out, at / 32 * 96 + 32 * p + at % 32));
                    let expected = if at < width { from[row * width + at] } else { 0.0 };
                    assert_eq!(parts[0] + (parts[1] + parts[2]), expected, "{row} {at}");
                }
            }
        }
        for depth in [1, 2, 32, 45, 96] {
            let from: Vec<f32> = (0..(depth * COLUMNS) as u64).map(|i| uneven(5, i)).collect();
            let padded = Split::<f32>::depth(depth);
            let mut out = vec![7f32; padded * COLUMNS * 3 / 2];
            BY_AMX.panel(&from, &mut out);
            for (k, column) in (0..padded).flat_map(|k| (0..COLUMNS).map(move |c| (k, c))) {
                let at = k / 32 * 3072 + k % 32 / 2 * 64 + 2 * column + k % 2;
                let parts = [0, 1, 2].map(|p| part(&out, at + 1024 * p));
                let expected = if k < depth { from[k * COLUMNS + column] } else { 0.0 };
                assert_eq!(parts[0] + (parts[1] + parts[2]), expected, "{k} {column}");
            }
        }
    }

    #[test]
    fn sums_are_as_exact_as_floats() {
        let Some(split) = split_f32(isa()) else { return };
        type Number = fn(u64, u64) -> f32;
        for (rows, depth, count, number) in [
            (32, 384, 1, normal as Number),
            (64, 1, 1, normal),
            (32, 33, 1, uneven),
            (96, 64, 5, uneven),
            (32, 1536, 1, uneven),
        ] {
            let padded = Split::<f32>::depth(depth);
            let lda = split.kernel.operand_len(padded) + 16;
            let panel_len = split.kernel.operand_len(padded * COLUMNS);
            let random =
                |seed, n: usize| -> Vec<f32> { (0..n as u64).map(|i| number(seed, i)).collect() };
            let a = random(1, count * rows * depth);
            let b = random(2, count * depth * COLUMNS);
            let mut split_a = Buffer::<f32>::any(count * rows * lda);
            split.rows(&a, depth, depth, &mut split_a, lda);
            let mut split_b = Buffer::<f32>::any(count * panel_len);
            for (b, out) in b.chunks(depth * COLUMNS).zip(split_b.chunks_exact_mut(panel_len)) {
                split.panel(b, out);
            }
            let product = Product {
                a: &split_a,
                lda,
                b: &split_b,
                panel_stride: panel_len,
                depth: padded,
                blocks: Blocks { count, a_stride: rows * lda, b_stride: panel_len },
                rows,
                panels: 1,
            };
            for (into, start) in [(Into::Replace, 0.0), (Into::Add, 0.5)] {
                let mut c = vec![0.5f32; rows * COLUMNS];
                split.kernel.multiply(&product, &mut c, COLUMNS, into);
                for (at, found) in c.iter().enumerate() {
                    let (row, column) = (at / COLUMNS, at % COLUMNS);
                    // The exact sum, and that of what its terms are at most.
                    let (mut sum, mut most) = (start, start);
                    for block in 0..count {
                        for k in 0..depth {
                            let x = a[(block * rows + row) * depth + k];
                            let y = b[(block * depth + k) * COLUMNS + column];
                            sum += f64::from(x) * f64::from(y);
                            most += (f64::from(x) * f64::from(y)).abs();
                        }
                    }
                    // As many roundings as additions, each as likely up as down.
                    let additions = (6 * count * depth) as f64;
                    let bound = 2f64.powi(-24) * additions.min(4.0 * additions.sqrt()) * most;
                    let error = (f64::from(*found) - sum).abs();
                    assert!(error <= bound, "{depth} {row} {column}: {found} {sum} {bound}");
                }
            }
        }
    }

    /// The product of 32 rows of ones and one panel, whose first 32 columns' sums are returned.
    fn sums_of(split: &Split<f32>, b: &[f32]) -> Vec<f32> {
        let a = vec![1.0f32; 32 * 32];
        let (mut split_a, mut split_b) = (Buffer::any(32 * 48), Buffer::any(48 * COLUMNS));
        split.rows(&a, 32, 32, &mut split_a, 48);
        split.panel(b, &mut split_b);
        let product = Product {
            a: &split_a,
            lda: 48,
            b: &split_b,
            panel_stride: 48 * COLUMNS,
            depth: 32,
            blocks: Blocks::ONE,
            rows: 32,
            panels: 1,
        };
        let mut c = vec![0f32; 32 * COLUMNS];
        split.kernel.multiply(&product, &mut c, COLUMNS, Into::Replace);
        assert!(
            c.chunks(COLUMNS)
                .all(|row| row.iter().zip(&c).all(|(x, y)| x.to_bits() == y.to_bits()))
        );
        c.truncate(COLUMNS);
        c
    }

    #[test]
    fn the_least_numbers_change_no_others() {
        let Some(split) = split_f32(isa()) else { return };
        // Every other number has an exponent that halves it from 2^-95 to below the least there is.
        let b: Vec<f32> = (0..32 * COLUMNS)
            .map(|at| match (at / COLUMNS, at % COLUMNS) {
                (row, _) if row % 2 == 0 => 1.0,
                (row, column) => {
                    f32::from_bits(hash(7, at as u64) % (1 << 28 >> (column % 24)) + row as u32)
                }
            })
            .collect();
        assert!(b.iter().any(|x| x.is_subnormal()) && b.iter().all(|x| *x <= 1.0));
        assert_eq!(sums_of(&split, &b), [16.0; COLUMNS]);
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let Some(split) = split_f32(isa()) else { return };
        let mut b = vec![1.0f32; 32 * COLUMNS];
        (b[3], b[COLUMNS + 4]) = (f32::NAN, f32::from_bits(0xffff_ffff));
        for (column, found) in sums_of(&split, &b).iter().enumerate() {
            let expected = if [3, 4].contains(&column) { f32::NAN } else { 32.0 };
            assert!(*found == expected || found.is_nan() && expected.is_nan(), "{found}");
        }
    }
}
