//! x86-64 vectors: AVX-512 and AVX2 with FMA.

use super::{Simd, Work};
use std::arch::x86_64::*;

/// Sixteen floats; 32 registers.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

impl Simd for Avx512 {
    const LANES: usize = 16;
    const PIXELS: [usize; 3] = [14, 14, 7];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx512(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has the feature, and the pointer is valid, by the trait's contract.
        Avx512(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn spread(from: *const f32) -> Self {
        // SAFETY: the caller has the feature, and the pointer is valid, by the trait's contract.
        Avx512(unsafe { _mm512_set1_ps(*from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has the feature, and the pointer is valid, by the trait's contract.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx512(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx512(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx512(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx512(unsafe { _mm512_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx512(unsafe { _mm512_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: only a hint; no address can fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}

/// Eight floats; 16 registers.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256);

impl Simd for Avx2 {
    const LANES: usize = 8;
    const PIXELS: [usize; 3] = [8, 6, 0];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx2(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has the feature, and the pointer is valid, by the trait's contract.
        Avx2(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn spread(from: *const f32) -> Self {
        // SAFETY: the caller has the feature, and the pointer is valid, by the trait's contract.
        Avx2(unsafe { _mm256_set1_ps(*from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has the feature, and the pointer is valid, by the trait's contract.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx2(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx2(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx2(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx2(unsafe { _mm256_fmadd_ps(a.0, b.0, self.0) })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller has the feature, by the trait's contract.
        Avx2(unsafe { _mm256_max_ps(self.0, other.0) })
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: only a hint; no address can fault.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
}

/// [`Work::part`] compiled for AVX-512.
///
/// # Safety
/// As for [`Work::part`].
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
pub(super) unsafe fn part_avx512<W: Work>(work: &W, part: usize) {
    // SAFETY: this function has the features; the rest is guaranteed by the caller.
    unsafe { work.part::<Avx512>(part) }
}

/// [`Work::part`] compiled for AVX2 and FMA.
///
/// # Safety
/// As for [`Work::part`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn part_avx2<W: Work>(work: &W, part: usize) {
    // SAFETY: this function has the features; the rest is guaranteed by the caller.
    unsafe { work.part::<Avx2>(part) }
}
