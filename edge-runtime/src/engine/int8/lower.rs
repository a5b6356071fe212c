//! Lowering a plan to int8 steps: every fused group is one step, the proxies of a node together are one, and
//! each cell's sum is accumulated in f32.

mod fused;
mod proxies;

use super::step::Work;
use crate::backbone::Kernel8;
use crate::engine::lower::{INPUT, Lowered, check_size};
use crate::engine::params::Span;
use crate::engine::step::{self, Factor, PartSpec, Step, ValueId};
use crate::kernels::int8::{self, Grid};
use crate::kernels::{self, Isa, Window};
use crate::{Error, Result};
use bundles::plan::{Affine, Cell, Conv, Op, Place, Plan, Role, Shape, fused, is_term};
use fused::{Dress, End};
use std::collections::HashMap;

/// The source of packed backbone kernels.
pub(crate) type KernelSource<'a> = &'a dyn Fn(&Conv) -> Result<Kernel8>;

/// Compiles `plan`, which [`Plan::check`] must have accepted, to int8 steps.
///
/// # Errors
/// [`Error::TooLarge`] for too many steps; [`Error::Tensor`] if the number of grids differs from the plan's
/// number of maps; [`Error::Incompatible`] for a head that convolves pooled features; any error of `kernels`.
pub(crate) fn lower(
    file: &str,
    plan: &Plan,
    isa: Isa,
    kernels: KernelSource<'_>,
    grids: &[Grid],
) -> Result<Lowered> {
    check_size(plan)?;
    let maps = plan.maps();
    if maps.len() != grids.len() {
        let name = plan.maps_name().unwrap_or_default();
        let (want, got) = (2 * maps.len(), Some(2 * grids.len()));
        return Err(Error::Tensor { file: file.into(), name, want, got });
    }
    let mut lowering = Lowering {
        file,
        kernels,
        grids: maps.iter().map(|map| map.place).zip(grids.iter().copied()).collect(),
        steps: Vec::new(),
        values: vec![Value { shape: plan.input, kind: Kind::Input }],
        parts: (0..plan.cells.len() + 2).map(|_| PartSpec::default()).collect(),
        part: 0,
        gate: None,
        known: HashMap::new(),
    };
    let stem = lowering.line(INPUT, &plan.stem, &|op| Place::Stem { op })?;
    let mut nodes = vec![Some(lowering.bytes(stem, false)?)];
    for (i, cell) in plan.cells.iter().enumerate() {
        lowering.part = i + 1;
        let node = if cell.is_dead() { None } else { Some(lowering.cell(i + 1, cell, &nodes)?) };
        nodes.push(node);
        lowering.gate = None;
    }
    lowering.part = plan.cells.len() + 1;
    let last =
        nodes.pop().flatten().ok_or_else(|| Error::Internal { what: "the last node is dead".into() })?;
    let result = lowering.line(last, &plan.head, &|op| Place::Head { op })?;
    let Lowering { steps, values, parts, .. } = lowering;
    let sizes = values.iter().map(|value| value.floats(isa)).collect();
    Ok(Lowered { steps, sizes, result, parts })
}

/// A feature map and its representation.
#[derive(Clone, Copy)]
struct Value {
    shape: Shape,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// The network's input: plain f32.
    Input,
    /// Bytes, `[h][w][4]`.
    Image,
    /// Bytes in blocks.
    Bytes(Grid),
    /// An unfinished sum: f32 in the blocks of u8 maps.
    Sum,
    /// Pooled features: f32.
    Floats,
}

impl Value {
    /// Floats it takes in the arena.
    fn floats(&self, isa: Isa) -> usize {
        match self.kind {
            Kind::Input | Kind::Floats => kernels::blocked_len(isa, self.shape),
            Kind::Image => self.shape.h.saturating_mul(self.shape.w),
            Kind::Bytes(_) => int8::map_len(self.shape).div_ceil(4),
            Kind::Sum => int8::map_len(self.shape),
        }
    }
}

/// One path's contribution to a cell: the value before its last convolution and that convolution, or a
/// finished value.
struct Term<'p> {
    gate: (Role, usize),
    alpha: Option<usize>,
    value: ValueId,
    last: Option<(&'p Conv, Option<&'p Affine>)>,
}

struct Lowering<'a> {
    file: &'a str,
    kernels: KernelSource<'a>,
    grids: HashMap<Place, Grid>,
    steps: Vec<Step>,
    values: Vec<Value>,
    parts: Vec<PartSpec>,
    part: usize,
    gate: Option<(Role, usize)>,
    /// Results of pools, subsamples and padding that several paths may share; and the quantised input.
    known: HashMap<ValueId, Vec<(Option<Op>, ValueId)>>,
}

impl Lowering<'_> {
    fn cell(&mut self, node: usize, cell: &Cell, nodes: &[Option<ValueId>]) -> Result<ValueId> {
        let scaled = cell.scaled_gates();
        if scaled > 0 {
            self.parts[self.part].alpha = Some((Plan::alpha_name(node), scaled));
        }
        let (mut convs, mut finished, mut alphas) = (Vec::new(), Vec::new(), 0);
        for (g, gate) in cell.gates.iter().enumerate() {
            let alpha = gate.scaled.then_some(alphas);
            alphas += usize::from(gate.scaled);
            let source = nodes.get(gate.source).copied().flatten().ok_or_else(|| Error::Internal {
                what: format!("cell {node} reads node {}, which was not computed", gate.source),
            })?;
            for (p, path) in gate.paths.iter().enumerate() {
                self.gate = Some((gate.role, gate.source));
                let place = |op| Place::Path { node, gate: g, path: p, op };
                let groups = fused(&path.ops);
                let end = groups.last().map(|range| &path.ops[range.clone()]).filter(|group| is_term(group));
                let front = path.ops.len() - end.map_or(0, <[Op]>::len);
                let value = self.line(source, &path.ops[..front], &place)?;
                let last = match end {
                    Some([Op::Conv(conv)]) => Some((conv, None)),
                    Some([Op::Conv(conv), Op::Affine(affine)]) => Some((conv, Some(affine))),
                    _ => None,
                };
                let term = Term { gate: (gate.role, gate.source), alpha, value, last };
                if term.last.is_some() { convs.push(term) } else { finished.push(term) }
            }
        }
        let (proxies, convs): (Vec<_>, Vec<_>) = convs.into_iter().partition(Term::joins);
        let proxies: Vec<_> = proxies.chunks(kernels::MAX_TERMS).collect();
        let with_epilogue = convs.len() + proxies.len();
        // Surplus terms open the sum; the others ("riders") are fused into one convolution each.
        let opening = finished.len().saturating_sub(with_epilogue);
        let mut riders = Vec::with_capacity(with_epilogue);
        for rider in finished.split_off(opening) {
            riders.push((self.bytes(rider.value, false)?, rider.alpha));
        }
        let (mut riders, grid) = (riders.into_iter(), self.grid(Place::Node { node })?);
        let mut left = opening + with_epilogue;
        let mut end = |sum: Option<ValueId>, add| {
            left -= 1;
            let ends = left == 0;
            End { grid: ends.then_some(grid), add, terms: sum.filter(|_| ends), onto: sum.filter(|_| !ends) }
        };
        let mut sum = None;
        for term in finished.into_iter().chain(convs) {
            self.gate = Some(term.gate);
            let add = if term.last.is_some() { riders.next() } else { None };
            let (conv, affine) = term.last.unzip();
            let dress = Dress { conv, affine: affine.flatten(), alpha: term.alpha };
            sum = Some(self.step(term.value, dress, end(sum, add))?);
        }
        for proxies in proxies {
            sum = Some(self.proxies(proxies, end(sum, riders.next()))?);
        }
        sum.ok_or_else(|| Error::Internal { what: format!("cell {node} has no terms") })
    }

    fn line(&mut self, from: ValueId, ops: &[Op], place: &dyn Fn(usize) -> Place) -> Result<ValueId> {
        let mut value = from;
        for range in fused(ops) {
            let (group, place) = (&ops[range.clone()], place(range.end - 1));
            value = match (group, self.values[value].kind) {
                (_, Kind::Floats) => self.floats(value, group)?,
                ([Op::Conv(conv), rest @ ..], _) => {
                    let affine = rest.iter().find_map(|op| match op {
                        Op::Affine(affine) => Some(affine),
                        _ => None,
                    });
                    let end = self.end(place)?;
                    self.step(value, Dress { conv: Some(conv), affine, alpha: None }, end)?
                }
                ([Op::Affine(affine), ..], _) => {
                    let end = self.end(place)?;
                    self.step(value, Dress { affine: Some(affine), ..Dress::default() }, end)?
                }
                ([Op::Relu], _) => {
                    let end = self.end(place)?;
                    self.step(value, Dress::default(), end)?
                }
                ([op @ Op::Linear(_)], _) => {
                    // The plan allows this on a single pixel, whose mean is itself.
                    let pooled = self.shared(value, &Op::GlobalAvgPool)?;
                    self.floats(pooled, std::slice::from_ref(op))?
                }
                ([op], _) => self.shared(value, op)?,
                _ => return Err(Error::Internal { what: "an unknown group of operations".into() }),
            };
        }
        Ok(value)
    }

    /// A pool, subsample or padding step, computed once for all paths that need it.
    fn shared(&mut self, value: ValueId, op: &Op) -> Result<ValueId> {
        let value = self.bytes(value, false)?;
        // Checking the most recent few suffices for the paths of one cell, and bounds the search.
        let mut known = self.known.get(&value).into_iter().flatten().rev().take(16);
        if let Some((_, out)) = known.find(|(known, _)| known.as_ref() == Some(op)) {
            return Ok(*out);
        }
        let Value { shape, kind: Kind::Bytes(grid) } = self.values[value] else {
            return Err(Error::Internal { what: format!("{} of a non-u8 map", op.kind()) });
        };
        let misfit = |want| Error::Internal { what: format!("{} got {shape}, needs {want}", op.kind()) };
        let to = op.output(shape).map_err(misfit)?;
        let (work, kind) = match *op {
            Op::MaxPool { kernel, stride, pad } => {
                (Work::MaxPool(Window { kernel, stride, pad }), Kind::Bytes(grid))
            }
            Op::AvgPool { kernel, stride } => {
                (Work::AvgPool(Window { kernel, stride, pad: 0 }), Kind::Bytes(grid))
            }
            Op::Subsample { stride } => (Work::Subsample { stride }, Kind::Bytes(grid)),
            Op::PadChannels { front, back } => {
                (Work::PadChannels { front, back, zero: grid.zero }, Kind::Bytes(grid))
            }
            Op::GlobalAvgPool => (Work::GlobalAvgPool { of: grid }, Kind::Floats),
            Op::Conv(_) | Op::Affine(_) | Op::Relu | Op::Linear(_) => {
                return Err(Error::Internal { what: format!("a lone {}", op.kind()) });
            }
        };
        let out = self.value(to, kind);
        self.push(op.kind().to_string(), value, out, step::Work::Int8(work));
        self.known.entry(value).or_default().push((Some(op.clone()), out));
        Ok(out)
    }

    /// A group after the pooled features, in f32.
    fn floats(&mut self, value: ValueId, group: &[Op]) -> Result<ValueId> {
        let (name, c, work) = match group {
            [Op::Linear(linear)] => {
                let (weight, bias) = (self.span(linear.c_in * linear.c_out), self.span(linear.c_out));
                for (kind, at) in [("weight", weight), ("bias", bias)] {
                    self.recipe(step::Recipe::Copy { tensor: format!("{}.{kind}", linear.name), at });
                }
                ("linear".into(), linear.c_out, step::Work::Linear { weight, bias })
            }
            [Op::Relu] => {
                let work = step::Work::Sum { factor: Factor::One, accumulate: false, relu: true };
                ("relu".into(), self.values[value].shape.c, work)
            }
            other => {
                let kind = other.first().map_or("nothing", Op::kind);
                return Err(Error::Incompatible {
                    file: self.file.into(),
                    want: format!("{kind} after the global average pool"),
                    got: "int8, which has only linear and relu there".into(),
                    remedy: "pack it in f32 or f16",
                });
            }
        };
        let out = self.value(Shape::new(c, 1, 1), Kind::Floats);
        self.push(name, value, out, work);
        Ok(out)
    }

    /// The value as bytes. The network's input is quantised when the first step reads it.
    fn bytes(&mut self, value: ValueId, image: bool) -> Result<ValueId> {
        if value != INPUT {
            return Ok(value);
        }
        let form = |kind: Kind| matches!(kind, Kind::Image) == image;
        let known = self.known.get(&INPUT).into_iter().flatten();
        if let Some((_, out)) = known.clone().find(|(_, out)| form(self.values[*out].kind)) {
            return Ok(*out);
        }
        let grid = self.grid(Place::Input)?;
        let kind = if image { Kind::Image } else { Kind::Bytes(grid) };
        let out = self.value(self.values[INPUT].shape, kind);
        self.push("image to bytes".into(), INPUT, out, step::Work::Int8(Work::Quantise { to: grid, image }));
        self.known.entry(INPUT).or_default().push((None, out));
        Ok(out)
    }

    fn grid(&self, place: Place) -> Result<Grid> {
        let missing = || Error::Internal { what: format!("no grid for {place:?}") };
        self.grids.get(&place).copied().ok_or_else(missing)
    }

    fn push(&mut self, name: String, reads: ValueId, writes: ValueId, work: step::Work) {
        let (from, to) = (self.values[reads].shape, self.values[writes].shape);
        self.steps.push(Step { name, part: self.part, gate: self.gate, reads, writes, from, to, work });
    }

    fn value(&mut self, shape: Shape, kind: Kind) -> ValueId {
        self.values.push(Value { shape, kind });
        self.values.len() - 1
    }

    fn recipe(&mut self, recipe: step::Recipe) {
        self.parts[self.part].recipes.push(recipe);
    }

    fn span(&mut self, len: usize) -> Span {
        self.parts[self.part].span(len)
    }
}
