//! Elementwise kernels: gated sums, mean squared error and SGD, in fixed chunks so that sums never depend on
//! threads.

use super::level::Level;
use super::levels::{lane_sums, levels};
use super::output::{by_chunk, by_chunk_with};
use rayon::prelude::*;

/// Elements per task: its output stays in the first-level cache after being zeroed.
const CHUNK: usize = 1 << 12;

/// Largest number of elements that is not worth sharing between threads.
const SMALL: usize = 1 << 15;

levels! {
    /// `y += p * x`.
    fn add(x: &[f32], p: f32, y: &mut [f32]) {
        y.iter_mut().zip(x).for_each(|(y, x)| *y += p * x);
    }
}
levels! {
    /// `y = max(y, 0)`.
    fn clip(y: &mut [f32]) {
        y.iter_mut().for_each(|y| *y = y.max(0.));
    }
}
levels! {
    /// `d = g` where `y > 0`, zero elsewhere.
    fn passed(g: &[f32], y: &[f32], d: &mut [f32]) {
        d.iter_mut().zip(g.iter().zip(y)).for_each(|(d, (g, y))| *d = if *y > 0. { *g } else { 0. });
    }
}
levels! {
    /// `d = p * g`.
    fn scale(g: &[f32], p: f32, d: &mut [f32]) {
        d.iter_mut().zip(g).for_each(|(d, g)| *d = p * g);
    }
}
levels! {
    /// Sum of `g * x`.
    fn dot(g: &[f32], x: &[f32]) -> f32 {
        lane_sums([g, x], |[g, x]| [g * x])[0]
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

/// `[relu](sum of p * x)` over the given `(x, p)`.
pub(crate) fn weighted_sum(level: Level, terms: &[(&[f32], f32)], relu: bool) -> Vec<f32> {
    let len = terms.first().map_or(0, |(x, _)| x.len());
    by_chunk(len, CHUNK, |i, y| {
        terms.iter().for_each(|(x, p)| add(level, chunk(x, i), *p, y));
        if relu {
            clip(level, y);
        }
    })
}

/// `g` where `y > 0`, zero elsewhere: the gradient before a ReLU with output `y`.
pub(crate) fn passed_all(level: Level, g: &[f32], y: &[f32]) -> Vec<f32> {
    by_chunk(g.len(), CHUNK, |i, d| passed(level, chunk(g, i), chunk(y, i), d))
}

/// `p * g`.
pub(crate) fn scaled(level: Level, g: &[f32], p: f32) -> Vec<f32> {
    by_chunk(g.len(), CHUNK, |i, d| scale(level, chunk(g, i), p, d))
}

/// `p * g` and the sum of `g * x`, in one pass.
pub(crate) fn scaled_with_dot(level: Level, g: &[f32], x: &[f32], p: f32) -> (Vec<f32>, f32) {
    let (d, sums) = by_chunk_with(g.len(), CHUNK, |i, d| {
        scale(level, chunk(g, i), p, d);
        f64::from(dot(level, chunk(g, i), chunk(x, i)))
    });
    (d, sums.iter().sum::<f64>() as f32)
}

/// Sum of `g * x`, the gradient of a gate.
pub(crate) fn dot_all(level: Level, g: &[f32], x: &[f32]) -> f32 {
    let sums: Vec<f64> =
        g.par_chunks(CHUNK).zip(x.par_chunks(CHUNK)).map(|(g, x)| f64::from(dot(level, g, x))).collect();
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

/// Small tensors, of which a network has dozens, are processed on the calling thread.
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

/// `factor * (a - b)` where `a > 0` (everywhere if not `relu`): the gradient of [`mse`] before a ReLU with
/// output `a`.
pub(crate) fn masked_difference_all(level: Level, a: &[f32], b: &[f32], factor: f32, relu: bool) -> Vec<f32> {
    by_chunk(a.len(), CHUNK, |i, d| masked_difference(level, chunk(a, i), chunk(b, i), factor, relu, d))
}
