//! Batch-norm with batch statistics and per-channel affine, each optionally followed by ReLU, forward and
//! backward.
#![allow(clippy::too_many_arguments)]

use super::level::Level;
use super::levels::{lane_sums, levels};
use super::output::{by_chunk, filled, zeroed};
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// A channel's plane in every image, not yet initialised.
type Unwritten<'a> = Vec<&'a mut [MaybeUninit<f32>]>;

/// Batch statistics per channel.
#[derive(Debug, Clone)]
pub(crate) struct Statistics {
    /// Mean over batch and pixels.
    pub mean: Vec<f32>,
    /// Biased variance over batch and pixels.
    pub var: Vec<f32>,
}

levels! {
    /// Sum of a plane.
    fn sum(x: &[f32]) -> f32 {
        lane_sums([x], |v| v)[0]
    }
}
levels! {
    /// Sum of squared distances to `mean`.
    fn squares(x: &[f32], mean: f32) -> f32 {
        lane_sums([x], |[x]| [(x - mean) * (x - mean)])[0]
    }
}
levels! {
    /// `y = x * scale + shift`, clamped at zero if `relu`.
    fn scale_shift(x: &[f32], scale: f32, shift: f32, relu: bool, y: &mut [f32]) {
        if relu {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (x * scale + shift).max(0.));
        } else {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = x * scale + shift);
        }
    }
}
levels! {
    /// Sums of `g'` and of `g' * (x - mean)`, where `g'` is `g` where the ReLU was open, and zero elsewhere.
    fn reduce(x: &[f32], g: &[f32], scale: f32, shift: f32, relu: bool, mean: f32) -> [f32; 2] {
        if relu {
            lane_sums([x, g], |[x, g]| {
                let g = if x * scale + shift > 0. { g } else { 0. };
                [g, g * (x - mean)]
            })
        } else {
            lane_sums([x, g], |[x, g]| [g, g * (x - mean)])
        }
    }
}
levels! {
    /// `dx = g' * a + x * b + c`.
    fn combine(x: &[f32], g: &[f32], scale: f32, shift: f32, relu: bool, abc: [f32; 3], dx: &mut [f32]) {
        let [a, b, c] = abc;
        let pairs = dx.iter_mut().zip(x.iter().zip(g));
        if relu {
            pairs.for_each(|(dx, (x, g))| {
                let g = if x * scale + shift > 0. { *g } else { 0. };
                *dx = g * a + (x * b + c);
            });
        } else {
            pairs.for_each(|(dx, (x, g))| *dx = g * a + (x * b + c));
        }
    }
}

/// Creates `len` floats `(n, c, pixels)` channel by channel on all threads. `make` gets the planes of one
/// channel and writes all of them; its results are returned too.
#[allow(unsafe_code)]
fn by_channel<R: Send>(
    len: usize,
    c: usize,
    pixels: usize,
    make: impl Fn(usize, Unwritten<'_>) -> R + Sync,
) -> (Vec<f32>, Vec<R>) {
    // SAFETY: every element belongs to a plane, every plane to a channel, and `make` zeroes each plane before
    // writing to it.
    unsafe {
        filled(len, |out| {
            let mut channels: Vec<Unwritten<'_>> =
                (0..c).map(|_| Vec::with_capacity(out.len() / (c * pixels))).collect();
            for (i, plane) in out.chunks_exact_mut(pixels).enumerate() {
                channels[i % c].push(plane);
            }
            channels.into_par_iter().enumerate().map(|(channel, planes)| make(channel, planes)).collect()
        })
    }
}

/// Factor `1 / sqrt(var + eps)`, scale and shift that normalise by `stats` and apply the affine of channel
/// `c`.
fn folded(stats: &Statistics, c: usize, weight: f32, bias: f32, eps: f64) -> (f32, f32, f32) {
    let inverse = (1. / (f64::from(stats.var[c]) + eps).sqrt()) as f32;
    let scale = weight * inverse;
    (inverse, scale, bias - stats.mean[c] * scale)
}

/// Batch-norm forward over `x (n, c, pixels)`: output and batch statistics.
pub(crate) fn forward(
    level: Level,
    x: &[f32],
    pixels: usize,
    weight: &[f32],
    bias: &[f32],
    eps: f64,
    relu: bool,
) -> (Vec<f32>, Statistics) {
    let c = weight.len();
    let count = (x.len() / c) as f64;
    let (y, stats) = by_channel(x.len(), c, pixels, |channel, planes| {
        let source = || x[channel * pixels..].chunks(c * pixels).map(|rest| &rest[..pixels]);
        let mean = source().map(|p| f64::from(sum(level, p))).sum::<f64>() / count;
        let var = source().map(|p| f64::from(squares(level, p, mean as f32))).sum::<f64>() / count;
        let stats = Statistics { mean: vec![mean as f32], var: vec![var as f32] };
        let (_, scale, shift) = folded(&stats, 0, weight[channel], bias[channel], eps);
        for (y, x) in planes.into_iter().zip(source()) {
            scale_shift(level, x, scale, shift, relu, zeroed(y));
        }
        (mean as f32, var as f32)
    });
    let (mean, var) = stats.into_iter().unzip();
    (y, Statistics { mean, var })
}

/// Gradients of a batch-norm.
pub(crate) struct NormGradients {
    /// Gradient of the input, through the statistics.
    pub dx: Vec<f32>,
    /// Gradient of the weight.
    pub weight: Vec<f32>,
    /// Gradient of the bias.
    pub bias: Vec<f32>,
}

/// Batch-norm backward: the ReLU's mask is recomputed from `x`, exactly as in the forward pass.
pub(crate) fn backward(
    level: Level,
    x: &[f32],
    g: &[f32],
    pixels: usize,
    weight: &[f32],
    bias: &[f32],
    stats: &Statistics,
    eps: f64,
    relu: bool,
) -> NormGradients {
    let c = weight.len();
    let count = (x.len() / c) as f32;
    let (dx, affine) = by_channel(x.len(), c, pixels, |channel, planes| {
        let (inverse, scale, shift) = folded(stats, channel, weight[channel], bias[channel], eps);
        let mean = stats.mean[channel];
        let plane = |i: usize| (i * c + channel) * pixels..(i * c + channel + 1) * pixels;
        let (mut d_bias, mut d_weight) = (0f64, 0f64);
        for i in 0..planes.len() {
            let [s, sx] = reduce(level, &x[plane(i)], &g[plane(i)], scale, shift, relu, mean);
            d_bias += f64::from(s);
            d_weight += f64::from(sx);
        }
        let (d_bias, d_weight) = (d_bias as f32, d_weight as f32 * inverse);
        let slope = -scale * d_weight * inverse / count;
        let abc = [scale, slope, -scale * d_bias / count - mean * slope];
        for (i, dx) in planes.into_iter().enumerate() {
            combine(level, &x[plane(i)], &g[plane(i)], scale, shift, relu, abc, zeroed(dx));
        }
        (d_weight, d_bias)
    });
    let (weight, bias) = affine.into_iter().unzip();
    NormGradients { dx, weight, bias }
}

/// Planes per task where channels do not matter: few enough that the output stays in the cache.
const PLANES: usize = 4;

/// `y = [relu](x * scale[c] + shift[c])` over `x (n, c, pixels)`.
pub(crate) fn affine(
    level: Level,
    x: &[f32],
    pixels: usize,
    scale: &[f32],
    shift: &[f32],
    relu: bool,
) -> Vec<f32> {
    let c = scale.len();
    by_chunk(x.len(), pixels * PLANES, |part, y| {
        for (i, y) in y.chunks_mut(pixels).enumerate() {
            let plane = part * PLANES + i;
            let (x, channel) = (&x[plane * pixels..][..pixels], plane % c);
            scale_shift(level, x, scale[channel], shift[channel], relu, y);
        }
    })
}

/// Gradient of `x` of [`affine`].
pub(crate) fn affine_backward(
    level: Level,
    x: &[f32],
    g: &[f32],
    pixels: usize,
    scale: &[f32],
    shift: &[f32],
    relu: bool,
) -> Vec<f32> {
    let c = scale.len();
    by_chunk(x.len(), pixels * PLANES, |part, dx| {
        for (i, dx) in dx.chunks_mut(pixels).enumerate() {
            let plane = part * PLANES + i;
            let (range, channel) = (plane * pixels..(plane + 1) * pixels, plane % c);
            let (scale, shift) = (scale[channel], shift[channel]);
            combine(level, &x[range.clone()], &g[range], scale, shift, relu, [scale, 0., 0.], dx);
        }
    })
}
