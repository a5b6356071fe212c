//! Kernels that map pixel to pixel: affine, ReLU, scaled sums.

use super::blocked::checked_len;
use super::isa::{Isa, KernelError, take, take_mut};
use crate::pool::Pool;
use bundles::plan::Shape;

/// Floats per part where the position in the map does not matter.
const CHUNK: usize = 8192;

/// `out = scale[c] * x + shift[c]`, then ReLU if `relu`. `scale` and `shift` are padded to whole blocks.
///
/// # Errors
/// A slice shorter than its shape.
#[allow(clippy::too_many_arguments)]
pub fn affine(
    isa: Isa,
    x: Shape,
    scale: &[f32],
    shift: &[f32],
    relu: bool,
    input: &[f32],
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    let cb = isa.block();
    let scale = take("scale", scale, isa.padded(x.c))?;
    let shift = take("shift", shift, isa.padded(x.c))?;
    let input = take("input", input, checked_len(isa, x)?)?;
    let out = take_mut("output", out, checked_len(isa, x)?)?;
    let row = x.w * cb;
    pool.for_each_chunk(out, row, &|index, out| {
        let block = index / x.h * cb;
        let (scale, shift) = (&scale[block..][..cb], &shift[block..][..cb]);
        let input = &input[index * row..][..row];
        for (out, input) in out.chunks_exact_mut(cb).zip(input.chunks_exact(cb)) {
            for (((out, x), scale), shift) in out.iter_mut().zip(input).zip(scale).zip(shift) {
                let t = x * scale + shift;
                *out = if relu { t.max(0.0) } else { t };
            }
        }
    });
    Ok(())
}

/// `max(x, 0)` in place.
pub fn relu(_isa: Isa, data: &mut [f32], pool: &Pool) {
    pool.for_each_chunk(data, CHUNK, &|_, part| {
        for x in part {
            *x = x.max(0.0);
        }
    });
}

/// `out = coef * x`, plus what `out` held if `accumulate`, then ReLU if `relu`; both of `len` floats.
///
/// # Errors
/// A slice shorter than `len`.
#[allow(clippy::too_many_arguments)]
pub fn add_scaled(
    _isa: Isa,
    len: usize,
    input: &[f32],
    coef: f32,
    accumulate: bool,
    relu: bool,
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    let input = take("input", input, len)?;
    let out = take_mut("output", out, len)?;
    pool.for_each_chunk(out, CHUNK, &|index, out| {
        for (out, x) in out.iter_mut().zip(&input[index * CHUNK..]) {
            let t = coef * x + if accumulate { *out } else { 0.0 };
            *out = if relu { t.max(0.0) } else { t };
        }
    });
    Ok(())
}
