//! Winograd convolution F(4x4, 3x3), stride 1: forward, gradient of the input, gradient of the weights.
//!
//! A tile of 4x4 outputs takes 36 products per pair of channels instead of 144; the transforms around them
//! are vectorised over channels. Rounding errors are about ten times those of direct convolution (some 1e-6
//! of the largest value), which is negligible for training. With few transformed weights, each thread takes
//! its images band by band through all steps in its cache; with many, all tiles are transformed first and
//! threads split the output channels, so that weights are read once.

mod form;
mod product;
mod tasks;
mod tiles;
mod weights;

use super::level::Level;
use super::output::filled;
use super::scratch;
use super::shape::ConvShape;
use form::PLANES;
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;
use tasks::{Correlate, Kernel, Outputs, Planes, Target, Whole, run};
use tiles::{Source, Tiling};
use weights::{KernelGradient, WeightsByChannel, WeightsByImage};

/// Limits on what is kept in caches, in floats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Up to this many transformed weights stay in the second-level cache next to a band's planes.
    pub weights: usize,
    /// Size of a band's planes.
    pub band: usize,
    /// Maximum size of planes shared by all threads.
    pub shared: usize,
}

impl Room {
    /// For a second-level cache of 1 MiB per core.
    pub(crate) const USUAL: Room = Room { weights: 160 * 1024, band: 40 * 1024, shared: 8 << 20 };
}

/// Output blocks multiplied together.
const RUN: usize = 4;
/// Number of independent partial sums of a weight gradient; fixed, so that results do not depend on the
/// thread count.
const PARTIALS: usize = 4;

/// Whether this method can compute `s`, and is faster than direct convolution, by an estimate of vector
/// operations per image.
pub(crate) fn handles(level: Level, s: &ConvShape) -> bool {
    if s.k != 3 || s.stride != 1 || s.pad > 2 {
        return false;
    }
    let t = Tiling::forward(s);
    let n = level.lanes() as f64;
    let (tiles, c_in, c_out) = ((t.rows * t.columns) as f64, s.c_in as f64, s.c_out as f64);
    let (blocks_in, blocks_out) = ((c_in / n).ceil(), (c_out / n).ceil());
    let winograd = tiles * (36. * blocks_in * n * blocks_out + 350. * (blocks_in + blocks_out));
    let direct = 9. * (s.oh * s.ow) as f64 * c_in * (c_out / n) * 1.2;
    winograd < direct
}

/// `y (n, c_out, oh, ow)` from `x` and kernels packed as `[block of output channels][c_in * 9][lanes]`.
pub(crate) fn forward(level: Level, s: &ConvShape, x: &[f32], packed: &[f32], room: Room) -> Vec<f32> {
    correlate(level, Tiling::forward(s), x, packed, room)
}

/// The gradient of `x` from that of `y` and kernels packed with input and output channels exchanged and taps
/// reversed.
pub(crate) fn backward_data(level: Level, s: &ConvShape, g: &[f32], packed: &[f32], room: Room) -> Vec<f32> {
    correlate(level, Tiling::backward(s), g, packed, room)
}

/// Tile rows in a band whose planes of `channels` (padded) stay in the cache.
fn band_rows(t: &Tiling, channels: usize, room: Room) -> usize {
    (room.band / (PLANES * channels * t.columns)).max(1)
}

/// Images whose planes of `channels` (padded) threads share at a time.
fn shared_images(t: &Tiling, channels: usize, room: Room) -> usize {
    (room.shared / (PLANES * channels * t.rows * t.columns)).clamp(1, t.n)
}

/// Images per task where threads split the images: whole bands, but at least four tasks if there are four
/// images.
fn images_per_task(t: &Tiling, band: usize) -> usize {
    (band / t.rows).clamp(1, t.n.div_ceil(4))
}

/// Tile rows of `images` images, starting with image `first`.
fn rows_of(t: &Tiling, first: usize, images: usize) -> Range<usize> {
    first.min(t.n) * t.rows..(first + images).min(t.n) * t.rows
}

fn correlate(level: Level, t: Tiling, x: &[f32], packed: &[f32], room: Room) -> Vec<f32> {
    let write = |y: &mut [MaybeUninit<f32>]| {
        write_correlation(level, t, x, packed, Target::new(y.as_mut_ptr().cast()), room);
    };
    #[allow(unsafe_code)]
    // SAFETY: together, the tasks cover all images and all output channels, and write every pixel of them.
    let (y, ()) = unsafe { filled(t.n * t.c_out * t.oh * t.ow, write) };
    y
}

/// Writes all of `y`, which must have room for `(n, c_out, oh, ow)`.
fn write_correlation(level: Level, t: Tiling, x: &[f32], packed: &[f32], y: Target, room: Room) {
    let lanes = level.lanes();
    let (padded, blocks) = (t.c_in.next_multiple_of(lanes), t.c_out.div_ceil(lanes));
    let (block_len, packed_len) = (PLANES * padded * lanes, t.c_in * 9 * lanes);
    assert!(x.len() == t.n * t.c_in * t.h * t.w && packed.len() == blocks * packed_len);
    let small = blocks * block_len <= room.weights;
    scratch::with(blocks * block_len, |u| {
        let kernel = |(u, packed): (&mut [f32], &[f32])| {
            if padded > t.c_in {
                u.fill(0.);
            }
            run(level, &Kernel { packed, c_in: t.c_in, padded, u: Target::new(u.as_mut_ptr()) });
        };
        if small {
            u.chunks_exact_mut(block_len).zip(packed.chunks_exact(packed_len)).for_each(kernel);
        } else {
            u.par_chunks_exact_mut(block_len).zip(packed.par_chunks_exact(packed_len)).for_each(kernel);
        }
        let source = Source { values: x, channels: t.c_in, h: t.h, w: t.w, pad: t.pad };
        let job = Correlate { t, source, u, y, padded, blocks };
        if small {
            let band = band_rows(&t, padded, room);
            let images = images_per_task(&t, band);
            (0..t.n.div_ceil(images)).into_par_iter().for_each(|task| {
                run(level, &Whole { job: &job, rows: rows_of(&t, task * images, images), band });
            });
            return;
        }
        let images = shared_images(&t, padded, room);
        for first in (0..t.n).step_by(images) {
            let rows = rows_of(&t, first, images);
            shared_planes(level, &t, &source, padded, rows.clone(), |planes| {
                (0..blocks.div_ceil(RUN)).into_par_iter().for_each(|task| {
                    let blocks = task * RUN..blocks.min((task + 1) * RUN);
                    run(level, &Outputs { job: &job, planes, rows: rows.clone(), blocks });
                });
            });
        }
    });
}

/// Transforms the tiles of `rows`, all channels, on all threads, and calls `then` with the result.
fn shared_planes<R>(
    level: Level,
    t: &Tiling,
    source: &Source<'_>,
    padded: usize,
    rows: Range<usize>,
    then: impl FnOnce(&[f32]) -> R,
) -> R {
    let lanes = level.lanes();
    let tiles = rows.len() * t.columns;
    scratch::with(PLANES * tasks::pitch(padded / lanes, tiles, lanes), |planes| {
        let to = Target::new(planes.as_mut_ptr());
        (0..rows.len() / t.rows).into_par_iter().for_each(|image| {
            let from = rows.start + image * t.rows;
            let (all, rows) = (rows.clone(), from..from + t.rows);
            run(level, &Planes { t: *t, source: *source, all, rows, planes: to });
        });
        then(planes)
    })
}

/// The gradient of the weights `(c_out, c_in, 3, 3)` from that of `y`.
pub(crate) fn backward_weights(level: Level, s: &ConvShape, x: &[f32], g: &[f32], room: Room) -> Vec<f32> {
    let (t, lanes) = (Tiling::forward(s), level.lanes());
    assert!(x.len() == t.n * t.c_in * t.h * t.w && g.len() == t.n * t.c_out * t.oh * t.ow);
    let (padded, blocks) = (t.c_in.next_multiple_of(lanes), t.c_out.div_ceil(lanes));
    let block_len = PLANES * padded * lanes;
    let (x, g) = (
        Source { values: x, channels: t.c_in, h: t.h, w: t.w, pad: t.pad },
        Source { values: g, channels: t.c_out, h: t.oh, w: t.ow, pad: 0 },
    );
    let mut dw = vec![0.; s.weights()];
    let small = blocks * block_len <= room.weights;
    let parts = if small { PARTIALS.min(t.n) } else { 1 };
    // Zeroed by the first to add to it.
    scratch::with(parts * blocks * block_len, |du| {
        if small {
            let images = t.n.div_ceil(parts);
            du.par_chunks_exact_mut(blocks * block_len).enumerate().for_each(|(part, du)| {
                du.fill(0.);
                let rows = rows_of(&t, part * images, images);
                let (band, du) = (band_rows(&t, padded + blocks * lanes, room), Target::new(du.as_mut_ptr()));
                run(level, &WeightsByImage { t, x, g, rows, band, du });
            });
        } else {
            let images = shared_images(&t, padded, room);
            for first in (0..t.n).step_by(images) {
                let rows = rows_of(&t, first, images);
                shared_planes(level, &t, &x, padded, rows.clone(), |planes| {
                    du.par_chunks_exact_mut(block_len).enumerate().for_each(|(block, du)| {
                        if first == 0 {
                            du.fill(0.);
                        }
                        let (rows, du) = (rows.clone(), Target::new(du.as_mut_ptr()));
                        run(level, &WeightsByChannel { t, g, planes, rows, block, du });
                    });
                });
            }
        }
        let sum = |(block, dw): (usize, &mut [f32])| {
            let du = du.chunks_exact(blocks * block_len).map(|part| &part[block * block_len..][..block_len]);
            let (du, present) = (du.collect(), dw.len() / (t.c_in * 9));
            run(
                level,
                &KernelGradient { du, c_in: t.c_in, padded, present, dw: Target::new(dw.as_mut_ptr()) },
            );
        };
        let channels = lanes * t.c_in * 9;
        if small {
            dw.chunks_mut(channels).enumerate().for_each(sum);
        } else {
            dw.par_chunks_mut(channels).enumerate().for_each(sum);
        }
    });
    dw
}
