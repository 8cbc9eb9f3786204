//! Products of whole spans by WebAssembly's relaxed SIMD, written by hand: `by_spans.s` says how and
//! why.
//!
//! A library cannot bring it along: what looks through a library's assembly for names knows no SIMD.
//! So the page's engine, which is linked from this, includes the file.

use std::arch::wasm32::v128;

/// Of each row the sums of both halves of the columns.
pub type Sums<const N: usize> = [[v128; 2]; N];

/// Adds the products of whole spans, whose sums fit 16 bits, to `sums`: of rows of activations,
/// `stride` bytes apart, with a panel of 8 columns, for `count` spans; at least one.
type Spans =
    unsafe extern "C" fn(a: *const u8, stride: usize, b: *const i8, sums: *mut i32, count: usize);

/// Those of 1, 2, 3 and 4 rows.
pub const SPANS: [Spans; 4] =
    [pagebert_spans_1, pagebert_spans_2, pagebert_spans_3, pagebert_spans_4];

unsafe extern "C" {
    fn pagebert_spans_1(a: *const u8, stride: usize, b: *const i8, sums: *mut i32, count: usize);
    fn pagebert_spans_2(a: *const u8, stride: usize, b: *const i8, sums: *mut i32, count: usize);
    fn pagebert_spans_3(a: *const u8, stride: usize, b: *const i8, sums: *mut i32, count: usize);
    fn pagebert_spans_4(a: *const u8, stride: usize, b: *const i8, sums: *mut i32, count: usize);
}

const _: () = assert!(super::SPAN == 32);
