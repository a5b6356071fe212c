//! Kernels as bytes: quantising them, and packing them in the order that the convolution reads.
//!
//! Packed weights hold, `ceil(c_out / 16)` times: the sums of the block's sixteen rows (i32, little-endian),
//! then `[blocks][kernel][kernel][groups][16][4]`: four input channels of sixteen output channels at a time.
//! A block has four groups, or, if it is the only one, as many as its channels need.

use super::{BLOCK, GROUP, take, take_mut};
use crate::{ConvShape, KernelError};

/// Bytes of row sums at the start of each output block.
pub(super) const SUMS: usize = 4 * BLOCK;

/// Number of input blocks, and groups of four channels in each.
pub(super) fn input_blocks(s: &ConvShape) -> (usize, usize) {
    match s.c_in.div_ceil(BLOCK) {
        1 => (1, s.c_in.div_ceil(GROUP)),
        blocks => (blocks, BLOCK / GROUP),
    }
}

/// Bytes of one output block, saturating.
pub(super) fn per_block(s: &ConvShape) -> usize {
    let (blocks, groups) = input_blocks(s);
    let products =
        [blocks, s.kernel, s.kernel, groups, BLOCK, GROUP].into_iter().fold(1, usize::saturating_mul);
    products.saturating_add(SUMS)
}

/// Bytes of `s`'s packed weights, saturating.
pub fn packed_len(s: &ConvShape) -> usize {
    s.c_out.div_ceil(BLOCK).saturating_mul(per_block(s))
}

/// Packs plain weights `w`, `(c_out, c_in, kernel, kernel)`, into the order that the convolution reads.
///
/// # Errors
/// If the shape is invalid or a slice is shorter than its shape requires.
pub fn pack(s: &ConvShape, w: &[i8], out: &mut [i8]) -> Result<(), KernelError> {
    super::conv::check(s)?;
    let taps = s.kernel * s.kernel;
    let w = take("weight", w, s.c_out * s.c_in * taps)?;
    let out = take_mut("packed weight", out, packed_len(s))?;
    let (_, groups) = input_blocks(s);
    for (block, out) in out.chunks_exact_mut(per_block(s)).enumerate() {
        let (sums, out) = out.split_at_mut(SUMS);
        let mut totals = [0i32; BLOCK];
        for (row, out) in out.as_chunks_mut::<{ BLOCK * GROUP }>().0.iter_mut().enumerate() {
            let (group, row) = (row % groups, row / groups);
            let (tap, first) = (row % taps, row / taps * BLOCK + group * GROUP);
            for (o, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
                for (i, out) in out.iter_mut().enumerate() {
                    let (co, ci) = (block * BLOCK + o, first + i);
                    let real = co < s.c_out && ci < s.c_in;
                    *out = if real { w[(co * s.c_in + ci) * taps + tap] } else { 0 };
                    totals[o] += i32::from(*out);
                }
            }
        }
        let bytes = totals.iter().flat_map(|total| total.to_le_bytes());
        sums.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte as i8);
    }
    Ok(())
}

/// The sum of each output channel's weights, read from packed weights; `sums` is padded to whole blocks.
///
/// # Errors
/// If a slice is shorter than its shape requires.
pub fn row_sums(s: &ConvShape, packed: &[i8], sums: &mut [i32]) -> Result<(), KernelError> {
    let packed = take("packed weight", packed, packed_len(s))?;
    let sums = take_mut("sums", sums, super::padded(s.c_out))?;
    for (block, sums) in packed.chunks_exact(per_block(s)).zip(sums.chunks_exact_mut(BLOCK)) {
        for (sum, bytes) in sums.iter_mut().zip(block.as_chunks::<4>().0) {
            *sum = i32::from_le_bytes(bytes.map(|byte| byte as u8));
        }
    }
    Ok(())
}

/// The smallest number with eight significant bits that is not below `x`, which must not be negative.
fn short(x: f32) -> f32 {
    const REST: u32 = 0xffff;
    f32::from_bits(x.to_bits().saturating_add(REST) & !REST)
}

/// Bits per quantised weight, including the sign. All widths are stored as bytes and cost the same to compute
/// with; fewer bits compress better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bits(u8);

impl Bits {
    /// The full range of a byte: -127..=127.
    pub const ALL: Bits = Bits(8);

    /// `None` below two or above eight bits.
    pub fn new(bits: u8) -> Option<Bits> {
        (2..=8).contains(&bits).then_some(Bits(bits))
    }

    /// The number of bits.
    pub fn count(self) -> u8 {
        self.0
    }

    /// Largest magnitude.
    fn most(self) -> f32 {
        f32::from((1u8 << (self.0 - 1)) - 1)
    }
}

/// Quantises `rows` rows of `w` to integers of `bits` bits, each row with its own scale, so that `w` is about
/// `q * scale`.
///
/// A row of zeros (or of numbers too small for a scale) gets the scale 1. Scales have eight significant bits:
/// steps become at most 0.8 % larger, and half of the bytes that scales take in a file are zeros.
///
/// # Errors
/// If the length is not a multiple of `rows`, or a slice is too short.
pub fn quantise_rows(
    w: &[f32],
    rows: usize,
    bits: Bits,
    q: &mut [i8],
    scales: &mut [f32],
) -> Result<(), KernelError> {
    if rows == 0 || !w.len().is_multiple_of(rows) {
        return Err(KernelError::Shape { what: "weights are not whole rows" });
    }
    let q = take_mut("rounded weight", q, w.len())?;
    let scales = take_mut("scales", scales, rows)?;
    let row = (w.len() / rows).max(1);
    let range = bits.most();
    for ((w, q), scale) in w.chunks(row).zip(q.chunks_mut(row)).zip(scales) {
        let most = w.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        *scale = Some(short(most / range)).filter(|scale| scale.is_normal()).unwrap_or(1.0);
        for (q, w) in q.iter_mut().zip(w) {
            // The cast saturates and turns NaN into zero.
            *q = (w / *scale).round_ties_even().clamp(-range, range) as i8;
        }
    }
    Ok(())
}
