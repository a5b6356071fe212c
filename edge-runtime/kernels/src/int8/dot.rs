//! Dot products of four bytes at a time, for every instruction set, and dispatch to code compiled for each.
#![allow(unsafe_code)]

use crate::Isa;
use crate::pool::Pool;

/// Sixteen sums (one per output channel of a block), and sixteen floats made from them.
///
/// # Safety of the methods
/// Every method must be called only from a function compiled with the machine's features; pointers must be
/// valid for what is read or written: 64 bytes of weights or sums, 4 bytes of a map for
/// [`spread`](Dot::spread), 16 elements otherwise. No alignment is needed.
pub(super) trait Dot: Copy {
    /// Maximum pixels for which a register tile of 1, 2 and 4 blocks fits into registers; 0 if there is no
    /// such tile.
    const PIXELS: [usize; 3];
    /// Whether tiles are built for each distance of two pixels' inputs that is common, instead of one for
    /// all.
    const STEPS: bool = true;
    /// Weights of sixteen output channels for four input channels.
    type Weights: Copy;
    /// Four input channels of one pixel, broadcast to all lanes.
    type Spread: Copy;
    /// Sixteen floats.
    type Floats: Copy;

    /// The initial value of the sums; `sums` points to the row sums of the weights, i32 little-endian.
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
    /// Clamps to 0..=255 and rounds to nearest, ties to even.
    unsafe fn store_bytes(x: Self::Floats, to: *mut u8);
}

/// Work in parts, generic over the machine.
pub(super) trait DotWork: Sync {
    /// Executes part `part`. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The caller has the CPU features of `D`; the guarantees behind the work's pointers hold; no part runs
    /// twice at once.
    unsafe fn part<D: Dot>(&self, part: usize);
}

/// The instructions a machine multiplies bytes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Machine {
    /// Plain Rust.
    Portable,
    /// 16-bit products on AVX2.
    Avx2,
    /// Byte dot products of AVX-512 VNNI.
    Vnni,
    /// Plain Rust, compiled for Advanced SIMD.
    Neon,
    /// Byte dot products of Armv8.2.
    NeonDot,
}

impl Machine {
    /// The fastest one for `isa`, which this machine must support.
    pub(super) fn of(isa: Isa) -> Machine {
        match isa {
            Isa::Portable => Machine::Portable,
            Isa::Avx2 => Machine::Avx2,
            Isa::Avx512 if Machine::Vnni.runs_here() => Machine::Vnni,
            Isa::Avx512 => Machine::Avx2,
            Isa::Neon | Isa::NeonFp16 if Machine::NeonDot.runs_here() => Machine::NeonDot,
            Isa::Neon | Isa::NeonFp16 => Machine::Neon,
        }
    }

    /// All that this machine supports.
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

/// Executes all `parts` of `work` on `pool`, compiled for `machine`.
///
/// # Safety
/// This machine supports `machine`, and the guarantees behind the work's pointers hold.
pub(super) unsafe fn run(machine: Machine, work: &impl DotWork, parts: usize, pool: &Pool) {
    pool.run(parts, &|part| {
        // SAFETY: this function's contract guarantees the CPU features; `run` passes every part exactly once.
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
