//! aarch64 vectors with half-precision products: Advanced SIMD and the FP16 extension of Armv8.2.

use super::{Simd, Work};
use crate::tile::Reach;
use std::arch::aarch64::*;
use std::arch::asm;

/// Eight floats in two of 32 registers.
#[derive(Clone, Copy)]
pub(super) struct NeonFp16(float32x4_t, float32x4_t);

/// Products that are summed in half precision before the sum is widened: more would cost digits, fewer time.
const RUN: usize = 64;

/// Inputs that are rounded to halves together.
const INPUTS: usize = 4;

impl Simd for NeonFp16 {
    const LANES: usize = 8;
    const PIXELS: [usize; 3] = [8, 6, 0];
    const HALVES: bool = true;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { NeonFp16(vdupq_n_f32(x), vdupq_n_f32(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe { NeonFp16(vld1q_f32(from), vld1q_f32(from.add(4))) }
    }
    #[inline(always)]
    unsafe fn spread(from: *const f32) -> Self {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        let x = unsafe { vld1q_dup_f32(from) };
        NeonFp16(x, x)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has the features, and the pointer is valid, by the trait's contract.
        unsafe {
            vst1q_f32(to, self.0);
            vst1q_f32(to.add(4), self.1);
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { NeonFp16(vaddq_f32(self.0, other.0), vaddq_f32(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { NeonFp16(vsubq_f32(self.0, other.0), vsubq_f32(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { NeonFp16(vmulq_f32(self.0, other.0), vmulq_f32(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { NeonFp16(vfmaq_f32(self.0, a.0, b.0), vfmaq_f32(self.1, a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: the caller has the features, by the trait's contract.
        unsafe { NeonFp16(vmaxq_f32(self.0, other.0), vmaxq_f32(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn prefetch(at: *const f32) {
        // SAFETY: only a hint; no address can fault, and nothing but the cache changes.
        unsafe { asm!("prfm pldl2keep, [{}]", in(reg) at, options(nostack, preserves_flags, readonly)) }
    }

    #[inline(always)]
    unsafe fn sums_of_halves<const P: usize, const Q: usize, const STEP: usize, const PLAIN: bool>(
        mut acc: [[Self; Q]; P],
        x: *const f32,
        w: *const u16,
        reach: &Reach,
    ) -> [[Self; Q]; P] {
        let step = if PLAIN { STEP } else { STEP * Self::LANES };
        let mut w = w;
        // SAFETY: the caller has the features; the pointers stay inside what `reach` describes, which the
        // caller guarantees to be valid: inputs are read four at a time only while four are left.
        unsafe {
            // Halves, as the integers that hold them.
            let mut run = [[vdupq_n_u16(0); Q]; P];
            let mut count = 0;
            for block in 0..reach.blocks {
                for row in 0..reach.rows {
                    let x = x.add(block * reach.x_block + row * reach.x_row);
                    let mut i = 0;
                    while i + INPUTS <= reach.inner {
                        if count + INPUTS > RUN {
                            widen(&mut acc, &mut run);
                            count = 0;
                        }
                        let mut inputs = [vdup_n_u16(0); P];
                        for p in 0..P {
                            inputs[p] = vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x.add(p * step + i))));
                        }
                        w = products::<P, Q, 0>(&mut run, &inputs, w, reach.w_next);
                        w = products::<P, Q, 1>(&mut run, &inputs, w, reach.w_next);
                        w = products::<P, Q, 2>(&mut run, &inputs, w, reach.w_next);
                        w = products::<P, Q, 3>(&mut run, &inputs, w, reach.w_next);
                        i += INPUTS;
                        count += INPUTS;
                    }
                    // The last taps of a plain image's row.
                    while i < reach.inner {
                        if count >= RUN {
                            widen(&mut acc, &mut run);
                            count = 0;
                        }
                        let mut inputs = [vdup_n_u16(0); P];
                        for p in 0..P {
                            inputs[p] =
                                vreinterpret_u16_f16(vcvt_f16_f32(vld1q_dup_f32(x.add(p * step + i))));
                        }
                        w = products::<P, Q, 0>(&mut run, &inputs, w, reach.w_next);
                        i += 1;
                        count += 1;
                    }
                }
            }
            widen(&mut acc, &mut run);
        }
        acc
    }
}

/// Adds input `LANE` of every pixel times its weights, and returns the position of the next input's weights.
///
/// # Safety
/// The caller has the features; `w` is valid for eight halves of each of `Q` blocks, `next` halves apart.
#[inline(always)]
unsafe fn products<const P: usize, const Q: usize, const LANE: usize>(
    run: &mut [[uint16x8_t; Q]; P],
    inputs: &[uint16x4_t; P],
    w: *const u16,
    next: usize,
) -> *const u16 {
    // SAFETY: guaranteed by the caller; the instruction only touches registers. (Its intrinsic would be
    // inlined only into functions that are compiled with the feature themselves.)
    unsafe {
        let mut weights = [vdupq_n_u16(0); Q];
        for q in 0..Q {
            weights[q] = vld1q_u16(w.add(q * next));
        }
        for p in 0..P {
            for q in 0..Q {
                asm!(
                    "fmla {sum:v}.8h, {w:v}.8h, {x:v}.h[{lane}]",
                    sum = inout(vreg) run[p][q],
                    w = in(vreg) weights[q],
                    x = in(vreg_low16) inputs[p],
                    lane = const LANE,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }
        w.add(NeonFp16::LANES)
    }
}

/// Adds the sums in half precision to those in single precision, and resets them.
///
/// # Safety
/// The caller has the features.
#[inline(always)]
unsafe fn widen<const P: usize, const Q: usize>(
    acc: &mut [[NeonFp16; Q]; P],
    run: &mut [[uint16x8_t; Q]; P],
) {
    for p in 0..P {
        for q in 0..Q {
            // SAFETY: guaranteed by the caller.
            unsafe {
                let NeonFp16(low, high) = &mut acc[p][q];
                let halves = vreinterpretq_f16_u16(run[p][q]);
                *low = vaddq_f32(*low, vcvt_f32_f16(vget_low_f16(halves)));
                *high = vaddq_f32(*high, vcvt_high_f32_f16(halves));
                run[p][q] = vdupq_n_u16(0);
            }
        }
    }
}

/// [`Work::part`] compiled for Advanced SIMD with half precision.
///
/// # Safety
/// As for [`Work::part`].
#[target_feature(enable = "neon,fp16")]
pub(super) unsafe fn part_neon_fp16<W: Work>(work: &W, part: usize) {
    // SAFETY: this function has the features; the rest is guaranteed by the caller.
    unsafe { work.part::<NeonFp16>(part) }
}
