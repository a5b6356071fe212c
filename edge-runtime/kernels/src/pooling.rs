//! Max, average and global average pooling over blocked maps.
#![allow(unsafe_code)]

use super::blocked::{blocked_len, checked_len};
use super::isa::{Isa, KernelError, take, take_mut};
use super::simd::{ChunkWork, Simd, load, run_chunks, store};
use crate::pool::Pool;
use bundles::plan::{Op, Shape};

/// A square pooling window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width.
    pub kernel: usize,
    /// Step in both directions.
    pub stride: usize,
    /// Padding on every side; never wins a max-pool. Average pools do not support it.
    pub pad: usize,
}

/// Maximum over each window of `x`; padding never wins.
///
/// # Errors
/// If the window does not fit, the padding exceeds half the kernel, or a slice is shorter than its shape
/// requires.
pub fn max_pool(
    isa: Isa,
    x: Shape,
    window: Window,
    input: &[f32],
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    let Window { kernel, stride, pad } = window;
    let y = Op::MaxPool { kernel, stride, pad }
        .output(x)
        .map_err(|_| KernelError::Shape { what: "max-pool window does not fit its map" })?;
    let input = take("input", input, checked_len(isa, x)?)?;
    let out = take_mut("output", out, blocked_len(isa, y))?;
    let row = y.w * isa.block();
    run_chunks(isa, out, row, &Windows::<true> { x, y, window, input }, pool)
}

/// Mean over each window of `x`, without padding.
///
/// # Errors
/// If the window does not fit or has padding, or a slice is shorter than its shape requires.
pub fn avg_pool(
    isa: Isa,
    x: Shape,
    window: Window,
    input: &[f32],
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    let Window { kernel, stride, pad } = window;
    let misfit = KernelError::Shape { what: "average-pool window does not fit its map" };
    if pad != 0 {
        return Err(misfit);
    }
    let y = Op::AvgPool { kernel, stride }.output(x).map_err(|_| misfit)?;
    let input = take("input", input, checked_len(isa, x)?)?;
    let out = take_mut("output", out, blocked_len(isa, y))?;
    let row = y.w * isa.block();
    run_chunks(isa, out, row, &Windows::<false> { x, y, window, input }, pool)
}

/// Mean over height and width: `(c, h, w)` to a blocked `(c, 1, 1)`.
///
/// # Errors
/// If the map has no pixels or a slice is shorter than its shape requires.
pub fn global_avg_pool(
    isa: Isa,
    x: Shape,
    input: &[f32],
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    let input = take("input", input, checked_len(isa, x)?)?;
    let out = take_mut("output", out, isa.padded(x.c))?;
    run_chunks(isa, out, isa.block(), &Mean { pixels: x.h * x.w, input }, pool)
}

/// Mean over all pixels; a chunk is one block.
struct Mean<'a> {
    pixels: usize,
    input: &'a [f32],
}

impl ChunkWork for Mean<'_> {
    #[inline(always)]
    unsafe fn chunk<V: Simd>(&self, index: usize, out: &mut [f32]) {
        let input = &self.input[index * self.pixels * V::LANES..][..self.pixels * V::LANES];
        // SAFETY: the caller guarantees the CPU features.
        unsafe {
            let mut sum = V::splat(0.0);
            for at in (0..input.len()).step_by(V::LANES) {
                sum = sum.add(load(input, at));
            }
            store(sum.mul(V::splat(1.0 / self.pixels as f32)), out, 0);
        }
    }
}

/// Maximum (`MAX`) or mean over windows; a chunk is one output row of one block.
struct Windows<'a, const MAX: bool> {
    x: Shape,
    y: Shape,
    window: Window,
    input: &'a [f32],
}

impl<const MAX: bool> Windows<'_, MAX> {
    /// The part of the window at output `o` that lies inside `n` pixels, as `(start, end)`.
    #[inline(always)]
    fn inside(&self, o: usize, n: usize) -> (usize, usize) {
        let Window { kernel, stride, pad } = self.window;
        let end = (o * stride + kernel).saturating_sub(pad);
        ((o * stride).saturating_sub(pad), if end < n { end } else { n })
    }
}

impl<const MAX: bool> ChunkWork for Windows<'_, MAX> {
    #[inline(always)]
    unsafe fn chunk<V: Simd>(&self, index: usize, out: &mut [f32]) {
        let (block, oy) = (index / self.y.h, index % self.y.h);
        let row = self.x.w * V::LANES;
        let map = &self.input[block * self.x.h * row..][..self.x.h * row];
        let (top, bottom) = self.inside(oy, self.x.h);
        // SAFETY: the caller guarantees the CPU features.
        unsafe {
            for ox in 0..self.y.w {
                let (left, right) = self.inside(ox, self.x.w);
                let mut t = V::splat(if MAX { f32::NEG_INFINITY } else { 0.0 });
                for y in top..bottom {
                    for x in left..right {
                        let v = load(map, y * row + x * V::LANES);
                        t = if MAX { t.max(v) } else { t.add(v) };
                    }
                }
                if !MAX {
                    t = t.mul(V::splat(1.0 / (self.window.kernel * self.window.kernel) as f32));
                }
                store(t, out, ox * V::LANES);
            }
        }
    }
}
