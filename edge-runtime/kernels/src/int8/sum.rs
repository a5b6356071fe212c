//! Sums of convolutions, one or several: register tiles of dot products.
#![allow(unsafe_code)]
// Index loops over constant bounds unroll into registers; iterator chains do not always.
#![allow(clippy::needless_range_loop)]

use super::dot::{Dot, DotWork, Machine, run};
use super::store::Store;
use super::weights::{SUMS, input_blocks, packed_len, per_block};
use super::{BLOCK, Finish, GROUP, IMAGE, Out, padded, take};
use crate::pool::{Pool, share};
use crate::tile::{MOST, next_run, with_pixels};
use crate::{ConvShape, KernelError};
use std::marker::PhantomData;

/// Bytes per pixel of the map that `s` reads.
pub(super) fn pixel(s: &ConvShape) -> usize {
    if s.input_nchw { IMAGE } else { BLOCK }
}

/// A map and its kernel: one of the convolutions whose sum is an output.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    x: *const u8,
    blocks: usize,
    /// Runs of bytes per kernel row, and groups of four bytes in each.
    taps: usize,
    run: usize,
    w: *const i8,
    per_block: usize,
    scale: *const f32,
    /// Map, weights and scale are borrowed.
    borrowed: PhantomData<&'a [u8]>,
}

impl<'a> Source<'a> {
    /// No map at all: what an array of sources is filled with.
    pub(super) const NONE: Source<'static> = Source {
        x: std::ptr::null(),
        blocks: 0,
        taps: 0,
        run: 0,
        w: std::ptr::null(),
        per_block: 0,
        scale: std::ptr::null(),
        borrowed: PhantomData,
    };

    /// A map, and slices checked against `s`, a shape that [`check`](super::check) accepts.
    pub(super) fn new(
        s: &ConvShape,
        weights: &'a [i8],
        scale: &'a [f32],
        map: &'a [u8],
    ) -> Result<Source<'a>, KernelError> {
        let (blocks, groups) = input_blocks(s);
        // If whole pixels are read, the taps of a kernel row are one contiguous run of bytes.
        let whole = groups * GROUP == pixel(s);
        Ok(Source {
            x: map.as_ptr(),
            blocks,
            taps: if whole { 1 } else { s.kernel },
            run: if whole { s.kernel * groups } else { groups },
            w: take("packed weight", weights, packed_len(s))?.as_ptr(),
            per_block: per_block(s),
            scale: take("scale", scale, padded(s.c_out))?.as_ptr(),
            borrowed: PhantomData,
        })
    }
}

/// Bytes from one row and one block of a map to the next.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    pub(super) row: usize,
    pub(super) block: usize,
}

/// Computes the convolution `s` of every source, which has input channels of its own (those of `s` are not used),
/// and writes their sum once.
/// Only shapes with stride 1 and maps in blocks have more than one source.
///
/// # Errors
/// If a slice of `e` or `out` is shorter than the output requires.
///
/// # Safety
/// This machine supports `machine`; there is at least one source, and what the sources point to is as long as
/// `s`, with their channels, and `reach` require.
pub(super) unsafe fn sum(
    machine: Machine,
    s: &ConvShape,
    sources: &[Source<'_>],
    reach: Reach,
    e: &Finish<'_>,
    out: &mut Out<'_>,
    pool: &Pool,
) -> Result<(), KernelError> {
    let len = padded(s.c_out) * s.out_h() * s.out_w();
    e.check(padded(s.c_out), len)?;
    out.check(len)?;
    // Four blocks need fewer pixels per tile: better for narrow maps, where two would leave registers idle.
    let group = match s.c_out.div_ceil(BLOCK) {
        4.. if s.out_w() <= 8 => 4,
        2.. => 2,
        _ => 1,
    };
    let finish = Store::new(e, out);
    let work = Sum { s: *s, group, reach, pixel: pixel(s), sources, finish, threads: pool.threads() };
    // SAFETY: this function's contract; epilogue and output were checked.
    unsafe { run(machine, &work, work.threads, pool) }
    Ok(())
}

struct Sum<'a> {
    s: ConvShape,
    /// Output blocks computed together.
    group: usize,
    reach: Reach,
    /// Bytes from one tap to the next.
    pixel: usize,
    sources: &'a [Source<'a>],
    finish: Store,
    threads: usize,
}

// SAFETY: the pointers come from slices borrowed for the whole run; threads read the inputs and write
// disjoint rows of the output.
unsafe impl Sync for Sum<'_> {}

/// Where a tile's input and weights start.
struct Spot {
    x: *const u8,
    w: *const i8,
}

impl DotWork for Sum<'_> {
    #[inline(always)]
    unsafe fn part<D: Dot>(&self, part: usize) {
        let (oh, blocks) = (self.s.out_h(), self.s.c_out.div_ceil(BLOCK));
        let mut units = share(blocks.div_ceil(self.group) * oh, part, self.threads);
        while !units.is_empty() {
            let first = units.start / oh * self.group;
            let rows = units.start % oh..(units.start % oh + units.len()).min(oh);
            units.start += rows.len();
            let count = self.group.min(blocks - first);
            // SAFETY: guaranteed by the caller; rows and blocks lie inside the output, and only this part
            // writes them.
            unsafe { self.rows::<D>(first, count, rows) };
        }
    }
}

impl Sum<'_> {
    /// Output rows `rows` of `count` blocks starting at block `first`.
    #[inline(always)]
    unsafe fn rows<D: Dot>(&self, first: usize, count: usize, rows: std::ops::Range<usize>) {
        let ow = self.s.out_w();
        let map = self.s.out_h() * ow * BLOCK;
        let step = self.pixel * self.s.stride;
        let known = !D::STEPS || matches!((self.pixel, self.s.stride), (BLOCK | IMAGE, 1 | 2));
        // SAFETY: the caller guarantees the CPU features.
        let (mut sums, mut total) = unsafe { ([D::splat(0.0); 4 * MOST], [D::splat(0.0); 4 * MOST]) };
        let total = total.as_mut_ptr().cast::<f32>();
        let plain = self.finish.plain().filter(|_| self.sources.len() == 1);
        for y in rows {
            let (mut block, mut left) = (first, count);
            while left > 0 {
                let (q, most) = match left {
                    _ if !known => (1, 1),
                    4.. if D::PIXELS[2] > 0 && self.pixel == BLOCK => (4, D::PIXELS[2]),
                    2.. if D::PIXELS[1] > 0 => (2, D::PIXELS[1]),
                    _ => (1, D::PIXELS[0]),
                };
                let mut column = 0;
                while column < ow {
                    let pixels = next_run(ow - column, most);
                    let from = y * self.s.stride * self.reach.row + column * step;
                    for (i, source) in self.sources.iter().enumerate() {
                        // SAFETY: the tile lies inside all maps, and its blocks inside the weights and
                        // factors; `total` has room for every tile.
                        unsafe {
                            let w = source.w.add(block * source.per_block);
                            let spot = Spot { x: source.x.add(from), w };
                            let place = (self, source, &spot, &mut sums);
                            match (self.pixel, self.s.stride) {
                                _ if !D::STEPS => tiles::<D, 0>(q, pixels, place),
                                (BLOCK, 1) => tiles::<D, BLOCK>(q, pixels, place),
                                (BLOCK, 2) => tiles::<D, { 2 * BLOCK }>(q, pixels, place),
                                (IMAGE, 1) => tiles::<D, IMAGE>(q, pixels, place),
                                (IMAGE, 2) => tiles::<D, { 2 * IMAGE }>(q, pixels, place),
                                _ => tile::<D, 1, 1, 0>(place),
                            }
                            for j in 0..q {
                                let channel = (block + j) * BLOCK;
                                let scale = D::load(source.scale.add(channel));
                                let shift = self.finish.shift(channel);
                                let to = (block + j) * map + (y * ow + column) * BLOCK;
                                // Most steps end like this, and are faster without asking for every pixel.
                                if let Some(bytes) = plain {
                                    let shift = D::load(shift);
                                    for p in 0..pixels {
                                        let t = D::add(D::mul(sums[j * MOST + p], scale), shift);
                                        D::store_bytes(t, bytes.add(to + p * BLOCK));
                                    }
                                    continue;
                                }
                                // Before the last term, the sum stays in `total`, tile by tile.
                                let rest = total.add(j * MOST * BLOCK);
                                let (before, each) =
                                    if i == 0 { (shift, 0) } else { (rest.cast_const(), BLOCK) };
                                for p in 0..pixels {
                                    let t = D::mul(sums[j * MOST + p], scale);
                                    let t = D::add(t, D::load(before.add(p * each)));
                                    if i + 1 < self.sources.len() {
                                        D::store(t, rest.add(p * BLOCK));
                                    } else {
                                        self.finish.store::<D>(t, to + p * BLOCK);
                                    }
                                }
                            }
                        }
                    }
                    column += pixels;
                }
                block += q;
                left -= q;
            }
        }
    }
}

/// The tile of `pixels` pixels of `q` blocks, where the inputs of two neighbouring pixels are `STEP` bytes
/// apart; 0 if that is not known at compile time.
#[inline(always)]
unsafe fn tiles<D: Dot, const STEP: usize>(
    q: usize,
    pixels: usize,
    place: (&Sum<'_>, &Source<'_>, &Spot, &mut [D::Floats; 4 * MOST]),
) {
    // SAFETY: this function's contract is that of the tile.
    unsafe {
        match q {
            4 if STEP >= BLOCK => with_pixels!(pixels, D::PIXELS[2], tile::<D, 4, STEP>(place)),
            2 => with_pixels!(pixels, D::PIXELS[1], tile::<D, 2, STEP>(place)),
            _ => with_pixels!(pixels, D::PIXELS[0], tile::<D, 1, STEP>(place)),
        }
    }
}

/// Sums of `P` pixels of `Q` blocks, into `out[q * MOST + p]`. Instantiated for every tile size, so the
/// epilogue is kept outside, where it is compiled only once.
#[inline(always)]
unsafe fn tile<D: Dot, const P: usize, const Q: usize, const STEP: usize>(
    (work, source, spot, out): (&Sum<'_>, &Source<'_>, &Spot, &mut [D::Floats; 4 * MOST]),
) {
    // SAFETY: the caller placed the tile inside its maps, and the loops follow the shape of the weights.
    unsafe {
        let mut acc = [[D::start(spot.w); Q]; P];
        for q in 0..Q {
            let start = D::start(spot.w.add(q * source.per_block));
            for p in 0..P {
                acc[p][q] = start;
            }
        }
        let Source { blocks, taps, run, per_block, .. } = *source;
        let (kernel, pixel, Reach { row: x_row, block: x_block }) = (work.s.kernel, work.pixel, work.reach);
        let step = if STEP == 0 { pixel * work.s.stride } else { STEP };
        let mut w = spot.w.add(SUMS);
        for block in 0..blocks {
            for row in 0..kernel {
                for tap in 0..taps {
                    let x = spot.x.add(block * x_block + row * x_row + tap * pixel);
                    for i in 0..run {
                        let mut weights = [D::weights(w); Q];
                        for q in 1..Q {
                            weights[q] = D::weights(w.add(q * per_block));
                        }
                        for p in 0..P {
                            let v = D::spread(x.add(p * step + i * GROUP));
                            for q in 0..Q {
                                acc[p][q] = acc[p][q].dot(v, weights[q]);
                            }
                        }
                        w = w.add(BLOCK * GROUP);
                    }
                }
            }
        }
        for q in 0..Q {
            for p in 0..P {
                out[q * MOST + p] = acc[p][q].floats();
            }
        }
    }
}
