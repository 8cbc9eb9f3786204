//! Products in 8-bit integers, for inference: per-token activations of 7 bits, per-output weights
//! of 7. ([`super::eight_bits`] has training's, by some of the same tiles.)
//!
//! Jacob et al., Quantization and training of neural networks for efficient integer-arithmetic-only
//! inference (2018), with a scale for each row on both sides. Owns quantising, packing, and the
//! choice of a tile. Integer products are the same on every processor, and the floats around them
//! are made so: no fused multiply-add, one order of sums. So what comes out is equal to the bit
//! natively and in every WebAssembly build.

#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
mod by_spans;
#[cfg(any(test, feature = "checks"))]
pub(crate) mod checks;
mod coded;
mod finish;
mod linear;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panels;
mod plain;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
mod relaxed;
mod rows;
mod short;
#[cfg(all(
    target_arch = "wasm32",
    target_feature = "simd128",
    not(target_feature = "relaxed-simd")
))]
mod simd128;
mod spans;
#[cfg(target_arch = "x86_64")]
mod vnni;
mod weights;

pub use attention::forward as attention;
pub use coded::{CodedTable, DecodedRows};
pub use finish::{Biased, Gelu, Plain};
pub use linear::{linear_row, tanh_row};
pub use panels::Int8Panels;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(in crate::cpu) use rows::MOST;
pub use rows::QuantizedRows;
use spans::SPAN;

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::buffer::Line;
use super::gemm::Held;

/// Weights lie in −63…63: two products with a 7-bit activation then fit 16 bits, and so do four.
pub const WEIGHT_LIMIT: i8 = 63;

/// What most tiles pad the summed dimension to a multiple of.
const DEPTH: usize = 8;

/// One instruction set's way to multiply.
#[derive(Debug, Clone, Copy)]
pub struct Tile {
    /// A product's rows are padded to a multiple of this.
    pub rows: usize,
    /// Columns of a panel.
    pub columns: usize,
    /// So many consecutive elements of the summed dimension lie together in a panel.
    pub group: usize,
    /// The summed dimension is padded with zeros to a multiple of this.
    pub depth: usize,
    /// Bytes of an activation.
    pub activation_bytes: usize,
    /// What it reads behind each row of activations of two bytes, where there is such a thing.
    tail: Option<Tail>,
    /// Whether it is faster where sums of products fit 16 bits.
    asks_for_spans: bool,
    /// Whether it is AVX-512-VNNI's for whole blocks of 8 rows.
    #[cfg(target_arch = "x86_64")]
    by_vnni: bool,
    run: unsafe fn(&Raw),
    /// What products have to set up, where there is such a thing.
    hold: Option<unsafe fn() -> Option<Held>>,
}

/// What lies behind a row.
#[derive(Debug, Clone, Copy)]
struct Tail {
    bytes: usize,
    /// Fills it in, of a row that is padded with zeros and has it at its end.
    fill: fn(&mut [u8]),
}

/// A part of a weight that a tile multiplies at once.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct Panel<'a> {
    /// `[depth / group, columns, group]`
    pub data: &'a [i8],
    /// Of the first spans, whether all sums of products fit 16 bits.
    pub fits: &'a [bool],
    /// The panel that is multiplied next, or nothing; pages alone look at it.
    #[cfg_attr(not(all(target_arch = "wasm32", target_feature = "simd128")), allow(dead_code))]
    pub next: &'a [i8],
}

/// Operands of one panel, whose bounds were checked.
struct Raw {
    /// Rows of activations, `a_stride` bytes apart.
    a: *const u8,
    a_stride: usize,
    /// The panel, `[depth / group, columns, group]`.
    b: *const i8,
    /// Whether all sums of products fit 16 bits, for each of the first spans; no more is known of the
    /// depth behind them.
    #[cfg(any(target_arch = "x86_64", target_feature = "relaxed-simd"))]
    fits: *const bool,
    #[cfg(any(target_arch = "x86_64", target_feature = "relaxed-simd"))]
    spans: usize,
    depth: usize,
    rows: usize,
    /// `[rows, columns]`, rows `c_stride` elements apart.
    c: *mut i32,
    c_stride: usize,
    /// The panel that is multiplied next, or nothing.
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    next: *const i8,
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    next_bytes: usize,
}

/// Has the next panel come nearer while one is multiplied: some lines after each of several pieces of
/// work. A page cannot ask for memory beforehand, but lines that are read few by few in their order a
/// processor sees coming; many at once it waits for. So of few pieces nothing is read: of the four that
/// 16 tokens are by relaxed SIMD, a text took 1.11 times as long.
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
struct Ahead {
    next: *const i8,
    lines: usize,
    each: usize,
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
impl Ahead {
    /// The least pieces of work.
    const PIECES: usize = 8;

    fn of(product: &Raw, pieces: usize) -> Self {
        let lines = if pieces >= Self::PIECES { product.next_bytes / size_of::<Line>() } else { 0 };
        Self { next: product.next, lines, each: lines.div_ceil(pieces.max(1)) }
    }

    /// # Safety
    /// The product's next panel must be there.
    #[inline(always)]
    unsafe fn go(&mut self) {
        let lines = self.each.min(self.lines);
        for _ in 0..lines {
            // SAFETY: so many lines of the panel are left. Volatile, or nothing would be read.
            unsafe {
                self.next.read_volatile();
                self.next = self.next.add(size_of::<Line>());
            }
        }
        self.lines -= lines;
    }
}

#[cfg(any(target_arch = "x86_64", target_feature = "relaxed-simd"))]
impl Raw {
    /// How much of the depth from `k` on, where a span begins or one that does not fit is gone
    /// through by eights, may be added up in 16 bits.
    ///
    /// # Safety
    /// The flags that `fits` points to must be there.
    #[inline(always)]
    unsafe fn together(&self, k: usize) -> usize {
        // SAFETY: `k` is within the spans.
        if k / SPAN < self.spans && unsafe { *self.fits.add(k / SPAN) } { SPAN } else { DEPTH }
    }
}

/// The best tile that there is here.
pub fn tile() -> Tile {
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    return relaxed::tile();
    #[cfg(all(
        target_arch = "wasm32",
        target_feature = "simd128",
        not(target_feature = "relaxed-simd")
    ))]
    return simd128::TILE;
    #[cfg(target_arch = "x86_64")]
    {
        if super::isa() == super::Isa::Amx {
            return amx::TILE;
        }
        if super::isa() >= super::Isa::Avx512 && vnni::is_there() {
            return vnni::TILE;
        }
        if super::isa() >= super::Isa::Avx2 {
            return avx2::TILE;
        }
    }
    #[cfg(target_arch = "aarch64")]
    return if neon::has_fours() { neon::BY_FOURS } else { neon::BY_PAIRS };
    #[allow(unreachable_code)]
    plain::TILE
}

/// The best tile for integers of 8 bits, none of them spared, whose activations are bytes.
pub fn full_range_tile() -> Tile {
    #[cfg(target_arch = "x86_64")]
    {
        if super::isa() == super::Isa::Amx {
            return amx::TILE;
        }
        if super::isa() >= super::Isa::Avx512 && vnni::is_there() {
            return vnni::WHOLE;
        }
    }
    plain::TILE
}

/// Whether this processor has instructions for such a tile.
pub fn full_range_is_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    return super::isa() == super::Isa::Amx
        || super::isa() >= super::Isa::Avx512 && vnni::is_there();
    #[allow(unreachable_code)]
    false
}

/// All such tiles that this processor has.
#[cfg(test)]
pub fn full_range_tiles() -> Vec<Tile> {
    #[allow(unused_mut)]
    let mut tiles = vec![plain::TILE];
    #[cfg(target_arch = "x86_64")]
    {
        if super::isa() >= super::Isa::Avx512 && vnni::is_there() {
            tiles.push(vnni::WHOLE);
        }
        if super::isa() == super::Isa::Amx {
            tiles.push(amx::TILE);
        }
    }
    tiles
}

impl Tile {
    /// Whether it is AVX-512-VNNI's for whole blocks of 8 rows.
    #[cfg(target_arch = "x86_64")]
    pub fn is_vnni(&self) -> bool {
        self.by_vnni
    }

    /// Sets up what products need, for as long as what comes back lives: for a thread that is to
    /// compute many small ones, and nothing of others' meanwhile.
    pub fn hold(&self) -> Option<Held> {
        // SAFETY: a tile exists only where its instructions do.
        self.hold.and_then(|hold| unsafe { hold() })
    }

    /// Bytes of a row of so many activations and of what lies behind it.
    fn row_bytes(&self, depth: usize) -> usize {
        depth * self.activation_bytes + self.tail.map_or(0, |tail| tail.bytes)
    }

    /// Products of rows of activations, `a_stride` bytes apart, with one panel: `[rows, columns]`, rows
    /// `c_stride` apart.
    ///
    /// # Panics
    /// When an operand is too short for the product: a caller's mistake.
    pub(in crate::cpu) fn multiply(
        &self,
        (a, a_stride): (&[u8], usize),
        panel: Panel<'_>,
        depth: usize,
        rows: usize,
        (c, c_stride): (&mut [i32], usize),
    ) {
        if rows == 0 {
            return;
        }
        let Panel { data, fits, .. } = panel;
        if depth == 0 {
            c.chunks_mut(c_stride).take(rows).for_each(|row| row[..self.columns].fill(0));
            return;
        }
        assert!(rows.is_multiple_of(self.rows) && depth.is_multiple_of(self.depth));
        assert!(a.len() >= (rows - 1) * a_stride + self.row_bytes(depth));
        assert!(data.len() >= depth * self.columns && depth >= fits.len() * SPAN);
        assert!(c.len() >= (rows - 1) * c_stride + self.columns);
        let raw = Raw {
            a: a.as_ptr(),
            a_stride,
            b: data.as_ptr(),
            #[cfg(any(target_arch = "x86_64", target_feature = "relaxed-simd"))]
            fits: fits.as_ptr(),
            #[cfg(any(target_arch = "x86_64", target_feature = "relaxed-simd"))]
            spans: fits.len(),
            depth,
            rows,
            c: c.as_mut_ptr(),
            c_stride,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            next: panel.next.as_ptr(),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            next_bytes: panel.next.len(),
        };
        // SAFETY: a tile exists only where its instructions do (`tile` above), and every element
        // that it touches is within the bounds asserted here or in the slice of the next panel.
        unsafe { (self.run)(&raw) }
    }
}

#[cfg(test)]
mod tests;
