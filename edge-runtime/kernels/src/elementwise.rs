//! Elementwise kernels: affine and scaled sums, each followed by ReLU if asked for.
#![allow(unsafe_code)]

use super::blocked::checked_len;
use super::isa::{Isa, KernelError, take, take_mut};
use super::simd::{ChunkWork, Simd, load, run_chunks, store};
use crate::pool::Pool;
use bundles::plan::Shape;

/// Floats per chunk where the position in the map does not matter.
const CHUNK: usize = 8192;

/// `out = scale[c] * x + shift[c]`, followed by ReLU if `relu`. `scale` and `shift` are padded to whole
/// blocks.
///
/// # Errors
/// If a slice is shorter than its shape requires.
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
    let len = checked_len(isa, x)?;
    let scale = take("scale", scale, isa.padded(x.c))?;
    let shift = take("shift", shift, isa.padded(x.c))?;
    let input = take("input", input, len)?;
    let out = take_mut("output", out, len)?;
    let row = x.w * isa.block();
    run_chunks(isa, out, row, &Affine { height: x.h, row, scale, shift, relu, input }, pool)
}

struct Affine<'a> {
    height: usize,
    row: usize,
    scale: &'a [f32],
    shift: &'a [f32],
    relu: bool,
    input: &'a [f32],
}

impl ChunkWork for Affine<'_> {
    #[inline(always)]
    unsafe fn chunk<V: Simd>(&self, index: usize, out: &mut [f32]) {
        let channel = index / self.height * V::LANES;
        let input = &self.input[index * self.row..];
        // SAFETY: the caller guarantees the CPU features.
        unsafe {
            let (scale, shift) = (load::<V>(self.scale, channel), load::<V>(self.shift, channel));
            for at in (0..out.len()).step_by(V::LANES) {
                let t = shift.fma(load(input, at), scale);
                store(if self.relu { t.max(V::splat(0.0)) } else { t }, out, at);
            }
        }
    }
}

/// `out = coef * x`, plus the previous `out` if `accumulate`, followed by ReLU if `relu`; both of `len`
/// floats.
///
/// # Errors
/// If a slice is shorter than `len`.
#[allow(clippy::too_many_arguments)]
pub fn add_scaled(
    isa: Isa,
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
    run_chunks(isa, out, CHUNK, &AddScaled { input, coef, accumulate, relu }, pool)
}

struct AddScaled<'a> {
    input: &'a [f32],
    coef: f32,
    accumulate: bool,
    relu: bool,
}

impl ChunkWork for AddScaled<'_> {
    #[inline(always)]
    unsafe fn chunk<V: Simd>(&self, index: usize, out: &mut [f32]) {
        let input = &self.input[index * CHUNK..];
        let whole = out.len() / V::LANES * V::LANES;
        // SAFETY: the caller guarantees the CPU features.
        unsafe {
            let (coef, zero) = (V::splat(self.coef), V::splat(0.0));
            for at in (0..whole).step_by(V::LANES) {
                let before = if self.accumulate { load(out, at) } else { zero };
                let t = before.fma(load(input, at), coef);
                store(if self.relu { t.max(zero) } else { t }, out, at);
            }
        }
        for (out, x) in out[whole..].iter_mut().zip(&input[whole..]) {
            let t = self.coef * x + if self.accumulate { *out } else { 0.0 };
            *out = if self.relu { t.max(0.0) } else { t };
        }
    }
}
