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

    /// The tile that starts at output block `block` and, in each block of the map, at byte `from`.
    ///
    /// # Safety
    /// Both lie inside the kernel and the map.
    #[inline(always)]
    unsafe fn spot(&self, block: usize, from: usize) -> Spot {
        // SAFETY: guaranteed by the caller.
        unsafe { Spot { x: self.x.add(from), w: self.w.add(block * self.per_block) } }
    }
}

/// Bytes from one row and one block of a map to the next.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    pub(super) row: usize,
    pub(super) block: usize,
}

/// Pixels of a row of [`flat`] at most: several tiles, and enough rows for all threads.
const FLAT: usize = 128;

/// `s` and `reach` in rows that are better for tiles, where it makes no difference: the pixels of a pointwise
/// convolution lie one after the other.
fn flat(s: &ConvShape, reach: Reach) -> (ConvShape, Reach) {
    if (s.kernel, s.stride, s.pad) != (1, 1, 0) {
        return (*s, reach);
    }
    let pixels = s.h * s.w;
    let w = (s.w..=FLAT.min(pixels)).rev().find(|w| pixels.is_multiple_of(*w)).unwrap_or(s.w);
    (ConvShape { h: pixels / w, w, ..*s }, Reach { row: w * pixel(s), ..reach })
}

/// Computes the convolution `s` of every source, which has input channels of its own (those of `s` are not
/// used), and writes their sum once. Only shapes with stride 1 and maps in blocks have more than one
/// source.
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
    let (s, reach) = &flat(s, reach);
    let len = padded(s.c_out) * s.out_h() * s.out_w();
    e.check(padded(s.c_out), len)?;
    out.check(len)?;
    // Four blocks need fewer pixels per tile: better for narrow maps, where two would leave registers idle.
    let group = match s.c_out.div_ceil(BLOCK) {
        4.. if s.out_w() <= 8 && sources.len() == 1 => 4,
        2.. => 2,
        _ => 1,
    };
    let finish = Store::new(e, out);
    let work = Sum { s: *s, group, reach: *reach, pixel: pixel(s), sources, finish, threads: pool.threads() };
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

/// A tile of the output: its first block, blocks and pixels; where it starts in the sources' maps and in the
/// output; and the elements of a block of the output.
struct Place {
    block: usize,
    q: usize,
    pixels: usize,
    from: usize,
    to: usize,
    map: usize,
}

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
            unsafe {
                // The usual case, a single source with stride 1, pays nothing for the others.
                match (self.sources, self.pixel, self.s.stride) {
                    ([source], BLOCK, 1) if D::STEPS => {
                        self.rows::<D, BLOCK, false>(&[*source], first, count, rows);
                    }
                    ([source], ..) => self.rows::<D, 0, false>(&[*source], first, count, rows),
                    (sources, ..) => self.rows::<D, BLOCK, true>(sources, first, count, rows),
                }
            }
        }
    }
}

impl Sum<'_> {
    /// Output rows `rows` of `count` blocks starting at block `first`: the only one of `sources`, or the sum
    /// of all if they are `SEVERAL`. The inputs of two neighbouring pixels are `STEP` bytes apart; 0 if that
    /// is not known at compile time.
    #[inline(always)]
    unsafe fn rows<D: Dot, const STEP: usize, const SEVERAL: bool>(
        &self,
        sources: &[Source<'_>],
        first: usize,
        count: usize,
        rows: std::ops::Range<usize>,
    ) {
        let ow = self.s.out_w();
        let map = self.s.out_h() * ow * BLOCK;
        let step = self.pixel * self.s.stride;
        let known = STEP != 0 || !D::STEPS || matches!((self.pixel, self.s.stride), (BLOCK | IMAGE, 1 | 2));
        // SAFETY: the caller guarantees the CPU features.
        let (mut sums, mut total) = unsafe { ([D::splat(0.0); 4 * MOST], [D::splat(0.0); 2 * MOST]) };
        for y in rows {
            let (mut block, mut left) = (first, count);
            while left > 0 {
                let (q, most) = match left {
                    _ if !known => (1, 1),
                    4.. if D::PIXELS[2] > 0 && self.pixel == BLOCK && !SEVERAL => (4, D::PIXELS[2]),
                    2.. if D::PIXELS[1] > 0 => (2, D::PIXELS[1]),
                    _ => (1, D::PIXELS[0]),
                };
                let mut column = 0;
                while column < ow {
                    let pixels = next_run(ow - column, most);
                    let from = y * self.s.stride * self.reach.row + column * step;
                    let to = block * map + (y * ow + column) * BLOCK;
                    // SAFETY: the tile lies inside all maps, and its blocks inside the weights and factors.
                    unsafe {
                        if SEVERAL {
                            let place = Place { block, q, pixels, from, to, map };
                            self.several::<D>(sources, &place, &mut sums, &mut total);
                        } else {
                            let source = &sources[0];
                            let spot = source.spot(block, from);
                            let place = (self, source, &spot, &mut sums);
                            match (self.pixel, self.s.stride) {
                                _ if !D::STEPS => tiles::<D, 0>(q, pixels, place),
                                _ if STEP != 0 => tiles::<D, STEP>(q, pixels, place),
                                (BLOCK, 2) => tiles::<D, { 2 * BLOCK }>(q, pixels, place),
                                (IMAGE, 1) => tiles::<D, IMAGE>(q, pixels, place),
                                (IMAGE, 2) => tiles::<D, { 2 * IMAGE }>(q, pixels, place),
                                _ => tile::<D, 1, 1, 0>(place),
                            }
                            for j in 0..q {
                                let channel = (block + j) * BLOCK;
                                let scale = D::load(source.scale.add(channel));
                                let shift = D::load(self.finish.shift(channel));
                                for p in 0..pixels {
                                    let t = D::add(D::mul(sums[j * MOST + p], scale), shift);
                                    self.finish.store::<D>(t, to + j * map + p * BLOCK);
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

    /// One tile of the sum of several sources: one or two blocks. Before the last term it stays in `total`.
    ///
    /// # Safety
    /// The CPU supports the features of `D`; `place` lies inside the output and all maps; no other thread
    /// touches it.
    #[inline(always)]
    unsafe fn several<D: Dot>(
        &self,
        sources: &[Source<'_>],
        place: &Place,
        sums: &mut [D::Floats; 4 * MOST],
        total: &mut [D::Floats; 2 * MOST],
    ) {
        let Place { block, q, pixels, from, to, map } = *place;
        // SAFETY: guaranteed by the caller.
        unsafe {
            for (i, source) in sources.iter().enumerate() {
                let spot = source.spot(block, from);
                let tile_of = (self, source, &spot, &mut *sums);
                if q == 2 {
                    with_pixels!(pixels, D::PIXELS[1], tile::<D, 2, BLOCK>(tile_of));
                } else {
                    with_pixels!(pixels, D::PIXELS[0], tile::<D, 1, BLOCK>(tile_of));
                }
                for j in 0..q {
                    let channel = (block + j) * BLOCK;
                    let scale = D::load(source.scale.add(channel));
                    let shift = D::load(self.finish.shift(channel));
                    for p in 0..pixels {
                        let before = if i == 0 { shift } else { total[j * MOST + p] };
                        let t = D::add(D::mul(sums[j * MOST + p], scale), before);
                        if i + 1 < sources.len() {
                            total[j * MOST + p] = t;
                        } else {
                            self.finish.store::<D>(t, to + j * map + p * BLOCK);
                        }
                    }
                }
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
