//! The checks a plan passes once, before anything is allocated for it.

use super::{Affine, Conv, Linear, Op, Owner, Plan, Role, Shape};
use crate::{Error, Result};
use std::collections::HashMap;

/// Largest feature map or tensor accepted, in elements. A plan from a hostile file must not make a reader
/// reserve more than this for one buffer.
pub const MAX_ELEMENTS: usize = 1 << 28;

/// A named tensor of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, unique in its plan.
    pub name: String,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// Whose bytes they are.
    pub owner: Owner,
}

impl TensorSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True when some axis is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Plan {
    /// Checks everything an interpreter relies on and returns the shape of every node, `x_0` first; a dead
    /// node has none.
    ///
    /// Guaranteed afterwards: every operation accepts its input, the paths of a cell agree, every source is a
    /// live earlier node, a cell has at most one block (first, reading the node before it) and at most one
    /// proxy per source, one name means one tensor, the last cell is alive, the head ends in a linear layer,
    /// and no buffer exceeds [`MAX_ELEMENTS`].
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::BadSource`], [`Error::NameClash`], [`Error::Disconnected`].
    pub fn check(&self) -> Result<Vec<Option<Shape>>> {
        if self.input.is_empty() || self.input.len() > MAX_ELEMENTS {
            return Err(mismatch("input", "an image with pixels, within limits", self.input));
        }
        let mut nodes = vec![Some(self.line(&self.stem, self.input, || "stem".into())?)];
        for (i, cell) in self.cells.iter().enumerate() {
            let node = i + 1;
            let mut shape = None;
            for (g, gate) in cell.gates.iter().enumerate() {
                let kind = match gate.role {
                    Role::Block if g == 0 && gate.source == node - 1 => "block",
                    Role::Proxy
                        if !cell.gates[..g]
                            .iter()
                            .any(|o| o.role == Role::Proxy && o.source == gate.source) =>
                    {
                        "proxy"
                    }
                    _ => return Err(Error::BadSource { cell: node, source: gate.source }),
                };
                let source = match nodes.get(gate.source) {
                    Some(Some(source)) => *source,
                    _ => return Err(Error::BadSource { cell: node, source: gate.source }),
                };
                let place = || format!("cell {node}, {kind} from node {}", gate.source);
                if gate.paths.is_empty() {
                    return Err(mismatch(&place(), "at least one path", source));
                }
                for path in &gate.paths {
                    let out = self.line(&path.ops, source, place)?;
                    match shape {
                        None => shape = Some(out),
                        Some(first) if first == out => {}
                        Some(first) => return Err(mismatch(&place(), &format!("an output of {first}"), out)),
                    }
                }
            }
            nodes.push(shape);
        }
        let Some(Some(last)) = nodes.last().copied() else {
            return Err(Error::Disconnected {
                dead: self.dead_nodes(),
                why: "the last node is dead, so nothing reaches the classifier".into(),
            });
        };
        self.line(&self.head, last, || "head".into())?;
        if !matches!(self.head.last(), Some(Op::Linear(_))) {
            return Err(mismatch("head", "a linear layer at its end", last));
        }
        self.unique_names()?;
        Ok(nodes)
    }

    /// Every tensor, once, in execution order: stem, cells (each cell's alpha first), head.
    ///
    /// These are the tensors of a packed network. (A training run keeps four vectors per norm instead of
    /// `scale` and `shift`.)
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut all = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let mut add = |all: &mut Vec<TensorSpec>, specs: Vec<TensorSpec>| {
            for spec in specs {
                if seen.insert(spec.name.clone()) {
                    all.push(spec);
                }
            }
        };
        for op in &self.stem {
            add(&mut all, op.tensors());
        }
        for (i, cell) in self.cells.iter().enumerate() {
            let scaled = cell.scaled_gates();
            if scaled > 0 {
                let name = Plan::alpha_name(i + 1);
                add(&mut all, vec![TensorSpec { name, shape: vec![scaled], owner: Owner::Task }]);
            }
            for op in cell.gates.iter().flat_map(|g| &g.paths).flat_map(|p| &p.ops) {
                add(&mut all, op.tensors());
            }
        }
        for op in &self.head {
            add(&mut all, op.tensors());
        }
        all
    }

    /// Numbers (from 1) of the nodes that no live path reaches.
    pub fn dead_nodes(&self) -> Vec<usize> {
        (1..=self.cells.len()).filter(|&l| self.cells[l - 1].is_dead()).collect()
    }

    /// Every operation with the place it stands in, stem to head.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        let cells = self.cells.iter().flat_map(|c| &c.gates).flat_map(|g| &g.paths).flat_map(|p| &p.ops);
        self.stem.iter().chain(cells).chain(&self.head)
    }

    fn line(&self, ops: &[Op], start: Shape, place: impl Fn() -> String) -> Result<Shape> {
        let mut x = start;
        for (i, op) in ops.iter().enumerate() {
            let at = || format!("{}, op {i} ({})", place(), op.kind());
            x = op.output(x).map_err(|want| mismatch(&at(), &want, x))?;
            let tensors_fit = op.tensors().iter().all(|t| {
                t.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).is_some_and(|n| n <= MAX_ELEMENTS)
            });
            if x.is_empty() || x.len() > MAX_ELEMENTS || !tensors_fit {
                return Err(mismatch(&at(), &format!("between 1 and {MAX_ELEMENTS} elements"), x));
            }
        }
        Ok(x)
    }

    fn unique_names(&self) -> Result<()> {
        let mut seen: HashMap<String, Vec<usize>> = HashMap::new();
        let alphas = (1..=self.cells.len()).map(Plan::alpha_name);
        let reserved: std::collections::HashSet<String> = alphas.collect();
        for spec in self.ops().flat_map(Op::tensors) {
            if reserved.contains(&spec.name) {
                return Err(Error::NameClash { name: spec.name });
            }
            match seen.get(&spec.name) {
                Some(shape) if *shape != spec.shape => return Err(Error::NameClash { name: spec.name }),
                _ => seen.insert(spec.name, spec.shape),
            };
        }
        Ok(())
    }
}

impl Op {
    /// The tensors this operation reads, in a packed network.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let spec = |name: String, shape: Vec<usize>, owner| TensorSpec { name, shape, owner };
        match self {
            Op::Conv(Conv { name, owner, c_in, c_out, kernel, bias, .. }) => {
                let mut all =
                    vec![spec(format!("{name}.weight"), vec![*c_out, *c_in, *kernel, *kernel], *owner)];
                if *bias {
                    all.push(spec(format!("{name}.bias"), vec![*c_out], *owner));
                }
                all
            }
            Op::Affine(Affine { name, channels }) => vec![
                spec(format!("{name}.scale"), vec![*channels], Owner::Task),
                spec(format!("{name}.shift"), vec![*channels], Owner::Task),
            ],
            Op::Linear(Linear { name, c_in, c_out }) => vec![
                spec(format!("{name}.weight"), vec![*c_out, *c_in], Owner::Task),
                spec(format!("{name}.bias"), vec![*c_out], Owner::Task),
            ],
            Op::Relu
            | Op::MaxPool { .. }
            | Op::AvgPool { .. }
            | Op::Subsample { .. }
            | Op::PadChannels { .. }
            | Op::GlobalAvgPool => Vec::new(),
        }
    }
}

fn mismatch(place: &str, want: &str, got: Shape) -> Error {
    Error::ShapeMismatch { place: place.into(), want: want.into(), got: got.to_string() }
}
