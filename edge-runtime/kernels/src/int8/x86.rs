//! x86-64 dot products: AVX-512 VNNI, and 16-bit products on AVX2.
#![allow(unsafe_code)]

use super::dot::{Dot, DotWork};
use std::arch::x86_64::*;

/// Sixteen sums in one register.
#[derive(Clone, Copy)]
pub(super) struct Vnni(__m512i);

impl Dot for Vnni {
    const PIXELS: [usize; 3] = [14, 14, 7];
    type Weights = __m512i;
    type Spread = __m512i;
    type Floats = __m512;

    #[inline(always)]
    unsafe fn start(_sums: *const i8) -> Self {
        // SAFETY: the caller has the features, by the trait's contract.
        Vnni(unsafe { _mm512_setzero_si512() })
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn spread(from: *const u8) -> Self::Spread {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn dot(self, x: Self::Spread, w: Self::Weights) -> Self {
        // SAFETY: the caller has the features, by the trait's contract.
        Vnni(unsafe { _mm512_dpbusd_epi32(self.0, x, w) })
    }
    #[inline(always)]
    unsafe fn floats(self) -> Self::Floats {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { _mm512_cvtepi32_ps(self.0) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::Floats {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::Floats {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn store(x: Self::Floats, to: *mut f32) {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe { _mm512_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn store_bytes(x: Self::Floats, to: *mut u8) {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract. `max`
        // returns its second operand if the first is NaN; conversion rounds ties to even (the default mode,
        // which Rust code never leaves).
        unsafe {
            let x = _mm512_min_ps(_mm512_max_ps(x, _mm512_setzero_ps()), _mm512_set1_ps(255.0));
            _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x)));
        }
    }
}

/// Sixteen sums in two registers.
#[derive(Clone, Copy)]
pub(super) struct Avx2([__m256i; 2]);

impl Dot for Avx2 {
    const PIXELS: [usize; 3] = [4, 0, 0];
    /// Each register of bytes as its even and its odd bytes, widened to 16 bits: sums of two byte products
    /// (as `vpmaddubsw` computes them) do not fit into 16 bits, sums of 16-bit products fit into 32.
    type Weights = [[__m256i; 2]; 2];
    type Spread = [__m256i; 2];
    type Floats = [__m256; 2];

    #[inline(always)]
    unsafe fn start(_sums: *const i8) -> Self {
        // SAFETY: the caller has the features, by the trait's contract.
        Avx2(unsafe { [_mm256_setzero_si256(); 2] })
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe {
            let (a, b) = (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast()));
            let (even_a, even_b) = (_mm256_slli_epi16::<8>(a), _mm256_slli_epi16::<8>(b));
            [
                [_mm256_srai_epi16::<8>(even_a), _mm256_srai_epi16::<8>(a)],
                [_mm256_srai_epi16::<8>(even_b), _mm256_srai_epi16::<8>(b)],
            ]
        }
    }
    #[inline(always)]
    unsafe fn spread(from: *const u8) -> Self::Spread {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe {
            let x = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            [_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(x)]
        }
    }
    #[inline(always)]
    unsafe fn dot(self, x: Self::Spread, w: Self::Weights) -> Self {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe {
            let a = _mm256_add_epi32(_mm256_madd_epi16(x[0], w[0][0]), _mm256_madd_epi16(x[1], w[0][1]));
            let b = _mm256_add_epi32(_mm256_madd_epi16(x[0], w[1][0]), _mm256_madd_epi16(x[1], w[1][1]));
            Avx2([_mm256_add_epi32(self.0[0], a), _mm256_add_epi32(self.0[1], b)])
        }
    }
    #[inline(always)]
    unsafe fn floats(self) -> Self::Floats {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { [_mm256_cvtepi32_ps(self.0[0]), _mm256_cvtepi32_ps(self.0[1])] }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::Floats {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::Floats {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe {
            let bytes = _mm_loadu_si128(from.cast());
            let high = _mm_srli_si128::<8>(bytes);
            [_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(high))]
        }
    }
    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn store(x: Self::Floats, to: *mut f32) {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe {
            _mm256_storeu_ps(to, x[0]);
            _mm256_storeu_ps(to.add(8), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(x: Self::Floats, to: *mut u8) {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract. As for
        // `Vnni`.
        unsafe {
            let clamp = _mm256_set1_ps(255.0);
            let a = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(x[0], _mm256_setzero_ps()), clamp));
            let b = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(x[1], _mm256_setzero_ps()), clamp));
            // Packing works within register halves, giving a0 b0 a1 b1 in groups of four; the permute
            // restores order.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
            let low = _mm256_castsi256_si128(words);
            let high = _mm256_extracti128_si256::<1>(words);
            _mm_storeu_si128(to.cast(), _mm_packus_epi16(low, high));
        }
    }
}

/// [`DotWork::part`] compiled for AVX-512 with VNNI.
///
/// # Safety
/// As for [`DotWork::part`].
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx512vnni,avx2,fma")]
pub(super) unsafe fn part_vnni<W: DotWork>(work: &W, part: usize) {
    // SAFETY: this function has the features; the rest is guaranteed by the caller.
    unsafe { work.part::<Vnni>(part) }
}

/// [`DotWork::part`] compiled for AVX2.
///
/// # Safety
/// As for [`DotWork::part`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn part_avx2<W: DotWork>(work: &W, part: usize) {
    // SAFETY: this function has the features; the rest is guaranteed by the caller.
    unsafe { work.part::<Avx2>(part) }
}
