//! Lowers a plan to ONNX nodes, one primitive at a time.

use super::Network;
use super::graph::{Builder, float, int, ints};
use crate::{Error, Result};
use bundles::plan::{Affine, Cell, Conv, Linear, Op, Plan, Role, Shape};

/// A value in the graph.
#[derive(Debug, Clone)]
pub(super) struct Value {
    /// Name of its producer.
    pub name: String,
    /// Without the batch axis.
    pub shape: Shape,
    /// Whether it is `(n, c)` instead of `(n, c, h, w)`, as after a linear layer.
    pub flat: bool,
}

/// A plan being lowered to nodes.
pub(super) struct Lowering<'a> {
    network: &'a Network,
    pub graph: Builder,
}

impl<'a> Lowering<'a> {
    pub fn new(network: &'a Network) -> Lowering<'a> {
        Lowering { network, graph: Builder::default() }
    }

    /// Lowers the whole network from its input `x`; the result is `(n, classes)`, or `(n, features)` without
    /// a classifier.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] if the network lacks a tensor of its plan, [`Error::Bundle`] for an invalid
    /// plan.
    pub fn network(&mut self, x: Value) -> Result<Value> {
        let plan = &self.network.plan;
        plan.check()?;
        let x = self.line("stem", &plan.stem, x, None)?;
        let mut nodes = vec![Some(x)];
        for (i, cell) in plan.cells.iter().enumerate() {
            let node = self.cell(i + 1, cell, &nodes)?;
            nodes.push(node);
        }
        let last = nodes.pop().flatten().ok_or_else(|| Error::MissingTensor { name: "last node".into() })?;
        let head = match plan.head.split_last() {
            Some((Op::Linear(_), before)) if !self.network.classifier => before,
            _ => &plan.head,
        };
        let x = self.line("head", head, last, None)?;
        Ok(self.flat("features", x))
    }

    /// Node `l`: the gated sum of its terms; `None` for a dead node.
    fn cell(&mut self, l: usize, cell: &Cell, nodes: &[Option<Value>]) -> Result<Option<Value>> {
        let alphas = match cell.scaled_gates() {
            0 => &[][..],
            _ => self.network.tensor(&Plan::alpha_name(l))?,
        };
        let mut alphas = alphas.iter();
        let mut sum: Option<Value> = None;
        let mut terms = 0;
        for gate in &cell.gates {
            let word = match gate.role {
                Role::Block => "block".to_owned(),
                Role::Proxy => format!("proxy{}", gate.source),
            };
            let alpha = if gate.scaled { alphas.next().copied() } else { None };
            for (p, path) in gate.paths.iter().enumerate() {
                // The plan was checked: every source is alive.
                let Some(Some(source)) = nodes.get(gate.source) else { continue };
                let term = self.line(&format!("cell{l}.{word}.{p}"), &path.ops, source.clone(), alpha)?;
                let term = self.spatial(&format!("cell{l}.{word}.{p}.map"), term);
                sum = Some(match sum {
                    None => term,
                    Some(sum) => {
                        terms += 1;
                        let name = format!("cell{l}.sum{terms}");
                        Value { name: self.graph.node("Add", &name, &[&sum.name, &term.name], vec![]), ..sum }
                    }
                });
            }
        }
        let Some(sum) = sum else { return Ok(None) };
        if !cell.relu {
            return Ok(Some(sum));
        }
        let name = self.graph.node("Relu", &format!("cell{l}.relu"), &[&sum.name], vec![]);
        Ok(Some(Value { name, ..sum }))
    }

    /// A line of operations, times `alpha`.
    fn line(&mut self, place: &str, ops: &[Op], mut x: Value, alpha: Option<f32>) -> Result<Value> {
        // A final norm absorbs the alpha: this saves a multiplication per pixel, and an optimiser can fold
        // all of it into the preceding convolution.
        let absorbed = matches!(ops.last(), Some(Op::Affine(_)));
        for (i, op) in ops.iter().enumerate() {
            let factor = alpha.filter(|_| absorbed && i + 1 == ops.len());
            x = self.op(&format!("{place}.{i}.{}", op.kind()), op, x, factor)?;
        }
        let Some(alpha) = alpha.filter(|_| !absorbed) else { return Ok(x) };
        let factor = self.graph.floats(&format!("{place}.alpha"), &[1], &[alpha]);
        let name = self.graph.node("Mul", &format!("{place}.scaled"), &[&x.name, &factor], vec![]);
        Ok(Value { name, ..x })
    }

    fn op(&mut self, at: &str, op: &Op, x: Value, factor: Option<f32>) -> Result<Value> {
        let shape = op.output(x.shape).map_err(|want| bundles::Error::ShapeMismatch {
            place: at.into(),
            want,
            got: x.shape.to_string(),
        })?;
        // Only these accept a flat value unchanged.
        let x = match op {
            Op::Affine(_) | Op::Relu | Op::Linear(_) => x,
            Op::Conv(_)
            | Op::MaxPool { .. }
            | Op::AvgPool { .. }
            | Op::Subsample { .. }
            | Op::PadChannels { .. }
            | Op::GlobalAvgPool => self.spatial(&format!("{at}.map"), x),
        };
        let flat = x.flat;
        let input = x.name.as_str();
        let window = |kernel, stride| vec![ints("kernel_shape", &[kernel; 2]), ints("strides", &[stride; 2])];
        let name = match op {
            Op::Conv(conv) => self.conv(at, conv, input)?,
            Op::Affine(norm) => self.affine(at, norm, factor, input)?,
            Op::Relu => self.graph.node("Relu", at, &[input], vec![]),
            &Op::MaxPool { kernel, stride, pad } => {
                let mut attributes = window(kernel, stride);
                attributes.push(ints("pads", &[pad; 4]));
                self.graph.node("MaxPool", at, &[input], attributes)
            }
            &Op::AvgPool { kernel, stride } => {
                self.graph.node("AveragePool", at, &[input], window(kernel, stride))
            }
            &Op::Subsample { stride } => {
                let starts = self.graph.ints("subsample.starts", &[0, 0]);
                let ends = self.graph.ints(&format!("{at}.ends"), &[x.shape.h, x.shape.w]);
                let axes = self.graph.ints("subsample.axes", &[2, 3]);
                let steps = self.graph.ints(&format!("{at}.steps"), &[stride; 2]);
                self.graph.node("Slice", at, &[input, &starts, &ends, &axes, &steps], vec![])
            }
            &Op::PadChannels { front, back } => {
                let pads = self.graph.ints(&format!("{at}.pads"), &[0, front, 0, 0, 0, back, 0, 0]);
                self.graph.node("Pad", at, &[input, &pads], vec![])
            }
            Op::GlobalAvgPool => self.graph.node("GlobalAveragePool", at, &[input], vec![]),
            Op::Linear(linear) => {
                let Linear { name, c_in, c_out } = linear;
                let weight = self.constant(&format!("{name}.weight"), &[*c_out, *c_in])?;
                let bias = self.constant(&format!("{name}.bias"), &[*c_out])?;
                let x = self.flat(&format!("{at}.flat"), x);
                let name = self.graph.node("Gemm", at, &[&x.name, &weight, &bias], vec![int("transB", 1)]);
                return Ok(Value { name, shape, flat: true });
            }
        };
        Ok(Value { name, shape, flat })
    }

    fn conv(&mut self, at: &str, conv: &Conv, x: &str) -> Result<String> {
        let Conv { name, c_in, c_out, kernel, stride, pad, bias, .. } = conv;
        let mut inputs =
            vec![x.to_owned(), self.constant(&format!("{name}.weight"), &[*c_out, *c_in, *kernel, *kernel])?];
        if *bias {
            inputs.push(self.constant(&format!("{name}.bias"), &[*c_out])?);
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let attributes = vec![
            ints("kernel_shape", &[*kernel; 2]),
            ints("strides", &[*stride; 2]),
            ints("pads", &[*pad; 4]),
        ];
        Ok(self.graph.node("Conv", at, &inputs, attributes))
    }

    /// A batch-norm with mean 0 and variance 1, which every ONNX optimiser can fold.
    fn affine(&mut self, at: &str, norm: &Affine, factor: Option<f32>, x: &str) -> Result<String> {
        let Affine { name, channels } = norm;
        let mut parts = Vec::new();
        for part in ["scale", "shift"] {
            let tensor = format!("{name}.{part}");
            parts.push(match factor {
                None => self.constant(&tensor, &[*channels])?,
                Some(factor) => {
                    let scaled: Vec<f32> = self.network.tensor(&tensor)?.iter().map(|v| v * factor).collect();
                    self.graph.floats(&format!("{at}.{part}"), &[*channels], &scaled)
                }
            });
        }
        let mean = self.graph.floats(&format!("zeros{channels}"), &[*channels], &vec![0.0; *channels]);
        let variance = self.graph.floats(&format!("ones{channels}"), &[*channels], &vec![1.0; *channels]);
        let inputs = [x, &parts[0], &parts[1], &mean, &variance];
        Ok(self.graph.node("BatchNormalization", at, &inputs, vec![float("epsilon", 0.0)]))
    }

    /// A tensor of the network as a constant of the same name.
    fn constant(&mut self, name: &str, dims: &[usize]) -> Result<String> {
        let values = self.network.tensor(name)?;
        if values.len() != dims.iter().product::<usize>() {
            let (want, got) = (dims.to_vec(), vec![values.len()]);
            return Err(Error::TensorShape { name: name.into(), want, got });
        }
        Ok(self.graph.floats(name, dims, values))
    }

    /// Reshapes to `(n, c, h, w)`.
    fn spatial(&mut self, at: &str, x: Value) -> Value {
        if !x.flat {
            return x;
        }
        let axes = self.graph.ints("map.axes", &[2, 3]);
        Value { name: self.graph.node("Unsqueeze", at, &[&x.name, &axes], vec![]), flat: false, ..x }
    }

    /// Flattens to `(n, c)`.
    fn flat(&mut self, at: &str, x: Value) -> Value {
        if x.flat {
            return x;
        }
        Value { name: self.graph.node("Flatten", at, &[&x.name], vec![int("axis", 1)]), flat: true, ..x }
    }
}
