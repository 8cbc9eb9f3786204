//! Tiles by plain WebAssembly SIMD, which multiplies 16-bit numbers: activations lie widened, and a
//! panel is widened for all rows that it is multiplied with.
//!
//! Such processors as there are spend their time on instructions, and half of them add products up.
//! So each multiplication is of two sums: (a0 + w2) · (a2 + w0) has a0 · w0 and a2 · w2 in it, two
//! products in the place of one, and besides a0 · a2, which is the same for all columns, and w0 · w2,
//! which is the same for all rows. Winograd, A new algorithm for inner product (1968). Exact, for
//! they are integers.

use std::arch::wasm32::*;
use std::mem::MaybeUninit;

use super::{Ahead, Raw, Tail, Tile};

/// 4 × 8, and 3 × 8 where there are many rows.
pub const TILE: Tile = Tile {
    rows: ROWS,
    columns: COLUMNS,
    group: 2,
    depth: DEPTH,
    activation_bytes: 2,
    tail: Some(Tail { bytes: TAIL, fill: put_cross }),
    asks_for_spans: false,
    run,
    hold: None,
};

/// What fewer than [`MANY`] rows are multiplied by.
const ROWS: usize = 4;
const COLUMNS: usize = 8;
/// So many rows pay for widening a panel.
const MANY: usize = 32;
/// What a round of the loops takes of the depth.
const DEPTH: usize = 16;
/// Behind a row of activations: a vector.
const TAIL: usize = size_of::<v128>();
/// Blocks of rows that are multiplied before the next panel comes a little nearer. With six, more of it
/// at once, a text of 64 tokens takes 1.05 times as long.
const TOGETHER: usize = 2;
/// Widened together: with the three rows at hand it stays in the first cache.
const WIDENED: usize = 512;

/// As the loops in `simd128.s` have it.
const _: () = assert!(DEPTH == 16 && COLUMNS == 8 && WIDENED.is_multiple_of(DEPTH));

/// [`pagebert_rows_2`] and [`pagebert_rows_3`].
type Rows = unsafe extern "C" fn(
    *const u8,
    usize,
    *const u8,
    *const u8,
    usize,
    usize,
    *const u8,
    *mut i32,
    usize,
    usize,
    usize,
);

unsafe extern "C" {
    /// Adds products to `sums`, of each row two vectors: of four rows of activations, `stride` bytes
    /// apart, with a panel of 8 columns, for `count` eights of the depth; at least one. `simd128.s` has
    /// these, which the page's engine includes, as `by_spans.rs` says.
    fn pagebert_eights(a: *const u8, stride: usize, b: *const i8, sums: *mut i32, count: usize);

    /// Products of sums, added to a start: of `blocks` blocks of 2 rows of activations with a widened
    /// panel, for `count` sixteens of the depth. Rows of activations, of starts and of sums are so
    /// many bytes apart, the last four columns' starts `half` bytes from the first four's; to all
    /// starts `cross` is added, of 8 columns. No count may be 0.
    fn pagebert_rows_2(
        a: *const u8,
        a_stride: usize,
        b: *const u8,
        start: *const u8,
        start_stride: usize,
        half: usize,
        cross: *const u8,
        c: *mut i32,
        c_stride: usize,
        count: usize,
        blocks: usize,
    );

    /// The same of blocks of 3.
    fn pagebert_rows_3(
        a: *const u8,
        a_stride: usize,
        b: *const u8,
        start: *const u8,
        start_stride: usize,
        half: usize,
        cross: *const u8,
        c: *mut i32,
        c_stride: usize,
        count: usize,
        blocks: usize,
    );
}

/// Puts the negative sum of a row's own products behind it, four times: of each four activations the
/// first with the third and the second with the last.
fn put_cross(row: &mut [u8]) {
    assert!(row.len() >= TAIL && (row.len() - TAIL).is_multiple_of(16));
    let mut sums = i32x4_splat(0);
    for at in (0..row.len() - TAIL).step_by(16) {
        // SAFETY: sixteen bytes of the row, which has a multiple of them before its tail, and those four
        // bytes further, the last of which the tail has. Of the four sums of two products the second
        // and the last are of no use.
        unsafe {
            let row = row.as_ptr().add(at);
            let across = i32x4_dot_i16x8(v128_load(row.cast()), v128_load(row.add(4).cast()));
            sums = i32x4_add(sums, across);
        }
    }
    let sum = -i32x4_extract_lane::<0>(sums) - i32x4_extract_lane::<2>(sums);
    let tail = row.len() - TAIL;
    row[tail..].as_chunks_mut().0.iter_mut().for_each(|to| *to = sum.to_le_bytes());
}

/// # Safety
/// The product's bounds must hold.
unsafe fn run(product: &Raw) {
    // SAFETY: the caller's promise.
    unsafe { if product.rows < MANY { by_products(product) } else { by_sums(product) } }
}

/// # Safety
/// The product's bounds must hold.
unsafe fn by_products(product: &Raw) {
    for first in (0..product.rows).step_by(ROWS) {
        let mut sums = [[i32x4_splat(0); 2]; ROWS];
        // SAFETY: within the bounds that were checked for the whole product: `ROWS` rows from
        // `first` on, of two bytes each, and groups of 2 · 8 bytes of the panel.
        unsafe {
            let a = product.a.add(first * product.a_stride);
            let to = sums.as_mut_ptr().cast();
            pagebert_eights(a, product.a_stride, product.b, to, product.depth / 8);
            for (row, sums) in sums.iter().enumerate() {
                let c = product.c.add((first + row) * product.c_stride);
                v128_store(c.cast(), sums[0]);
                v128_store(c.add(4).cast(), sums[1]);
            }
        }
    }
}

/// # Safety
/// The product's bounds must hold.
unsafe fn by_sums(product: &Raw) {
    let mut room = [MaybeUninit::<v128>::uninit(); WIDENED];
    let (a_stride, c_stride) = (product.a_stride, product.c_stride * size_of::<i32>());
    // What threes leave of rows, which come in fours, are two, four or none.
    let threes = (product.rows - product.rows * 2 % 3 * 2) / 3;
    let twos = (product.rows - 3 * threes) / 2;
    let parts = product.depth.div_ceil(WIDENED);
    let mut ahead =
        Ahead::of(product, parts * (threes.div_ceil(TOGETHER) + twos.div_ceil(TOGETHER)));
    for first in (0..product.depth).step_by(WIDENED) {
        let depth = WIDENED.min(product.depth - first);
        // SAFETY: so much of the panel is left.
        let cross = unsafe { widen(product.b.add(first * COLUMNS), &mut room[..depth]) };
        let (b, cross, count) = (room.as_ptr().cast(), cross.as_ptr().cast(), depth / DEPTH);
        let mut row = 0;
        for (run, size, blocks) in
            [(pagebert_rows_3 as Rows, 3, threes), (pagebert_rows_2 as Rows, 2, twos)]
        {
            for done in (0..blocks).step_by(TOGETHER) {
                let blocks = TOGETHER.min(blocks - done);
                // SAFETY: within the bounds that were checked for the whole product: so many rows
                // from `row` on, of two bytes an activation and the tail behind all, and of 8
                // columns. `widen` has written so much of the room, neither count is 0, and
                // the next panel is there.
                unsafe {
                    let a = product.a.add(row * a_stride);
                    let c = product.c.add(row * product.c_stride);
                    let (start, start_stride, half) = match first {
                        0 => (a.add(2 * product.depth), a_stride, 0),
                        _ => (c.cast_const().cast(), c_stride, 16),
                    };
                    let a = a.add(2 * first);
                    run(
                        a,
                        a_stride,
                        b,
                        start,
                        start_stride,
                        half,
                        cross,
                        c,
                        c_stride,
                        count,
                        blocks,
                    );
                    ahead.go();
                }
                row += size * blocks;
            }
        }
    }
}

/// Widens so much of a panel, a multiple of 4, and gives each column's negative sum of its own
/// products: of each four weights the first with the third and the second with the last.
///
/// # Safety
/// There must be so much of the panel.
unsafe fn widen(b: *const i8, room: &mut [MaybeUninit<v128>]) -> [v128; 2] {
    let mut cross = [i32x4_splat(0); 2];
    for (four, to) in room.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        // SAFETY: four elements of the depth are 32 bytes of the panel.
        let wide: [v128; 4] = unsafe {
            let b = b.add(4 * COLUMNS * four);
            std::array::from_fn(|index| i16x8_load_extend_i8x8(b.add(8 * index)))
        };
        for (half, cross) in cross.iter_mut().enumerate() {
            *cross = i32x4_sub(*cross, i32x4_dot_i16x8(wide[half], wide[2 + half]));
        }
        *to = wide.map(MaybeUninit::new);
    }
    cross
}
