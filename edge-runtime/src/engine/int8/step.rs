//! Steps on bytes, and the recipes for their factors.

use crate::backbone::Kernel8;
use crate::engine::params::Span;
use crate::engine::step::{AffineRecipe, ValueId};
use crate::kernels::int8::{self, Grid};
use crate::kernels::{ConvShape, Window};

/// What a step does. Spans lie in the step's part of the task's parameters.
#[derive(Debug)]
pub(crate) enum Work {
    /// The network's input to bytes: an image (`[h][w][4]`) or blocks.
    Quantise {
        to: Grid,
        image: bool,
    },
    Conv {
        shape: ConvShape,
        kernel: Weights,
        /// The byte that stands for zero in the input.
        zero: u8,
        finish: Finish,
    },
    /// Element by element: another grid, an affine, a term of a sum.
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
    /// To floats, which is what the layers behind it compute in.
    GlobalAvgPool {
        of: Grid,
    },
}

/// Where a convolution's packed bytes lie.
#[derive(Debug)]
pub(crate) enum Weights {
    Backbone(Kernel8),
    Task(Span),
}

/// See [`int8::Finish`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish {
    pub scale: Span,
    pub shift: Span,
    /// A map of bytes, and where its factor lies.
    pub add: Option<(ValueId, Span)>,
    /// A sum in floats, and its factor.
    pub terms: Option<(ValueId, f32)>,
    pub to: To,
}

/// Where a result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    Bytes,
    /// A new sum.
    Floats,
    /// The sum that the step's value holds.
    Onto,
}

impl Work {
    /// Values it reads beside its input.
    pub fn reads(&self) -> (Option<ValueId>, Option<ValueId>) {
        match self {
            Work::Conv { finish, .. } | Work::Remap(finish) => {
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

/// How a step's factors come from the tensors of bundle and backbone.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The step's norm, bias and alpha in floats, and where scale and shift lie.
    pub affine: AffineRecipe,
    pub kernel: Kernel,
    pub from: Grid,
    /// The output's grid; `None` for a sum in floats.
    pub to: Option<Grid>,
    pub add: Option<Add>,
}

/// A map of bytes that rides along: its grid, its alpha, and where its factor lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Add {
    pub from: Grid,
    pub alpha: Option<usize>,
    pub at: Span,
}

/// The kernel whose scales and sums enter the factors.
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
