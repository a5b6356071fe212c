//! A plan's cost: parameters and multiply-adds, by two counting conventions.

use super::{Op, Owner, Path, Plan, Shape};
use crate::Result;
use std::collections::HashSet;
use std::ops::{Add, AddAssign};

/// The convention for counting multiply-adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// The paper's, for comparison with its tables: a norm counts as two per output, and the stem's
    /// convolution is counted at node 0's resolution (after the max-pool).
    Paper,
    /// The actual work: every convolution at its own resolution, a norm as one multiply-add per output.
    True,
}

/// Parameters and multiply-adds of part of a network, for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Stored numbers: kernels, biases, two per norm channel.
    pub params: u64,
    /// Multiply-adds.
    pub macs: u64,
}

/// Costs of a plan by part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Costs {
    /// The stem.
    pub stem: Cost,
    /// `gates[l - 1][g]`: gate `g` of cell `l`, in the plan's order.
    pub gates: Vec<Vec<Cost>>,
    /// The head with its classifier.
    pub head: Cost,
}

impl Add for Cost {
    type Output = Cost;

    fn add(self, other: Cost) -> Cost {
        Cost { params: self.params.saturating_add(other.params), macs: self.macs.saturating_add(other.macs) }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Cost>>(all: I) -> Cost {
        all.fold(Cost::default(), Add::add)
    }
}

impl Costs {
    /// Stem, live gates and head together.
    pub fn total(&self) -> Cost {
        self.stem + self.gates.iter().flatten().copied().sum() + self.head
    }

    /// Everything but the classifier: for a backbone's plan, the denominator of relative complexity (eq. 5).
    pub fn without_head(&self) -> Cost {
        self.stem + self.gates.iter().flatten().copied().sum()
    }
}

impl Plan {
    /// Costs by part.
    ///
    /// # Errors
    /// As [`Plan::check`].
    pub fn costs(&self, counter: Counter) -> Result<Costs> {
        let nodes = self.check()?;
        let at_node_0 = match counter {
            Counter::Paper => nodes[0],
            Counter::True => None,
        };
        let source = |node: usize| nodes.get(node).copied().flatten().unwrap_or(self.input);
        let mut counted = HashSet::new();
        let mut line = |ops: &[Op], shared, start, at| line(ops, shared, start, counter, at, &mut counted);
        let stem = line(&self.stem, 0, self.input, at_node_0);
        let mut gates = Vec::with_capacity(self.cells.len());
        for cell in &self.cells {
            let mut costs = Vec::with_capacity(cell.gates.len());
            for gate in &cell.gates {
                let path = |(i, path): (usize, &Path)| {
                    let begun = gate.paths[..i].iter().map(|other| common(&other.ops, &path.ops)).max();
                    line(&path.ops, begun.unwrap_or(0), source(gate.source), None)
                };
                costs.push(gate.paths.iter().enumerate().map(path).sum());
            }
            gates.push(costs);
        }
        let head = line(&self.head, 0, source(self.cells.len()), None);
        Ok(Costs { stem, gates, head })
    }

    /// Parameters a task bundle carries for this plan: norms, live proxies, alphas, classifier.
    pub fn task_params(&self) -> u64 {
        self.tensors().iter().filter(|t| t.owner == Owner::Task).map(|t| t.len() as u64).sum()
    }

    /// Parameters this plan reads from the shared backbone.
    pub fn backbone_params(&self) -> u64 {
        self.tensors().iter().filter(|t| t.owner == Owner::Backbone).map(|t| t.len() as u64).sum()
    }

    /// Live universal blocks.
    pub fn blocks(&self) -> usize {
        self.cells.iter().filter(|c| c.block().is_some()).count()
    }

    /// Live proxies.
    pub fn proxies(&self) -> usize {
        self.cells.iter().map(|c| c.proxies().count()).sum()
    }
}

/// Length of the common prefix of two paths from one source: a pre-activation block's norm, read by both body
/// and projection, is computed once.
fn common(a: &[Op], b: &[Op]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Cost of a line of operations on input shape `x`. With `counted_at`, convolutions and norms are counted as
/// if their output had that height and width. The first `shared` operations were already counted for another
/// path. A tensor shared by two paths counts as a parameter once: `counted` holds the names seen.
fn line(
    ops: &[Op],
    shared: usize,
    start: Shape,
    counter: Counter,
    counted_at: Option<Shape>,
    counted: &mut HashSet<String>,
) -> Cost {
    let mut x = start;
    let mut cost = Cost::default();
    for (i, op) in ops.iter().enumerate() {
        // The plan has been checked, so this cannot fail; the worst outcome would be a zero cost.
        x = op.output(x).unwrap_or(x);
        let pixels = counted_at.map_or(x.h * x.w, |at| at.h * at.w) as u64;
        let tensors = op.tensors();
        let params = tensors.iter().filter(|t| counted.insert(t.name.clone())).map(|t| t.len() as u64).sum();
        let macs = match op {
            _ if i < shared => 0,
            Op::Conv(c) => (c.c_in * c.kernel * c.kernel) as u64 * c.c_out as u64 * pixels,
            Op::Affine(a) => {
                let each = match counter {
                    Counter::Paper => 2,
                    Counter::True => 1,
                };
                each * a.channels as u64 * pixels
            }
            Op::Linear(l) => (l.c_in * l.c_out) as u64,
            Op::Relu
            | Op::MaxPool { .. }
            | Op::AvgPool { .. }
            | Op::Subsample { .. }
            | Op::PadChannels { .. }
            | Op::GlobalAvgPool => 0,
        };
        cost += Cost { params, macs };
    }
    cost
}
