//! aarch64 dot products: `sdot` of Armv8.2, if the core supports it.
#![allow(unsafe_code)]

use super::dot::{Dot, DotWork};
use std::arch::aarch64::*;
use std::arch::asm;

/// Sixteen sums in four registers.
///
/// The instruction takes signed bytes on both sides, so a map's bytes are passed as `x - 128`, and the sums
/// start from 128 times the sums of the weights.
#[derive(Clone, Copy)]
pub(super) struct NeonDot([int32x4_t; 4]);

impl Dot for NeonDot {
    const PIXELS: [usize; 3] = [6, 0, 0];
    type Weights = [int8x16_t; 4];
    type Spread = int8x16_t;
    type Floats = [float32x4_t; 4];

    #[inline(always)]
    unsafe fn start(sums: *const i8) -> Self {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe {
            NeonDot([
                vshlq_n_s32::<7>(vreinterpretq_s32_s8(vld1q_s8(sums))),
                vshlq_n_s32::<7>(vreinterpretq_s32_s8(vld1q_s8(sums.add(16)))),
                vshlq_n_s32::<7>(vreinterpretq_s32_s8(vld1q_s8(sums.add(32)))),
                vshlq_n_s32::<7>(vreinterpretq_s32_s8(vld1q_s8(sums.add(48)))),
            ])
        }
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe { [vld1q_s8(from), vld1q_s8(from.add(16)), vld1q_s8(from.add(32)), vld1q_s8(from.add(48))] }
    }
    #[inline(always)]
    unsafe fn spread(from: *const u8) -> Self::Spread {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe {
            let x = vreinterpretq_u8_u32(vdupq_n_u32(from.cast::<u32>().read_unaligned()));
            vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(0x80)))
        }
    }
    #[inline(always)]
    unsafe fn dot(mut self, x: Self::Spread, w: Self::Weights) -> Self {
        for (sum, w) in self.0.iter_mut().zip(w) {
            // SAFETY: the caller has the features, by the trait's contract; registers only. (The intrinsic
            // for this instruction is not stable.)
            unsafe {
                asm!(
                    "sdot {sum:v}.4s, {w:v}.16b, {x:v}.16b",
                    sum = inout(vreg) *sum,
                    w = in(vreg) w,
                    x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }
        self
    }
    #[inline(always)]
    unsafe fn floats(self) -> Self::Floats {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe {
            [
                vcvtq_f32_s32(self.0[0]),
                vcvtq_f32_s32(self.0[1]),
                vcvtq_f32_s32(self.0[2]),
                vcvtq_f32_s32(self.0[3]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::Floats {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))] }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::Floats {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe {
            let bytes = vld1q_u8(from);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes)));
            [
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
                vcvtq_f32_u32(vmovl_u16(vget_high_u16(low))),
                vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
                vcvtq_f32_u32(vmovl_u16(vget_high_u16(high))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn mul(mut a: Self::Floats, b: Self::Floats) -> Self::Floats {
        for (a, b) in a.iter_mut().zip(b) {
            // SAFETY: the caller has the features, by the trait's contract.
            *a = unsafe { vmulq_f32(*a, b) };
        }
        a
    }
    #[inline(always)]
    unsafe fn add(mut a: Self::Floats, b: Self::Floats) -> Self::Floats {
        for (a, b) in a.iter_mut().zip(b) {
            // SAFETY: the caller has the features, by the trait's contract.
            *a = unsafe { vaddq_f32(*a, b) };
        }
        a
    }
    #[inline(always)]
    unsafe fn store(x: Self::Floats, to: *mut f32) {
        for (i, x) in x.into_iter().enumerate() {
            // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
            unsafe { vst1q_f32(to.add(4 * i), x) };
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(x: Self::Floats, to: *mut u8) {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract. Conversion
        // to unsigned saturates below at zero (and turns NaN into zero), narrowing above at 255.
        unsafe {
            let a = vqmovn_u32(vcvtnq_u32_f32(x[0]));
            let b = vqmovn_u32(vcvtnq_u32_f32(x[1]));
            let c = vqmovn_u32(vcvtnq_u32_f32(x[2]));
            let d = vqmovn_u32(vcvtnq_u32_f32(x[3]));
            let (low, high) = (vqmovn_u16(vcombine_u16(a, b)), vqmovn_u16(vcombine_u16(c, d)));
            vst1q_u8(to, vcombine_u8(low, high));
        }
    }
}

/// [`DotWork::part`] compiled with the dot product extension.
///
/// # Safety
/// As for [`DotWork::part`].
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn part_dot<W: DotWork>(work: &W, part: usize) {
    // SAFETY: this function has the features; the rest is guaranteed by the caller.
    unsafe { work.part::<NeonDot>(part) }
}

/// [`DotWork::part`] on plain arrays, compiled for Advanced SIMD.
///
/// # Safety
/// As for [`DotWork::part`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn part_neon<W: DotWork>(work: &W, part: usize) {
    // SAFETY: this function has the features; the rest is guaranteed by the caller.
    unsafe { work.part::<super::array::Array>(part) }
}
