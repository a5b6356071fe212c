//! Vectors as plain arrays: the portable instruction set.

use super::Simd;

/// Eight floats; the compiler lowers them to whatever the target's baseline offers.
#[derive(Clone, Copy)]
pub(super) struct Array8([f32; 8]);

impl Array8 {
    #[inline(always)]
    fn map2(self, other: Array8, f: impl Fn(f32, f32) -> f32) -> Array8 {
        let mut out = self.0;
        for (a, b) in out.iter_mut().zip(other.0) {
            *a = f(*a, b);
        }
        Array8(out)
    }
}

impl Simd for Array8 {
    const LANES: usize = 8;
    const PIXELS: [usize; 3] = [2, 1, 0];

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Array8([x; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: valid for eight floats by the trait's contract; `[f32; 8]` is read without alignment.
        Array8(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn spread(from: *const f32) -> Self {
        // SAFETY: valid for one float by the trait's contract.
        Array8([unsafe { *from }; 8])
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: valid for eight floats by the trait's contract.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.map2(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.map2(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.map2(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        // Not `mul_add`: without the instruction it is a slow library call.
        self.map2(a.map2(b, |a, b| a * b), |sum, product| sum + product)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.map2(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn prefetch(_at: *const f32) {}
}
