//! One source for every instruction set: vectors of one channel block, and the way into code built for them.
//!
//! A kernel is a [`Work`]: generic over the vector type, `#[inline(always)]` all the way down. [`run`] is the
//! only place that turns an [`Isa`] into machine code: it calls the work inside a function compiled with that
//! set's features, so everything below is inlined into it and compiled for them.
#![allow(unsafe_code)]

mod array;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use super::isa::{Isa, KernelError};
use crate::pool::Pool;

/// A vector of `LANES` floats, as wide as the instruction set's channel block.
///
/// # Safety of the methods
/// Every method may only be called in a function that has the instruction set's features, and pointers
/// must be valid for `LANES` floats (one for [`spread`](Simd::spread)); no alignment is needed.
pub(super) trait Simd: Copy {
    /// Floats per vector.
    const LANES: usize;
    /// Most pixels that a register tile of 1, 2 and 4 channel blocks keeps in registers; 0 where such a tile
    /// would be none.
    const PIXELS: [usize; 3];

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// One float from memory in every lane.
    unsafe fn spread(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self + a * b`, in one rounding where the hardware has it.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// Asks for the cache line at `at`, which need not be valid, to be brought near.
    unsafe fn prefetch(at: *const f32);
}

/// A piece of parallel work over channel blocks.
pub(super) trait Work: Sync {
    /// False for work that [`Isa::Portable`] is never given, so that no code is made for it.
    const PORTABLE: bool = true;

    /// Does part `part` with vectors `V`. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The caller has the features of `V`; what the work's pointers promise holds; no part runs twice at once.
    unsafe fn part<V: Simd>(&self, part: usize);
}

/// Does all `parts` of `work` on `pool`, compiled for `isa`.
///
/// # Safety
/// The machine runs `isa`, and what the work's pointers promise holds.
pub(super) unsafe fn run<W: Work>(isa: Isa, work: &W, parts: usize, pool: &Pool) {
    pool.run(parts, &|part| {
        // SAFETY: the machine has the features by this function's contract; `run` hands every part out once.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 => x86::part_avx512(work, part),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => x86::part_avx2(work, part),
                #[cfg(target_arch = "aarch64")]
                Isa::Neon => neon::part_neon(work, part),
                _ if W::PORTABLE => work.part::<array::Array8>(part),
                _ => debug_assert!(false, "a portable program chose a method that has no portable code"),
            }
        }
    });
}

/// Work whose parts are chunks of one output.
pub(super) trait ChunkWork: Sync {
    /// Fills `out`, chunk `index`, with vectors `V`. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The caller has the features of `V`.
    unsafe fn chunk<V: Simd>(&self, index: usize, out: &mut [f32]);
}

/// [`ChunkWork`] and the output it fills.
struct Chunks<'a, W> {
    work: &'a W,
    out: *mut f32,
    len: usize,
    chunk: usize,
}

// SAFETY: every part makes a slice of its own range of `out` and of nothing else.
unsafe impl<W: Sync> Sync for Chunks<'_, W> {}

impl<W: ChunkWork> Work for Chunks<'_, W> {
    #[inline(always)]
    unsafe fn part<V: Simd>(&self, part: usize) {
        let start = part * self.chunk;
        // SAFETY: the ranges of different parts are disjoint, and all end at `len` at most; `run_chunks` holds the
        // output mutably borrowed. The features are the caller's promise.
        unsafe {
            let out = std::slice::from_raw_parts_mut(self.out.add(start), self.chunk.min(self.len - start));
            self.work.chunk::<V>(part, out);
        }
    }
}

/// Fills `out` chunk by chunk (`chunk` floats each, the last maybe fewer), compiled for `isa`.
///
/// # Errors
/// [`KernelError::Isa`] where this machine has no `isa`.
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
    // SAFETY: the machine runs `isa`; the pointer is that of `out`, borrowed until `run` returns.
    unsafe { run(isa, &work, parts, pool) };
    Ok(())
}

/// The vector at `from[at..]`.
///
/// # Safety
/// The features of `V`.
#[inline(always)]
pub(super) unsafe fn load<V: Simd>(from: &[f32], at: usize) -> V {
    let from = &from[at..][..V::LANES];
    // SAFETY: the slice has `LANES` floats; the features are the caller's promise.
    unsafe { V::load(from.as_ptr()) }
}

/// Writes the vector to `to[at..]`.
///
/// # Safety
/// The features of `V`.
#[inline(always)]
pub(super) unsafe fn store<V: Simd>(v: V, to: &mut [f32], at: usize) {
    let to = &mut to[at..][..V::LANES];
    // SAFETY: the slice has `LANES` floats; the features are the caller's promise.
    unsafe { v.store(to.as_mut_ptr()) }
}
