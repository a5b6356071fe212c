//! Convolution of u8 maps with i8 weights: register tiles of dot products over a padded copy of the input.
#![allow(unsafe_code)]
// Index loops over constant bounds unroll into registers; iterator chains do not always.
#![allow(clippy::needless_range_loop)]

use super::dot::{Dot, DotWork, Machine, run};
use super::weights::{SUMS, input_blocks, packed_len, per_block};
use super::{BLOCK, Finish, GROUP, IMAGE, Out, padded, take, take_mut};
use crate::pool::{Pool, share};
use crate::tile::{MOST, next_run, with_pixels};
use crate::{ConvShape, Isa, KernelError};

/// Maximum products in one sum: 255 * 127 times as many stay below 2^31.
const MOST_PRODUCTS: usize = 1 << 16;

/// Refuses shapes that no integer kernel supports.
///
/// # Errors
/// [`KernelError::Shape`], with the reason.
pub fn check(s: &ConvShape) -> Result<(), KernelError> {
    s.check()?;
    match () {
        () if s.c_in.saturating_mul(s.kernel * s.kernel) > MOST_PRODUCTS => {
            Err(KernelError::Shape { what: "int8 convolution with more than 65536 products in a sum" })
        }
        () if s.input_nchw && s.c_in > IMAGE => {
            Err(KernelError::Shape { what: "int8 image with more than four channels" })
        }
        () => Ok(()),
    }
}

/// The layout of the padded input, in bytes.
#[derive(Clone, Copy)]
struct Layout {
    /// Bytes per pixel.
    pixel: usize,
    blocks: usize,
    /// Rows and columns that are read.
    rows: usize,
    columns: usize,
    /// Output blocks computed together.
    group: usize,
}

impl Layout {
    fn new(s: &ConvShape) -> Layout {
        let out_blocks = s.c_out.div_ceil(BLOCK);
        Layout {
            pixel: if s.input_nchw { IMAGE } else { BLOCK },
            blocks: s.c_in.div_ceil(BLOCK),
            rows: (s.out_h() - 1) * s.stride + s.kernel,
            columns: (s.out_w() - 1) * s.stride + s.kernel,
            // Four blocks need fewer pixels per tile: better for narrow maps, where two would leave registers
            // idle.
            group: match out_blocks {
                4.. if s.out_w() <= 8 => 4,
                2.. => 2,
                _ => 1,
            },
        }
    }

    fn copy_len(&self, s: &ConvShape) -> usize {
        if s.pad == 0 { 0 } else { self.blocks * self.rows * self.columns * self.pixel }
    }
}

/// Bytes of scratch that [`conv`] needs; zero for shapes that it refuses.
pub fn scratch_len(s: &ConvShape) -> usize {
    if check(s).is_err() { 0 } else { Layout::new(s).copy_len(s) }
}

/// Computes the convolution `s` of `input` with `weights` as packed by [`pack`](super::pack), applies the
/// epilogue `e`, and writes the result to `out`.
///
/// `input` is a u8 map (an image, `[h][w][4]`, if `s.input_nchw`), and `zero` its zero point. The sums are
/// those of raw bytes times weights: the caller subtracts the contribution of `zero` through `e.shift`.
///
/// # Errors
/// If the shape is invalid, the machine does not support `isa`, or a slice is shorter than its shape
/// requires.
#[allow(clippy::too_many_arguments)]
pub fn conv(
    isa: Isa,
    s: &ConvShape,
    weights: &[i8],
    input: &[u8],
    zero: u8,
    e: &Finish<'_>,
    out: &mut Out<'_>,
    scratch: &mut [u8],
    pool: &Pool,
) -> Result<(), KernelError> {
    if !isa.runs_here() {
        return Err(KernelError::Isa { isa });
    }
    conv_on(Machine::of(isa), s, weights, input, zero, e, out, scratch, pool)
}

/// Like [`conv`], by the kernels of `machine`, which this machine must support.
#[allow(clippy::too_many_arguments)]
pub(super) fn conv_on(
    machine: Machine,
    s: &ConvShape,
    weights: &[i8],
    input: &[u8],
    zero: u8,
    e: &Finish<'_>,
    out: &mut Out<'_>,
    scratch: &mut [u8],
    pool: &Pool,
) -> Result<(), KernelError> {
    check(s)?;
    let layout = Layout::new(s);
    let weights = take("packed weight", weights, packed_len(s))?;
    let input = take("input", input, layout.blocks * s.h * s.w * layout.pixel)?;
    let scratch = take_mut("scratch", scratch, layout.copy_len(s))?;
    let len = padded(s.c_out) * s.out_h() * s.out_w();
    e.check(padded(s.c_out), len)?;
    out.check(len)?;
    let (x, x_row, x_block) = if s.pad == 0 {
        (input.as_ptr(), s.w * layout.pixel, s.h * s.w * layout.pixel)
    } else {
        pad_input(s, &layout, input, zero, scratch, pool);
        let row = layout.columns * layout.pixel;
        (scratch.as_ptr(), row, layout.rows * row)
    };
    let (blocks, groups) = input_blocks(s);
    // If whole pixels are read, the taps of a kernel row are one contiguous run of bytes.
    let whole = groups * GROUP == layout.pixel;
    let work = Conv {
        s: *s,
        group: layout.group,
        x,
        x_row,
        x_block,
        pixel: layout.pixel,
        blocks,
        taps: if whole { 1 } else { s.kernel },
        run: if whole { s.kernel * groups } else { groups },
        w: weights.as_ptr(),
        per_block: per_block(s),
        finish: Store::new(e, out),
        threads: pool.threads(),
    };
    // SAFETY: this machine supports `machine`; every slice has the length its shape requires; the padded copy
    // extends to the end of the last window, and without padding the input itself does.
    unsafe { run(machine, &work, work.threads, pool) }
    Ok(())
}

/// Copies `input` into `copy`, surrounded by `zero`.
fn pad_input(s: &ConvShape, layout: &Layout, input: &[u8], zero: u8, copy: &mut [u8], pool: &Pool) {
    let (from_row, to_row) = (s.w * layout.pixel, layout.columns * layout.pixel);
    let left = (s.pad * layout.pixel).min(to_row);
    pool.for_each_chunk(copy, to_row, &|row, to| {
        let (block, y) = (row / layout.rows, row % layout.rows);
        match y.checked_sub(s.pad).filter(|&y| y < s.h) {
            None => to.fill(zero),
            Some(y) => {
                let from = &input[(block * s.h + y) * from_row..][..from_row.min(to_row - left)];
                let end = left + from.len();
                to[..left].fill(zero);
                to[left..end].copy_from_slice(from);
                to[end..].fill(zero);
            }
        }
    });
}

struct Conv {
    s: ConvShape,
    group: usize,
    x: *const u8,
    x_row: usize,
    x_block: usize,
    /// Bytes from one tap to the next.
    pixel: usize,
    blocks: usize,
    /// Runs of bytes per kernel row, and groups of four bytes in each.
    taps: usize,
    run: usize,
    w: *const i8,
    per_block: usize,
    finish: Store,
    threads: usize,
}

// SAFETY: the pointers come from slices borrowed for the whole run; threads read the inputs and write
// disjoint rows of the output.
unsafe impl Sync for Conv {}

/// One tile's position.
struct Spot {
    x: *const u8,
    w: *const i8,
    /// First channel of the first output block, and the tile's first element in the output.
    channel: usize,
    at: usize,
}

impl DotWork for Conv {
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
                match (self.pixel, self.s.stride) {
                    (BLOCK, 1) => self.rows::<D, BLOCK>(first, count, rows),
                    (BLOCK, 2) => self.rows::<D, { 2 * BLOCK }>(first, count, rows),
                    (IMAGE, 1) => self.rows::<D, IMAGE>(first, count, rows),
                    (IMAGE, 2) => self.rows::<D, { 2 * IMAGE }>(first, count, rows),
                    _ => self.rows::<D, 0>(first, count, rows),
                }
            }
        }
    }
}

impl Conv {
    /// Output rows `rows` of `count` blocks starting at block `first`. The inputs of two neighbouring pixels
    /// are `STEP` bytes apart; 0 if that is not known at compile time.
    #[inline(always)]
    unsafe fn rows<D: Dot, const STEP: usize>(
        &self,
        first: usize,
        count: usize,
        rows: std::ops::Range<usize>,
    ) {
        let ow = self.s.out_w();
        let map = self.s.out_h() * ow * BLOCK;
        let step = self.pixel * self.s.stride;
        // SAFETY: the caller guarantees the CPU features.
        let mut sums = unsafe { [D::splat(0.0); 4 * MOST] };
        for y in rows {
            let (mut block, mut left) = (first, count);
            while left > 0 {
                let (q, most) = match left {
                    _ if STEP == 0 => (1, 1),
                    4.. if D::PIXELS[2] > 0 && STEP >= BLOCK => (4, D::PIXELS[2]),
                    2.. if D::PIXELS[1] > 0 => (2, D::PIXELS[1]),
                    _ => (1, D::PIXELS[0]),
                };
                let mut column = 0;
                while column < ow {
                    let pixels = next_run(ow - column, most);
                    // SAFETY: the offsets lie inside the input and the weights, whose lengths `conv` checked.
                    let spot = unsafe {
                        Spot {
                            x: self.x.add(y * self.s.stride * self.x_row + column * step),
                            w: self.w.add(block * self.per_block),
                            channel: block * BLOCK,
                            at: block * map + (y * ow + column) * BLOCK,
                        }
                    };
                    let place = (self, &spot, &mut sums);
                    // SAFETY: the tile lies inside its maps.
                    unsafe {
                        match q {
                            _ if STEP == 0 => tile::<D, 1, 1, STEP>(place),
                            4 if STEP >= BLOCK => {
                                with_pixels!(pixels, D::PIXELS[2], tile::<D, 4, STEP>(place))
                            }
                            2 => with_pixels!(pixels, D::PIXELS[1], tile::<D, 2, STEP>(place)),
                            _ => with_pixels!(pixels, D::PIXELS[0], tile::<D, 1, STEP>(place)),
                        }
                        for j in 0..q {
                            let (scale, shift) = self.finish.factors::<D>(spot.channel + j * BLOCK);
                            for p in 0..pixels {
                                let at = spot.at + j * map + p * BLOCK;
                                self.finish.store::<D>(sums[j * MOST + p], scale, shift, at);
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

/// Sums of `P` pixels of `Q` blocks, into `out[q * MOST + p]`. Instantiated for every tile size, so the
/// epilogue is kept outside, where it is compiled only once.
#[inline(always)]
unsafe fn tile<D: Dot, const P: usize, const Q: usize, const STEP: usize>(
    (work, spot, out): (&Conv, &Spot, &mut [D::Floats; 4 * MOST]),
) {
    // SAFETY: the caller placed the tile inside its maps, and the loops follow the shape of the weights.
    unsafe {
        let mut acc = [[D::start(spot.w); Q]; P];
        for q in 0..Q {
            let start = D::start(spot.w.add(q * work.per_block));
            for p in 0..P {
                acc[p][q] = start;
            }
        }
        let mut w = spot.w.add(SUMS);
        for block in 0..work.blocks {
            for row in 0..work.s.kernel {
                for tap in 0..work.taps {
                    let x = spot.x.add(block * work.x_block + row * work.x_row + tap * work.pixel);
                    for i in 0..work.run {
                        let mut weights = [D::weights(w); Q];
                        for q in 1..Q {
                            weights[q] = D::weights(w.add(q * work.per_block));
                        }
                        for p in 0..P {
                            let v = D::spread(x.add(p * STEP + i * GROUP));
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

/// [`Finish`] and [`Out`] as pointers into whole maps, for kernels that write pieces of them from several
/// threads.
#[derive(Clone, Copy)]
pub(super) struct Store {
    scale: *const f32,
    shift: *const f32,
    add: *const u8,
    add_factor: f32,
    terms: *const f32,
    terms_factor: f32,
    bytes: *mut u8,
    floats: *mut f32,
}

impl Store {
    /// `e` and `out` must already be checked against the output's shape.
    pub(super) fn new(e: &Finish<'_>, out: &mut Out<'_>) -> Store {
        let mut store = Store {
            scale: e.scale.as_ptr(),
            shift: e.shift.as_ptr(),
            add: e.add.map_or(std::ptr::null(), |(map, _)| map.as_ptr()),
            add_factor: e.add.map_or(0.0, |(_, factor)| factor),
            terms: e.terms.map_or(std::ptr::null(), |(map, _)| map.as_ptr()),
            terms_factor: e.terms.map_or(0.0, |(_, factor)| factor),
            bytes: std::ptr::null_mut(),
            floats: std::ptr::null_mut(),
        };
        match out {
            Out::Bytes(out) => store.bytes = out.as_mut_ptr(),
            Out::Floats(out) => store.floats = out.as_mut_ptr(),
            Out::Onto(out) => {
                store.floats = out.as_mut_ptr();
                store.terms = store.floats;
                store.terms_factor = 1.0;
            }
        }
        store
    }

    /// Scale and shift of the output block whose first channel is `channel`.
    ///
    /// # Safety
    /// The CPU supports the features of `D`; the block belongs to the output.
    #[inline(always)]
    pub(super) unsafe fn factors<D: Dot>(&self, channel: usize) -> (D::Floats, D::Floats) {
        // SAFETY: both slices hold all the output's channels, in whole blocks.
        unsafe { (D::load(self.scale.add(channel)), D::load(self.shift.add(channel))) }
    }

    /// Applies the epilogue to one pixel of one block and stores it at element `at` of the output.
    ///
    /// # Safety
    /// The CPU supports the features of `D`; `at + 16` lies inside the map; no other thread touches these
    /// elements.
    #[inline(always)]
    pub(super) unsafe fn store<D: Dot>(&self, x: D::Floats, scale: D::Floats, shift: D::Floats, at: usize) {
        // SAFETY: inside the output map; the added maps have the same size.
        unsafe {
            let mut t = D::add(D::mul(x, scale), shift);
            if !self.add.is_null() {
                t = D::add(t, D::mul(D::load_bytes(self.add.add(at)), D::splat(self.add_factor)));
            }
            if !self.terms.is_null() {
                t = D::add(t, D::mul(D::load(self.terms.add(at)), D::splat(self.terms_factor)));
            }
            if self.bytes.is_null() {
                D::store(t, self.floats.add(at));
            } else {
                D::store_bytes(t, self.bytes.add(at));
            }
        }
    }
}
