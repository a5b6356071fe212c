//! Dot products on plain arrays: the reference that the others are tested against.
#![allow(unsafe_code)]

use super::dot::Dot;
use super::{BLOCK, GROUP};

/// Sixteen sums.
#[derive(Clone, Copy)]
pub(super) struct Array([i32; BLOCK]);

/// Combines two arrays of floats.
#[inline(always)]
fn map2(mut a: [f32; BLOCK], b: [f32; BLOCK], f: impl Fn(f32, f32) -> f32) -> [f32; BLOCK] {
    for (a, b) in a.iter_mut().zip(b) {
        *a = f(*a, b);
    }
    a
}

/// `x`, which lies in 0..=255, rounded to the nearest integer; ties to even.
///
/// Adding 1.5 * 2^23 leaves no bits for the fraction, so the addition itself rounds. (`round_ties_even` is a
/// library call where the baseline has no instruction for it.)
#[inline(always)]
pub(super) fn round(x: f32) -> u8 {
    const SHIFT: f32 = 12_582_912.0;
    ((x + SHIFT).to_bits() & 0xff) as u8
}

/// `x` clamped to the range of a byte; NaN becomes 0.
#[inline(always)]
pub(super) fn clamp(x: f32) -> f32 {
    let x = if x > 0.0 { x } else { 0.0 };
    if x < 255.0 { x } else { 255.0 }
}

impl Dot for Array {
    const PIXELS: [usize; 3] = [2, 0, 0];
    const STEPS: bool = false;
    type Weights = [[i8; GROUP]; BLOCK];
    type Spread = [u8; GROUP];
    type Floats = [f32; BLOCK];

    #[inline(always)]
    unsafe fn start(_sums: *const i8) -> Self {
        Array([0; BLOCK])
    }
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> Self::Weights {
        // SAFETY: valid for 64 bytes by the trait's contract; read without alignment.
        unsafe { from.cast::<Self::Weights>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn spread(from: *const u8) -> Self::Spread {
        // SAFETY: valid for four bytes by the trait's contract; read without alignment.
        unsafe { from.cast::<Self::Spread>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn dot(mut self, x: Self::Spread, w: Self::Weights) -> Self {
        for (sum, w) in self.0.iter_mut().zip(w) {
            for (x, w) in x.into_iter().zip(w) {
                // Wrapping, like the instructions; no real layer comes near 2^31 (see `conv::MOST_PRODUCTS`).
                *sum = sum.wrapping_add(i32::from(x) * i32::from(w));
            }
        }
        self
    }
    #[inline(always)]
    unsafe fn floats(self) -> Self::Floats {
        self.0.map(|sum| sum as f32)
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::Floats {
        [x; BLOCK]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        // SAFETY: valid for sixteen floats by the trait's contract; read without alignment.
        unsafe { from.cast::<Self::Floats>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_bytes(from: *const u8) -> Self::Floats {
        // SAFETY: valid for sixteen bytes by the trait's contract; read without alignment.
        unsafe { from.cast::<[u8; BLOCK]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn store(x: Self::Floats, to: *mut f32) {
        // SAFETY: valid for sixteen floats by the trait's contract; written without alignment.
        unsafe { to.cast::<Self::Floats>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn store_bytes(x: Self::Floats, to: *mut u8) {
        // SAFETY: valid for sixteen bytes by the trait's contract; written without alignment.
        unsafe { to.cast::<[u8; BLOCK]>().write_unaligned(x.map(|x| round(clamp(x)))) }
    }
}
