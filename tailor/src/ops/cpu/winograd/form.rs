//! The one-dimensional transforms of Winograd's F(4, 3), forward and backward, on registers.
//!
//! From Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks" (CVPR 2016), with points 0, ±1, ±2:
//! `y = A^T [(G w) * (B^T d)]`, four outputs from six inputs. The gradient of the weights is the same
//! bilinear form transposed: `dw = G^T [(A g) * (B^T d)]`. Two-dimensional transforms apply a one-dimensional
//! one to columns, then to rows.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use crate::ops::cpu::lanes::Lanes;

/// Output pixels per tile side.
pub(super) const M: usize = 4;
/// Input pixels per tile side.
pub(super) const A: usize = 6;
/// Products per tile, and so the number of planes of intermediate values.
pub(super) const PLANES: usize = A * A;

/// `B^T d`.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
pub(super) unsafe fn input<V: Lanes>(d: [V; A]) -> [V; A] {
    let (two, four, minus_five) = (V::splat(2.), V::splat(4.), V::splat(-5.));
    let minus_four = V::splat(-4.);
    let (even, odd) = (d[2].mul_add(minus_four, d[4]), d[1].mul_add(minus_four, d[3]));
    let (even2, odd2) = (d[4].sub(d[2]), d[3].sub(d[1]).mul(two));
    [
        d[0].mul_add(four, d[2].mul_add(minus_five, d[4])),
        even.add(odd),
        even.sub(odd),
        even2.add(odd2),
        even2.sub(odd2),
        d[1].mul_add(four, d[3].mul_add(minus_five, d[5])),
    ]
}

/// `A^T m`.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
pub(super) unsafe fn output<V: Lanes>(m: [V; A]) -> [V; M] {
    let (sum, difference) = (m[1].add(m[2]), m[1].sub(m[2]));
    let (sum2, difference2) = (m[3].add(m[4]), m[3].sub(m[4]));
    [
        m[0].add(sum).add(sum2),
        difference2.mul_add(V::splat(2.), difference),
        sum2.mul_add(V::splat(4.), sum),
        difference2.mul_add(V::splat(8.), difference).add(m[5]),
    ]
}

/// `A g`: maps a gradient of the outputs to one of the products.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
pub(super) unsafe fn output_back<V: Lanes>(g: [V; M]) -> [V; A] {
    let (even, odd) = (g[0].add(g[2]), g[1].add(g[3]));
    let even2 = g[2].mul_add(V::splat(4.), g[0]);
    let odd2 = g[3].mul_add(V::splat(4.), g[1]).mul(V::splat(2.));
    [g[0], even.add(odd), even.sub(odd), even2.add(odd2), even2.sub(odd2), g[3]]
}

/// `G w`.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
pub(super) unsafe fn kernel<V: Lanes>(w: [V; 3]) -> [V; A] {
    let outer = w[0].add(w[2]).mul(V::splat(-1. / 6.));
    let middle = w[1].mul(V::splat(-1. / 6.));
    let outer2 = w[0].mul_add(V::splat(1. / 24.), w[2].mul(V::splat(1. / 6.)));
    let middle2 = w[1].mul(V::splat(1. / 12.));
    [
        w[0].mul(V::splat(0.25)),
        outer.add(middle),
        outer.sub(middle),
        outer2.add(middle2),
        outer2.sub(middle2),
        w[2],
    ]
}

/// `G^T u`: the gradient of the weights from that of their transform.
///
/// # Safety
/// The CPU must support `V`.
#[inline(always)]
pub(super) unsafe fn kernel_back<V: Lanes>(u: [V; A]) -> [V; 3] {
    let sixth = V::splat(1. / 6.);
    let (sum, difference) = (u[1].add(u[2]).mul(sixth), u[2].sub(u[1]).mul(sixth));
    let (sum2, difference2) = (u[3].add(u[4]), u[3].sub(u[4]));
    [
        sum2.mul_add(V::splat(1. / 24.), u[0].mul_add(V::splat(0.25), V::zero().sub(sum))),
        difference2.mul_add(V::splat(1. / 12.), difference),
        sum2.mul_add(sixth, u[5].sub(sum)),
    ]
}
