//! The forward pass of a plan (stem, cells, head), with batch-norms in training or inference mode.

use super::{NORM_EPS, Params, alphas};
use crate::ops::{self, BatchNormOutput, ConvNorm, ConvNormOutput, ProxyTrace};
use crate::{Error, Result};
use bundles::plan::{Affine, Cell, Conv, Gate, Op, Plan, Role};
use candle_core::Tensor;
use std::collections::{HashMap, HashSet};

/// Which statistics norms use, and what is recorded for the backward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Running statistics; nothing is recorded.
    Infer,
    /// Running statistics; the batch's own statistics are reported in [`Forward::stats`].
    Observe,
    /// Batch statistics, reported in [`Forward::stats`].
    Train,
    /// Like `Train`, and each cell records what local matching needs ([`Net::match_locally`]).
    Trace,
}

/// A plan with its parameters.
#[derive(Debug, Clone, Copy)]
pub struct Net<'a> {
    /// Structure.
    pub plan: &'a Plan,
    /// Parameters.
    pub params: &'a Params,
}

/// Batch statistics of one norm: `(channels,)` each, the variance unbiased.
#[derive(Debug, Clone)]
pub struct Stats {
    /// The norm's name.
    pub norm: String,
    /// Batch mean.
    pub mean: Tensor,
    /// Batch variance, unbiased.
    pub var: Tensor,
}

/// The results of a forward pass.
#[derive(Debug)]
pub struct Forward {
    /// Activations `x_0 … x_L`, each `(n, c, h, w)`; `None` for dead nodes.
    pub nodes: Vec<Option<Tensor>>,
    /// Class scores before softmax, `(n, classes)`.
    pub logits: Tensor,
    /// Batch statistics, once for every norm (empty in inference).
    pub stats: Vec<Stats>,
    /// The alphas used, as returned by [`alphas`].
    pub alphas: Vec<Option<Tensor>>,
    traces: Vec<Option<CellTrace>>,
}

impl Forward {
    /// Whether node `l` recorded what local matching needs, so that nothing has to be recomputed.
    #[cfg(test)]
    pub(crate) fn is_traced(&self, node: usize) -> bool {
        self.traces[node - 1].is_some()
    }
}

/// What the backward pass of one cell needs, detached from the history of its inputs.
#[derive(Debug)]
struct CellTrace {
    /// Outputs of the block's paths.
    block: Vec<Tensor>,
    proxies: Vec<ProxyTrace>,
}

/// The state of one pass.
struct Walk {
    pass: Pass,
    stats: Vec<Stats>,
    seen: HashSet<String>,
    pooled: HashMap<Pooling, Tensor>,
}

/// A node, and the kernel, stride and padding with which it is pooled.
type Pooling = (usize, [usize; 3]);

impl Walk {
    fn new(pass: Pass) -> Walk {
        Walk { pass, stats: Vec::new(), seen: HashSet::new(), pooled: HashMap::new() }
    }

    /// Applies the max-pool that `path` may start with, and returns the result with the remaining operations.
    /// Proxies that share the pooling share its result.
    fn pooled<'p>(&mut self, source: usize, x: &Tensor, path: &'p [Op]) -> Result<(Tensor, &'p [Op])> {
        let [Op::MaxPool { kernel, stride, pad }, rest @ ..] = path else { return Ok((x.clone(), path)) };
        let key = (source, [*kernel, *stride, *pad]);
        let pooled = match self.pooled.get(&key) {
            Some(pooled) => pooled.clone(),
            None => ops::max_pool2d(x, *kernel, *stride, *pad)?,
        };
        self.pooled.insert(key, pooled.clone());
        Ok((pooled, rest))
    }

    /// Whether norms use batch statistics.
    fn trains(&self) -> bool {
        matches!(self.pass, Pass::Train | Pass::Trace)
    }

    /// Records batch statistics. Two paths that share a norm see the same batch, so its statistics count
    /// once.
    fn saw(&mut self, norm: &str, out: &BatchNormOutput) {
        if self.seen.insert(norm.into()) {
            let (mean, var) = (out.mean.clone(), out.var.clone());
            self.stats.push(Stats { norm: norm.into(), mean, var });
        }
    }
}

impl Net<'_> {
    /// Runs the network on normalised images `(n, 3, h, w)`.
    ///
    /// # Errors
    /// If tensors are missing or shapes do not fit the plan.
    pub fn forward(&self, images: &Tensor, pass: Pass) -> Result<Forward> {
        self.forward_gated(images, pass, alphas(self.plan, self.params)?)
    }

    /// Runs the network with the given gate values, shaped as by [`alphas`].
    ///
    /// # Errors
    /// Those of [`forward`](Net::forward).
    pub fn forward_gated(&self, images: &Tensor, pass: Pass, alphas: Vec<Option<Tensor>>) -> Result<Forward> {
        let mut walk = Walk::new(pass);
        let mut nodes = vec![Some(self.line(&self.plan.stem, images, &mut walk)?)];
        let mut traces = Vec::with_capacity(self.plan.cells.len());
        for (cell, alpha) in self.plan.cells.iter().zip(&alphas) {
            if cell.is_dead() {
                nodes.push(None);
                traces.push(None);
                continue;
            }
            let (node, trace) = self.cell(cell, alpha.as_ref(), &nodes, &mut walk)?;
            nodes.push(Some(node));
            traces.push(trace);
        }
        let last = nodes.last().cloned().flatten().ok_or_else(|| dead(self.plan.cells.len()))?;
        let logits = self.line(&self.plan.head, &last, &mut walk)?;
        Ok(Forward { nodes, logits, stats: walk.stats, alphas, traces })
    }

    /// Batch statistics of every norm, while the network itself uses its running statistics. The classifier,
    /// which a backbone may lack, has no norms and is left out.
    ///
    /// # Errors
    /// Those of [`forward`](Net::forward).
    pub fn observe(&self, images: &Tensor) -> Result<Vec<Stats>> {
        let plan = without_classifier(self.plan);
        Ok(Net { plan: &plan, params: self.params }.forward(images, Pass::Observe)?.stats)
    }

    /// The matching loss `mean((x_l - target)^2)` of node `l` alone. Its gradient reaches the cell's proxies
    /// and gates and stops at the cell's inputs (METHOD: local matching).
    ///
    /// Reuses the values of `forward` if its pass was [`Pass::Trace`] and the proxies are single
    /// convolutions; otherwise the cell is computed again on detached inputs.
    ///
    /// # Errors
    /// If tensors are missing, the node is dead, or shapes differ.
    pub fn match_locally(&self, forward: &Forward, node: usize, target: &Tensor) -> Result<Tensor> {
        let cell = &self.plan.cells[node - 1];
        let y = forward.nodes[node].as_ref().ok_or_else(|| dead(node))?;
        let alpha = forward.alphas[node - 1].as_ref();
        if let (Some(trace), Some(alpha)) = (&forward.traces[node - 1], alpha) {
            // The block, if live, is the cell's first gate.
            let (block, proxies) = (&trace.block, &trace.proxies);
            return Ok(ops::local_match(y, target, cell.relu, block, 0, proxies, alpha)?);
        }
        let inputs: Vec<_> = forward.nodes.iter().map(|x| x.as_ref().map(Tensor::detach)).collect();
        let mut walk = Walk::new(Pass::Train);
        let (again, _) = self.cell(cell, alpha, &inputs, &mut walk)?;
        Ok(ops::mse(&again, target)?)
    }

    fn cell(
        &self,
        cell: &Cell,
        alpha: Option<&Tensor>,
        nodes: &[Option<Tensor>],
        walk: &mut Walk,
    ) -> Result<(Tensor, Option<CellTrace>)> {
        let traceable = walk.pass == Pass::Trace
            && alpha.is_some()
            && cell.gates.iter().all(|gate| gate.scaled && self.is_traceable(gate));
        let mut trace = traceable.then(|| CellTrace { block: Vec::new(), proxies: Vec::new() });
        let mut terms = Vec::new();
        let mut gate_of = Vec::new();
        let mut scaled = 0;
        for gate in &cell.gates {
            let weighed = gate.scaled.then_some(scaled);
            scaled += usize::from(gate.scaled);
            let source = nodes.get(gate.source).and_then(Option::as_ref).ok_or_else(|| dead(gate.source))?;
            for path in &gate.paths {
                let (source, line) = walk.pooled(gate.source, source, &path.ops)?;
                let term = match (&mut trace, gate.role) {
                    (Some(trace), Role::Proxy) => {
                        let gate = weighed.unwrap_or(0);
                        let (term, proxy) = self.traced_proxy(line, &source, gate, walk)?;
                        trace.proxies.push(proxy);
                        term
                    }
                    (trace, _) => {
                        let term = self.line(line, &source, walk)?;
                        if let Some(trace) = trace {
                            trace.block.push(term.detach());
                        }
                        term
                    }
                };
                terms.push(term);
                gate_of.push(weighed);
            }
        }
        let y = ops::gated_sum(&terms, &gate_of, alpha, cell.relu)?;
        Ok((y, trace))
    }

    /// Whether local gradients of this gate can be computed from recorded values alone: true for
    /// single-convolution proxies, and for blocks without trained parameters.
    fn is_traceable(&self, gate: &Gate) -> bool {
        gate.paths.iter().all(|path| match gate.role {
            Role::Block => !path.ops.iter().any(|op| match op {
                Op::Affine(norm) => self.params.is_free(&format!("{}.weight", norm.name)),
                _ => false,
            }),
            Role::Proxy => matches!(
                path.ops.as_slice(),
                [Op::Conv(_), Op::Affine(_)] | [Op::MaxPool { .. }, Op::Conv(_), Op::Affine(_)]
            ),
        })
    }

    /// A proxy's convolution and norm, on its already `pooled` input.
    fn traced_proxy(
        &self,
        ops: &[Op],
        pooled: &Tensor,
        gate: usize,
        walk: &mut Walk,
    ) -> Result<(Tensor, ProxyTrace)> {
        let [Op::Conv(conv), Op::Affine(norm)] = ops else {
            return Err(Error::MissingTensor { name: "proxy convolution".into() });
        };
        let ConvNormOutput { conv_out, norm: BatchNormOutput { y: term, mean, var } } =
            self.conv_norm(conv, norm, pooled, false, walk)?;
        let trace = ProxyTrace {
            pooled: pooled.detach(),
            conv_out,
            weight: self.params.get(&format!("{}.weight", conv.name))?.clone(),
            norm_weight: self.params.get(&format!("{}.weight", norm.name))?.clone(),
            norm_bias: self.params.get(&format!("{}.bias", norm.name))?.clone(),
            mean,
            var,
            eps: NORM_EPS,
            gate,
        };
        Ok((term, trace))
    }

    /// Runs some of the plan's operations on `x`, in inference mode.
    ///
    /// # Errors
    /// If tensors are missing or shapes do not fit.
    pub fn segment(&self, ops: &[Op], x: &Tensor) -> Result<Tensor> {
        self.line(ops, x, &mut Walk::new(Pass::Infer))
    }

    /// Runs a sequence of operations on `x`.
    fn line(&self, line: &[Op], x: &Tensor, walk: &mut Walk) -> Result<Tensor> {
        let mut x = x.clone();
        let mut i = 0;
        while i < line.len() {
            if let [Op::Conv(conv), Op::Affine(norm), rest @ ..] = &line[i..]
                && walk.trains()
                && !conv.bias
            {
                let relu = matches!(rest, [Op::Relu, ..]);
                x = self.conv_norm(conv, norm, &x, relu, walk)?.norm.y;
                i += 2 + usize::from(relu);
                continue;
            }
            let fuse_relu = matches!(line.get(i + 1), Some(Op::Relu));
            x = match &line[i] {
                Op::Conv(conv) => {
                    let name = format!("{}.weight", conv.name);
                    let weight = self.params.get(&name)?;
                    let y = ops::conv2d(&x, weight, conv.stride, conv.pad, !self.params.is_free(&name))?;
                    if conv.bias {
                        let bias = self.params.get(&format!("{}.bias", conv.name))?;
                        y.broadcast_add(&bias.reshape((1, conv.c_out, 1, 1))?)?
                    } else {
                        y
                    }
                }
                Op::Affine(norm) => {
                    let y = self.norm(&norm.name, &x, fuse_relu, walk)?;
                    i += usize::from(fuse_relu);
                    y
                }
                Op::Relu => x.relu()?,
                &Op::MaxPool { kernel, stride, pad } => ops::max_pool2d(&x, kernel, stride, pad)?,
                &Op::AvgPool { kernel, stride } => ops::avg_pool2d(&x, kernel, stride)?,
                &Op::Subsample { stride } => ops::subsample(&x, stride)?,
                &Op::PadChannels { front, back } => ops::pad_channels(&x, front, back)?,
                Op::GlobalAvgPool => ops::global_avg_pool(&x)?,
                Op::Linear(linear) => {
                    let weight = self.params.get(&format!("{}.weight", linear.name))?;
                    let bias = self.params.get(&format!("{}.bias", linear.name))?;
                    x.flatten_from(1)?.matmul(&weight.t()?)?.broadcast_add(bias)?
                }
            };
            i += 1;
        }
        Ok(x)
    }

    fn norm(&self, name: &str, x: &Tensor, relu: bool, walk: &mut Walk) -> Result<Tensor> {
        if !walk.trains() {
            if walk.pass == Pass::Observe && walk.seen.insert(name.into()) {
                walk.stats.push(observed(name, x)?);
            }
            let (scale, shift) = self.params.scale_shift(name)?;
            return Ok(ops::affine(x, &scale, &shift, relu)?);
        }
        let weight_name = format!("{name}.weight");
        let weight = self.params.get(&weight_name)?;
        let bias = self.params.get(&format!("{name}.bias"))?;
        let out = ops::batch_norm(x, weight, bias, NORM_EPS, relu, !self.params.is_free(&weight_name))?;
        walk.saw(name, &out);
        Ok(out.y)
    }

    /// A convolution and its norm in training, as one fused operation.
    fn conv_norm(
        &self,
        conv: &Conv,
        norm: &Affine,
        x: &Tensor,
        relu: bool,
        walk: &mut Walk,
    ) -> Result<ConvNormOutput> {
        let (kernel, weight) = (format!("{}.weight", conv.name), format!("{}.weight", norm.name));
        let of = ConvNorm {
            kernel: self.params.get(&kernel)?,
            stride: conv.stride,
            pad: conv.pad,
            frozen_kernel: !self.params.is_free(&kernel),
            weight: self.params.get(&weight)?,
            bias: self.params.get(&format!("{}.bias", norm.name))?,
            eps: NORM_EPS,
            relu,
            frozen_affine: !self.params.is_free(&weight),
        };
        let out = ops::conv_norm(x, of)?;
        walk.saw(&norm.name, &out.norm);
        Ok(out)
    }
}

/// The plan without its classifier, ending at the features.
pub(crate) fn without_classifier(plan: &Plan) -> Plan {
    let mut body = plan.clone();
    let at = body.head.iter().position(|op| matches!(op, Op::Linear(_)));
    body.head.truncate(at.unwrap_or(body.head.len()));
    body
}

/// Mean and unbiased variance of each channel of `x` `(n, c, h, w)`.
fn observed(norm: &str, x: &Tensor) -> Result<Stats> {
    let per_channel = x.transpose(0, 1)?.flatten_from(1)?;
    let mean = per_channel.mean_keepdim(1)?;
    let n = per_channel.dim(1)? as f64;
    let squares = per_channel.broadcast_sub(&mean)?.sqr()?.sum(1)?;
    Ok(Stats {
        norm: norm.into(),
        mean: mean.squeeze(1)?.detach(),
        var: (squares / (n - 1.0).max(1.0))?.detach(),
    })
}

fn dead(node: usize) -> Error {
    Error::Bundle(bundles::Error::BadSource { cell: node, source: node })
}
