//! aarch64 vectors: Advanced SIMD.

use super::{Simd, Work};
use std::arch::aarch64::*;
use std::arch::asm;

/// Four floats; 32 registers.
#[derive(Clone, Copy)]
pub(super) struct Neon(float32x4_t);

impl Simd for Neon {
    const LANES: usize = 4;
    const PIXELS: [usize; 3] = [8, 8, 6];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Neon(unsafe { vdupq_n_f32(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has the feature, and the pointer is valid, by the trait's contract.
        Neon(unsafe { vld1q_f32(from) })
    }
    #[inline(always)]
    unsafe fn spread(from: *const f32) -> Self {
        // SAFETY: the caller has the feature, and the pointer is valid, by the trait's contract.
        Neon(unsafe { vld1q_dup_f32(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has the feature, and the pointer is valid, by the trait's contract.
        unsafe { vst1q_f32(to, self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Neon(unsafe { vaddq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Neon(unsafe { vsubq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Neon(unsafe { vmulq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Neon(unsafe { vfmaq_f32(self.0, a.0, b.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Neon(unsafe { vmaxq_f32(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: only a hint; no address can fault, and nothing but the cache changes.
        unsafe { asm!("prfm pldl2keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly)) }
    }
}

/// [`Work::part`] compiled for Advanced SIMD.
///
/// # Safety
/// As for [`Work::part`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn part_neon<W: Work>(work: &W, part: usize) {
    // SAFETY: this function has the features; the rest is guaranteed by the caller.
    unsafe { work.part::<Neon>(part) }
}
