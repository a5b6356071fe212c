//! Max, average and global average pooling over blocked maps.

use super::blocked::{blocked_len, checked_len};
use super::isa::{Isa, KernelError, take, take_mut};
use crate::pool::Pool;
use bundles::plan::{Op, Shape};

/// A square pooling window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width.
    pub kernel: usize,
    /// Step in both directions.
    pub stride: usize,
    /// Padding on every side; never wins a max-pool. Average pools take none.
    pub pad: usize,
}

/// Maximum over each window of `x`; padding never wins.
///
/// # Errors
/// A window that does not fit, padding above half the kernel, or a slice shorter than its shape.
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
        .map_err(|_| KernelError::Shape { what: "a max-pool window that does not fit its map" })?;
    let input = take("input", input, checked_len(isa, x)?)?;
    let out = take_mut("output", out, blocked_len(isa, y))?;
    reduce_windows(isa.block(), x, y, window, input, out, pool, f32::NEG_INFINITY, 1.0, f32::max);
    Ok(())
}

/// Mean over each window of `x`, without padding.
///
/// # Errors
/// A window that does not fit or has padding, or a slice shorter than its shape.
pub fn avg_pool(
    isa: Isa,
    x: Shape,
    window: Window,
    input: &[f32],
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    let Window { kernel, stride, pad } = window;
    let misfit = KernelError::Shape { what: "an average-pool window that does not fit its map" };
    if pad != 0 {
        return Err(misfit);
    }
    let y = Op::AvgPool { kernel, stride }.output(x).map_err(|_| misfit)?;
    let input = take("input", input, checked_len(isa, x)?)?;
    let out = take_mut("output", out, blocked_len(isa, y))?;
    let mean = 1.0 / (kernel * kernel) as f32;
    reduce_windows(isa.block(), x, y, window, input, out, pool, 0.0, mean, |a, b| a + b);
    Ok(())
}

/// Mean over height and width: `(c, h, w)` to a blocked `(c, 1, 1)`.
///
/// # Errors
/// A map without pixels, or a slice shorter than its shape.
pub fn global_avg_pool(
    isa: Isa,
    x: Shape,
    input: &[f32],
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    let cb = isa.block();
    let input = take("input", input, checked_len(isa, x)?)?;
    let out = take_mut("output", out, isa.padded(x.c))?;
    let pixels = x.h * x.w;
    let mean = 1.0 / pixels as f32;
    pool.for_each_chunk(out, cb, &|block, out| {
        out.fill(0.0);
        for pixel in input[block * pixels * cb..][..pixels * cb].chunks_exact(cb) {
            for (out, x) in out.iter_mut().zip(pixel) {
                *out += x;
            }
        }
        out.iter_mut().for_each(|out| *out *= mean);
    });
    Ok(())
}

/// Folds each window with `f` from `start` and multiplies the result by `factor`.
#[allow(clippy::too_many_arguments)]
fn reduce_windows(
    cb: usize,
    x: Shape,
    y: Shape,
    window: Window,
    input: &[f32],
    out: &mut [f32],
    pool: &Pool,
    start: f32,
    factor: f32,
    f: impl Fn(f32, f32) -> f32 + Sync,
) {
    let Window { kernel, stride, pad } = window;
    // The part of the window at output `o` that lies inside `n` pixels.
    let inside = |o: usize, n: usize| {
        let first = (o * stride).saturating_sub(pad);
        first..(o * stride + kernel).saturating_sub(pad).min(n)
    };
    pool.for_each_chunk(out, y.w * cb, &|row, out| {
        let (block, oy) = (row / y.h, row % y.h);
        for (ox, out) in out.chunks_exact_mut(cb).enumerate() {
            out.fill(start);
            for iy in inside(oy, x.h) {
                let line = &input[(block * x.h + iy) * x.w * cb..][..x.w * cb];
                for ix in inside(ox, x.w) {
                    for (out, x) in out.iter_mut().zip(&line[ix * cb..][..cb]) {
                        *out = f(*out, *x);
                    }
                }
            }
            out.iter_mut().for_each(|out| *out *= factor);
        }
    });
}
