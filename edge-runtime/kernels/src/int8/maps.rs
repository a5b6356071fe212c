//! Operations on u8 maps other than convolution: quantisation, pooling, and elementwise operations.
#![allow(unsafe_code)]

use super::array::{clamp, round};
use super::dot::{Dot, DotWork, Machine, run};
use super::store::Store;
use super::{BLOCK, Finish, IMAGE, Out, padded, take, take_mut};
use crate::pool::{Pool, share};
use crate::{Isa, KernelError, Window};
use bundles::plan::{Op, Shape};
use std::ops::Range;

/// Bytes of a u8 map, or floats of a sum, of shape `x`; saturating.
pub fn map_len(x: Shape) -> usize {
    Shape::new(padded(x.c), x.h, x.w).len()
}

/// Quantisation parameters of a map: its bytes stand for `scale * (q - zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// Difference between two adjacent bytes; positive.
    pub scale: f32,
    /// The zero point: the byte that stands for zero.
    pub zero: u8,
}

/// [`map_len`] of a map that kernels accept: every axis from 1 to 2^24.
fn checked_len(x: Shape) -> Result<usize, KernelError> {
    if [x.c, x.h, x.w].into_iter().any(|axis| axis == 0 || axis > 1 << 24) {
        return Err(KernelError::Shape { what: "map axis is zero or above 2^24" });
    }
    Ok(map_len(x))
}

/// Quantises a plain f32 `(c, h, w)`: to an image (`[h][w][4]`) if `image`, otherwise to blocks.
///
/// # Errors
/// If an image has more than four channels or a slice is shorter than its shape requires.
pub fn quantise(
    isa: Isa,
    x: Shape,
    to: Grid,
    image: bool,
    input: &[f32],
    out: &mut [u8],
    pool: &Pool,
) -> Result<(), KernelError> {
    let len = checked_len(x)?;
    let input = take("input", input, x.len())?;
    let inverse = 1.0 / to.scale;
    let (zero, pixels) = (f32::from(to.zero), x.h * x.w);
    if !image {
        let out = take_mut("output", out, len)?;
        pool.for_each_chunk(out, pixels * BLOCK, &|block, out| {
            for (p, pixel) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
                for (channel, q) in (block * BLOCK..).zip(pixel) {
                    let x = if channel < x.c { input[channel * pixels + p] } else { 0.0 };
                    *q = round(clamp(x * inverse + zero));
                }
            }
        });
        return Ok(());
    }
    if x.c > IMAGE {
        return Err(KernelError::Shape { what: "int8 image with more than four channels" });
    }
    let out = take_mut("output", out, IMAGE * pixels)?;
    // Missing channels repeat the first one: their weights are zero, and every pixel is one word.
    let channels = std::array::from_fn(|c| &input[if c < x.c { c * pixels } else { 0 }..][..pixels]);
    let work = Words { channels, inverse, zero, out: out.as_mut_ptr(), pixels, threads: pool.threads() };
    let machine = if isa.runs_here() { Machine::of(isa) } else { Machine::Portable };
    // SAFETY: this machine supports `machine`; `out` stays borrowed until `run` returns.
    unsafe { run(machine, &work, work.threads, pool) };
    Ok(())
}

/// An image's pixels as words of four bytes.
struct Words<'a> {
    channels: [&'a [f32]; IMAGE],
    inverse: f32,
    zero: f32,
    out: *mut u8,
    pixels: usize,
    threads: usize,
}

// SAFETY: every part accesses only its own pixels of `out`.
unsafe impl Sync for Words<'_> {}

impl DotWork for Words<'_> {
    #[inline(always)]
    unsafe fn part<D: Dot>(&self, part: usize) {
        let mine = share(self.pixels, part, self.threads);
        // SAFETY: the ranges of different parts are disjoint and end at the last pixel.
        let out =
            unsafe { std::slice::from_raw_parts_mut(self.out.add(IMAGE * mine.start), IMAGE * mine.len()) };
        let [a, b, c, d] = self.channels;
        let (a, b) = (&a[mine.clone()], &b[mine.clone()]);
        let (c, d) = (&c[mine.clone()], &d[mine]);
        for ((((out, a), b), c), d) in out.as_chunks_mut::<IMAGE>().0.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            let mut word = 0;
            for (at, x) in [a, b, c, d].into_iter().enumerate() {
                word |= u32::from(round(clamp(x * self.inverse + self.zero))) << (8 * at);
            }
            *out = word.to_le_bytes();
        }
    }
}

/// Multiplies each element of a u8 map of shape `x` with `scale` (per channel, padded to whole blocks) and
/// applies `e` to it: requantisation, per-channel affines, terms of a sum.
///
/// # Errors
/// If a slice is shorter than its shape requires.
pub fn remap(
    isa: Isa,
    x: Shape,
    scale: &[f32],
    input: &[u8],
    e: &Finish<'_>,
    out: &mut Out<'_>,
    pool: &Pool,
) -> Result<(), KernelError> {
    let len = checked_len(x)?;
    let input = take("input", input, len)?;
    let scale = take("scale", scale, padded(x.c))?;
    e.check(padded(x.c), len)?;
    out.check(len)?;
    let machine = if isa.runs_here() { Machine::of(isa) } else { Machine::Portable };
    let work = Remap { scale, input, row: x.w, height: x.h, finish: Store::new(e, out) };
    // SAFETY: this machine supports `machine`; every slice was checked and stays borrowed until `run`
    // returns.
    unsafe { run(machine, &work, len / (x.w * BLOCK), pool) };
    Ok(())
}

/// Each part is one row of one block.
struct Remap<'a> {
    scale: &'a [f32],
    input: &'a [u8],
    row: usize,
    height: usize,
    finish: Store,
}

// SAFETY: the pointers in `finish` come from slices borrowed for the whole run; parts write disjoint rows.
unsafe impl Sync for Remap<'_> {}

impl DotWork for Remap<'_> {
    #[inline(always)]
    unsafe fn part<D: Dot>(&self, part: usize) {
        let start = part * self.row * BLOCK;
        let input = &self.input[start..][..self.row * BLOCK];
        // SAFETY: the row lies inside every map, and only this part writes it.
        unsafe {
            let channel = part / self.height * BLOCK;
            let (scale, shift) =
                (D::load(self.scale[channel..][..BLOCK].as_ptr()), D::load(self.finish.shift(channel)));
            for at in (0..input.len()).step_by(BLOCK) {
                let x = D::load_bytes(input[at..][..BLOCK].as_ptr());
                self.finish.store::<D>(D::add(D::mul(x, scale), shift), start + at);
            }
        }
    }
}

/// Maximum over each window of `x`; padding never wins.
///
/// # Errors
/// If the window does not fit or a slice is shorter than its shape requires.
pub fn max_pool(
    x: Shape,
    window: Window,
    input: &[u8],
    out: &mut [u8],
    pool: &Pool,
) -> Result<(), KernelError> {
    let Window { kernel, stride, pad } = window;
    let y = Op::MaxPool { kernel, stride, pad }
        .output(x)
        .map_err(|_| KernelError::Shape { what: "max-pool window does not fit its map" })?;
    windows(x, y, window, input, out, pool, |view| {
        let mut most = [0; BLOCK];
        for i in view.rows {
            for pixel in &view.map[i * x.w..][view.columns.clone()] {
                for (most, q) in most.iter_mut().zip(pixel) {
                    *most = (*most).max(*q);
                }
            }
        }
        most
    })
}

/// Mean over each window of `x`, without padding, rounded to the nearest byte (ties to even).
///
/// # Errors
/// If the window does not fit or has padding, or a slice is shorter than its shape requires.
pub fn avg_pool(
    x: Shape,
    window: Window,
    input: &[u8],
    out: &mut [u8],
    pool: &Pool,
) -> Result<(), KernelError> {
    let Window { kernel, stride, pad } = window;
    let misfit = KernelError::Shape { what: "average-pool window does not fit its map" };
    if pad != 0 {
        return Err(misfit);
    }
    let y = Op::AvgPool { kernel, stride }.output(x).map_err(|_| misfit)?;
    let part = 1.0 / (kernel * kernel) as f32;
    windows(x, y, window, input, out, pool, |view| {
        let mut sums = [0u32; BLOCK];
        for i in view.rows {
            for pixel in &view.map[i * x.w..][view.columns.clone()] {
                for (sum, q) in sums.iter_mut().zip(pixel) {
                    *sum = sum.wrapping_add(u32::from(*q));
                }
            }
        }
        sums.map(|sum| round(clamp(sum as f32 * part)))
    })
}

/// The part of a window that lies inside one block of a map.
struct View<'a> {
    map: &'a [[u8; BLOCK]],
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Writes `f` of its window to every pixel of the output.
fn windows(
    x: Shape,
    y: Shape,
    window: Window,
    input: &[u8],
    out: &mut [u8],
    pool: &Pool,
    f: impl Fn(View<'_>) -> [u8; BLOCK] + Sync,
) -> Result<(), KernelError> {
    let input = take("input", input, checked_len(x)?)?.as_chunks::<BLOCK>().0;
    let out = take_mut("output", out, map_len(y))?;
    let Window { kernel, stride, pad } = window;
    let inside = |o: usize, n: usize| {
        (o * stride).saturating_sub(pad)..(o * stride + kernel).saturating_sub(pad).min(n)
    };
    pool.for_each_chunk(out, y.w * BLOCK, &|row, out| {
        let map = &input[row / y.h * x.h * x.w..][..x.h * x.w];
        for (ox, to) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            *to = f(View { map, rows: inside(row % y.h, x.h), columns: inside(ox, x.w) });
        }
    });
    Ok(())
}

/// Keeps every `stride`-th row and column of `x`, starting with the first.
///
/// # Errors
/// If the stride is zero or a slice is shorter than its shape requires.
pub fn subsample(
    x: Shape,
    stride: usize,
    input: &[u8],
    out: &mut [u8],
    pool: &Pool,
) -> Result<(), KernelError> {
    let y =
        Op::Subsample { stride }.output(x).map_err(|_| KernelError::Shape { what: "a stride of zero" })?;
    let window = Window { kernel: 1, stride, pad: 0 };
    windows(x, y, window, input, out, pool, |view| view.map[view.rows.start * x.w + view.columns.start])
}

/// Adds `front` channels of `zero` before and `back` after the channels of `x`.
///
/// # Errors
/// If a slice is shorter than its shape requires.
#[allow(clippy::too_many_arguments)]
pub fn pad_channels(
    x: Shape,
    front: usize,
    back: usize,
    zero: u8,
    input: &[u8],
    out: &mut [u8],
    pool: &Pool,
) -> Result<(), KernelError> {
    let c_out = x.c.saturating_add(front).saturating_add(back);
    let input = take("input", input, checked_len(x)?)?;
    let out = take_mut("output", out, checked_len(Shape::new(c_out, x.h, x.w))?)?;
    let pixels = x.h * x.w;
    pool.for_each_chunk(out, pixels * BLOCK, &|block, out| {
        out.fill(zero);
        for c in 0..BLOCK {
            let Some(from) = (block * BLOCK + c).checked_sub(front).filter(|&from| from < x.c) else {
                continue;
            };
            let source = &input[from / BLOCK * pixels * BLOCK..][..pixels * BLOCK];
            for (to, source) in out.chunks_exact_mut(BLOCK).zip(source.chunks_exact(BLOCK)) {
                to[c] = source[from % BLOCK];
            }
        }
    });
    Ok(())
}

/// Mean over height and width, as floats: a u8 map `(c, h, w)` to a plain vector of `c`.
///
/// # Errors
/// If the map has no pixels or a slice is shorter than its shape requires.
pub fn global_avg_pool(
    x: Shape,
    of: Grid,
    input: &[u8],
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    let input = take("input", input, checked_len(x)?)?;
    let out = take_mut("output", out, x.c)?;
    let pixels = x.h * x.w;
    let (part, shift) = (of.scale / pixels as f32, -(f32::from(of.zero) * of.scale));
    pool.for_each_chunk(out, BLOCK, &|block, out| {
        let mut sums = [0u64; BLOCK];
        for pixel in input[block * pixels * BLOCK..][..pixels * BLOCK].as_chunks::<BLOCK>().0 {
            for (sum, q) in sums.iter_mut().zip(pixel) {
                *sum += u64::from(*q);
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = sum as f32 * part + shift;
        }
    });
    Ok(())
}
