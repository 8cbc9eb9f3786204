//! Products by AMX tiles, 16 rows of 64 bytes each: of bf16 here, and what those of 8-bit integers
//! have in common with them.
//!
//! Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18. The
//! instructions are written out, as stable Rust has no names for them.

use std::arch::asm;
use std::cell::Cell;
use std::marker::PhantomData;

use super::{Kernel, Raw};
use crate::cpu::Bf16;

/// 32 × 32: two by two tiles.
pub const BF16: Kernel<Bf16> =
    Kernel { rows: ROWS, columns: COLUMNS, run, hold: Some(hold), split: false };

pub(super) const ROWS: usize = 32;
pub(super) const COLUMNS: usize = 32;

/// Whether processor and kernel let this process use tiles.
#[cfg(target_os = "linux")]
pub fn is_usable() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    if __cpuid(0).eax < 7 {
        return false;
    }
    let edx = __cpuid_count(7, 0).edx;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const AMX_INT8: u32 = 1 << 25;
    const ALL: u32 = AMX_BF16 | AMX_TILE | AMX_INT8;
    if edx & ALL != ALL {
        return false;
    }
    // Linux gives tiles' registers room only to processes that ask:
    // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA). Threads inherit the answer.
    const ARCH_PRCTL: isize = 158;
    let result: isize;
    // SAFETY: the system call takes two numbers and touches no memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") 0x1023,
            in("rsi") 18,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Elsewhere nobody says how to ask.
#[cfg(not(target_os = "linux"))]
pub fn is_usable() -> bool {
    false
}

/// The tiles' shapes: palette 1, all eight of 16 rows by 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

thread_local! {
    /// Whether this thread's tiles have their shapes.
    static HELD: Cell<bool> = const { Cell::new(false) };
}

/// This thread's tiles in their shapes. Giving and taking them away lasts as long as four products
/// of tiles.
pub struct Held(PhantomData<*const ()>);

/// Gives the tiles their shapes, unless they have them.
///
/// # Safety
/// [`is_usable`] must have said so.
pub(crate) unsafe fn hold() -> Option<Held> {
    if HELD.replace(true) {
        return None;
    }
    // SAFETY: the configuration is 64 bytes of the documented layout, and lives for ever.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) };
    Some(Held(PhantomData))
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.set(false);
        // SAFETY: whoever holds tiles has them, and none is used until the next configuration.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// # Safety
/// [`is_usable`] must have said so, and the product's bounds must hold.
unsafe fn run(product: &Raw<Bf16>) {
    // SAFETY: the caller's word for it.
    let _held = unsafe { hold() };
    // SAFETY: the caller's bounds; `tile` stays within those of one tile.
    unsafe { product.tiles((ROWS, COLUMNS), |a, b, c| tile(product, a, b, c)) };
}

/// Two by two tiles of sums and what they are made of. Strides are in bytes.
#[repr(C)]
pub(crate) struct TwoByTwo {
    /// Steps in a block's depth, each of some bytes of A's rows.
    pub steps: usize,
    /// From the end of a block's A to the beginning of the next one's.
    pub next_a: isize,
    /// The same for B.
    pub next_b: isize,
    /// Blocks of the depth.
    pub blocks: usize,
    /// Thirty-two rows.
    pub a: *const u8,
    /// From one row to the next.
    pub lda: usize,
    /// Panels of thirty-two columns, of which some rows of 128 bytes are a step.
    pub b: *const u8,
    /// Thirty-two rows of thirty-two sums of four bytes.
    pub c: *mut u8,
    /// From one row to the next.
    pub ldc: usize,
    /// Whether sums are added to what is there.
    pub add: bool,
}

/// Computes a [`TwoByTwo`]: `$step` is the instructions of a step, and by how many bytes they leave A
/// and B behind. One piece of assembly, so that nothing comes between the tiles' uses.
///
/// # Safety
/// Tiles must be configured, and there must be a block and a step at least, and in each block as many
/// bytes as its steps go on by: of A's 32 rows each, and of B; of C 32 rows of 128 bytes.
macro_rules! two_by_two_of {
    ($step:expr, $next_a:literal, $next_b:literal, $operands:expr) => {{
        let operands: &$crate::cpu::gemm::amx::TwoByTwo = $operands;
        std::arch::asm!(
            "test {add:e}, {add:e}",
            "jz 3f",
            "tileloadd tmm0, [{c} + {ldc}]",
            "tileloadd tmm1, [{c} + {ldc} + 64]",
            "tileloadd tmm2, [{c_below} + {ldc}]",
            "tileloadd tmm3, [{c_below} + {ldc} + 64]",
            "jmp 4f",
            "3:",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "4:",
            "mov {count}, [{steps}]",
            "2:",
            $step,
            concat!("add {a}, ", $next_a),
            concat!("add {a_below}, ", $next_a),
            concat!("add {b}, ", $next_b),
            "dec {count}",
            "jnz 2b",
            "add {a}, [{steps} + 8]",
            "add {a_below}, [{steps} + 8]",
            "add {b}, [{steps} + 16]",
            "dec {blocks}",
            "jnz 4b",
            "tilestored [{c} + {ldc}], tmm0",
            "tilestored [{c} + {ldc} + 64], tmm1",
            "tilestored [{c_below} + {ldc}], tmm2",
            "tilestored [{c_below} + {ldc} + 64], tmm3",
            a = inout(reg) operands.a => _,
            a_below = inout(reg) operands.a.wrapping_byte_add(16 * operands.lda) => _,
            b = inout(reg) operands.b => _,
            add = in(reg) u32::from(operands.add),
            count = out(reg) _,
            blocks = inout(reg) operands.blocks => _,
            steps = in(reg) std::ptr::from_ref(operands),
            lda = in(reg) operands.lda,
            ldb = in(reg) 128usize,
            c = in(reg) operands.c,
            c_below = in(reg) operands.c.wrapping_byte_add(16 * operands.ldc),
            ldc = in(reg) operands.ldc,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }};
}

/// Computes a [`TwoByTwo`] by the instruction that multiplies two tiles.
///
/// # Safety
/// As [`two_by_two_of`].
macro_rules! two_by_two {
    ($instruction:literal, $operands:expr) => {
        $crate::cpu::gemm::amx::two_by_two_of!(
            concat!(
                "tileloadd tmm4, [{a} + {lda}]\n",
                "tileloadd tmm6, [{b} + {ldb}]\n",
                "tileloadd tmm7, [{b} + {ldb} + 64]\n",
                "tileloadd tmm5, [{a_below} + {lda}]\n",
                concat!($instruction, " tmm0, tmm4, tmm6\n"),
                concat!($instruction, " tmm1, tmm4, tmm7\n"),
                concat!($instruction, " tmm2, tmm5, tmm6\n"),
                concat!($instruction, " tmm3, tmm5, tmm7\n"),
            ),
            64,
            2048,
            $operands
        )
    };
}

pub(crate) use {two_by_two, two_by_two_of};

/// # Safety
/// Tiles must be configured. A: 32 rows of `depth` elements, `lda` apart, in each block; B: `depth`
/// by 32 elements in each block; C: 32 rows of 32, `ldc` apart.
#[inline(always)]
unsafe fn tile(product: &Raw<Bf16>, a: *const Bf16, b: *const Bf16, c: *mut f32) {
    let (depth, blocks) = (product.depth as isize, product.blocks);
    let operands = TwoByTwo {
        steps: product.depth / 32,
        next_a: 2 * (blocks.a_stride as isize - depth),
        next_b: 2 * (blocks.b_stride as isize - depth * COLUMNS as isize),
        blocks: blocks.count,
        a: a.cast(),
        lda: 2 * product.lda,
        b: b.cast(),
        c: c.cast(),
        ldc: 4 * product.ldc,
        add: product.add,
    };
    // SAFETY: the caller's bounds: sixteen rows from each of the addresses are within them. Products
    // without blocks or depth do not come here.
    unsafe { two_by_two!("tdpbf16ps", &operands) };
}
