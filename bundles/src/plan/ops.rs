//! The primitive operations of a path, and their input and output shapes.

use super::Owner;
use std::fmt;

/// A feature map's extent without the batch axis: channels, height, width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Channels.
    pub c: usize,
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
}

/// 2-D convolution, square kernel, no dilation, no groups.
///
/// Tensors: `{name}.weight` `(c_out, c_in, kernel, kernel)`, and `{name}.bias` `(c_out,)` if `bias`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conv {
    /// Prefix of its tensors' names.
    pub name: String,
    /// Who owns the kernel. A bias always belongs to the kernel's owner.
    pub owner: Owner,
    /// Input channels.
    pub c_in: usize,
    /// Output channels.
    pub c_out: usize,
    /// Kernel height and width.
    pub kernel: usize,
    /// Step in both directions.
    pub stride: usize,
    /// Zeros added on every side.
    pub pad: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

/// Per-channel `scale * x + shift`, owned by the task: a batch-norm after training.
///
/// Tensors: `{name}.scale` and `{name}.shift`, both `(channels,)`. During training `tailor` keeps a
/// batch-norm (`weight`, `bias`, `running_mean`, `running_var`) of the same name in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affine {
    /// Prefix of its tensors' names.
    pub name: String,
    /// Channels.
    pub channels: usize,
}

/// Fully connected layer, owned by the task.
///
/// Tensors: `{name}.weight` `(c_out, c_in)` and `{name}.bias` `(c_out,)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Linear {
    /// Prefix of its tensors' names.
    pub name: String,
    /// Input features.
    pub c_in: usize,
    /// Output features.
    pub c_out: usize,
}

/// One primitive. Both interpreters match on this exhaustively.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Convolution.
    Conv(Conv),
    /// Per-channel scale and shift (a batch-norm, folded or not).
    Affine(Affine),
    /// `max(x, 0)`.
    Relu,
    /// Square max-pool, padded with minus infinity.
    MaxPool {
        /// Window height and width.
        kernel: usize,
        /// Step in both directions.
        stride: usize,
        /// Padding on every side.
        pad: usize,
    },
    /// Square average pool without padding.
    AvgPool {
        /// Window height and width.
        kernel: usize,
        /// Step in both directions.
        stride: usize,
    },
    /// Keeps every `stride`-th row and column, starting with the first.
    Subsample {
        /// Step in both directions.
        stride: usize,
    },
    /// Adds channels of zeros before and after the existing ones.
    PadChannels {
        /// Zero channels before.
        front: usize,
        /// Zero channels after.
        back: usize,
    },
    /// Mean over height and width: `(c, h, w)` to `(c, 1, 1)`.
    GlobalAvgPool,
    /// Fully connected layer over `(c, 1, 1)`.
    Linear(Linear),
}

impl Shape {
    /// Channels, height, width.
    pub const fn new(c: usize, h: usize, w: usize) -> Shape {
        Shape { c, h, w }
    }

    /// Number of elements, saturating.
    pub fn len(&self) -> usize {
        self.c.saturating_mul(self.h).saturating_mul(self.w)
    }

    /// Whether any axis is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.c, self.h, self.w)
    }
}

/// `floor((n + 2 pad - kernel) / stride) + 1`, or `None` when the window does not fit.
fn windows(n: usize, kernel: usize, stride: usize, pad: usize) -> Option<usize> {
    let padded = n.checked_add(pad.checked_mul(2)?)?;
    if stride == 0 || kernel == 0 {
        return None;
    }
    Some(padded.checked_sub(kernel)? / stride + 1)
}

impl Op {
    /// Lower-case word for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Conv(_) => "conv",
            Op::Affine(_) => "affine",
            Op::Relu => "relu",
            Op::MaxPool { .. } => "max-pool",
            Op::AvgPool { .. } => "avg-pool",
            Op::Subsample { .. } => "subsample",
            Op::PadChannels { .. } => "pad-channels",
            Op::GlobalAvgPool => "global-avg-pool",
            Op::Linear(_) => "linear",
        }
    }

    /// Output shape of this operation, or what input it needs.
    ///
    /// # Errors
    /// A description of the inputs that would have been accepted.
    pub fn output(&self, x: Shape) -> Result<Shape, String> {
        let pooled = |kernel, stride, pad| {
            let h = windows(x.h, kernel, stride, pad);
            let w = windows(x.w, kernel, stride, pad);
            match (h, w) {
                (Some(h), Some(w)) => Ok((h, w)),
                _ => Err(format!("a map that a {kernel}x{kernel} window (stride {stride}, pad {pad}) fits")),
            }
        };
        match self {
            Op::Conv(conv) => {
                if conv.c_in != x.c || conv.c_out == 0 {
                    return Err(format!("{} input channels and at least one output channel", conv.c_in));
                }
                let (h, w) = pooled(conv.kernel, conv.stride, conv.pad)?;
                Ok(Shape::new(conv.c_out, h, w))
            }
            Op::Affine(affine) if affine.channels == x.c => Ok(x),
            Op::Affine(affine) => Err(format!("{} channels", affine.channels)),
            Op::Relu => Ok(x),
            &Op::MaxPool { kernel, stride, pad } => {
                if pad > kernel / 2 {
                    return Err(format!("max-pool padding of at most half its kernel {kernel}, not {pad}"));
                }
                let (h, w) = pooled(kernel, stride, pad)?;
                Ok(Shape::new(x.c, h, w))
            }
            &Op::AvgPool { kernel, stride } => {
                let (h, w) = pooled(kernel, stride, 0)?;
                Ok(Shape::new(x.c, h, w))
            }
            &Op::Subsample { stride } => {
                let (h, w) = pooled(1, stride, 0)?;
                Ok(Shape::new(x.c, h, w))
            }
            &Op::PadChannels { front, back } => {
                let c = x.c.checked_add(front).and_then(|c| c.checked_add(back));
                Ok(Shape::new(c.ok_or("fewer channels")?, x.h, x.w))
            }
            Op::GlobalAvgPool if !x.is_empty() => Ok(Shape::new(x.c, 1, 1)),
            Op::GlobalAvgPool => Err("a non-empty map".into()),
            Op::Linear(linear) if x == Shape::new(linear.c_in, 1, 1) && linear.c_out > 0 => {
                Ok(Shape::new(linear.c_out, 1, 1))
            }
            Op::Linear(linear) => Err(format!("{}x1x1", linear.c_in)),
        }
    }
}
