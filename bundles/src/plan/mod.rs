//! The plan: a network as plain data, without its weights.
//!
//! A network is a straight-line *stem*, a row of *cells*, and a straight-line *head*. Cell `l` (from 1)
//! computes node `x_l` as a gated sum of straight-line paths followed by ReLU (NetTailor eq. 2-4); node
//! `x_0` is the stem's output. A residual block is two paths (body, shortcut) under one gate, a proxy is
//! one path under its own gate, so graphs never nest.
//!
//! The same type describes four stages of a network:
//!
//! | stage | made by | gates |
//! |---|---|---|
//! | backbone | [`Arch::plan`] | one block per cell, not scaled |
//! | student | [`Plan::with_proxies`] | block and proxies, each scaled by its alpha |
//! | pruned student | [`Plan::pruned`] | what survived |
//! | deployed | [`Plan::folded`] | alpha and norm folded into each proxy's convolution; blocks stay scaled |
//!
//! Tensors are referred to by name only: [`Plan::tensors`] lists them with shape and [`Owner`].

mod arch;
mod check;
pub(crate) mod codec;
mod cost;
mod maps;
mod ops;
mod prune;
mod student;
#[cfg(test)]
mod tests;

pub use arch::{Arch, ProxyForm, Shortcut};
pub use check::{MAX_ELEMENTS, TensorSpec};
pub use cost::{Cost, Costs, Counter};
pub use maps::{MapSpec, Place, fused, is_term};
pub use ops::{Affine, Conv, Linear, Op, Shape};
pub use prune::GateId;
pub use student::Skips;

/// Who owns a tensor's bytes: the shared, frozen backbone, or one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Universal: stored in the backbone file, shared by every task, never changed.
    Backbone,
    /// Belongs to one task bundle.
    Task,
}

/// The gated term: the universal block of its cell, or a proxy from an earlier node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The universal block `G_l`; it reads node `l - 1`.
    Block,
    /// The proxy `A_p^l`.
    Proxy,
}

/// A straight line of operations from a cell's source node to its sum.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path {
    /// Applied in order. Empty means identity.
    pub ops: Vec<Op>,
}

/// One gated term of a cell: the sum of its paths, times its alpha when `scaled`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Block or proxy.
    pub role: Role,
    /// Node read by every path of this gate (0 is the stem's output).
    pub source: usize,
    /// Whether the term is multiplied by an alpha; otherwise its factor is exactly one.
    pub scaled: bool,
    /// Summed. A proxy has one path; a residual block has two (body, shortcut).
    pub paths: Vec<Path>,
}

/// Node `x_l`: the gated sum of its terms, then ReLU where `relu` is set.
///
/// A cell without gates is dead: nothing reads it and it costs nothing. Dead cells keep their place, so that
/// node numbers and tensor names never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Live terms: the block first (if it is alive), then proxies from the nearest source to the farthest.
    pub gates: Vec<Gate>,
    /// Whether a ReLU follows the sum. Only pre-activation networks (WRN-d-w) omit it.
    pub relu: bool,
}

/// A whole network. See the [module documentation](self).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Name of the original architecture, for people (`cifar-resnet20-b`, `resnet34`, ...).
    pub arch: String,
    /// The image, `(c, h, w)`.
    pub input: Shape,
    /// From the image to node 0. Universal, never pruned.
    pub stem: Vec<Op>,
    /// `cells[l - 1]` computes node `l`.
    pub cells: Vec<Cell>,
    /// From the last node to the class scores; ends in [`Op::Linear`].
    pub head: Vec<Op>,
}

impl Cell {
    /// Whether no path into this node is left.
    pub fn is_dead(&self) -> bool {
        self.gates.is_empty()
    }

    /// The universal block, if it is alive.
    pub fn block(&self) -> Option<&Gate> {
        self.gates.iter().find(|g| g.role == Role::Block)
    }

    /// Live proxies, in order.
    pub fn proxies(&self) -> impl Iterator<Item = &Gate> {
        self.gates.iter().filter(|g| g.role == Role::Proxy)
    }

    /// Number of gates with an alpha, the length of the cell's alpha tensor.
    pub fn scaled_gates(&self) -> usize {
        self.gates.iter().filter(|g| g.scaled).count()
    }
}

impl Plan {
    /// Name of node `l`'s alpha tensor, shape `(scaled gates,)`: one factor per scaled gate, in gate order.
    pub fn alpha_name(node: usize) -> String {
        format!("cell{node}.alpha")
    }

    /// Number of classes, the width of the last linear layer (0 when the head has none).
    pub fn classes(&self) -> usize {
        self.head
            .iter()
            .rev()
            .find_map(|op| match op {
                Op::Linear(linear) => Some(linear.c_out),
                _ => None,
            })
            .unwrap_or(0)
    }
}
