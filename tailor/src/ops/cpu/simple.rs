//! Elementwise kernels: gated sums and mean squared error, in fixed chunks so that sums never depend on threads.

use super::level::Level;
use super::levels::{lane_sums, levels};
use super::output::by_chunk;
use rayon::prelude::*;

/// Elements handled by one task: what it writes stays in the first-level cache from when it is zeroed.
const CHUNK: usize = 1 << 12;

/// Elements that are not worth sharing.
const SMALL: usize = 1 << 15;

levels! {
    /// `y = p * a + q * b`, clipped at zero if `relu`.
    fn blend(a: &[f32], b: &[f32], p: f32, q: f32, relu: bool, y: &mut [f32]) {
        let pairs = y.iter_mut().zip(a.iter().zip(b));
        if relu {
            pairs.for_each(|(y, (a, b))| *y = (p * a + q * b).max(0.));
        } else {
            pairs.for_each(|(y, (a, b))| *y = p * a + q * b);
        }
    }
}
levels! {
    /// `d = p * g'`, where `g'` is `g` where `y > 0` (everywhere if not `relu`).
    fn gate(g: &[f32], y: &[f32], p: f32, relu: bool, d: &mut [f32]) {
        let pairs = d.iter_mut().zip(g.iter().zip(y));
        if relu {
            pairs.for_each(|(d, (g, y))| *d = if *y > 0. { p * g } else { 0. });
        } else {
            pairs.for_each(|(d, (g, _))| *d = p * g);
        }
    }
}
levels! {
    /// Sum of `g' * x`.
    fn gated_dot(g: &[f32], y: &[f32], x: &[f32], relu: bool) -> f32 {
        if relu {
            lane_sums([g, y, x], |[g, y, x]| [if y > 0. { g * x } else { 0. }])[0]
        } else {
            lane_sums([g, x], |[g, x]| [g * x])[0]
        }
    }
}
levels! {
    /// Sum of `(a - b)^2`.
    fn distance(a: &[f32], b: &[f32]) -> f32 {
        lane_sums([a, b], |[a, b]| [(a - b) * (a - b)])[0]
    }
}

/// The `i`-th chunk of `x`.
fn chunk(x: &[f32], i: usize) -> &[f32] {
    &x[i * CHUNK..x.len().min((i + 1) * CHUNK)]
}

/// `[relu](p * a + q * b)`.
pub(crate) fn blend_all(level: Level, a: &[f32], b: &[f32], p: f32, q: f32, relu: bool) -> Vec<f32> {
    by_chunk(a.len(), CHUNK, |i, y| blend(level, chunk(a, i), chunk(b, i), p, q, relu, y))
}

/// `p * g'`.
pub(crate) fn gate_all(level: Level, g: &[f32], y: &[f32], p: f32, relu: bool) -> Vec<f32> {
    by_chunk(g.len(), CHUNK, |i, d| gate(level, chunk(g, i), chunk(y, i), p, relu, d))
}

/// Sum of `g' * x`, the gradient of a gate.
pub(crate) fn gated_dot_all(level: Level, g: &[f32], y: &[f32], x: &[f32], relu: bool) -> f32 {
    let sums: Vec<f64> = g
        .par_chunks(CHUNK)
        .zip(y.par_chunks(CHUNK).zip(x.par_chunks(CHUNK)))
        .map(|(g, (y, x))| f64::from(gated_dot(level, g, y, x, relu)))
        .collect();
    sums.iter().sum::<f64>() as f32
}

/// `mean((a - b)^2)`.
pub(crate) fn mse(level: Level, a: &[f32], b: &[f32]) -> f32 {
    let sums: Vec<f64> =
        a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)).map(|(a, b)| f64::from(distance(level, a, b))).collect();
    (sums.iter().sum::<f64>() / a.len() as f64) as f32
}

levels! {
    /// `v = momentum * v + (g + decay * p)`.
    fn velocity(v: &mut [f32], g: &[f32], p: &[f32], momentum: f32, decay: f32) {
        v.iter_mut().zip(g.iter().zip(p)).for_each(|(v, (g, p))| *v = momentum * *v + (g + decay * p));
    }
}
levels! {
    /// `p -= lr * v`.
    fn descend(p: &mut [f32], v: &[f32], lr: f32) {
        p.iter_mut().zip(v).for_each(|(p, v)| *p -= lr * v);
    }
}
/// `velocity = momentum * velocity + (gradient + decay * parameter)`.
pub(crate) fn velocity_all(level: Level, v: &mut [f32], g: &[f32], p: &[f32], momentum: f32, decay: f32) {
    in_chunks(v, |i, v| velocity(level, v, chunk(g, i), chunk(p, i), momentum, decay));
}

/// `parameter -= lr * velocity`.
pub(crate) fn descend_all(level: Level, p: &mut [f32], v: &[f32], lr: f32) {
    in_chunks(p, |i, p| descend(level, p, chunk(v, i), lr));
}

/// Small tensors, of which a network has dozens, stay on the calling thread.
fn in_chunks(x: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
    if x.len() <= SMALL {
        return x.chunks_mut(CHUNK).enumerate().for_each(|(i, x)| f(i, x));
    }
    x.par_chunks_mut(CHUNK).enumerate().for_each(|(i, x)| f(i, x));
}

levels! {
    /// `d = f * (a - b)` where `a > 0` (everywhere if not `relu`).
    fn masked_difference(a: &[f32], b: &[f32], f: f32, relu: bool, d: &mut [f32]) {
        let pairs = d.iter_mut().zip(a.iter().zip(b));
        if relu {
            pairs.for_each(|(d, (a, b))| *d = if *a > 0. { f * (a - b) } else { 0. });
        } else {
            pairs.for_each(|(d, (a, b))| *d = f * (a - b));
        }
    }
}

/// `factor * (a - b)` where `a > 0` (everywhere if not `relu`): the gradient of [`mse`] before the ReLU that gave `a`.
pub(crate) fn masked_difference_all(level: Level, a: &[f32], b: &[f32], factor: f32, relu: bool) -> Vec<f32> {
    by_chunk(a.len(), CHUNK, |i, d| masked_difference(level, chunk(a, i), chunk(b, i), factor, relu, d))
}
