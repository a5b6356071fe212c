//! Validates a plan before anything is allocated for it.

use super::{Affine, Conv, Linear, Op, Owner, Plan, Role, Shape};
use crate::by_name::by_name;
use crate::{Error, Result};

/// Maximum size of a feature map or tensor, in elements. Bounds what a plan from a hostile file can make a
/// reader reserve for one buffer.
pub const MAX_ELEMENTS: usize = 1 << 28;

/// A named tensor of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name, unique in its plan.
    pub name: String,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// Owner of its bytes.
    pub owner: Owner,
}

impl TensorSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether any axis is zero.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Plan {
    /// Checks everything an interpreter relies on and returns the shape of every node, `x_0` first; `None`
    /// for a dead node.
    ///
    /// Guaranteed afterwards: every operation accepts its input, the paths of a cell agree, every source is a
    /// live earlier node, a cell has at most one block (first, reading the node before it) and at most one
    /// proxy per source, one name means one tensor, the last cell is alive, the head ends in a linear layer,
    /// and no buffer exceeds [`MAX_ELEMENTS`].
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::BadSource`], [`Error::NameClash`], [`Error::Disconnected`].
    pub fn check(&self) -> Result<Vec<Option<Shape>>> {
        self.checked_tensors().map(|(nodes, _)| nodes)
    }

    /// As [`check`](Plan::check), also returning the [`tensors`](Plan::tensors).
    pub(crate) fn checked_tensors(&self) -> Result<(Vec<Option<Shape>>, Vec<TensorSpec>)> {
        if self.input.is_empty() || self.input.len() > MAX_ELEMENTS {
            return Err(mismatch("input", "a non-empty image within limits", self.input));
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
            return Err(mismatch("head", "a final linear layer", last));
        }
        let tensors = self.unique_tensors(&mut |name| Err(Error::NameClash { name: name.into() }))?;
        Ok((nodes, tensors))
    }

    /// Every tensor, once, in execution order: stem, cells (each cell's alpha first), head.
    ///
    /// These are the tensors of a packed network. (During training, each norm has four vectors instead of
    /// `scale` and `shift`.)
    pub fn tensors(&self) -> Vec<TensorSpec> {
        // Clashes are reported by `check`; here the first tensor of a name counts.
        self.unique_tensors(&mut |_| Ok(())).unwrap_or_default()
    }

    /// Every tensor, once, in execution order. Calls `clash` for names that stand for two tensors: those of
    /// different shape, and those reserved for alphas (of any cell, whether or not it has one).
    fn unique_tensors(&self, clash: &mut dyn FnMut(&str) -> Result<()>) -> Result<Vec<TensorSpec>> {
        let mut all = Vec::with_capacity(2 * self.ops().count());
        self.stem.iter().for_each(|op| op.push_tensors(&mut all));
        // Positions of the alphas; an alpha that scales no gate has shape (0,).
        let mut alphas = Vec::with_capacity(self.cells.len());
        for (i, cell) in self.cells.iter().enumerate() {
            alphas.push(all.len());
            let (name, shape) = (Plan::alpha_name(i + 1), vec![cell.scaled_gates()]);
            all.push(TensorSpec { name, shape, owner: Owner::Task });
            let ops = cell.gates.iter().flat_map(|gate| &gate.paths).flat_map(|path| &path.ops);
            ops.for_each(|op| op.push_tensors(&mut all));
        }
        self.head.iter().for_each(|op| op.push_tensors(&mut all));

        // Among equal names, the first in execution order comes first.
        let order = by_name(&all.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>());
        let mut again = vec![false; all.len()];
        for pair in order.windows(2) {
            let (first, second) = (&all[pair[0]], &all[pair[1]]);
            if first.name != second.name {
                continue;
            }
            again[pair[1]] = true;
            let reserved = pair.iter().any(|at| alphas.binary_search(at).is_ok());
            if reserved || first.shape != second.shape {
                clash(&first.name)?;
            }
        }
        let mut at = 0..;
        all.retain(|spec| {
            let absent = |at| spec.shape == [0] && alphas.binary_search(&at).is_ok();
            at.next().is_some_and(|at| !again[at] && !absent(at))
        });
        Ok(all)
    }

    /// Numbers (from 1) of the nodes that no live path reaches.
    pub fn dead_nodes(&self) -> Vec<usize> {
        (1..=self.cells.len()).filter(|&l| self.cells[l - 1].is_dead()).collect()
    }

    /// Every operation in execution order: stem, cells, head.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        let cells = self.cells.iter().flat_map(|c| &c.gates).flat_map(|g| &g.paths).flat_map(|p| &p.ops);
        self.stem.iter().chain(cells).chain(&self.head)
    }

    fn line(&self, ops: &[Op], start: Shape, place: impl Fn() -> String) -> Result<Shape> {
        let mut x = start;
        for (i, op) in ops.iter().enumerate() {
            let at = || format!("{}, op {i} ({})", place(), op.kind());
            x = op.output(x).map_err(|want| mismatch(&at(), &want, x))?;
            let fits = op.largest_tensor().is_some_and(|n| n <= MAX_ELEMENTS);
            if x.is_empty() || x.len() > MAX_ELEMENTS || !fits {
                return Err(mismatch(&at(), &format!("between 1 and {MAX_ELEMENTS} elements"), x));
            }
        }
        Ok(x)
    }
}

impl Op {
    /// The tensors this operation reads in a packed network.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut all = Vec::new();
        self.push_tensors(&mut all);
        all
    }

    fn push_tensors(&self, all: &mut Vec<TensorSpec>) {
        let mut push = |name: &str, kind: &str, shape: Vec<usize>, owner| {
            all.push(TensorSpec { name: [name, kind].concat(), shape, owner });
        };
        match self {
            Op::Conv(Conv { name, owner, c_in, c_out, kernel, bias, .. }) => {
                push(name, ".weight", vec![*c_out, *c_in, *kernel, *kernel], *owner);
                if *bias {
                    push(name, ".bias", vec![*c_out], *owner);
                }
            }
            Op::Affine(Affine { name, channels }) => {
                push(name, ".scale", vec![*channels], Owner::Task);
                push(name, ".shift", vec![*channels], Owner::Task);
            }
            Op::Linear(Linear { name, c_in, c_out }) => {
                push(name, ".weight", vec![*c_out, *c_in], Owner::Task);
                push(name, ".bias", vec![*c_out], Owner::Task);
            }
            Op::Relu
            | Op::MaxPool { .. }
            | Op::AvgPool { .. }
            | Op::Subsample { .. }
            | Op::PadChannels { .. }
            | Op::GlobalAvgPool => {}
        }
    }

    /// Number of elements of its largest tensor; `None` on overflow.
    fn largest_tensor(&self) -> Option<usize> {
        let product = |extents: &[usize]| extents.iter().try_fold(1usize, |n, &extent| n.checked_mul(extent));
        match self {
            Op::Conv(conv) => {
                product(&[conv.c_out, conv.c_in, conv.kernel, conv.kernel]).map(|n| n.max(conv.c_out))
            }
            Op::Affine(affine) => Some(affine.channels),
            Op::Linear(linear) => product(&[linear.c_out, linear.c_in]).map(|n| n.max(linear.c_out)),
            Op::Relu
            | Op::MaxPool { .. }
            | Op::AvgPool { .. }
            | Op::Subsample { .. }
            | Op::PadChannels { .. }
            | Op::GlobalAvgPool => Some(0),
        }
    }
}

fn mismatch(place: &str, want: &str, got: Shape) -> Error {
    Error::ShapeMismatch { place: place.into(), want: want.into(), got: got.to_string() }
}
