//! Convolution: shapes, packing, and the choice of a method per shape.

use super::floats::halves_mut;
use super::isa::{Isa, KernelError, take, take_mut};
use super::winograd::{self, F2, F4};
use super::{direct, plain};
use crate::pool::Pool;

/// A convolution's shape: square kernel, no dilation, no groups, batch size 1.
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
    /// Whether the input is plain, `[c_in][h][w]`, like an image; otherwise it is blocked.
    pub input_nchw: bool,
}

/// What is applied to a convolution's sums before they are stored.
///
/// `t = acc * scale + shift; t += coef * add; if accumulate { t += out }; if relu { t = max(t, 0) }; out = t`
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Per output channel, padded to whole blocks; `None` means one.
    pub scale: Option<&'a [f32]>,
    /// Per output channel, padded to whole blocks; `None` means zero.
    pub shift: Option<&'a [f32]>,
    /// A map of the output's shape and layout to add, and its coefficient.
    pub add: Option<(&'a [f32], f32)>,
    /// Adds the previous contents of the output.
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

    /// Number of multiply-adds, saturating.
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

    pub(super) fn check(&self) -> Result<(), KernelError> {
        let wrong = |what| Err(KernelError::Shape { what });
        match () {
            () if self.c_in == 0 || self.c_out == 0 => wrong("convolution without channels"),
            () if self.kernel == 0 || self.stride == 0 => wrong("convolution kernel or stride is zero"),
            () if self.out_h() == 0 || self.out_w() == 0 => wrong("kernel larger than its padded map"),
            // Keeps every index computation far from overflow.
            () if [self.c_in, self.c_out, self.h, self.w].into_iter().any(|axis| axis > 1 << 24) => {
                wrong("convolution axis above 2^24")
            }
            () if self.kernel.max(self.pad).max(self.stride) > 1 << 12 => {
                wrong("kernel, stride or padding above 4096")
            }
            () if self.input_len(Isa::Avx512).max(self.output_len(Isa::Avx512)) > 1 << 40 => {
                wrong("convolution over maps of more than 2^40 floats")
            }
            () => Ok(()),
        }
    }
}

/// How a shape is computed. Determines the packing of the weights and the scratch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Loops over pixels: see `plain.rs`.
    Plain,
    /// Register tiles: see `direct.rs`.
    Direct,
    /// F(2x2, 3x3): see `winograd/`.
    Winograd2,
    /// F(4x4, 3x3).
    Winograd4,
}

/// How much slower than the fastest method a method with smaller transformed weights may be.
const LEANER: f64 = 1.1;

impl Method {
    /// The rule that packing and running share: a function of instruction set and shape alone.
    ///
    /// Estimates time in cycles of a core that does 16 multiply-adds per cycle (twice as many in half
    /// precision): products, transforms (their vector operations were counted per tile and block of 16
    /// channels), and streaming the weights from memory if they do not fit the L2 cache. Among the methods
    /// within [`LEANER`] of the fastest, picks the one with the fewest weights. Measured on AVX-512 and AVX2:
    /// F(4x4) down to 8 px while weights are few and at 56 and 28 px; F(2x2) at 14 px and 256 channels (on
    /// AVX-512 this costs 1.5 % of ResNet-18's time with one thread and saves 17 % of its kernels' memory) and
    /// at 7 px and 512 channels (where direct convolution would make the whole network 10 % slower).
    pub(super) fn of(isa: Isa, s: &ConvShape) -> Method {
        if isa == Isa::Portable || !direct::handles(s) {
            return Method::Plain;
        }
        if !winograd::handles(s) {
            return Method::Direct;
        }
        let (c_in, c_out) = (isa.padded(s.c_in) as f64 / 16.0, isa.padded(s.c_out) as f64 / 16.0);
        let tiles = |m: usize| s.out_h().div_ceil(m) as f64 * s.out_w().div_ceil(m) as f64;
        // `planes` counts products and floats of weights alike: both are half as many with halves.
        let cycles = |planes: f64, tiles: f64, input: f64, output: f64| {
            let weights = planes * c_in * c_out * 16.0 * 16.0 * 4.0;
            let stream = if weights > 1_048_576.0 { weights / 8.0 } else { 0.0 };
            tiles * (planes * c_in * c_out * 16.0 + c_in * input + c_out * output) + stream
        };
        let taps = if isa.is_half() { 4.5 } else { 9.0 };
        let estimates = [
            (Method::Direct, cycles(taps, tiles(1), 2.0, 2.0)),
            (Method::Winograd2, cycles(16.0, tiles(2), 80.0, 60.0)),
            (Method::Winograd4, cycles(36.0, tiles(4), 250.0, 200.0)),
        ];
        let fastest = estimates.iter().fold(f64::INFINITY, |least, (_, cycles)| least.min(*cycles));
        // From the smallest weights to the largest.
        let found = estimates.into_iter().find(|(_, cycles)| *cycles <= LEANER * fastest);
        found.map_or(Method::Direct, |(method, _)| method)
    }

    /// Every method that supports `s` on `isa`; [`Method::Plain`] comes last.
    pub(super) fn all(isa: Isa, s: &ConvShape) -> impl Iterator<Item = Method> {
        let (direct, transformed) = (direct::handles(s), winograd::handles(s));
        let methods = [Method::Direct, Method::Winograd2, Method::Winograd4, Method::Plain];
        methods.into_iter().filter(move |method| match method {
            Method::Plain => true,
            _ if isa == Isa::Portable => false,
            Method::Direct => direct,
            Method::Winograd2 | Method::Winograd4 => transformed,
        })
    }

    /// The method that reads `len` floats of packed weights; the [fastest](Method::of) if it does or if none
    /// does. Files are packed for one map size, but tasks may run the same kernel on other sizes.
    fn with(isa: Isa, s: &ConvShape, len: usize) -> Method {
        let fastest = Method::of(isa, s);
        let reads = |method: &Method| method.packed_len(isa, s) == len;
        std::iter::once(fastest).chain(Method::all(isa, s)).find(reads).unwrap_or(fastest)
    }

    /// Like [`packed_len`], for this method.
    pub(super) fn packed_len(self, isa: Isa, s: &ConvShape) -> usize {
        match self {
            Method::Plain => plain::packed_len(isa.block(), s),
            Method::Direct => direct_len(isa, plain::packed_len(isa.block(), s)),
            Method::Winograd2 => winograd::packed_len::<F2>(isa, s),
            Method::Winograd4 => winograd::packed_len::<F4>(isa, s),
        }
    }

    /// Like [`pack`], for this method.
    pub(super) fn pack(self, isa: Isa, s: &ConvShape, w: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
        s.check()?;
        let len = [s.c_out, s.c_in, s.kernel, s.kernel].into_iter().fold(1, usize::saturating_mul);
        let w = take("weight", w, len)?;
        let out = take_mut("packed weight", out, self.packed_len(isa, s))?;
        match self {
            Method::Direct if isa.is_half() => plain::pack_halves(isa.block(), s, w, halves_mut(out)),
            Method::Plain | Method::Direct => plain::pack(isa.block(), s, w, out),
            Method::Winograd2 => winograd::pack::<F2>(isa, s, w, out),
            Method::Winograd4 => winograd::pack::<F4>(isa, s, w, out),
        }
        Ok(())
    }

    /// Like [`scratch_len`], for this method.
    pub(super) fn scratch_len(self, isa: Isa, s: &ConvShape, threads: usize) -> usize {
        match self {
            _ if s.check().is_err() => 0,
            Method::Plain => 0,
            Method::Direct => direct::scratch_len(isa, s, threads),
            Method::Winograd2 => winograd::scratch_len::<F2>(isa, s, threads),
            Method::Winograd4 => winograd::scratch_len::<F4>(isa, s, threads),
        }
    }

    /// Like [`conv`], by this method.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn conv(
        self,
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
        let weights = take("packed weight", weights, self.packed_len(isa, s))?;
        let input = take("input", input, s.input_len(isa))?;
        let out = take_mut("output", out, s.output_len(isa))?;
        let scratch = take_mut("scratch", scratch, self.scratch_len(isa, s, pool.threads()))?;
        let e = Epilogue {
            scale: e.scale.map(|scale| take("scale", scale, channels)).transpose()?,
            shift: e.shift.map(|shift| take("shift", shift, channels)).transpose()?,
            add: match e.add {
                Some((add, coef)) => Some((take("added map", add, out.len())?, coef)),
                None => None,
            },
            ..*e
        };
        match self {
            Method::Plain => plain::conv(isa.block(), s, weights, input, &e, out, pool),
            Method::Direct => direct::conv(isa, s, weights, input, &e, out, scratch, pool),
            Method::Winograd2 => winograd::conv::<F2>(isa, s, weights, input, &e, out, scratch, pool),
            Method::Winograd4 => winograd::conv::<F4>(isa, s, weights, input, &e, out, scratch, pool),
        }
        Ok(())
    }
}

/// Floats that `weights` packed weights of a direct or pointwise convolution take; blocks are even.
pub(super) fn direct_len(isa: Isa, weights: usize) -> usize {
    if isa.is_half() { weights / 2 } else { weights }
}

/// Whether `weights` floats of packed weights of `s` are halves, two per float.
pub fn holds_halves(isa: Isa, s: &ConvShape, weights: usize) -> bool {
    isa.is_half() && Method::with(isa, s, weights) == Method::Direct
}

/// Number of floats of `s`'s packed weights, saturating.
pub fn packed_len(isa: Isa, s: &ConvShape) -> usize {
    Method::of(isa, s).packed_len(isa, s)
}

/// Whether [`conv`] can compute `s` with `len` floats of packed weights: those packed for this shape, or for
/// the same kernel over maps of another size.
pub fn accepts(isa: Isa, s: &ConvShape, len: usize) -> bool {
    Method::with(isa, s, len).packed_len(isa, s) == len
}

/// Packs plain weights `w`, `(c_out, c_in, kernel, kernel)`, into the order [`conv`] reads.
///
/// # Errors
/// If the shape is invalid or a slice is shorter than its shape requires.
pub fn pack(isa: Isa, s: &ConvShape, w: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    Method::of(isa, s).pack(isa, s, w, out)
}

/// Granularity at which [`pack_run`] can pack output channels independently, in channels; `None` if a shape's
/// weights can only be packed all at once.
pub fn run(isa: Isa, s: &ConvShape) -> Option<usize> {
    match Method::of(isa, s) {
        Method::Plain | Method::Direct => Some(isa.block()),
        Method::Winograd2 | Method::Winograd4 => None,
    }
}

/// Like [`pack`], for the weights `w` of whole output channels starting at channel `first`, which is a
/// multiple of [`run`]; so is their number, unless they include the last channel. Writes only the part of
/// `out` that belongs to them.
///
/// # Errors
/// As for [`pack`]; also if the channels cannot be packed independently.
pub fn pack_run(
    isa: Isa,
    s: &ConvShape,
    first: usize,
    w: &[f32],
    out: &mut [f32],
) -> Result<(), KernelError> {
    s.check()?;
    let refused = Err(KernelError::Shape { what: "output channels cannot be packed separately" });
    let Some(run) = run(isa, s) else { return refused };
    // No overflow: the shape was checked.
    let per_channel = s.c_in * s.kernel * s.kernel;
    let channels = w.len() / per_channel;
    let last = first.checked_add(channels) == Some(s.c_out);
    let whole = w.len().is_multiple_of(per_channel) && first.is_multiple_of(run);
    if !whole || !(channels.is_multiple_of(run) || last) {
        return refused;
    }
    let out = take_mut("packed weight", out, packed_len(isa, s))?;
    let per_run = out.len() / s.c_out.div_ceil(run);
    let own =
        out.get_mut(first / run * per_run..).and_then(|out| out.get_mut(..channels.div_ceil(run) * per_run));
    let Some(own) = own else { return refused };
    if isa.is_half() && Method::of(isa, s) == Method::Direct {
        plain::pack_halves(isa.block(), s, w, halves_mut(own));
    } else {
        plain::pack(isa.block(), s, w, own);
    }
    Ok(())
}

/// Floats of scratch that [`conv`] needs with `weights` floats of packed weights on a pool of `threads`
/// threads. Its contents need not be preserved.
///
/// Zero for shapes that [`conv`] refuses.
pub fn scratch_len(isa: Isa, s: &ConvShape, weights: usize, threads: usize) -> usize {
    Method::with(isa, s, weights).scratch_len(isa, s, threads)
}

/// Computes the convolution `s` of `input`, applies the epilogue `e`, and writes the blocked result to `out`.
/// `weights` were packed by [`pack`] for maps of this size or of [another](accepts).
///
/// Padding channels of `out` come out zero as long as shift and add hold zeros there and scale holds zeros or
/// finite values. Fastest when all slices are aligned to a cache line (64 bytes).
///
/// # Errors
/// If the shape is invalid, the machine does not support `isa`, or a slice is shorter than its shape
/// requires.
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
    Method::with(isa, s, weights.len()).conv(isa, s, weights, input, e, out, scratch, pool)
}
