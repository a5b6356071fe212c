//! The compiled form of a plan: steps over values, and recipes for the parameters they read.

use super::int8;
use super::params::Span;
use crate::backbone::Kernel;
use crate::kernels::{ConvShape, Window};
use bundles::plan::{Owner, Role, Shape};

/// Index of a value (a feature map that lives in the arena for part of a frame).
pub(crate) type ValueId = usize;

/// One kernel call.
#[derive(Debug)]
pub(crate) struct Step {
    /// What it computes, with the names of the tensors it reads.
    pub name: String,
    /// The part whose parameters it reads: 0 is the stem, `l` is cell `l`, the last one is the head.
    pub part: usize,
    /// The gate it belongs to, inside a cell: block or proxy, and the source node. `None` for proxies that
    /// run as one step.
    pub gate: Option<(Role, usize)>,
    pub reads: ValueId,
    pub writes: ValueId,
    pub from: Shape,
    pub to: Shape,
    pub work: Work,
}

impl Step {
    /// The fused epilogue, for steps that have one.
    pub fn epilogue(&self) -> Option<&Fused> {
        match &self.work {
            Work::Conv { epilogue, .. } | Work::Proxies { epilogue, .. } => Some(epilogue),
            _ => None,
        }
    }
}

impl Work {
    /// The terms of a sum of proxies; none for other steps.
    pub fn terms(&self) -> &[ProxyTerm] {
        match self {
            Work::Proxies { terms, .. } | Work::Int8(int8::Work::Proxies { terms, .. }) => terms,
            _ => &[],
        }
    }
}

impl Weights {
    /// Number of packed floats.
    pub fn len(&self) -> usize {
        match self {
            Weights::Backbone(kernel) => kernel.floats().len(),
            Weights::Task(at) => at.len,
        }
    }
}

/// What a step does with its input. Spans refer to the step's part of the task's parameters.
#[derive(Debug)]
pub(crate) enum Work {
    /// Plain `(c, h, w)` to blocked; reads the network's input.
    Block,
    Conv {
        shape: ConvShape,
        kernel: Weights,
        epilogue: Fused,
    },
    /// Proxies of one node: their 1x1 convolutions, summed before the epilogue.
    Proxies {
        terms: Vec<ProxyTerm>,
        epilogue: Fused,
    },
    Affine {
        scale: Span,
        shift: Span,
        relu: bool,
    },
    MaxPool(Window),
    AvgPool(Window),
    Subsample {
        stride: usize,
    },
    PadChannels {
        front: usize,
        back: usize,
    },
    GlobalAvgPool,
    Linear {
        weight: Span,
        bias: Span,
    },
    /// `out = factor * x`, plus the previous `out` if `accumulate`, followed by ReLU if `relu`.
    Sum {
        factor: Factor,
        accumulate: bool,
        relu: bool,
    },
    /// An int8 step.
    Int8(int8::Work),
}

/// One proxy of a [`Work::Proxies`] or [`int8::Work::Proxies`].
#[derive(Debug)]
pub(crate) struct ProxyTerm {
    /// The node that its gate reads.
    pub source: usize,
    /// The value its convolution reads: that node, pooled if it is larger.
    pub reads: ValueId,
    pub c_in: usize,
    pub weights: Span,
}

/// Location of a convolution's packed kernel.
#[derive(Debug)]
pub(crate) enum Weights {
    /// In the backbone, shared by every task.
    Backbone(Kernel),
    /// In the task's parameters.
    Task(Span),
}

/// A convolution's epilogue (see [`crate::kernels::Epilogue`]) in terms of values and spans.
#[derive(Debug, Default)]
pub(crate) struct Fused {
    pub scale: Option<Span>,
    pub shift: Option<Span>,
    pub add: Option<(ValueId, Factor)>,
    pub accumulate: bool,
    pub relu: bool,
}

/// A factor for a whole map.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Factor {
    One,
    /// A single float among the parameters.
    At(Span),
}

/// How one piece of a part's parameters is computed from the bundle's tensors.
#[derive(Debug)]
pub(crate) enum Recipe {
    /// A task-owned convolution kernel, packed.
    Kernel { tensor: String, shape: ConvShape, at: Span },
    /// `scale = alpha * affine.scale` and `shift = alpha * (affine.shift + affine.scale * bias)`.
    Affine(AffineRecipe),
    /// The sum of several tensors.
    Sum { tensors: Vec<String>, len: usize, at: Span },
    /// A verbatim copy of a tensor.
    Copy { tensor: String, at: Span },
    /// One alpha.
    Alpha { index: usize, at: Span },
    /// Factors of an int8 step, and its kernel if the task owns it.
    Int8(Box<int8::Recipe>),
}

/// See [`Recipe::Affine`]. Missing factors are one, missing terms zero.
#[derive(Debug, Default)]
pub(crate) struct AffineRecipe {
    pub channels: usize,
    /// Prefix of the `.scale` and `.shift` tensors.
    pub affine: Option<String>,
    /// The convolution's bias tensor and its owner.
    pub bias: Option<(String, Owner)>,
    /// Index into the cell's alpha tensor.
    pub alpha: Option<usize>,
    pub scale: Option<Span>,
    pub shift: Option<Span>,
}

/// The parameters of one part of the network: the stem, a cell, or the head.
#[derive(Debug, Default)]
pub(crate) struct PartSpec {
    /// The cell's alpha tensor and its length, for cells with scaled gates.
    pub alpha: Option<(String, usize)>,
    pub recipes: Vec<Recipe>,
    /// Floats of the whole part.
    pub len: usize,
}

impl PartSpec {
    /// Allocates `len` floats, aligned to a cache line.
    pub fn span(&mut self, len: usize) -> Span {
        let start = self.len;
        self.len = start.saturating_add(len).checked_next_multiple_of(16).unwrap_or(usize::MAX);
        Span { start, len }
    }
}
