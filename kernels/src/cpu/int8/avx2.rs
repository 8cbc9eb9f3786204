//! Tiles by AVX2: pairs of products in 16 bits, which are added up there as long as they fit.

use std::arch::asm;
use std::arch::x86_64::*;

use super::spans::SPAN;
use super::{DEPTH, Raw, Tile};

/// 3 × 16: with a fourth row sums do not stay in registers.
pub const TILE: Tile = Tile {
    rows: ROWS,
    columns: 16,
    group: 4,
    depth: DEPTH,
    activation_bytes: 1,
    tail: None,
    asks_for_spans: true,
    by_vnni: false,
    run,
    hold: None,
};

const ROWS: usize = 3;

/// Of each row the sums of both halves of the columns.
type Sums = [[__m256i; 2]; ROWS];

/// # Safety
/// The processor must have AVX2, and the product's bounds must hold.
#[target_feature(enable = "avx2")]
unsafe fn run(product: &Raw) {
    for first in (0..product.rows).step_by(ROWS) {
        let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
        // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from
        // `first` on, and so many elements of the depth as are left.
        unsafe {
            let (mut a, mut b) = (product.a.add(first * product.a_stride), product.b);
            let mut k = 0;
            while k < product.depth {
                let here = product.together(k);
                if here == SPAN {
                    add_span(a, product.a_stride, b, &mut sums);
                } else {
                    add_few(a, product.a_stride, b, &mut sums);
                }
                (a, b) = (a.add(here), b.add(16 * here));
                k += here;
            }
            for (row, sums) in sums.iter().enumerate() {
                let c = product.c.add((first + row) * product.c_stride);
                _mm256_storeu_si256(c.cast(), sums[0]);
                _mm256_storeu_si256(c.add(8).cast(), sums[1]);
            }
        }
    }
}

/// Adds the products of [`DEPTH`] elements of any weights.
///
/// # Safety
/// There must be so many elements of [`ROWS`] rows and of the panel.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_few(a: *const u8, a_stride: usize, b: *const i8, sums: &mut Sums) {
    let ones = _mm256_set1_epi16(1);
    // SAFETY: the caller's promise.
    unsafe {
        let (b, next) = (b.cast::<__m256i>(), b.add(64).cast::<__m256i>());
        for (row, sums) in sums.iter_mut().enumerate() {
            let a = a.add(row * a_stride).cast::<i32>();
            let (a, a_next) = (a.read_unaligned(), a.add(1).read_unaligned());
            let (a, a_next) = (_mm256_set1_epi32(a), _mm256_set1_epi32(a_next));
            for (half, sum) in sums.iter_mut().enumerate() {
                let pairs = _mm256_add_epi16(
                    _mm256_maddubs_epi16(a, _mm256_loadu_si256(b.add(half))),
                    _mm256_maddubs_epi16(a_next, _mm256_loadu_si256(next.add(half))),
                );
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
    }
}

const _: () = assert!(DEPTH == 8 && SPAN == 32);

/// Adds the products of a span's elements, whose sums fit 16 bits.
///
/// By hand, for the two units that multiply have something to do in every cycle only if nothing but
/// this goes through the processor: a loop's own instructions take a fifth more time where its
/// beginning lies badly, and what compilers make of it unrolled does not fit the registers.
///
/// # Safety
/// There must be so many elements of [`ROWS`] rows and of the panel.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add_span(a: *const u8, a_stride: usize, b: *const i8, sums: &mut Sums) {
    static ONES: [i16; 16] = [1; 16];
    let [[sum00, sum01], [sum10, sum11], [sum20, sum21]] = sums;
    // The sums of four consecutive elements of the span's begin it, the others are added.
    macro_rules! four {
        (first $k:literal) => {
            concat!(
                four!(load $k),
                four!(row "{a}", $k), "vpmaddubsw {s00}, {x}, {b0}\n", "vpmaddubsw {s01}, {x}, {b1}\n",
                four!(row "{a} + {stride}", $k), "vpmaddubsw {s10}, {x}, {b0}\n", "vpmaddubsw {s11}, {x}, {b1}\n",
                four!(row "{a} + 2 * {stride}", $k), "vpmaddubsw {s20}, {x}, {b0}\n", "vpmaddubsw {s21}, {x}, {b1}\n",
            )
        };
        (next $k:literal) => {
            concat!(
                four!(load $k),
                four!(row "{a}", $k), four!(add "{s00}", "{s01}"),
                four!(row "{a} + {stride}", $k), four!(add "{s10}", "{s11}"),
                four!(row "{a} + 2 * {stride}", $k), four!(add "{s20}", "{s21}"),
            )
        };
        (load $k:literal) => {
            concat!(
                "vmovdqu {b0}, ymmword ptr [{b} + 16 * ", $k, "]\n",
                "vmovdqu {b1}, ymmword ptr [{b} + 16 * ", $k, " + 32]\n",
            )
        };
        (row $at:literal, $k:literal) => {
            concat!("vpbroadcastd {x}, dword ptr [", $at, " + ", $k, "]\n")
        };
        (add $first:literal, $second:literal) => {
            concat!(
                "vpmaddubsw {y}, {x}, {b0}\n", "vpaddw ", $first, ", ", $first, ", {y}\n",
                "vpmaddubsw {x}, {x}, {b1}\n", "vpaddw ", $second, ", ", $second, ", {x}\n",
            )
        };
        (widen $short:literal, $sum:literal) => {
            concat!(
                "vpmaddwd ", $short, ", ", $short, ", ymmword ptr [{ones}]\n",
                "vpaddd ", $sum, ", ", $sum, ", ", $short, "\n",
            )
        };
    }
    // SAFETY: there is AVX2; it reads what the caller promises to be there, and nothing else.
    unsafe {
        asm!(
            four!(first 0), four!(next 4), four!(next 8), four!(next 12),
            four!(next 16), four!(next 20), four!(next 24), four!(next 28),
            four!(widen "{s00}", "{sum00}"), four!(widen "{s01}", "{sum01}"),
            four!(widen "{s10}", "{sum10}"), four!(widen "{s11}", "{sum11}"),
            four!(widen "{s20}", "{sum20}"), four!(widen "{s21}", "{sum21}"),
            a = in(reg) a,
            stride = in(reg) a_stride,
            b = in(reg) b,
            ones = in(reg) ONES.as_ptr(),
            sum00 = inout(ymm_reg) *sum00,
            sum01 = inout(ymm_reg) *sum01,
            sum10 = inout(ymm_reg) *sum10,
            sum11 = inout(ymm_reg) *sum11,
            sum20 = inout(ymm_reg) *sum20,
            sum21 = inout(ymm_reg) *sum21,
            s00 = out(ymm_reg) _,
            s01 = out(ymm_reg) _,
            s10 = out(ymm_reg) _,
            s11 = out(ymm_reg) _,
            s20 = out(ymm_reg) _,
            s21 = out(ymm_reg) _,
            b0 = out(ymm_reg) _,
            b1 = out(ymm_reg) _,
            x = out(ymm_reg) _,
            y = out(ymm_reg) _,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
}
