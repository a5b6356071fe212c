//! Sums of 1x1 convolutions over several u8 maps: all proxies of a node in one pass over its pixels.
//!
//! Each map has its own grid and each kernel its own scales, so the integer sums of two terms cannot be
//! added. They become floats a tile at a time, are added up in a buffer of one tile, and the output is
//! written once.
#![allow(unsafe_code)]

use super::conv::check;
use super::dot::Machine;
use super::sum::{Reach, Source, sum};
use super::{BLOCK, Finish, Out, padded, take};
use crate::pool::Pool;
use crate::{ConvShape, Isa, KernelError, MAX_TERMS};
use bundles::plan::Shape;

/// One term: a map and the kernel applied to it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Term<'a> {
    /// Channels of the map (true count).
    pub channels: usize,
    /// `(c_out, channels, 1, 1)`, packed by [`pack`](super::pack).
    pub weights: &'a [i8],
    /// What the sums are multiplied with, per output channel, padded to whole blocks.
    pub scale: &'a [f32],
    /// The map, in blocks, with the output's height and width.
    pub input: &'a [u8],
}

/// Adds up the 1x1 convolutions `terms`, applies the epilogue `e`, and writes the result, a map of shape `y`,
/// to `out`: `t = sum_0 * scale_0 + shift; t += sum_1 * scale_1; …`, then what else [`Finish`] adds.
///
/// # Errors
/// If there are no terms or more than [`MAX_TERMS`], the shape is invalid, the machine does not support
/// `isa`, or a slice is shorter than its shape requires.
pub fn pointwise(
    isa: Isa,
    y: Shape,
    terms: &[Term<'_>],
    e: &Finish<'_>,
    out: &mut Out<'_>,
    pool: &Pool,
) -> Result<(), KernelError> {
    if !isa.runs_here() {
        return Err(KernelError::Isa { isa });
    }
    pointwise_on(Machine::of(isa), y, terms, e, out, pool)
}

/// Like [`pointwise`], by the kernels of `machine`, which this machine must support.
pub(super) fn pointwise_on(
    machine: Machine,
    y: Shape,
    terms: &[Term<'_>],
    e: &Finish<'_>,
    out: &mut Out<'_>,
    pool: &Pool,
) -> Result<(), KernelError> {
    if terms.is_empty() || terms.len() > MAX_TERMS {
        return Err(KernelError::Shape { what: "no or too many 1x1 convolutions in a sum" });
    }
    let shape = |c_in| ConvShape {
        c_in,
        h: y.h,
        w: y.w,
        c_out: y.c,
        kernel: 1,
        stride: 1,
        pad: 0,
        input_nchw: false,
    };
    let mut sources = [Source::NONE; MAX_TERMS];
    for (source, term) in sources.iter_mut().zip(terms) {
        let s = shape(term.channels);
        check(&s)?;
        let input = take("input", term.input, padded(term.channels) * y.h * y.w)?;
        *source = Source::new(&s, term.weights, term.scale, input)?;
    }
    let reach = Reach { row: y.w * BLOCK, block: y.h * y.w * BLOCK };
    // SAFETY: this machine supports `machine`; there is a term, and every map and kernel was checked.
    unsafe { sum(machine, &shape(BLOCK), &sources[..terms.len()], reach, e, out, pool) }
}
