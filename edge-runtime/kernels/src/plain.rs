//! Reference convolution in plain loops, simple enough to verify by eye. Faster kernels are tested against
//! it.
//!
//! Weights are packed as `[c_out / cb][blocks][kernel][kernel][width][cb]`: a blocked input has blocks of
//! `width = cb` channels, a plain (NCHW) input has blocks of a single channel.

use super::conv::{ConvShape, Epilogue};
use crate::pool::Pool;
use bundles::container::f32_to_f16;

/// Channels per input block and the number of blocks, as the weights are packed.
pub(super) fn input_blocks(cb: usize, s: &ConvShape) -> (usize, usize) {
    if s.input_nchw { (1, s.c_in) } else { (cb, s.c_in.div_ceil(cb)) }
}

pub(super) fn packed_len(cb: usize, s: &ConvShape) -> usize {
    let (width, blocks) = input_blocks(cb, s);
    [s.c_out.div_ceil(cb), blocks, s.kernel, s.kernel, width, cb].into_iter().fold(1, usize::saturating_mul)
}

/// Rows that packing reads side by side; divides every block size.
pub(super) const LANES: usize = 4;

/// Groups of [`LANES`] rows in the largest block.
const MOST_GROUPS: usize = 4;

/// Writes all of `out`; positions past the last channel become zero.
pub(super) fn pack(cb: usize, s: &ConvShape, w: &[f32], out: &mut [f32]) {
    let (width, blocks) = input_blocks(cb, s);
    let taps = s.kernel * s.kernel;
    let per_channel = s.c_in * taps;
    for (w, out) in w.chunks(per_channel * cb).zip(out.chunks_exact_mut(blocks * taps * width * cb)) {
        if taps == 1 && width == cb && s.c_in == width * blocks {
            transpose(cb, w, s.c_in, out);
            continue;
        }
        for lane in (0..cb).step_by(LANES) {
            let rows = rows_of(w, per_channel, lane);
            let mut outs = out.chunks_exact_mut(cb);
            for block in 0..blocks {
                for tap in 0..taps {
                    let inputs = (block * width..).map(|channel| channel * taps + tap);
                    for (at, out) in inputs.take(width).zip(&mut outs) {
                        out[lane..][..LANES].copy_from_slice(&lanes(&rows, at));
                    }
                }
            }
        }
    }
}

/// Like [`pack`], as halves.
pub(super) fn pack_halves(cb: usize, s: &ConvShape, w: &[f32], out: &mut [u16]) {
    let (width, blocks) = input_blocks(cb, s);
    let taps = s.kernel * s.kernel;
    let per_channel = s.c_in * taps;
    for (w, out) in w.chunks(per_channel * cb).zip(out.chunks_exact_mut(blocks * taps * width * cb)) {
        for (k, out) in out.chunks_exact_mut(cb).enumerate() {
            let (channel, tap) = (k / (taps * width) * width + k % width, k / width % taps);
            for (lane, out) in out.iter_mut().enumerate() {
                let at = lane * per_channel + channel * taps + tap;
                let weight = w.get(at).filter(|_| channel < s.c_in);
                *out = f32_to_f16(weight.copied().unwrap_or(0.0));
            }
        }
    }
}

/// Transposes the rows of a pointwise kernel that make up a block, in squares: several times faster than one
/// element at a time, and each cache line of `out` is written once.
fn transpose(cb: usize, w: &[f32], per_channel: usize, out: &mut [f32]) {
    let squares_of =
        |group: usize| rows_of(w, per_channel, group * LANES).map(|row| row.as_chunks::<LANES>().0);
    let groups: [_; MOST_GROUPS] = std::array::from_fn(squares_of);
    for (k, outs) in out.chunks_exact_mut(LANES * cb).enumerate() {
        for (squares, lane) in groups.iter().zip((0..cb).step_by(LANES)) {
            let square: [[f32; LANES]; LANES] =
                std::array::from_fn(|i| squares[i].get(k).copied().unwrap_or_default());
            for (j, out) in outs.chunks_exact_mut(cb).enumerate() {
                out[lane..][..LANES].copy_from_slice(&square.map(|row| row[j]));
            }
        }
    }
}

/// Rows `first..` of the kernels of one block; rows past the last channel are empty.
pub(super) fn rows_of(w: &[f32], per_channel: usize, first: usize) -> [&[f32]; LANES] {
    let mut rows = [&[][..]; LANES];
    rows.iter_mut().zip(w.chunks_exact(per_channel).skip(first)).for_each(|(row, w)| *row = w);
    rows
}

/// Element `at` of each row, zero where a row is shorter.
#[inline(always)]
pub(super) fn lanes(rows: &[&[f32]; LANES], at: usize) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for (lane, row) in lanes.iter_mut().zip(rows) {
        *lane = row.get(at).copied().unwrap_or(0.0);
    }
    lanes
}

pub(super) fn conv(
    cb: usize,
    s: &ConvShape,
    weights: &[f32],
    input: &[f32],
    e: &Epilogue<'_>,
    out: &mut [f32],
    pool: &Pool,
) {
    match cb {
        4 => rows::<4>(s, weights, input, e, out, pool),
        8 => rows::<8>(s, weights, input, e, out, pool),
        _ => rows::<16>(s, weights, input, e, out, pool),
    }
}

fn rows<const CB: usize>(
    s: &ConvShape,
    weights: &[f32],
    input: &[f32],
    e: &Epilogue<'_>,
    out: &mut [f32],
    pool: &Pool,
) {
    let (oh, ow) = (s.out_h(), s.out_w());
    let per_block = weights.len() / s.c_out.div_ceil(CB);
    pool.for_each_chunk(out, ow * CB, &|row, out| {
        let (block, oy) = (row / oh, row % oh);
        let weights = &weights[block * per_block..][..per_block];
        for (ox, out) in out.as_chunks_mut::<CB>().0.iter_mut().enumerate() {
            let acc = pixel::<CB>(s, weights, input, oy, ox);
            finish(&acc, block, (row * ow + ox) * CB, e, out);
        }
    });
}

/// The sums of one output pixel for one block of output channels.
fn pixel<const CB: usize>(s: &ConvShape, weights: &[f32], input: &[f32], oy: usize, ox: usize) -> [f32; CB] {
    let (width, blocks) = input_blocks(CB, s);
    let mut acc = [0.0; CB];
    let mut taps = weights.chunks_exact(width * CB);
    for block in 0..blocks {
        for ky in 0..s.kernel {
            for kx in 0..s.kernel {
                let Some(weights) = taps.next() else { return acc };
                let y = (oy * s.stride + ky).checked_sub(s.pad).filter(|&y| y < s.h);
                let x = (ox * s.stride + kx).checked_sub(s.pad).filter(|&x| x < s.w);
                let (Some(y), Some(x)) = (y, x) else { continue };
                for (ci, weights) in weights.as_chunks::<CB>().0.iter().enumerate() {
                    let v = if s.input_nchw {
                        input[(block * s.h + y) * s.w + x]
                    } else {
                        input[((block * s.h + y) * s.w + x) * CB + ci]
                    };
                    for (acc, w) in acc.iter_mut().zip(weights) {
                        *acc += v * w;
                    }
                }
            }
        }
    }
    acc
}

/// Applies the epilogue to one pixel; `at` is its offset in the output map.
fn finish<const CB: usize>(acc: &[f32; CB], block: usize, at: usize, e: &Epilogue<'_>, out: &mut [f32; CB]) {
    for (c, (out, acc)) in out.iter_mut().zip(acc).enumerate() {
        let channel = block * CB + c;
        let mut t = acc * e.scale.map_or(1.0, |scale| scale[channel]);
        t += e.shift.map_or(0.0, |shift| shift[channel]);
        if let Some((add, coef)) = e.add {
            t += coef * add[at + c];
        }
        if e.accumulate {
            t += *out;
        }
        *out = if e.relu { t.max(0.0) } else { t };
    }
}
