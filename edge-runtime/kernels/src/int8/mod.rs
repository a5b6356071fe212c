//! Integer kernels: u8 maps, i8 weights, exact i32 sums; results are identical on every instruction set.
//!
//! **Maps.** A u8 map `(c, h, w)` is stored as `[ceil(c / 16)][h][w][16]`, an image of at most four channels
//! as `[h][w][4]`; the padding of the last block may hold anything, because its weights are zero. Element `q`
//! of a map stands for `scale * (q - zero)`. f32 maps that accumulate the terms of a sum are stored as
//! `[ceil(c / 16)][h][w][16]` too.
//!
//! **Weights** have the same layout on every instruction set ([`pack`]), so a packed file is read in place by
//! all of them; only the code that adds four products at a time differs (`dot.rs`).
//!
//! **Arithmetic.** Sums of products are exact. The epilogue ([`Finish`]) is elementwise in single precision;
//! every operation is rounded separately (no fused multiply-add), so it gives the same results everywhere
//! too.

mod array;
mod conv;
mod dot;
mod maps;
#[cfg(target_arch = "aarch64")]
mod neon;
mod pointwise;
mod store;
mod sum;
#[cfg(test)]
mod tests;
mod weights;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use conv::{check, conv, scratch_len};
pub use maps::{
    Grid, avg_pool, global_avg_pool, map_len, max_pool, pad_channels, quantise, remap, subsample,
};
pub use pointwise::{Term, pointwise};
pub use weights::{Bits, pack, packed_len, quantise_rows, row_sums};

use super::isa::KernelError;

/// Channels per block of a map.
pub const BLOCK: usize = 16;

/// Input channels per dot product.
const GROUP: usize = 4;

/// Maximum channels of an image, which is stored as `[h][w][4]`.
pub const IMAGE: usize = GROUP;

/// `channels` rounded up to whole blocks.
pub const fn padded(channels: usize) -> usize {
    channels.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// The epilogue applied to sums before they are stored.
///
/// `t = sum * scale[c] + shift[c]; t += k * add; t += k * terms`
///
/// The scale belongs to the sum; if there are several ([`pointwise`]), each has its own, and they are added
/// to the first one's `t` in order, before anything else.
///
/// A u8 output is `t` clamped to 0..=255 and rounded to nearest, ties to even: scale and shift include the
/// output's own scale and zero point, and if the zero point is zero, clamping acts as ReLU. An f32 output is
/// `t`.
#[derive(Debug, Clone, Copy)]
pub struct Finish<'a> {
    /// Per output channel, padded to whole blocks.
    pub shift: &'a [f32],
    /// A u8 map of the output's shape, and its factor.
    pub add: Option<(&'a [u8], f32)>,
    /// An f32 map of the output's shape, and its factor.
    pub terms: Option<(&'a [f32], f32)>,
}

/// Where a result goes.
#[derive(Debug)]
pub enum Out<'a> {
    /// To a u8 map.
    Bytes(&'a mut [u8]),
    /// Into a new f32 sum, to be quantised to a u8 map later.
    Floats(&'a mut [f32]),
    /// Added to an existing f32 sum.
    Onto(&'a mut [f32]),
}

/// The first `want` elements of `data`.
fn take<'a, T>(what: &'static str, data: &'a [T], want: usize) -> Result<&'a [T], KernelError> {
    data.get(..want).ok_or(KernelError::Short { what, want, got: data.len() })
}

/// The first `want` elements of `data`, mutably.
fn take_mut<'a, T>(what: &'static str, data: &'a mut [T], want: usize) -> Result<&'a mut [T], KernelError> {
    let got = data.len();
    data.get_mut(..want).ok_or(KernelError::Short { what, want, got })
}

impl Finish<'_> {
    /// Checks every slice against an output of `channels` channels (whole blocks) and `len` elements.
    fn check(&self, channels: usize, len: usize) -> Result<(), KernelError> {
        take("shift", self.shift, channels)?;
        if let Some((add, _)) = self.add {
            take("added map", add, len)?;
        }
        if let Some((terms, _)) = self.terms {
            take("sum", terms, len)?;
        }
        Ok(())
    }
}

impl Out<'_> {
    fn check(&self, want: usize) -> Result<(), KernelError> {
        let got = match self {
            Out::Bytes(out) => out.len(),
            Out::Floats(out) | Out::Onto(out) => out.len(),
        };
        if got < want { Err(KernelError::Short { what: "output", want, got }) } else { Ok(()) }
    }
}
