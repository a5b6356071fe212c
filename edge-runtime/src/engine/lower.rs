//! Lowering a plan to steps: straight lines become kernel calls, and each cell's sum is distributed over the
//! epilogues of the convolutions that feed it.

mod groups;
mod proxies;

use self::groups::{Group, groups};
use super::params::Span;
use super::step::{AffineRecipe, Factor, Fused, PartSpec, Recipe, Step, ValueId, Weights, Work};
use crate::backbone::Kernel;
use crate::kernels::{self, ConvShape, Isa, Window};
use crate::{Error, Result};
use bundles::plan::{Affine, Cell, Conv, Op, Owner, Plan, Role, Shape};
use std::collections::HashMap;

/// Maximum steps of one network. Bounds the planning work for a hostile file; ResNet-1202 has 1,300.
const MAX_STEPS: usize = 16_384;

/// The source of packed backbone kernels.
pub(crate) type KernelSource<'a> = &'a dyn Fn(&Conv, &ConvShape) -> Result<Kernel>;

/// The result of [`lower`].
#[derive(Debug)]
pub(crate) struct Lowered {
    pub steps: Vec<Step>,
    /// Floats of each value in the arena; value 0 is the network's input, plain `(c, h, w)`.
    pub sizes: Vec<usize>,
    /// The value that holds the scores.
    pub result: ValueId,
    /// Parameters of the stem, each cell, and the head.
    pub parts: Vec<PartSpec>,
}

/// Compiles `plan`, which [`Plan::check`] must have accepted.
///
/// A convolution and the norm and ReLU that follow it become one step. In a cell, the alpha of a gate is
/// multiplied into the scale and shift of the convolution that ends its path; every such convolution
/// accumulates into the node, folded proxies all at once, and each remaining term (identity and padded
/// shortcuts) is fused into one of them as its `add`. Whatever fits no epilogue becomes a step of its own.
/// Pools and norms that several paths apply to the same value are computed once.
///
/// # Errors
/// [`Error::TooLarge`] for too many steps; any error of `kernels`.
pub(crate) fn lower(plan: &Plan, isa: Isa, kernels: KernelSource<'_>) -> Result<Lowered> {
    check_size(plan)?;
    let mut lowering = Lowering {
        isa,
        kernels,
        steps: Vec::new(),
        values: vec![plan.input],
        parts: (0..plan.cells.len() + 2).map(|_| PartSpec::default()).collect(),
        part: 0,
        gate: None,
        blocked_input: None,
        known: HashMap::new(),
    };
    let stem = lowering.line(INPUT, &plan.stem)?;
    let mut nodes = vec![Some(lowering.blocked(stem)?)];
    for (i, cell) in plan.cells.iter().enumerate() {
        lowering.part = i + 1;
        let node = if cell.is_dead() { None } else { Some(lowering.cell(i + 1, cell, &nodes)?) };
        nodes.push(node);
        lowering.gate = None;
    }
    lowering.part = plan.cells.len() + 1;
    let last =
        nodes.pop().flatten().ok_or_else(|| Error::Internal { what: "the last node is dead".into() })?;
    let result = lowering.line(last, &plan.head)?;
    let Lowering { steps, values, parts, .. } = lowering;
    let sizes = values.iter().map(|&shape| kernels::blocked_len(isa, shape)).collect();
    Ok(Lowered { steps, sizes, result, parts })
}

/// Refuses plans that would need too many steps.
pub(super) fn check_size(plan: &Plan) -> Result<()> {
    let paths = plan.cells.iter().flat_map(|cell| &cell.gates).flat_map(|gate| &gate.paths).count();
    let need = plan.ops().count() + paths + plan.cells.len();
    if need > MAX_STEPS {
        let what = format!("number of operations of {}", plan.arch);
        return Err(Error::TooLarge { what, need, limit: MAX_STEPS });
    }
    Ok(())
}

/// True for a 1x1 convolution that the task owns, over a map of its output's size: what proxies end in.
pub(super) fn is_own_pointwise(conv: &Conv) -> bool {
    (conv.kernel, conv.stride, conv.pad, conv.owner) == (1, 1, 0, Owner::Task)
}

/// The value that the caller of a frame provides: the image, plain `(c, h, w)`.
pub(crate) const INPUT: ValueId = 0;

/// One path's contribution to a cell: the value before its last convolution and that convolution, or a
/// finished value.
struct Term<'p> {
    gate: (Role, usize),
    alpha: Option<usize>,
    source: ValueId,
    before: Vec<Group<'p>>,
    last: Option<(&'p Conv, Option<&'p Affine>)>,
}

/// A step's name: its convolutions and what is fused into them.
fn named(convs: String, affine: Option<&Affine>, epilogue: &Fused) -> String {
    let fused = [
        (affine.map_or("", |affine| &affine.name), affine.is_some()),
        ("add", epilogue.add.is_some()),
        ("sum", epilogue.accumulate),
        ("relu", epilogue.relu),
    ];
    fused.iter().filter(|(_, there)| *there).fold(convs, |name, (part, _)| name + " + " + part)
}

/// A step that other paths may share: what it does and what it writes.
type Known = (Vec<Op>, ValueId);

struct Lowering<'a> {
    isa: Isa,
    kernels: KernelSource<'a>,
    steps: Vec<Step>,
    values: Vec<Shape>,
    parts: Vec<PartSpec>,
    part: usize,
    gate: Option<(Role, usize)>,
    blocked_input: Option<ValueId>,
    known: HashMap<ValueId, Vec<Known>>,
}

impl Lowering<'_> {
    fn cell(&mut self, node: usize, cell: &Cell, nodes: &[Option<ValueId>]) -> Result<ValueId> {
        let scaled = cell.scaled_gates();
        if scaled > 0 {
            self.parts[self.part].alpha = Some((Plan::alpha_name(node), scaled));
        }
        let mut terms = Vec::new();
        let mut alphas = 0;
        for gate in &cell.gates {
            let alpha = gate.scaled.then_some(alphas);
            alphas += usize::from(gate.scaled);
            let source = nodes.get(gate.source).copied().flatten().ok_or_else(|| Error::Internal {
                what: format!("cell {node} reads node {}, which was not computed", gate.source),
            })?;
            for path in &gate.paths {
                let mut before = groups(&path.ops);
                let last = match before.last() {
                    Some(&Group::Conv { conv, affine, relu: false }) => {
                        before.pop();
                        Some((conv, affine))
                    }
                    _ => None,
                };
                terms.push(Term { gate: (gate.role, gate.source), alpha, source, before, last });
            }
        }
        let (convs, plain): (Vec<_>, Vec<_>) = terms.into_iter().partition(|term| term.last.is_some());
        let (proxies, convs): (Vec<_>, Vec<_>) = convs.into_iter().partition(Term::joins);
        let proxies: Vec<_> = proxies.chunks(kernels::MAX_TERMS).collect();

        let mut finished = Vec::with_capacity(plain.len());
        for term in &plain {
            self.gate = Some(term.gate);
            let value = self.groups(term.source, &term.before)?;
            finished.push((value, self.factor(term.alpha)));
        }
        let with_epilogue = convs.len() + proxies.len();
        if let (0, [(value, Factor::One)], false) = (with_epilogue, &finished[..], cell.relu) {
            return Ok(*value);
        }
        // Surplus terms open the sum; the others ("riders") are fused into one convolution each.
        let opening = finished.len().saturating_sub(with_epilogue);
        let count = opening + with_epilogue;
        let mut riders = finished.split_off(opening).into_iter();
        let mut sum = None;
        for (i, (value, factor)) in finished.into_iter().enumerate() {
            let shape = self.values[value];
            let out = *sum.get_or_insert_with(|| self.value(shape));
            let relu = cell.relu && i + 1 == count;
            let work = Work::Sum { factor, accumulate: i > 0, relu };
            self.push("sum".into(), value, out, work);
        }
        let mut done = opening;
        let mut epilogue = || {
            done += 1;
            let (accumulate, relu) = (done > 1, cell.relu && done == count);
            Fused { add: riders.next(), accumulate, relu, ..Fused::default() }
        };
        for term in &convs {
            let Some((conv, affine)) = term.last else { continue };
            self.gate = Some(term.gate);
            let input = self.groups(term.source, &term.before)?;
            sum = Some(self.conv(input, sum, conv, affine, term.alpha, epilogue())?);
        }
        for proxies in proxies {
            sum = Some(self.proxies(proxies, sum, epilogue())?);
        }
        sum.ok_or_else(|| Error::Internal { what: format!("cell {node} has no terms") })
    }

    fn line(&mut self, from: ValueId, ops: &[Op]) -> Result<ValueId> {
        self.groups(from, &groups(ops))
    }

    fn groups(&mut self, from: ValueId, groups: &[Group<'_>]) -> Result<ValueId> {
        groups.iter().try_fold(from, |value, group| self.group(value, group))
    }

    fn group(&mut self, value: ValueId, group: &Group<'_>) -> Result<ValueId> {
        let key: Vec<Op> = match *group {
            Group::Conv { conv, affine, relu } => {
                let epilogue = Fused { relu, ..Fused::default() };
                return self.conv(value, None, conv, affine, None, epilogue);
            }
            Group::Affine { affine, relu } => {
                let norm = Op::Affine(affine.clone());
                if relu { vec![norm, Op::Relu] } else { vec![norm] }
            }
            Group::Single(op) => vec![op.clone()],
        };
        let value = self.blocked(value)?;
        // Checking the most recent few suffices for the paths of one cell, and bounds the search.
        let known = self.known.get(&value).into_iter().flatten().rev().take(16);
        if let Some((_, out)) = known.clone().find(|(ops, _)| *ops == key) {
            return Ok(*out);
        }
        let out = self.single(value, group)?;
        self.known.entry(value).or_default().push((key, out));
        Ok(out)
    }

    /// A step other than a convolution.
    fn single(&mut self, value: ValueId, group: &Group<'_>) -> Result<ValueId> {
        let from = self.values[value];
        let (name, to, work) = match group {
            Group::Affine { affine, relu } => {
                let (scale, shift) = (self.channels(affine.channels), self.channels(affine.channels));
                self.recipe(Recipe::Affine(AffineRecipe {
                    channels: affine.channels,
                    affine: Some(affine.name.clone()),
                    scale: Some(scale),
                    shift: Some(shift),
                    ..AffineRecipe::default()
                }));
                let name = format!("{}{}", affine.name, if *relu { " + relu" } else { "" });
                (name, from, Work::Affine { scale, shift, relu: *relu })
            }
            Group::Conv { .. } => {
                return Err(Error::Internal { what: "a convolution as a plain step".into() });
            }
            Group::Single(op) => {
                let to = op.output(from).map_err(|want| Error::Internal {
                    what: format!("{} got {from}, needs {want}", op.kind()),
                })?;
                (op.kind().to_string(), to, self.single_op(op)?)
            }
        };
        let out = self.value(to);
        self.push(name, value, out, work);
        Ok(out)
    }

    fn single_op(&mut self, op: &Op) -> Result<Work> {
        Ok(match *op {
            Op::Relu => Work::Sum { factor: Factor::One, accumulate: false, relu: true },
            Op::MaxPool { kernel, stride, pad } => Work::MaxPool(Window { kernel, stride, pad }),
            Op::AvgPool { kernel, stride } => Work::AvgPool(Window { kernel, stride, pad: 0 }),
            Op::Subsample { stride } => Work::Subsample { stride },
            Op::PadChannels { front, back } => Work::PadChannels { front, back },
            Op::GlobalAvgPool => Work::GlobalAvgPool,
            Op::Linear(ref linear) => {
                let weight = self.span(linear.c_in * linear.c_out);
                let bias = self.span(linear.c_out);
                for (kind, at) in [("weight", weight), ("bias", bias)] {
                    self.recipe(Recipe::Copy { tensor: format!("{}.{kind}", linear.name), at });
                }
                Work::Linear { weight, bias }
            }
            // These two never stand alone; see `groups`.
            Op::Conv(_) | Op::Affine(_) => {
                return Err(Error::Internal { what: format!("a lone {}", op.kind()) });
            }
        })
    }

    /// A convolution with everything fused into its epilogue; writes to `onto` or a new value.
    fn conv(
        &mut self,
        input: ValueId,
        onto: Option<ValueId>,
        conv: &Conv,
        affine: Option<&Affine>,
        alpha: Option<usize>,
        mut epilogue: Fused,
    ) -> Result<ValueId> {
        // A kernel over few channels reads the image as it is; a blocked image would be mostly padding.
        let plain = input == INPUT && conv.c_in < self.isa.block();
        let input = if plain { input } else { self.blocked(input)? };
        let from = self.values[input];
        let shape = ConvShape {
            c_in: conv.c_in,
            h: from.h,
            w: from.w,
            c_out: conv.c_out,
            kernel: conv.kernel,
            stride: conv.stride,
            pad: conv.pad,
            input_nchw: plain,
        };
        let to = Shape::new(conv.c_out, shape.out_h(), shape.out_w());
        let tensor = format!("{}.weight", conv.name);
        let kernel = match conv.owner {
            Owner::Backbone => Weights::Backbone((self.kernels)(conv, &shape)?),
            Owner::Task => {
                let at = self.span(kernels::packed_len(self.isa, &shape));
                self.recipe(Recipe::Kernel { tensor, shape, at });
                Weights::Task(at)
            }
        };
        let scale = (affine.is_some() || alpha.is_some()).then(|| self.channels(conv.c_out));
        let shift = (affine.is_some() || conv.bias).then(|| self.channels(conv.c_out));
        if scale.is_some() || shift.is_some() {
            self.recipe(Recipe::Affine(AffineRecipe {
                channels: conv.c_out,
                affine: affine.map(|affine| affine.name.clone()),
                bias: conv.bias.then(|| (format!("{}.bias", conv.name), conv.owner)),
                alpha,
                scale,
                shift,
            }));
        }
        let name = named(conv.name.clone(), affine, &epilogue);
        epilogue.scale = scale;
        epilogue.shift = shift;
        let out = onto.unwrap_or_else(|| self.value(to));
        self.push(name, input, out, Work::Conv { shape, kernel, epilogue });
        Ok(out)
    }

    /// The value in blocked layout. The image is blocked only if something other than a first convolution
    /// reads it.
    fn blocked(&mut self, value: ValueId) -> Result<ValueId> {
        if value != INPUT {
            return Ok(value);
        }
        if let Some(blocked) = self.blocked_input {
            return Ok(blocked);
        }
        let out = self.value(self.values[INPUT]);
        self.push("image to blocks".into(), INPUT, out, Work::Block);
        self.blocked_input = Some(out);
        Ok(out)
    }

    fn factor(&mut self, alpha: Option<usize>) -> Factor {
        let Some(index) = alpha else { return Factor::One };
        let at = self.span(1);
        self.recipe(Recipe::Alpha { index, at });
        Factor::At(at)
    }

    fn push(&mut self, name: String, reads: ValueId, writes: ValueId, work: Work) {
        let (from, to) = (self.values[reads], self.values[writes]);
        self.steps.push(Step { name, part: self.part, gate: self.gate, reads, writes, from, to, work });
    }

    fn value(&mut self, shape: Shape) -> ValueId {
        self.values.push(shape);
        self.values.len() - 1
    }

    fn recipe(&mut self, recipe: Recipe) {
        self.parts[self.part].recipes.push(recipe);
    }

    /// Allocates one number per channel, padded to whole blocks.
    fn channels(&mut self, channels: usize) -> Span {
        self.span(self.isa.padded(channels))
    }

    fn span(&mut self, len: usize) -> Span {
        self.parts[self.part].span(len)
    }
}
