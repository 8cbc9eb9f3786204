//! Instruction sets: which one there is, and one body compiled for several.

use std::sync::OnceLock;

/// What kernels are compiled for, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every processor of the build's target has.
    Base,
    /// 256-bit vectors and fused multiply-add.
    Avx2,
    /// 512-bit vectors.
    Avx512,
    /// Products of bf16 pairs, summed in f32.
    Avx512Bf16,
    /// Products of whole tiles, of bf16 and of 8-bit integers.
    Amx,
}

impl Isa {
    const ALL: [(&'static str, Isa); 5] = [
        ("base", Isa::Base),
        ("avx2", Isa::Avx2),
        ("avx512", Isa::Avx512),
        ("avx512bf16", Isa::Avx512Bf16),
        ("amx", Isa::Amx),
    ];

    /// Its name, as `PAGEBERT_ISA` takes it.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

/// The best that this processor has. `PAGEBERT_ISA` lowers it, for tests.
pub fn isa() -> Isa {
    static CHOSEN: OnceLock<Isa> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let asked = std::env::var("PAGEBERT_ISA").ok();
        let most = asked.and_then(|asked| {
            let named = Isa::ALL.iter().find(|(name, _)| *name == asked);
            named.map(|(_, isa)| *isa)
        });
        detect().min(most.unwrap_or(Isa::Amx))
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Base
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        return Isa::Base;
    }
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw");
    if !avx512 {
        return Isa::Avx2;
    }
    if !is_x86_feature_detected!("avx512bf16") {
        return Isa::Avx512;
    }
    if super::gemm::amx::is_usable() { Isa::Amx } else { Isa::Avx512Bf16 }
}

/// Defines a function whose body is compiled for AVX-512, AVX2 and the build's own target, and
/// chosen among at run time. Arguments must be plain values or references; there may be one type
/// parameter with one bound. In the body `FMA` says whether there are fused multiply-adds, for
/// [`super::math`].
macro_rules! dispatch {
    ($(#[$doc:meta])* $vis:vis fn $name:ident $(<$t:ident: $bound:ident>)? ($($arg:ident: $kind:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$t: $bound>)? ($($arg: $kind),*) {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<const FMA: bool $(, $t: $bound)?> ($($arg: $kind),*) $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512 $(<$t: $bound>)? ($($arg: $kind),*) {
                    body::<true $(, $t)?>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2 $(<$t: $bound>)? ($($arg: $kind),*) {
                    body::<true $(, $t)?>($($arg),*)
                }
                let isa = $crate::cpu::isa();
                if isa >= $crate::cpu::Isa::Avx512 {
                    // SAFETY: the processor has what the function was compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if isa >= $crate::cpu::Isa::Avx2 {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body::<false $(, $t)?>($($arg),*)
        }
    };
}

pub(crate) use dispatch;
