//! One source for every instruction set: vectors of one channel block, and dispatch to code compiled for
//! each.
//!
//! A kernel is a [`Work`]: generic over the vector type, `#[inline(always)]` throughout. [`run`] is the only
//! place that turns an [`Isa`] into machine code: it calls the work inside a function compiled with that
//! set's features, so everything below is inlined into it and compiled for them.
#![allow(unsafe_code)]

mod array;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_fp16;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::isa::{Isa, KernelError};
use crate::pool::Pool;
use crate::tile::Reach;

/// A vector of `LANES` floats, as wide as the instruction set's channel block.
///
/// # Safety of the methods
/// Every method must be called only from a function compiled with the instruction set's features, and
/// pointers must be valid for `LANES` floats (one for [`spread`](Simd::spread)); no alignment is needed.
pub(super) trait Simd: Copy {
    /// Floats per vector.
    const LANES: usize;
    /// Maximum pixels for which a register tile of 1, 2 and 4 channel blocks fits into registers; 0 if there
    /// is no such tile.
    const PIXELS: [usize; 3];
    /// Whether direct and pointwise convolutions read kernels of halves, with
    /// [`sums_of_halves`](Simd::sums_of_halves).
    const HALVES: bool = false;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// Broadcasts one float from memory to all lanes.
    unsafe fn spread(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self + a * b`, with a single rounding if the hardware supports it.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// Prefetches the cache line at `at`, which need not be valid.
    unsafe fn prefetch(at: *const f32);
    /// [`tile::sums`](crate::tile::sums) over a kernel of halves, in which `reach` counts its weights.
    #[inline(always)]
    unsafe fn sums_of_halves<const P: usize, const Q: usize, const STEP: usize, const PLAIN: bool>(
        acc: [[Self; Q]; P],
        _x: *const f32,
        _w: *const u16,
        _reach: &Reach,
    ) -> [[Self; Q]; P] {
        debug_assert!(Self::HALVES, "kernels of halves on an instruction set without");
        acc
    }
}

/// A unit of parallel work over channel blocks.
pub(super) trait Work: Sync {
    /// False for work that is never run on [`Isa::Portable`], so that no code is generated for it.
    const PORTABLE: bool = true;

    /// Executes part `part` with vectors `V`. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The caller has the CPU features of `V`; the guarantees behind the work's pointers hold; no part runs
    /// twice at once.
    unsafe fn part<V: Simd>(&self, part: usize);
}

/// Executes all `parts` of `work` on `pool`, compiled for `isa`.
///
/// # Safety
/// The machine supports `isa`, and the guarantees behind the work's pointers hold.
pub(super) unsafe fn run<W: Work>(isa: Isa, work: &W, parts: usize, pool: &Pool) {
    pool.run(parts, &|part| {
        // SAFETY: this function's contract guarantees the CPU features; `run` passes every part exactly once.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => x86::part_avx512(work, part),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => x86::part_avx2(work, part),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => neon::part_neon(work, part),
                #[cfg(target_arch = "aarch64")]
                Isa::NeonFp16 => neon_fp16::part_neon_fp16(work, part),
                _ if W::PORTABLE => work.part::<array::Array8>(part),
                _ => debug_assert!(false, "method without portable code chosen on portable"),
            }
        }
    });
}

/// Work whose parts are chunks of one output.
pub(super) trait ChunkWork: Sync {
    /// Fills `out`, chunk `index`, with vectors `V`. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The caller has the CPU features of `V`.
    unsafe fn chunk<V: Simd>(&self, index: usize, out: &mut [f32]);
}

/// [`ChunkWork`] and the output it fills.
struct Chunks<'a, W> {
    work: &'a W,
    out: *mut f32,
    len: usize,
    chunk: usize,
}

// SAFETY: every part accesses only its own range of `out`.
unsafe impl<W: Sync> Sync for Chunks<'_, W> {}

impl<W: ChunkWork> Work for Chunks<'_, W> {
    #[inline(always)]
    unsafe fn part<V: Simd>(&self, part: usize) {
        let start = part * self.chunk;
        // SAFETY: the ranges of different parts are disjoint, and all end at `len` at most; `run_chunks`
        // holds the output mutably borrowed. The caller guarantees the CPU features.
        unsafe {
            let out = std::slice::from_raw_parts_mut(self.out.add(start), self.chunk.min(self.len - start));
            self.work.chunk::<V>(part, out);
        }
    }
}

/// Fills `out` in chunks of `chunk` floats (the last may be shorter), compiled for `isa`.
///
/// # Errors
/// [`KernelError::Isa`] if this machine does not support `isa`.
pub(super) fn run_chunks(
    isa: Isa,
    out: &mut [f32],
    chunk: usize,
    work: &impl ChunkWork,
    pool: &Pool,
) -> Result<(), KernelError> {
    if !isa.runs_here() {
        return Err(KernelError::Isa { isa });
    }
    if chunk == 0 || out.is_empty() {
        return Ok(());
    }
    let parts = out.len().div_ceil(chunk);
    let work = Chunks { work, out: out.as_mut_ptr(), len: out.len(), chunk };
    // SAFETY: the machine supports `isa`; the pointer comes from `out`, which is borrowed until `run`
    // returns.
    unsafe { run(isa, &work, parts, pool) };
    Ok(())
}

/// The vector at `from[at..]`.
///
/// # Safety
/// The caller has the CPU features of `V`.
#[inline(always)]
pub(super) unsafe fn load<V: Simd>(from: &[f32], at: usize) -> V {
    let from = &from[at..][..V::LANES];
    // SAFETY: the slice has `LANES` floats; the caller guarantees the CPU features.
    unsafe { V::load(from.as_ptr()) }
}

/// Writes the vector to `to[at..]`.
///
/// # Safety
/// The caller has the CPU features of `V`.
#[inline(always)]
pub(super) unsafe fn store<V: Simd>(v: V, to: &mut [f32], at: usize) {
    let to = &mut to[at..][..V::LANES];
    // SAFETY: the slice has `LANES` floats; the caller guarantees the CPU features.
    unsafe { v.store(to.as_mut_ptr()) }
}
