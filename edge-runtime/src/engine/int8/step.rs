//! Int8 steps, and the recipes for their factors.

use crate::backbone::Kernel8;
use crate::engine::params::Span;
use crate::engine::step::{AffineRecipe, ProxyTerm, ValueId};
use crate::kernels::int8::{self, Grid};
use crate::kernels::{ConvShape, Window};

/// What a step does. Spans refer to the step's part of the task's parameters.
#[derive(Debug)]
pub(crate) enum Work {
    /// Quantises the network's input: to an image (`[h][w][4]`) or to blocks.
    Quantise {
        to: Grid,
        image: bool,
    },
    Conv {
        shape: ConvShape,
        kernel: Weights,
        /// The input's zero point.
        zero: u8,
        finish: Finish,
    },
    /// Proxies of one node: their 1x1 convolutions, summed before the epilogue.
    Proxies {
        terms: Vec<ProxyTerm>,
        finish: Finish,
    },
    /// Elementwise: requantisation, an affine, a term of a sum.
    Remap(Finish),
    MaxPool(Window),
    AvgPool(Window),
    Subsample {
        stride: usize,
    },
    PadChannels {
        front: usize,
        back: usize,
        zero: u8,
    },
    /// To f32, in which all later layers compute.
    GlobalAvgPool {
        of: Grid,
    },
}

/// Location of a convolution's packed bytes.
#[derive(Debug)]
pub(crate) enum Weights {
    Backbone(Kernel8),
    Task(Span),
}

/// See [`int8::Finish`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish {
    /// One scale per channel, padded to whole blocks; those of several terms follow each other.
    pub scale: Span,
    pub shift: Span,
    /// A u8 map, and the location of its factor.
    pub add: Option<(ValueId, Span)>,
    /// An f32 sum, and its factor.
    pub terms: Option<(ValueId, f32)>,
    pub to: To,
}

/// Where a result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Bytes,
    /// A new sum.
    Floats,
    /// The sum that the step's value holds already.
    Onto,
}

impl Work {
    /// Values it reads besides its input and the terms of a sum of proxies.
    pub fn reads(&self) -> (Option<ValueId>, Option<ValueId>) {
        match self {
            Work::Conv { finish, .. } | Work::Proxies { finish, .. } | Work::Remap(finish) => {
                (finish.add.map(|(value, _)| value), finish.terms.map(|(value, _)| value))
            }
            _ => (None, None),
        }
    }

    /// Floats of scratch.
    pub fn scratch_len(&self) -> usize {
        match self {
            Work::Conv { shape, .. } => int8::scratch_len(shape).div_ceil(4),
            _ => 0,
        }
    }
}

/// How a step's factors are computed from the tensors of bundle and backbone.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The norm, bias and alpha of the step or one of its terms in f32, and the location of its scale and
    /// shift.
    pub affine: AffineRecipe,
    pub kernel: Kernel,
    pub from: Grid,
    /// The output's grid; `None` for an f32 sum.
    pub to: Option<Grid>,
    pub add: Option<Add>,
    /// Whether the shift is added to that of the terms before it, which share it.
    pub joins: bool,
}

/// A fused u8 addend ("rider"): its grid, its alpha, and the location of its factor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Add {
    pub from: Grid,
    pub alpha: Option<usize>,
    pub at: Span,
}

/// The kernel whose scales and row sums enter the factors.
#[derive(Debug)]
pub(crate) enum Kernel {
    /// The step has none.
    None,
    Backbone(ConvShape, Kernel8),
    /// To be packed at `at`.
    Task {
        tensor: String,
        shape: ConvShape,
        at: Span,
    },
}
