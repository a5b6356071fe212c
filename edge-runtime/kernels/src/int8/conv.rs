//! Convolution of u8 maps with i8 weights, over a padded copy of the input.
#![allow(unsafe_code)]

use super::dot::Machine;
use super::sum::{Reach, Source, pixel, sum};
use super::{BLOCK, Finish, IMAGE, Out, take, take_mut};
use crate::pool::Pool;
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
}

impl Layout {
    fn new(s: &ConvShape) -> Layout {
        Layout {
            pixel: pixel(s),
            blocks: s.c_in.div_ceil(BLOCK),
            rows: (s.out_h() - 1) * s.stride + s.kernel,
            columns: (s.out_w() - 1) * s.stride + s.kernel,
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

/// Computes the convolution `s` of `input` with `weights` as packed by [`pack`](super::pack), multiplies the
/// sums with `scale` (per output channel, padded to whole blocks), applies the epilogue `e`, and writes the
/// result to `out`.
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
    scale: &[f32],
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
    conv_on(Machine::of(isa), s, weights, scale, input, zero, e, out, scratch, pool)
}

/// Like [`conv`], by the kernels of `machine`, which this machine must support.
#[allow(clippy::too_many_arguments)]
pub(super) fn conv_on(
    machine: Machine,
    s: &ConvShape,
    weights: &[i8],
    scale: &[f32],
    input: &[u8],
    zero: u8,
    e: &Finish<'_>,
    out: &mut Out<'_>,
    scratch: &mut [u8],
    pool: &Pool,
) -> Result<(), KernelError> {
    check(s)?;
    let layout = Layout::new(s);
    let input = take("input", input, layout.blocks * s.h * s.w * layout.pixel)?;
    let scratch = take_mut("scratch", scratch, layout.copy_len(s))?;
    let (map, reach) = if s.pad == 0 {
        (input, Reach { row: s.w * layout.pixel, block: s.h * s.w * layout.pixel })
    } else {
        pad_input(s, &layout, input, zero, scratch, pool);
        let row = layout.columns * layout.pixel;
        (&*scratch, Reach { row, block: layout.rows * row })
    };
    let source = Source::new(s, weights, scale, map)?;
    // SAFETY: this machine supports `machine`; the padded copy extends to the end of the last window, and
    // without padding the input itself does.
    unsafe { sum(machine, s, &[source], reach, e, out, pool) }
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
