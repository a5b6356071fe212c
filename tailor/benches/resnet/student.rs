//! One student step as NetTailor defines it: frozen backbone in batch-statistics mode, proxies from the three
//! nearest nodes, gates, teacher forward, cross-entropy + complexity + local teacher matching, momentum SGD.

use super::{Block, ConvNorm, Net, Random, Spec};
use candle_core::{D, DType, Device, Result, Tensor, Var};
use tailor::ops::{self, ConvNormOutput, ProxyTrace};

/// Nearest source nodes per cell.
const K: usize = 3;
const EPS: f64 = 1e-5;

struct Proxy {
    source: usize,
    /// Resolution of the source over that of the target.
    scale: usize,
    conv: ConvNorm,
}

/// Trainable parts beside a frozen backbone and its teacher.
pub struct Student {
    backbone: Net,
    teacher: Net,
    proxies: Vec<Vec<Proxy>>,
    /// `(cells, K + 1)`: block first, then sources from near to far; absent ones far below zero.
    logits: Var,
    mask: Tensor,
    costs: Tensor,
    /// Where `p_in` and `p_out` factors lie, flattened.
    into: Tensor,
    leaving: Tensor,
    not_last: Tensor,
    head: (Tensor, Tensor),
    vars: Vec<(Var, Tensor)>,
    running: Vec<(Tensor, Tensor)>,
}

fn vector(values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(values, shape, &Device::Cpu)
}

impl Student {
    /// A student of `spec` with random backbone, teacher and proxies.
    pub fn new(spec: &Spec) -> Result<Student> {
        let (backbone, teacher) = (Net::new(spec)?, Net::new(spec)?);
        let mut b = super::Builder { random: Random::new(3), vars: Vec::new() };
        let cells = backbone.blocks.len();
        let mut nodes = vec![(spec.stages[0].0, 1)];
        for block in &backbone.blocks {
            let scale = nodes[nodes.len() - 1].1 * block.first.stride;
            nodes.push((block.second.kernel.dim(0)?, scale));
        }
        let mut proxies = Vec::new();
        let (mut mask, mut costs) = (vec![-1e9; cells * (K + 1)], vec![0.; cells * (K + 1)]);
        let (mut into, mut leaving) =
            (vec![0u32; cells * (K + 1)], vec![(cells * (K + 1)) as u32; cells * (K + 1)]);
        for l in 1..=cells {
            let row = (l - 1) * (K + 1);
            (mask[row], costs[row], into[row]) = (0., 1. / cells as f32, (l - 1) as u32);
            leaving[row] = if l < cells { (row + K + 1) as u32 } else { leaving[row] };
            let mut cell = Vec::new();
            for j in 0..K.min(l) {
                let source = l - 1 - j;
                let ((c_in, from), (c_out, to)) = (nodes[source], nodes[l]);
                cell.push(Proxy { source, scale: to / from, conv: b.conv(c_in, c_out, 1, 1, 0)? });
                let at = row + 1 + j;
                (mask[at], costs[at], into[at]) = (0., 0.05 / cells as f32, source as u32);
                if l + 1 + j <= cells {
                    leaving[at] = ((l + j) * (K + 1) + 1 + j) as u32;
                }
            }
            proxies.push(cell);
        }
        let c = nodes[cells].0;
        let weight = b.random.normal(&[spec.classes, c], 0.05)?;
        let head = (b.var(weight)?, b.var(Tensor::zeros(spec.classes, DType::F32, &Device::Cpu)?)?);
        let start: Vec<f32> = (0..cells * (K + 1)).map(|i| if i % (K + 1) == 0 { 2. } else { -2. }).collect();
        let logits = Var::from_tensor(&vector(start, &[cells, K + 1])?)?;
        let count = cells * (K + 1);
        let not_last = (0..cells).map(|l| if l + 1 < cells { 1. } else { 0. }).collect();
        Ok(Student {
            backbone,
            teacher,
            proxies,
            mask: vector(mask, &[cells, K + 1])?,
            costs: vector(costs, &[cells, K + 1])?,
            into: Tensor::from_vec(into, count, &Device::Cpu)?,
            leaving: Tensor::from_vec(leaving, count, &Device::Cpu)?,
            not_last: vector(not_last, &[cells, 1])?,
            logits,
            head,
            vars: b.vars,
            running: Vec::new(),
        })
    }

    /// Node outputs (stem first) and logits of the teacher in inference mode.
    fn teach(&self, x: &Tensor) -> Result<(Vec<Tensor>, Tensor)> {
        let unit = |c: &ConvNorm, x: &Tensor, relu: bool| {
            ops::affine(&ops::conv2d(x, &c.kernel, c.stride, c.pad, true)?, &c.weight, &c.bias, relu)
        };
        let mut x = unit(&self.teacher.stem, x, true)?;
        if self.teacher.pooled {
            x = ops::max_pool2d(&x, 3, 2, 1)?;
        }
        let mut nodes = vec![x];
        for Block { first, second, shortcut } in &self.teacher.blocks {
            let x = &nodes[nodes.len() - 1];
            let y = unit(second, &unit(first, x, true)?, false)?;
            let side = match shortcut {
                Some(shortcut) => unit(shortcut, x, false)?,
                None => x.clone(),
            };
            nodes.push(ops::gated_sum(&[y, side], &[None, None], None, true)?);
        }
        let (w, b) = (self.teacher.head.0.detach(), self.teacher.head.1.detach());
        let logits = ops::global_avg_pool(&nodes[nodes.len() - 1])?.matmul(&w.t()?)?.broadcast_add(&b)?;
        Ok((nodes, logits))
    }

    fn frozen(
        &self,
        c: &ConvNorm,
        x: &Tensor,
        relu: bool,
        seen: &mut Vec<(Tensor, Tensor)>,
    ) -> Result<Tensor> {
        let out = ops::conv_norm(x, c.op(relu, true))?.norm;
        seen.push((out.mean, out.var));
        Ok(out.y)
    }

    /// `sum C * alpha * (1 - p_in) * (1 - p_out)`.
    fn complexity(&self, alpha: &Tensor) -> Result<Tensor> {
        let (cells, columns) = alpha.dims2()?;
        let off = (1. - alpha)?;
        let product = |m: &Tensor| -> Result<Tensor> {
            let mut p = m.narrow(1, 0, 1)?;
            for c in 1..columns {
                p = (p * m.narrow(1, c, 1)?)?;
            }
            Ok(p)
        };
        let zero = Tensor::zeros((1, 1), DType::F32, &Device::Cpu)?;
        let p_in = Tensor::cat(&[&zero, &product(&off)?], 0)?.flatten_all()?.index_select(&self.into, 0)?;
        let one = Tensor::ones(1, DType::F32, &Device::Cpu)?;
        let out = Tensor::cat(&[&off.flatten_all()?, &one], 0)?.index_select(&self.leaving, 0)?;
        let p_out = (product(&out.reshape((cells, columns))?)? * &self.not_last)?;
        let kept = ((1. - p_in.reshape((cells, columns))?)? * alpha)?.broadcast_mul(&(1. - p_out)?)?;
        (kept * &self.costs)?.sum_all()
    }

    /// One step; returns the loss.
    pub fn step(&mut self, x: &Tensor, labels: &Tensor) -> Result<f32> {
        let (targets, target_logits) = self.teach(x)?;
        let mut seen = Vec::new();
        let alphas = candle_nn::ops::softmax(&(self.logits.as_tensor() + &self.mask)?, D::Minus1)?;
        let mut stem = self.frozen(&self.backbone.stem, x, true, &mut seen)?;
        if self.backbone.pooled {
            stem = ops::max_pool2d(&stem, 3, 2, 1)?;
        }
        let mut nodes = vec![stem];
        let mut matching: Option<Tensor> = None;
        for (l, Block { first, second, shortcut }) in self.backbone.blocks.iter().enumerate() {
            let x = nodes[l].clone();
            let y = self.frozen(second, &self.frozen(first, &x, true, &mut seen)?, false, &mut seen)?;
            let side = match shortcut {
                Some(shortcut) => self.frozen(shortcut, &x, false, &mut seen)?,
                None => x,
            };
            let alpha = alphas.get(l)?;
            let (mut terms, mut gates, mut traces) = (vec![y, side], vec![Some(0), Some(0)], Vec::new());
            for (j, proxy) in self.proxies[l].iter().enumerate() {
                let (source, s, c) = (&nodes[proxy.source], proxy.scale, &proxy.conv);
                let pooled = if s > 1 { ops::max_pool2d(source, s + 1, s, s / 2)? } else { source.clone() };
                let ConvNormOutput { conv_out, norm: out } = ops::conv_norm(&pooled, c.op(false, false))?;
                seen.push((out.mean.clone(), out.var.clone()));
                terms.push(out.y);
                gates.push(Some(1 + j));
                traces.push(ProxyTrace {
                    pooled,
                    conv_out,
                    weight: c.kernel.clone(),
                    norm_weight: c.weight.clone(),
                    norm_bias: c.bias.clone(),
                    mean: out.mean,
                    var: out.var,
                    eps: EPS,
                    gate: 1 + j,
                });
            }
            let node = ops::gated_sum(&terms, &gates, Some(&alpha), true)?;
            let local = ops::local_match(&node, &targets[l + 1], true, &terms[..2], 0, &traces, &alpha)?;
            matching = Some(match matching {
                Some(sum) => (sum + local)?,
                None => local,
            });
            nodes.push(node);
        }
        let features = ops::global_avg_pool(&nodes[nodes.len() - 1])?;
        let logits = features.matmul(&self.head.0.t()?)?.broadcast_add(&self.head.1)?;
        let cells = self.backbone.blocks.len() as f64;
        let mut matched = ops::mse(&logits, &target_logits)?;
        if let Some(sum) = matching {
            matched = (matched + sum)?;
        }
        let loss = ops::cross_entropy(&logits, labels, 0.)?;
        let loss = ((loss + (self.complexity(&alphas)? * 0.3)?)? + (matched * (10. / cells))?)?;
        let grads = ops::backward(&loss)?;
        for (var, velocity) in &mut self.vars {
            if let Some(g) = grads.get(var) {
                ops::sgd_step(var, g, velocity, 0.001, 0.9, 5e-4)?;
            }
        }
        if let Some(g) = grads.get(&self.logits) {
            self.logits.set(&(self.logits.as_detached_tensor() - (g * 0.001)?)?)?;
        }
        self.average(seen)?;
        loss.to_scalar()
    }

    /// Running statistics, momentum 0.1.
    fn average(&mut self, seen: Vec<(Tensor, Tensor)>) -> Result<()> {
        if self.running.is_empty() {
            self.running = seen;
            return Ok(());
        }
        for (old, new) in self.running.iter_mut().zip(seen) {
            old.0 = ((&old.0 * 0.9)? + (new.0 * 0.1)?)?;
            old.1 = ((&old.1 * 0.9)? + (new.1 * 0.1)?)?;
        }
        Ok(())
    }
}
