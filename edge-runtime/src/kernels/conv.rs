//! Convolution: shapes, packing, and the choice of a kernel per shape.

use super::isa::{Isa, KernelError, take, take_mut};
use super::{direct, plain};
use crate::pool::Pool;

/// A convolution's shape: square kernel, no dilation, no groups, batch 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvShape {
    /// Input channels (true count; the buffer is padded to whole blocks).
    pub c_in: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Output channels (true count).
    pub c_out: usize,
    /// Kernel height and width.
    pub kernel: usize,
    /// Step in both directions.
    pub stride: usize,
    /// Zeros added on every side.
    pub pad: usize,
    /// The input lies plain, `[c_in][h][w]`, as an image does; otherwise blocked.
    pub input_nchw: bool,
}

/// What happens to a convolution's sums on their way to memory.
///
/// `t = acc * scale + shift; t += coef * add; if accumulate { t += out }; if relu { t = max(t, 0) }; out = t`
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Per output channel, padded to whole blocks; absent means one.
    pub scale: Option<&'a [f32]>,
    /// Per output channel, padded to whole blocks; absent means zero.
    pub shift: Option<&'a [f32]>,
    /// A map of the output's shape and layout, and its coefficient.
    pub add: Option<(&'a [f32], f32)>,
    /// Adds what the output holds.
    pub accumulate: bool,
    /// Ends with ReLU.
    pub relu: bool,
}

impl ConvShape {
    /// Output height, zero when the kernel does not fit.
    pub fn out_h(&self) -> usize {
        self.windows(self.h)
    }

    /// Output width, zero when the kernel does not fit.
    pub fn out_w(&self) -> usize {
        self.windows(self.w)
    }

    /// Multiply-adds, saturating.
    pub fn macs(&self) -> usize {
        [self.out_h(), self.out_w(), self.c_in, self.c_out, self.kernel, self.kernel]
            .into_iter()
            .fold(1, usize::saturating_mul)
    }

    fn windows(&self, n: usize) -> usize {
        let fits = n.saturating_add(self.pad.saturating_mul(2)).checked_sub(self.kernel);
        fits.and_then(|n| n.checked_div(self.stride)).map_or(0, |n| n.saturating_add(1))
    }

    pub(super) fn input_len(&self, isa: Isa) -> usize {
        let c = if self.input_nchw { self.c_in } else { isa.padded(self.c_in) };
        c.saturating_mul(self.h).saturating_mul(self.w)
    }

    pub(super) fn output_len(&self, isa: Isa) -> usize {
        isa.padded(self.c_out).saturating_mul(self.out_h()).saturating_mul(self.out_w())
    }

    fn check(&self) -> Result<(), KernelError> {
        let wrong = |what| Err(KernelError::Shape { what });
        match () {
            () if self.c_in == 0 || self.c_out == 0 => wrong("a convolution without channels"),
            () if self.kernel == 0 || self.stride == 0 => wrong("a convolution with kernel or stride zero"),
            () if self.out_h() == 0 || self.out_w() == 0 => wrong("a kernel larger than its padded map"),
            // Keeps every index computation far from overflow.
            () if [self.c_in, self.c_out, self.h, self.w].into_iter().any(|axis| axis > 1 << 24) => {
                wrong("a convolution with an axis above 2^24")
            }
            () if self.kernel.max(self.pad).max(self.stride) > 1 << 12 => {
                wrong("a convolution with kernel, stride or padding above 4096")
            }
            () => Ok(()),
        }
    }
}

/// How a shape is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// Loops over pixels: see `plain.rs`.
    Plain,
    /// Register tiles: see `direct.rs`.
    Direct,
}

/// The rule that packing and running share: a function of instruction set and shape alone.
fn method(isa: Isa, s: &ConvShape) -> Method {
    match isa {
        Isa::Portable => Method::Plain,
        _ if direct::handles(s) => Method::Direct,
        _ => Method::Plain,
    }
}

/// Floats of `s`'s packed weights, saturating.
pub fn packed_len(isa: Isa, s: &ConvShape) -> usize {
    plain::packed_len(isa.block(), s)
}

/// Packs weights `w`, plain `(c_out, c_in, kernel, kernel)`, into the order [`conv`] reads.
///
/// # Errors
/// An impossible shape, or a slice shorter than its shape.
pub fn pack(isa: Isa, s: &ConvShape, w: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    s.check()?;
    let len = [s.c_out, s.c_in, s.kernel, s.kernel].into_iter().fold(1, usize::saturating_mul);
    let w = take("weight", w, len)?;
    let out = take_mut("packed weight", out, packed_len(isa, s))?;
    plain::pack(isa.block(), s, w, out);
    Ok(())
}

/// Floats of scratch that [`conv`] needs with a pool of `threads` threads; its contents need not be kept.
///
/// Zero for shapes that [`conv`] refuses.
pub fn scratch_len(isa: Isa, s: &ConvShape, threads: usize) -> usize {
    match method(isa, s) {
        _ if s.check().is_err() => 0,
        Method::Plain => 0,
        Method::Direct => direct::scratch_len(isa, s, threads),
    }
}

/// The convolution `s` of `input` with `weights` as packed by [`pack`], finished by `e`, into `out` (blocked).
///
/// Padded channels of `out` come out zero as long as scale, shift and add hold zeros (or finite values, for
/// scale) there.
///
/// # Errors
/// An impossible shape, a missing instruction set, or a slice shorter than its shape.
#[allow(clippy::too_many_arguments)]
pub fn conv(
    isa: Isa,
    s: &ConvShape,
    weights: &[f32],
    input: &[f32],
    e: &Epilogue<'_>,
    out: &mut [f32],
    scratch: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    s.check()?;
    if !isa.runs_here() {
        return Err(KernelError::Isa { isa });
    }
    let channels = isa.padded(s.c_out);
    let weights = take("packed weight", weights, packed_len(isa, s))?;
    let input = take("input", input, s.input_len(isa))?;
    let out = take_mut("output", out, s.output_len(isa))?;
    let scratch = take_mut("scratch", scratch, scratch_len(isa, s, pool.threads()))?;
    let e = Epilogue {
        scale: e.scale.map(|scale| take("scale", scale, channels)).transpose()?,
        shift: e.shift.map(|shift| take("shift", shift, channels)).transpose()?,
        add: match e.add {
            Some((add, coef)) => Some((take("added map", add, out.len())?, coef)),
            None => None,
        },
        ..*e
    };
    match method(isa, s) {
        Method::Plain => plain::conv(isa.block(), s, weights, input, &e, out, pool),
        Method::Direct => direct::conv(isa, s, weights, input, &e, out, scratch, pool),
    }
    Ok(())
}
