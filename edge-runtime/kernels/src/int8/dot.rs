//! Dot products of four bytes at a time, on every instruction set, and the way into code built for each.
#![allow(unsafe_code)]

use crate::Isa;
use crate::pool::Pool;

/// Sixteen sums (one per output channel of a block), and sixteen floats made of them.
///
/// # Safety of the methods
/// Every method may only be called in a function that has the machine's features; pointers must be valid for
/// what is read: 64 bytes of weights or sums, 4 of a map to [`spread`](Dot::spread), 16 elements otherwise.
/// No alignment is needed.
pub(super) trait Dot: Copy {
    /// Most pixels that a register tile of 1, 2 and 4 blocks keeps in registers; 0 where there is no such tile.
    const PIXELS: [usize; 3];
    /// Weights of sixteen output channels for four input channels.
    type Weights: Copy;
    /// Four input channels of one pixel, in every lane.
    type Spread: Copy;
    /// Sixteen floats.
    type Floats: Copy;

    /// What sums start from; `sums` are those of the weights, i32 little-endian.
    unsafe fn start(sums: *const i8) -> Self;
    unsafe fn weights(from: *const i8) -> Self::Weights;
    unsafe fn spread(from: *const u8) -> Self::Spread;
    /// `self[o] += sum over i < 4 of x[i] * w[o][i]`, exactly.
    unsafe fn dot(self, x: Self::Spread, w: Self::Weights) -> Self;
    /// The sums, rounded to f32.
    unsafe fn floats(self) -> Self::Floats;
    unsafe fn splat(x: f32) -> Self::Floats;
    unsafe fn load(from: *const f32) -> Self::Floats;
    unsafe fn load_bytes(from: *const u8) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn store(x: Self::Floats, to: *mut f32);
    /// Clamps to 0..=255, rounds to nearest with ties to even.
    unsafe fn store_bytes(x: Self::Floats, to: *mut u8);
}

/// Work in parts, generic over the machine.
pub(super) trait DotWork: Sync {
    /// Does part `part`. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The caller has the features of `D`; what the work's pointers promise holds; no part runs twice at once.
    unsafe fn part<D: Dot>(&self, part: usize);
}

/// What a machine multiplies bytes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    /// Plain Rust.
    Portable,
    /// 16-bit products of AVX2.
    Avx2,
    /// Byte dot products of AVX-512.
    Vnni,
    /// Plain Rust, compiled for Advanced SIMD.
    Neon,
    /// Byte dot products of Armv8.2.
    NeonDot,
}

impl Machine {
    /// The fastest one for `isa`, which this machine runs.
    pub(super) fn of(isa: Isa) -> Machine {
        match isa {
            Isa::Portable => Machine::Portable,
            Isa::Avx2 => Machine::Avx2,
            Isa::Avx512 if Machine::Vnni.runs_here() => Machine::Vnni,
            Isa::Avx512 => Machine::Avx2,
            Isa::Neon if Machine::NeonDot.runs_here() => Machine::NeonDot,
            Isa::Neon => Machine::Neon,
        }
    }

    /// Every one that this machine runs.
    #[cfg(test)]
    pub(super) fn available() -> Vec<Machine> {
        let all = [Machine::Portable, Machine::Avx2, Machine::Vnni, Machine::Neon, Machine::NeonDot];
        all.into_iter().filter(|machine| machine.runs_here()).collect()
    }

    fn runs_here(self) -> bool {
        match self {
            Machine::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Machine::Avx2 => Isa::Avx2.runs_here(),
            #[cfg(target_arch = "x86_64")]
            Machine::Vnni => Isa::Avx512.runs_here() && is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "aarch64")]
            Machine::Neon => Isa::Neon.runs_here(),
            #[cfg(target_arch = "aarch64")]
            Machine::NeonDot => Isa::Neon.runs_here() && std::arch::is_aarch64_feature_detected!("dotprod"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
}

/// Does all `parts` of `work` on `pool`, compiled for `machine`.
///
/// # Safety
/// The machine is this one, and what the work's pointers promise holds.
pub(super) unsafe fn run(machine: Machine, work: &impl DotWork, parts: usize, pool: &Pool) {
    pool.run(parts, &|part| {
        // SAFETY: the features are here by this function's contract; `run` hands every part out once.
        unsafe {
            match machine {
                #[cfg(target_arch = "x86_64")]
                Machine::Vnni => super::x86::part_vnni(work, part),
                #[cfg(target_arch = "x86_64")]
                Machine::Avx2 => super::x86::part_avx2(work, part),
                #[cfg(target_arch = "aarch64")]
                Machine::NeonDot => super::neon::part_dot(work, part),
                #[cfg(target_arch = "aarch64")]
                Machine::Neon => super::neon::part_neon(work, part),
                _ => work.part::<super::array::Array>(part),
            }
        }
    });
}
