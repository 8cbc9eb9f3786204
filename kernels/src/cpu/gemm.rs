//! Products of packed matrices: C `[M, N]` = A `[M, K]` · B `[K, N]`, summed in f32.
//!
//! Owns the choice of a kernel and the bounds of what it touches. Operands:
//!
//! - A lies in rows of K elements, `lda` apart.
//! - B lies in panels of `columns` columns. In a panel, the group of elements that are summed first
//!   lie together: `[K / GROUP, columns, GROUP]` ([`super::pack`] makes them).
//! - Operands of kernels that are [`Split`] lie as that says, and K is a multiple of 32.
//! - K may be cut into blocks, each with an A and panels of its own: that is how operands that many
//!   tasks have made, each its rows, are multiplied without being put together first.
//!
//! Each element of C is summed by one task in one order, so the number of threads changes no bit.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod plain;
#[cfg(target_arch = "x86_64")]
mod split;

use super::{Bf16, Element, Isa};

/// The widest panel and the highest tile of any kernel.
pub const MOST_COLUMNS: usize = 48;

/// One instruction set's way to multiply.
#[derive(Debug, Clone, Copy)]
pub struct Kernel<E> {
    /// A product's rows are padded to a multiple of this.
    pub rows: usize,
    /// Columns of a panel.
    pub columns: usize,
    run: unsafe fn(&Raw<E>),
    /// What products have to set up, where there is such a thing.
    hold: Option<unsafe fn() -> Option<Held>>,
    /// Whether operands are [`Split`].
    split: bool,
}

/// Products of floats by units that multiply numbers of fewer bits: each float is a sum of three of
/// half its size, which lie where tiles read them.
#[derive(Debug, Clone, Copy)]
pub struct Split<E> {
    /// Multiplies what the others have made.
    pub kernel: Kernel<E>,
    rows: unsafe fn(&[E], usize, usize, &mut [E], usize),
    panel: unsafe fn(&[E], &mut [E]),
}

/// Whether linear layers' floats are split, and how.
pub fn split_f32(isa: Isa) -> Option<Split<f32>> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => Some(split::BY_AMX),
        _ => None,
    }
}

impl<E: Element> Split<E> {
    /// The depth of operands whose rows have so many elements.
    pub fn depth(width: usize) -> usize {
        width.next_multiple_of(SPLIT_DEPTH)
    }

    /// Splits rows of `width` elements, `from_ld` apart, to rows `ld` apart: [`Kernel::operand_len`]
    /// of [`Self::depth`] are written of each.
    ///
    /// # Panics
    /// When they do not fit: a caller's mistake.
    pub fn rows(&self, from: &[E], from_ld: usize, width: usize, out: &mut [E], ld: usize) {
        let split = self.kernel.operand_len(Self::depth(width));
        assert!(width <= from_ld && split <= ld);
        let rows = from.len().div_ceil(from_ld.max(1));
        assert!(rows == 0 || out.len() >= (rows - 1) * ld + split);
        // SAFETY: this exists only where its instructions do.
        unsafe { (self.rows)(from, from_ld, width, out, ld) }
    }

    /// Splits one panel of a kernel without groups, `[depth, columns]`.
    ///
    /// # Panics
    /// When its rows are not whole, or there is not room for it in `out`: a caller's mistake.
    pub fn panel(&self, from: &[E], out: &mut [E]) {
        let columns = self.kernel.columns;
        let depth = Self::depth(from.len() / columns);
        assert!(from.len().is_multiple_of(columns));
        assert!(out.len() >= self.kernel.operand_len(depth * columns));
        // SAFETY: this exists only where its instructions do.
        unsafe { (self.panel)(from, out) }
    }
}

/// The depth of split operands is a multiple of this.
const SPLIT_DEPTH: usize = 32;

#[cfg(target_arch = "x86_64")]
pub use amx::Held;
/// Elsewhere nothing is set up.
#[cfg(not(target_arch = "x86_64"))]
pub enum Held {}

/// The kernel for f32 operands.
pub fn f32_kernel(isa: Isa) -> Kernel<f32> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => avx512::F32,
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => avx512::NARROW_F32,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::F32,
        _ => plain::base(),
    }
}

/// The kernel for bf16 operands.
#[cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "pages have none"))]
pub fn bf16_kernel(isa: Isa) -> Kernel<Bf16> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => amx::BF16,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => avx512::BF16,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx2 => avx2::BF16,
        _ => plain::base(),
    }
}

/// Asks for a slice to be brought into the second cache.
pub fn prefetch<E>(slice: &[E]) {
    #[cfg(target_arch = "x86_64")]
    for line in slice.chunks((64 / size_of::<E>()).max(1)) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, which touches no memory.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = slice;
}

/// A product to compute.
#[derive(Debug)]
pub struct Product<'a, E> {
    /// The left operand.
    pub a: &'a [E],
    /// Elements from one of A's rows to the next.
    pub lda: usize,
    /// The right operand.
    pub b: &'a [E],
    /// Elements from one panel to the next.
    pub panel_stride: usize,
    /// Elements of K in a block, a multiple of [`Element::DEPTH`].
    pub depth: usize,
    /// Blocks of K.
    pub blocks: Blocks,
    /// Rows, a multiple of [`Kernel::rows`].
    pub rows: usize,
    /// How many panels.
    pub panels: usize,
}

/// How K is cut.
#[derive(Debug, Clone, Copy)]
pub struct Blocks {
    /// How many.
    pub count: usize,
    /// Elements from one block's A to the next one's.
    pub a_stride: usize,
    /// The same for B.
    pub b_stride: usize,
}

impl Blocks {
    /// K in one piece.
    pub const ONE: Self = Self { count: 1, a_stride: 0, b_stride: 0 };
}

/// What happens to what C held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// It is overwritten.
    Replace,
    /// It is added to.
    Add,
}

/// A [`Product`] whose bounds were checked.
struct Raw<E> {
    a: *const E,
    lda: usize,
    b: *const E,
    panel_stride: usize,
    depth: usize,
    blocks: Blocks,
    rows: usize,
    panels: usize,
    c: *mut f32,
    ldc: usize,
    add: bool,
}

impl<E: Element> Kernel<E> {
    /// How many panels so many columns make.
    pub fn panels(&self, columns: usize) -> usize {
        columns.div_ceil(self.columns)
    }

    /// How many elements so many of an operand take.
    pub fn operand_len(&self, elements: usize) -> usize {
        if self.split { elements * 3 / 2 } else { elements }
    }

    /// Sets up what products need, for as long as what comes back lives: for a thread that is to
    /// compute many small ones, and nothing of others' meanwhile.
    pub fn hold(&self) -> Option<Held> {
        // SAFETY: a kernel exists only where its instructions do.
        self.hold.and_then(|hold| unsafe { hold() })
    }

    /// Computes C: `c[row · ldc + column]`, of `rows` rows and `panels · columns` columns.
    ///
    /// # Panics
    /// When an operand is too short for the product: a caller's mistake.
    pub fn multiply(&self, product: &Product<'_, E>, c: &mut [f32], ldc: usize, into: Into) {
        let Product { a, lda, b, panel_stride, depth, blocks, rows, panels } = *product;
        if rows == 0 || panels == 0 {
            return;
        }
        if blocks.count == 0 || depth == 0 {
            if into == Into::Replace {
                let width = panels * self.columns;
                c.chunks_mut(ldc).take(rows).for_each(|row| row[..width].fill(0.0));
            }
            return;
        }
        let last = blocks.count - 1;
        assert!(rows.is_multiple_of(self.rows) && depth.is_multiple_of(E::DEPTH));
        assert!(!self.split || depth.is_multiple_of(SPLIT_DEPTH));
        let (row, panel) = (self.operand_len(depth), self.operand_len(depth * self.columns));
        assert!(a.len() >= last * blocks.a_stride + (rows - 1) * lda + row);
        assert!(b.len() >= last * blocks.b_stride + (panels - 1) * panel_stride + panel);
        assert!(c.len() >= (rows - 1) * ldc + panels * self.columns);
        let raw = Raw {
            a: a.as_ptr(),
            lda,
            b: b.as_ptr(),
            panel_stride,
            depth,
            blocks,
            rows,
            panels,
            c: c.as_mut_ptr(),
            ldc,
            add: into == Into::Add,
        };
        // SAFETY: a kernel exists only where its instructions do (the constructors above), and
        // every element it touches is within the bounds asserted here.
        unsafe { (self.run)(&raw) }
    }
}

impl<E> Raw<E> {
    /// Calls `tile` with the A, the panel and the C of each tile.
    ///
    /// # Safety
    /// The bounds must hold.
    #[inline(always)]
    unsafe fn tiles(
        &self,
        (rows, columns): (usize, usize),
        mut tile: impl FnMut(*const E, *const E, *mut f32),
    ) {
        for panel in 0..self.panels {
            for row in (0..self.rows).step_by(rows) {
                // SAFETY: within the bounds that were checked for the whole product.
                let (a, b, c) = unsafe {
                    (
                        self.a.add(row * self.lda),
                        self.b.add(panel * self.panel_stride),
                        self.c.add(row * self.ldc + panel * columns),
                    )
                };
                tile(a, b, c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::element::padded;
    use crate::cpu::isa;
    use crate::dropout::normal;

    /// Every kernel that this processor can run.
    fn kernels() -> (Vec<Kernel<f32>>, Vec<Kernel<Bf16>>) {
        let all = [Isa::Base, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];
        let here: Vec<Isa> = all.into_iter().filter(|other| *other <= isa()).collect();
        (
            here.iter().map(|isa| f32_kernel(*isa)).collect(),
            here.iter().map(|isa| bf16_kernel(*isa)).collect(),
        )
    }

    fn check<E: Element>(kernel: &Kernel<E>) {
        for (tiles, panels, depth, blocks) in [
            (1, 1, 1, 1),
            (2, 3, 32, 1),
            (5, 2, 100, 1),
            (3, 1, 64, 3),
            (4, 1, 384, 2),
            (7, 1, 33, 1),
            (2, 1, 13, 3),
        ] {
            let (rows, depth) = (tiles * kernel.rows, padded::<E>(depth));
            let (lda, ldc) = (depth + 6, panels * kernel.columns + 5);
            let random = |seed, n: usize| -> Vec<E> {
                (0..n as u64).map(|i| E::new(normal(seed, i))).collect()
            };
            let a = random(1, blocks * rows * lda);
            let panel_stride = depth * kernel.columns;
            let b = random(2, blocks * panels * panel_stride);
            let product = Product {
                a: &a,
                lda,
                b: &b,
                panel_stride,
                depth,
                blocks: Blocks {
                    count: blocks,
                    a_stride: rows * lda,
                    b_stride: panels * panel_stride,
                },
                rows,
                panels,
            };
            for into in [Into::Replace, Into::Add] {
                let mut c = vec![0.5f32; rows * ldc];
                kernel.multiply(&product, &mut c, ldc, into);
                for row in 0..rows {
                    for column in 0..ldc {
                        let (panel, j) = (column / kernel.columns, column % kernel.columns);
                        let found = f64::from(c[row * ldc + column]);
                        if panel >= panels {
                            assert_eq!(found, 0.5, "beyond the last column");
                            continue;
                        }
                        let mut sum = if into == Into::Add { 0.5 } else { 0.0 };
                        for block in 0..blocks {
                            for k in 0..depth {
                                let x = a[block * rows * lda + row * lda + k].get();
                                let group = (k / E::GROUP * kernel.columns + j) * E::GROUP;
                                let y = b[(block * panels + panel) * panel_stride
                                    + group
                                    + k % E::GROUP]
                                    .get();
                                sum += f64::from(x) * f64::from(y);
                            }
                        }
                        assert!(
                            (found - sum).abs() < 2e-4,
                            "{kernel:?} {row} {column}: {found} {sum}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_kernel_multiplies() {
        let (f32s, bf16s) = kernels();
        #[cfg(target_arch = "x86_64")]
        if isa() >= Isa::Avx512 {
            check(&avx512::NARROW_F32);
        }
        f32s.iter().for_each(check);
        bf16s.iter().for_each(check);
    }
}
