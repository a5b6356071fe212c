//! Conversion to the blocked layout, and operations that only copy.

use super::isa::{Isa, KernelError, take, take_mut};
use crate::pool::Pool;
use bundles::plan::Shape;

/// Number of floats in a blocked map of shape `x`, saturating.
pub fn blocked_len(isa: Isa, x: Shape) -> usize {
    Shape::new(isa.padded(x.c), x.h, x.w).len()
}

/// [`blocked_len`] of a map that kernels accept: every axis from 1 to 2^24, which keeps all index
/// computations far from overflow.
pub(super) fn checked_len(isa: Isa, x: Shape) -> Result<usize, KernelError> {
    if [x.c, x.h, x.w].into_iter().any(|axis| axis == 0 || axis > 1 << 24) {
        return Err(KernelError::Shape { what: "map axis is zero or above 2^24" });
    }
    Ok(blocked_len(isa, x))
}

/// Converts plain `(c, h, w)` to the blocked layout; padding channels become zero.
///
/// # Errors
/// If a slice is shorter than its shape requires.
pub fn to_blocked(isa: Isa, x: Shape, nchw: &[f32], out: &mut [f32], pool: &Pool) -> Result<(), KernelError> {
    let len = checked_len(isa, x)?;
    let nchw = take("input", nchw, x.len())?;
    let out = take_mut("output", out, len)?;
    let (cb, pixels) = (isa.block(), x.h * x.w);
    pool.for_each_chunk(out, pixels * cb, &|block, out| {
        for (p, pixel) in out.chunks_exact_mut(cb).enumerate() {
            for (c, v) in pixel.iter_mut().enumerate() {
                let channel = block * cb + c;
                *v = if channel < x.c { nchw[channel * pixels + p] } else { 0.0 };
            }
        }
    });
    Ok(())
}

/// Keeps every `stride`-th row and column of `x`, starting with the first.
///
/// # Errors
/// If the stride is zero or a slice is shorter than its shape requires.
pub fn subsample(
    isa: Isa,
    x: Shape,
    stride: usize,
    input: &[f32],
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    if stride == 0 {
        return Err(KernelError::Shape { what: "a stride of zero" });
    }
    let cb = isa.block();
    let (h, w) = (x.h.div_ceil(stride), x.w.div_ceil(stride));
    let input = take("input", input, checked_len(isa, x)?)?;
    let out = take_mut("output", out, blocked_len(isa, Shape::new(x.c, h, w)))?;
    pool.for_each_chunk(out, w * cb, &|row, out| {
        let from = &input[(row / h * x.h + row % h * stride) * x.w * cb..][..x.w * cb];
        for (to, from) in out.chunks_exact_mut(cb).zip(from.chunks(cb * stride)) {
            to.copy_from_slice(&from[..cb]);
        }
    });
    Ok(())
}

/// Adds `front` channels of zeros before and `back` after the channels of `x`.
///
/// # Errors
/// If a slice is shorter than its shape requires.
pub fn pad_channels(
    isa: Isa,
    x: Shape,
    front: usize,
    back: usize,
    input: &[f32],
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    let c_out = x.c.saturating_add(front).saturating_add(back);
    let input = take("input", input, checked_len(isa, x)?)?;
    let out = take_mut("output", out, checked_len(isa, Shape::new(c_out, x.h, x.w))?)?;
    let (cb, pixels) = (isa.block(), x.h * x.w);
    pool.for_each_chunk(out, pixels * cb, &|block, out| {
        let first = block * cb;
        if front.is_multiple_of(cb) && first >= front && first - front + cb <= x.c {
            out.copy_from_slice(&input[(first - front) * pixels..][..pixels * cb]);
            return;
        }
        out.fill(0.0);
        for c in 0..cb {
            let Some(from) = (first + c).checked_sub(front).filter(|&from| from < x.c) else { continue };
            let source = &input[from / cb * pixels * cb..][..pixels * cb];
            for (to, source) in out.chunks_exact_mut(cb).zip(source.chunks_exact(cb)) {
                to[c] = source[from % cb];
            }
        }
    });
    Ok(())
}
