//! Winograd's minimal filtering for 3x3 kernels: the three transforms of F(2x2) and F(4x4).
//!
//! After Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016): for an `m x m` output
//! tile, `Y = A^T [ (G g G^T) * (B^T d B) ] A` with `d` the `(m + 2) x (m + 2)` input tile. The points are 0,
//! ±1 (and ±2 for F(4x4)); F(4x4) multiplies 4 times less than the definition, F(2x2) 2.25 times.
#![allow(unsafe_code)]

use super::super::simd::Simd;
use std::ops::{Add, Mul, Sub};

/// One of the two tile sizes. One-dimensional transforms work on arrays of six, of which the first `A` are
/// used.
pub(in super::super) trait Form {
    /// Output pixels per tile side.
    const M: usize;
    /// Input pixels per tile side, `M + 2`.
    const A: usize;
    /// Whether this form is chosen for large kernels, which are streamed from memory on every frame.
    const LARGE: bool;

    /// `G g`: from three taps to `A` values, of `N` kernels at once.
    fn weight<const N: usize>(g: [Lanes<N>; 3]) -> [Lanes<N>; 6];

    /// `B^T d`.
    ///
    /// # Safety
    /// The caller has the CPU features of `V`.
    unsafe fn input<V: Simd>(d: [V; 6]) -> [V; 6];

    /// `A^T m`: from `A` values to `M`.
    ///
    /// # Safety
    /// The caller has the CPU features of `V`.
    unsafe fn output<V: Simd>(m: [V; 6]) -> [V; 4];
}

/// F(2x2, 3x3).
pub(in super::super) enum F2 {}

/// F(4x4, 3x3).
pub(in super::super) enum F4 {}

impl Form for F2 {
    const M: usize = 2;
    const A: usize = 4;
    const LARGE: bool = true;

    #[inline(always)]
    fn weight<const N: usize>([a, b, c]: [Lanes<N>; 3]) -> [Lanes<N>; 6] {
        let unused = Lanes([0.0; N]);
        [a, (a + b + c) * 0.5, (a - b + c) * 0.5, c, unused, unused]
    }

    #[inline(always)]
    unsafe fn input<V: Simd>(d: [V; 6]) -> [V; 6] {
        // SAFETY: guaranteed by the caller.
        unsafe { [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3]), d[4], d[5]] }
    }

    #[inline(always)]
    unsafe fn output<V: Simd>(m: [V; 6]) -> [V; 4] {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
            [m[0].add(sum), difference.sub(m[3]), m[4], m[5]]
        }
    }
}

impl Form for F4 {
    const M: usize = 4;
    const A: usize = 6;
    const LARGE: bool = false;

    #[inline(always)]
    fn weight<const N: usize>([a, b, c]: [Lanes<N>; 3]) -> [Lanes<N>; 6] {
        let (even, odd) = ((a + c) * (-1.0 / 6.0), b * (-1.0 / 6.0));
        let (even2, odd2) = (a * (1.0 / 24.0) + c * (1.0 / 6.0), b * (1.0 / 12.0));
        [a * 0.25, even + odd, even - odd, even2 + odd2, even2 - odd2, c]
    }

    #[inline(always)]
    unsafe fn input<V: Simd>(d: [V; 6]) -> [V; 6] {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let (two, minus_four, minus_five) = (V::splat(2.0), V::splat(-4.0), V::splat(-5.0));
            let four = V::splat(4.0);
            let (even, odd) = (d[4].fma(d[2], minus_four), d[3].fma(d[1], minus_four));
            let (even2, odd2) = (d[4].sub(d[2]), d[3].sub(d[1]));
            [
                d[4].fma(d[2], minus_five).fma(d[0], four),
                even.add(odd),
                even.sub(odd),
                even2.fma(odd2, two),
                even2.sub(odd2.mul(two)),
                d[5].fma(d[3], minus_five).fma(d[1], four),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<V: Simd>(m: [V; 6]) -> [V; 4] {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
            let (sum2, difference2) = (m[3].add(m[4]), m[3].sub(m[4]));
            [
                m[0].add(sum).add(sum2),
                difference.fma(difference2, V::splat(2.0)),
                sum.fma(sum2, V::splat(4.0)),
                m[5].add(difference).fma(difference2, V::splat(8.0)),
            ]
        }
    }
}

/// One element of each of `N` kernels during the weight transform; in f64, since it runs only once.
#[derive(Clone, Copy)]
pub(in super::super) struct Lanes<const N: usize>(pub [f64; N]);

impl<const N: usize> Lanes<N> {
    /// Rounded to f32.
    #[inline(always)]
    pub fn rounded(&self) -> [f32; N] {
        let mut rounded = [0.0; N];
        rounded.iter_mut().zip(self.0).for_each(|(to, x)| *to = x as f32);
        rounded
    }
}

impl<const N: usize> From<[f32; N]> for Lanes<N> {
    #[inline(always)]
    fn from(numbers: [f32; N]) -> Lanes<N> {
        let mut lanes = Lanes([0.0; N]);
        lanes.0.iter_mut().zip(numbers).for_each(|(to, x)| *to = f64::from(x));
        lanes
    }
}

impl<const N: usize> Add for Lanes<N> {
    type Output = Lanes<N>;

    #[inline(always)]
    fn add(mut self, other: Lanes<N>) -> Lanes<N> {
        self.0.iter_mut().zip(other.0).for_each(|(x, y)| *x += y);
        self
    }
}

impl<const N: usize> Sub for Lanes<N> {
    type Output = Lanes<N>;

    #[inline(always)]
    fn sub(mut self, other: Lanes<N>) -> Lanes<N> {
        self.0.iter_mut().zip(other.0).for_each(|(x, y)| *x -= y);
        self
    }
}

impl<const N: usize> Mul<f64> for Lanes<N> {
    type Output = Lanes<N>;

    #[inline(always)]
    fn mul(mut self, factor: f64) -> Lanes<N> {
        self.0.iter_mut().for_each(|x| *x *= factor);
        self
    }
}

/// `G g G^T` of 3x3 kernels, row by row; entries beyond `A x A` are unused.
pub(super) fn transform_kernels<F: Form, const N: usize>(g: &[Lanes<N>; 9]) -> [[Lanes<N>; 6]; 6] {
    let mut columns = [[Lanes([0.0; N]); 6]; 3];
    for (x, column) in columns.iter_mut().enumerate() {
        *column = F::weight([g[x], g[3 + x], g[6 + x]]);
    }
    let mut out = [[Lanes([0.0; N]); 6]; 6];
    for (i, row) in out.iter_mut().enumerate() {
        *row = F::weight([columns[0][i], columns[1][i], columns[2][i]]);
    }
    out
}
