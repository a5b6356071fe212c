//! Direct convolution with register tiles over a zero-padded copy of the input.
//!
//! Weights are packed as for the plain kernel: `[c_out / cb][blocks][kernel][kernel][width][cb]`, where a
//! blocked input has blocks of `width = cb` channels and a plain input blocks of a single channel. In both,
//! the taps of a block along a kernel row are contiguous, so the innermost loop runs over `kernel * width`
//! floats.
#![allow(unsafe_code)]
// Index loops over constant bounds unroll into registers; iterator chains do not always.
#![allow(clippy::needless_range_loop)]

use super::conv::{ConvShape, Epilogue};
use super::isa::Isa;
use super::plain::input_blocks;
use super::simd::{Simd, Work, run};
use super::tile::{Finish, MOST, Reach, kernel_sums, next_run, weight_at, with_pixels};
use crate::pool::{Pool, share};

/// Floats of weights that one pass over the rows may touch (twice as many halves), so that they stay in a
/// 1 MiB L2 cache.
const PASS: usize = 96 * 1024;

/// The padded input's extent and how the work is split.
#[derive(Clone, Copy)]
struct Layout {
    /// Rows and columns of the padded input that are read.
    rows: usize,
    columns: usize,
    /// Input blocks, channels in each.
    blocks: usize,
    width: usize,
    /// Output blocks computed together.
    group: usize,
    /// Input blocks per pass.
    pass: usize,
}

impl Layout {
    fn new(isa: Isa, s: &ConvShape) -> Layout {
        let cb = isa.block();
        let (width, blocks) = input_blocks(cb, s);
        let out_blocks = s.c_out.div_ceil(cb);
        // Four blocks need fewer pixels per tile: better for narrow maps, where two would leave registers
        // idle.
        let group = match (s.out_w(), out_blocks) {
            (w, b) if b >= 4 && (isa == Isa::Neon || (isa == Isa::Avx512 && w <= 8)) => 4,
            (_, b) if b >= 2 => 2,
            _ => 1,
        };
        let per_block = s.kernel * s.kernel * width * cb * group;
        Layout {
            rows: (s.out_h() - 1) * s.stride + s.kernel,
            columns: (s.out_w() - 1) * s.stride + s.kernel,
            blocks,
            width,
            group,
            pass: (PASS * if isa.is_half() { 2 } else { 1 } / per_block.max(1)).clamp(1, blocks),
        }
    }

    fn copy_len(&self, s: &ConvShape) -> usize {
        if s.pad == 0 { 0 } else { self.blocks * self.rows * self.columns * self.width }
    }

    fn partial_len(&self, isa: Isa, s: &ConvShape) -> usize {
        if self.pass == self.blocks { 0 } else { self.group * isa.block() * s.out_h() * s.out_w() }
    }
}

/// Whether [`conv`] supports this shape.
pub(super) fn handles(s: &ConvShape) -> bool {
    s.stride <= 2
}

/// Floats of scratch; the shape must be valid.
pub(super) fn scratch_len(isa: Isa, s: &ConvShape, threads: usize) -> usize {
    let layout = Layout::new(isa, s);
    layout.copy_len(s) + threads * layout.partial_len(isa, s)
}

/// Like [`super::conv`]; slices are already checked and have their exact length.
#[allow(clippy::too_many_arguments)]
pub(super) fn conv(
    isa: Isa,
    s: &ConvShape,
    weights: &[f32],
    input: &[f32],
    e: &Epilogue<'_>,
    out: &mut [f32],
    scratch: &mut [f32],
    pool: &Pool,
) {
    let layout = Layout::new(isa, s);
    let (copy, partial) = scratch.split_at_mut(layout.copy_len(s));
    let (x, x_row, x_block) = if s.pad == 0 {
        (input.as_ptr(), s.w * layout.width, s.h * s.w * layout.width)
    } else {
        pad_input(s, &layout, input, copy, pool);
        (copy.as_ptr(), layout.columns * layout.width, layout.rows * layout.columns * layout.width)
    };
    let work = Direct {
        s: *s,
        layout,
        x,
        x_row,
        x_block,
        w: weights.as_ptr(),
        per_block: layout.blocks * s.kernel * s.kernel * layout.width * isa.block(),
        finish: Finish::new(e, out),
        partial: partial.as_mut_ptr(),
        partial_len: layout.partial_len(isa, s),
        threads: pool.threads(),
    };
    // SAFETY: `super::conv` checked that the machine supports `isa` and that every slice has the length its
    // shape requires; the padded copy extends to the end of the last window, and without padding the input
    // itself does.
    unsafe { run(isa, &work, pool.threads(), pool) }
}

/// Copies `input` into `copy`, surrounded by zeros.
fn pad_input(s: &ConvShape, layout: &Layout, input: &[f32], copy: &mut [f32], pool: &Pool) {
    let (from_row, to_row) = (s.w * layout.width, layout.columns * layout.width);
    let left = (s.pad * layout.width).min(to_row);
    pool.for_each_chunk(copy, to_row, &|row, to| {
        let (block, y) = (row / layout.rows, row % layout.rows);
        match y.checked_sub(s.pad).filter(|&y| y < s.h) {
            None => to.fill(0.0),
            Some(y) => {
                let from = &input[(block * s.h + y) * from_row..][..from_row.min(to_row - left)];
                let end = left + from.len();
                to[..left].fill(0.0);
                to[left..end].copy_from_slice(from);
                to[end..].fill(0.0);
            }
        }
    });
}

struct Direct {
    s: ConvShape,
    layout: Layout,
    x: *const f32,
    x_row: usize,
    x_block: usize,
    w: *const f32,
    /// Weights per output block.
    per_block: usize,
    finish: Finish,
    /// Partial sums between passes, one area per thread.
    partial: *mut f32,
    partial_len: usize,
    threads: usize,
}

// SAFETY: the pointers come from slices borrowed for the whole run; threads only read the inputs, and write
// disjoint rows of the output and their own area of `partial`.
unsafe impl Sync for Direct {}

impl Work for Direct {
    const PORTABLE: bool = false;

    #[inline(always)]
    unsafe fn part<V: Simd>(&self, part: usize) {
        let (oh, blocks) = (self.s.out_h(), self.s.c_out.div_ceil(V::LANES));
        let group = self.layout.group;
        let mut units = share(blocks.div_ceil(group) * oh, part, self.threads);
        while !units.is_empty() {
            let first = units.start / oh * group;
            let rows = units.start % oh..(units.start % oh + units.len()).min(oh);
            units.start += rows.len();
            let count = group.min(blocks - first);
            // SAFETY: guaranteed by the caller; rows and blocks lie inside the output, and only this part
            // writes them.
            unsafe {
                match (self.s.input_nchw, self.s.stride) {
                    (false, 1) => self.rows::<V, 1, false>(part, first, count, rows),
                    (false, _) => self.rows::<V, 2, false>(part, first, count, rows),
                    (true, 1) => self.rows::<V, 1, true>(part, first, count, rows),
                    (true, _) => self.rows::<V, 2, true>(part, first, count, rows),
                }
            }
        }
    }
}

/// One tile's position: everything but the number of pixels and blocks.
struct Spot {
    x: *const f32,
    w: *const f32,
    reach: Reach,
    /// First channel of the first output block, and the tile's first float in that block's map.
    channel: usize,
    at: usize,
    /// Sums carried between passes; used when this is not the first or not the last pass.
    partial: *mut f32,
    first: bool,
    last: bool,
}

impl Direct {
    /// Output rows `rows` of `count` blocks from block `first` on.
    #[inline(always)]
    unsafe fn rows<V: Simd, const STEP: usize, const PLAIN: bool>(
        &self,
        part: usize,
        first: usize,
        count: usize,
        rows: std::ops::Range<usize>,
    ) {
        let Layout { blocks, width, pass, .. } = self.layout;
        let ow = self.s.out_w();
        let mut pass_start = 0;
        while pass_start < blocks {
            let pass = pass.min(blocks - pass_start);
            let reach = Reach {
                blocks: pass,
                x_block: self.x_block,
                rows: self.s.kernel,
                x_row: self.x_row,
                inner: self.s.kernel * width,
                w_next: self.per_block,
                ahead: 0,
            };
            // SAFETY: the caller guarantees the CPU features.
            let mut sums = unsafe { [V::splat(0.0); 4 * MOST] };
            for y in rows.clone() {
                let (mut block, mut left) = (first, count);
                while left > 0 {
                    let (q, most) = match left {
                        4.. if V::PIXELS[2] > 0 && !PLAIN => (4, V::PIXELS[2]),
                        2.. => (2, V::PIXELS[1]),
                        _ => (1, V::PIXELS[0]),
                    };
                    let mut column = 0;
                    while column < ow {
                        let pixels = next_run(ow - column, most);
                        let at = y * ow + column;
                        let step = if PLAIN { STEP } else { STEP * V::LANES };
                        // SAFETY: the offsets lie inside the input, weights, output and this part's partial
                        // sums: see `Layout`, whose lengths the callers of this file checked.
                        unsafe {
                            let weights = block * self.per_block
                                + pass_start * self.s.kernel * self.s.kernel * width * V::LANES;
                            let spot = Spot {
                                x: self
                                    .x
                                    .add(pass_start * self.x_block + y * STEP * self.x_row + column * step),
                                w: weight_at::<V>(self.w, weights),
                                reach,
                                channel: block * V::LANES,
                                at: at * V::LANES,
                                partial: self.partial.wrapping_add(
                                    part * self.partial_len
                                        + ((block - first) * self.s.out_h() * ow + at) * V::LANES,
                                ),
                                first: pass_start == 0,
                                last: pass_start + pass == blocks,
                            };
                            let map = self.s.out_h() * ow * V::LANES;
                            let place = (map, &spot, &mut sums);
                            match q {
                                4 if !PLAIN => {
                                    with_pixels!(pixels, V::PIXELS[2], tile::<V, 4, STEP, PLAIN>(place))
                                }
                                2 => with_pixels!(pixels, V::PIXELS[1], tile::<V, 2, STEP, PLAIN>(place)),
                                _ => with_pixels!(pixels, V::PIXELS[0], tile::<V, 1, STEP, PLAIN>(place)),
                            }
                            for j in 0..q {
                                let channel = spot.channel + j * V::LANES;
                                let factors = self.finish.factors::<V>(channel);
                                let at = channel / V::LANES * map + spot.at;
                                for p in 0..pixels {
                                    let sum = sums[j * MOST + p];
                                    if spot.last {
                                        self.finish.store(sum, factors, at + p * V::LANES);
                                    } else {
                                        sum.store(spot.partial.add(j * map + p * V::LANES));
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
            pass_start += pass;
        }
    }
}

/// Sums of `P` pixels of `Q` blocks, into `out[q * MOST + p]`; `map` floats per block. Instantiated for every
/// tile size, so the epilogue is kept outside, where it is compiled only once.
#[inline(always)]
unsafe fn tile<V: Simd, const P: usize, const Q: usize, const STEP: usize, const PLAIN: bool>(
    (map, spot, out): (usize, &Spot, &mut [V; 4 * MOST]),
) {
    // SAFETY: the caller placed the tile inside its maps.
    unsafe {
        let mut acc = [[V::splat(0.0); Q]; P];
        if !spot.first {
            for p in 0..P {
                for q in 0..Q {
                    acc[p][q] = V::load(spot.partial.add(q * map + p * V::LANES));
                }
            }
        }
        let acc = kernel_sums::<V, P, Q, STEP, PLAIN, false>(acc, spot.x, spot.w, &spot.reach);
        for q in 0..Q {
            for p in 0..P {
                out[q * MOST + p] = acc[p][q];
            }
        }
    }
}
