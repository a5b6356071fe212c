//! Convolution on the CPU: forward, gradient of the input, gradient of the weights.

use super::level::Level;
use super::output::by_chunk;
use super::shape::{BackGrid, ConvShape, Grid, phases};
use super::winograd::{self, Room};
use super::{scratch, tile};
use rayon::prelude::*;

/// Larger kernels are packed, and their gradients split, by output channel instead of by image.
const LARGE_KERNEL: usize = 1 << 16;
/// Number of independent partial sums of a weight gradient; fixed, so that results do not depend on the
/// thread count.
const PARTIALS: usize = 4;

/// Packs `value(channel, tap)` as `[block][tap][channel in block]`, with zeros from `channels` on.
fn pack(channels: usize, taps: usize, block: usize, value: impl Fn(usize, usize) -> f32 + Sync) -> Vec<f32> {
    let mut packed = vec![0.; channels.div_ceil(block) * taps * block];
    let one = |(b, out): (usize, &mut [f32])| {
        for o in 0..block.min(channels - b * block) {
            for t in 0..taps {
                out[t * block + o] = value(b * block + o, t);
            }
        }
    };
    if packed.len() > LARGE_KERNEL {
        packed.par_chunks_mut(taps * block).enumerate().for_each(one);
    } else {
        packed.chunks_mut(taps * block).enumerate().for_each(one);
    }
    packed
}

/// Kernels in the layout of [`winograd::forward`].
pub(crate) fn winograd_kernels(level: Level, s: &ConvShape, w: &[f32]) -> Vec<f32> {
    let count = s.c_in * s.k * s.k;
    pack(s.c_out, count, level.lanes(), |o, t| w[o * count + t])
}

/// Kernels in the layout of [`winograd::backward_data`]: channels exchanged, taps reversed.
pub(crate) fn turned_kernels(level: Level, s: &ConvShape, w: &[f32]) -> Vec<f32> {
    let kk = s.k * s.k;
    pack(s.c_in, s.c_out * kk, level.lanes(), |i, t| w[((t / kk) * s.c_in + i) * kk + kk - 1 - t % kk])
}

/// `y (n, c_out, oh, ow)` from `x (n, c_in, h, w)` and `w (c_out, c_in, k, k)`.
pub(crate) fn forward(level: Level, s: &ConvShape, x: &[f32], w: &[f32]) -> Vec<f32> {
    let count = s.c_in * s.k * s.k;
    if winograd::handles(level, s) {
        return winograd::forward(level, s, x, &winograd_kernels(level, s, w), Room::USUAL);
    }
    let block = level.co_block();
    let packed = pack(s.c_out, count, block, |o, t| w[o * count + t]);
    let group = s.group();
    if s.pointwise() {
        let taps: Vec<u32> = (0..s.c_in).map(|c| (c * s.h * s.w) as u32).collect();
        return by_chunk(s.n * s.image_out(), s.image_out(), |image, y| {
            planes(level, &x[image * s.image_in()..][..s.image_in()], &taps, &packed, y, s.oh * s.ow);
        });
    }
    by_chunk(s.n * s.image_out(), group * s.image_out(), |part, y| {
        let images = y.len() / s.image_out();
        let x = &x[part * group * s.image_in()..][..images * s.image_in()];
        let grid = Grid::forward(s, images);
        let taps = grid.taps(s.c_in, s.k);
        scratch::zeroed(grid.len(s.c_in), |cells| {
            grid.fill(x, s, cells);
            let stride = grid.run_stride();
            scratch::with(block * stride, |run| {
                for (b, kernels) in packed.chunks_exact(count * block).enumerate() {
                    tile::correlate(level, cells, &taps, kernels, run, stride, grid.run);
                    for o in 0..block.min(s.c_out - b * block) {
                        for (image, y) in y.chunks_exact_mut(s.image_out()).enumerate() {
                            let plane = &mut y[(b * block + o) * s.oh * s.ow..][..s.oh * s.ow];
                            let from = o * stride + image * grid.rows * grid.row;
                            for (i, line) in plane.chunks_exact_mut(s.ow).enumerate() {
                                line.copy_from_slice(&run[from + i * grid.row..][..s.ow]);
                            }
                        }
                    }
                }
            });
        });
    })
}

/// A pointwise convolution of one image, directly on planes of `len` pixels.
fn planes(level: Level, x: &[f32], taps: &[u32], packed: &[f32], y: &mut [f32], len: usize) {
    let block = level.co_block();
    for (y, kernels) in y.chunks_mut(block * len).zip(packed.chunks_exact(taps.len() * block)) {
        if y.len() == block * len {
            tile::correlate(level, x, taps, kernels, y, len, len);
        } else {
            scratch::with(block * len, |run| {
                tile::correlate(level, x, taps, kernels, run, len, len);
                y.copy_from_slice(&run[..y.len()]);
            });
        }
    }
}

/// Gradient of `x` from the output gradient `g (n, c_out, oh, ow)`.
pub(crate) fn backward_data(level: Level, s: &ConvShape, g: &[f32], w: &[f32]) -> Vec<f32> {
    let kk = s.k * s.k;
    if winograd::handles(level, s) {
        return winograd::backward_data(level, s, g, &turned_kernels(level, s, w), Room::USUAL);
    }
    let block = level.co_block();
    if s.pointwise() {
        let packed = pack(s.c_in, s.c_out, block, |i, o| w[o * s.c_in + i]);
        let taps: Vec<u32> = (0..s.c_out).map(|c| (c * s.h * s.w) as u32).collect();
        return by_chunk(s.n * s.image_in(), s.image_in(), |image, dx| {
            planes(level, &g[image * s.image_out()..][..s.image_out()], &taps, &packed, dx, s.h * s.w);
        });
    }
    let (vertical, horizontal) = (phases(s, s.h), phases(s, s.w));
    let mut parts = Vec::new();
    for (a, v) in vertical.iter().enumerate() {
        for (b, h) in horizontal.iter().enumerate() {
            if v.count * h.count * v.taps * h.taps > 0 {
                let per = v.taps * h.taps;
                let packed = pack(s.c_in, s.c_out * per, block, |i, t| {
                    let (o, t) = (t / per, t % per);
                    let (row, column) = (a + s.stride * (t / h.taps), b + s.stride * (t % h.taps));
                    w[(o * s.c_in + i) * kk + row * s.k + column]
                });
                parts.push((v, h, packed));
            }
        }
    }
    let group = s.group();
    by_chunk(s.n * s.image_in(), group * s.image_in(), |part, dx| {
        let images = dx.len() / s.image_in();
        let g = &g[part * group * s.image_out()..][..images * s.image_out()];
        let grid = BackGrid::new(s, images);
        scratch::zeroed(s.c_out * grid.plane, |cells| {
            grid.fill(g, s, cells);
            for (v, h, packed) in &parts {
                let taps = grid.taps(s.c_out, v, h);
                let len = ((images - 1) * grid.rows + v.count - 1) * grid.row + h.count;
                scratch::with(block * len, |run| {
                    for (b, kernels) in packed.chunks_exact(taps.len() * block).enumerate() {
                        tile::correlate(level, cells, &taps, kernels, run, len, len);
                        for c in 0..block.min(s.c_in - b * block) {
                            for (image, dx) in dx.chunks_exact_mut(s.image_in()).enumerate() {
                                let plane = &mut dx[(b * block + c) * s.h * s.w..][..s.h * s.w];
                                for i in 0..v.count {
                                    let from = c * len + (image * grid.rows + i) * grid.row;
                                    let run = &run[from..from + h.count];
                                    let line = &mut plane[(v.first + i * s.stride) * s.w..][..s.w];
                                    if s.stride == 1 {
                                        line.copy_from_slice(run);
                                    } else {
                                        let cells = line[h.first..].iter_mut().step_by(s.stride);
                                        cells.zip(run).for_each(|(cell, value)| *cell = *value);
                                    }
                                }
                            }
                        }
                    }
                });
            }
        });
    })
}

/// Gradient of `w` from the output gradient `g (n, c_out, oh, ow)`.
pub(crate) fn backward_weights(level: Level, s: &ConvShape, x: &[f32], g: &[f32]) -> Vec<f32> {
    if winograd::handles(level, s) {
        return winograd::backward_weights(level, s, x, g, Room::USUAL);
    }
    let count = s.c_in * s.k * s.k;
    if s.weights() > LARGE_KERNEL {
        // Each part owns some output channels and covers all images.
        let channels = s.c_out.div_ceil(PARTIALS).next_multiple_of(4);
        let mut dw = vec![0.; s.weights()];
        dw.par_chunks_mut(channels * count).enumerate().for_each(|(part, dw)| {
            let range = part * channels..part * channels + dw.len() / count;
            accumulate(level, s, x, g, s.long_group(), range, dw);
        });
        return dw;
    }
    let group = s.group();
    let groups = s.n.div_ceil(group);
    let images = groups.div_ceil(PARTIALS) * group;
    let partials: Vec<Vec<f32>> = x
        .par_chunks(images * s.image_in())
        .zip(g.par_chunks(images * s.image_out()))
        .map(|(x, g)| {
            let mut dw = vec![0.; s.weights()];
            accumulate(level, s, x, g, group, 0..s.c_out, &mut dw);
            dw
        })
        .collect();
    let mut partials = partials.into_iter();
    let mut dw = partials.next().unwrap_or_default();
    for partial in partials {
        dw.iter_mut().zip(&partial).for_each(|(sum, value)| *sum += value);
    }
    dw
}

/// Adds the weight gradients of output channels `range` over all images of `x` and `g` to `dw`.
fn accumulate(
    level: Level,
    s: &ConvShape,
    x: &[f32],
    g: &[f32],
    group: usize,
    range: std::ops::Range<usize>,
    dw: &mut [f32],
) {
    let pixels = s.oh * s.ow;
    let images = x.chunks(group * s.image_in()).zip(g.chunks(group * s.image_out()));
    if s.pointwise() {
        let taps: Vec<u32> = (0..s.c_in).map(|c| (c * pixels) as u32).collect();
        for (x, g) in images {
            tile::dot(level, &g[range.start * pixels..], pixels, range.len(), x, &taps, pixels, dw);
        }
        return;
    }
    let whole = Grid::forward(s, group);
    scratch::zeroed(whole.len(s.c_in), |cells| {
        scratch::zeroed(range.len() * whole.run_stride(), |runs| {
            for (x, g) in images {
                let count = x.len() / s.image_in();
                let grid = Grid::forward(s, count);
                if count < group {
                    cells.fill(0.);
                    runs.fill(0.);
                }
                grid.fill(x, s, cells);
                grid.fill_runs(g, s, range.start, range.len(), runs);
                let taps = grid.taps(s.c_in, s.k);
                tile::dot(level, runs, grid.run_stride(), range.len(), cells, &taps, grid.run, dw);
            }
        });
    });
}
