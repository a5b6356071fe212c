//! Local teacher matching of one cell without a second forward pass (NetTailor eq. 11, inputs detached).

use super::cpu::level::Level;
use super::cpu::shape::ConvShape;
use super::cpu::{conv, norm, simple};
use super::node::{floats, node, plain, wanted};
use super::stock;
use candle_core::{Result, Tensor, bail};

/// Recorded values of a single-convolution proxy (`[max-pool] -> 1x1 conv -> batch-norm`) from the forward
/// pass.
#[derive(Debug, Clone)]
pub struct ProxyTrace {
    /// Input of the convolution, after pooling: `(n, c_in, h, w)`.
    pub pooled: Tensor,
    /// Output of the convolution, before batch-norm: `(n, c_out, h, w)`.
    pub conv_out: Tensor,
    /// Convolution kernel `(c_out, c_in, 1, 1)`.
    pub weight: Tensor,
    /// Batch-norm weight `(c_out,)`.
    pub norm_weight: Tensor,
    /// Batch-norm bias `(c_out,)`.
    pub norm_bias: Tensor,
    /// Batch mean `(c_out,)` as [`batch_norm`](super::batch_norm) returned it.
    pub mean: Tensor,
    /// Unbiased batch variance `(c_out,)` as [`batch_norm`](super::batch_norm) returned it.
    pub var: Tensor,
    /// The batch-norm's epsilon.
    pub eps: f64,
    /// Index in `alpha` of the proxy's weight.
    pub gate: usize,
}

fn check(y: &Tensor, target: &Tensor, block: &[Tensor], proxies: &[ProxyTrace], gates: usize) -> Result<()> {
    let &[n, c, h, w] = y.dims() else { bail!("local_match: y {:?} must be (n, c, h, w)", y.dims()) };
    if let Some(t) = block.iter().chain([target]).find(|t| t.dims() != y.dims()) {
        bail!("local_match: shape {:?} differs from that of y, {:?}", t.dims(), y.dims())
    }
    for p in proxies {
        let c_in = p.pooled.dim(1)?;
        let fits = p.conv_out.dims() == y.dims()
            && p.pooled.dims() == [n, c_in, h, w]
            && p.weight.dims() == [c, c_in, 1, 1]
            && [&p.norm_weight, &p.norm_bias, &p.mean, &p.var].iter().all(|t| t.dims() == [c])
            && p.gate < gates;
        if !fits {
            bail!(
                "local_match: proxy on gate {} of {gates}: pooled {:?}, kernel {:?}, conv output {:?} do not lead to y {:?}",
                p.gate,
                p.pooled.dims(),
                p.weight.dims(),
                p.conv_out.dims(),
                y.dims()
            )
        }
    }
    Ok(())
}

/// `mean((y - target)^2)` of a node `y = [relu](alpha[block_gate] * sum(block) + sum_p alpha[gate_p] *
/// proxy_p)`, a scalar whose gradients stay inside the cell: they reach only the proxies' kernels and norms,
/// and `alpha`.
///
/// `y` is the node's output as already computed, `block` the terms of the universal block (body, shortcut;
/// constants here), `target` the teacher's node. Nothing is recomputed: the gradients come from the traces.
/// Block terms with trained parameters and bottleneck proxies are not supported; compose such cells again on
/// detached inputs.
///
/// # Errors
/// If the shapes do not fit.
pub fn local_match(
    y: &Tensor,
    target: &Tensor,
    relu: bool,
    block: &[Tensor],
    block_gate: usize,
    proxies: &[ProxyTrace],
    alpha: &Tensor,
) -> Result<Tensor> {
    let gates = alpha.elem_count();
    check(y, target, block, proxies, gates)?;
    if block_gate >= gates && !block.is_empty() {
        bail!("local_match: the block refers to gate {block_gate} of {gates}")
    }
    #[cfg(feature = "cuda")]
    if super::gpu::runs(y) {
        return super::gpu::local_match(y, target, relu, block, block_gate, proxies, alpha);
    }
    if stock::composed(y) {
        return stock::local_match(target, relu, block, block_gate, proxies, alpha);
    }
    let fixed = |t: &Tensor| t.detach().contiguous();
    let trace = Trace {
        level: Level::best(),
        relu,
        y: fixed(y)?,
        target: fixed(target)?,
        block: block.iter().map(fixed).collect::<Result<_>>()?,
        block_gate,
        alpha: alpha.to_vec1()?,
        proxies: proxies.iter().map(Proxy::new).collect::<Result<_>>()?,
    };
    let value = simple::mse(trace.level, &floats(&trace.y)?, &floats(&trace.target)?);
    let arguments = arguments(proxies, alpha);
    let kept: Vec<Tensor> = arguments.iter().map(|t| (*t).clone()).collect();
    node("local_match", &arguments, vec![value], (), move |_, g| {
        let gradients = trace.backward(g.to_scalar()?)?;
        let given = |(values, of): (Vec<f32>, &Tensor)| {
            if wanted(of) { plain(values, of.shape()).map(Some) } else { Ok(None) }
        };
        gradients.into_iter().zip(&kept).map(given).collect()
    })
}

/// The tensors local matching has gradients for: kernel, norm weight and norm bias of each proxy, then the
/// gates.
pub(super) fn arguments<'a>(proxies: &'a [ProxyTrace], alpha: &'a Tensor) -> Vec<&'a Tensor> {
    proxies.iter().flat_map(|p| [&p.weight, &p.norm_weight, &p.norm_bias]).chain([alpha]).collect()
}

/// One proxy's trace, detached and contiguous.
struct Proxy {
    pooled: Tensor,
    conv_out: Tensor,
    weight: Vec<f32>,
    bias: Vec<f32>,
    stats: norm::Statistics,
    eps: f64,
    gate: usize,
}

impl Proxy {
    fn new(p: &ProxyTrace) -> Result<Proxy> {
        let count = (p.conv_out.elem_count() / p.norm_weight.elem_count()) as f32;
        let biased = p.var.to_vec1::<f32>()?.iter().map(|v| v * ((count - 1.) / count)).collect();
        Ok(Proxy {
            pooled: p.pooled.detach().contiguous()?,
            conv_out: p.conv_out.detach().contiguous()?,
            weight: p.norm_weight.to_vec1()?,
            bias: p.norm_bias.to_vec1()?,
            stats: norm::Statistics { mean: p.mean.to_vec1()?, var: biased },
            eps: p.eps,
            gate: p.gate,
        })
    }
}

struct Trace {
    level: Level,
    relu: bool,
    y: Tensor,
    target: Tensor,
    block: Vec<Tensor>,
    block_gate: usize,
    proxies: Vec<Proxy>,
    alpha: Vec<f32>,
}

impl Trace {
    /// Gradients of the [`arguments`], given the gradient `g` of the loss.
    fn backward(&self, g: f32) -> Result<Vec<Vec<f32>>> {
        let level = self.level;
        let factor = 2. * g / self.y.elem_count() as f32;
        let d = {
            let (y, t) = (floats(&self.y)?, floats(&self.target)?);
            simple::masked_difference_all(level, &y, &t, factor, self.relu)
        };
        let (mut gradients, mut gates) = (Vec::new(), vec![0.; self.alpha.len()]);
        for term in &self.block {
            gates[self.block_gate] += simple::dot_all(level, &d, &floats(term)?);
        }
        for p in &self.proxies {
            let &[_, _, h, w] = p.conv_out.dims() else {
                bail!("local_match: a proxy's output lost its shape")
            };
            let (alpha, z) = (self.alpha[p.gate], floats(&p.conv_out)?);
            let n = norm::backward(level, &z, &d, h * w, &p.weight, &p.bias, &p.stats, p.eps, false);
            // sum(d * proxy output) without the output itself, which is weight * normalised + bias.
            let along = |v: &[f32], by: &[f32]| v.iter().zip(by).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            gates[p.gate] += (along(&n.weight, &p.weight) + along(&n.bias, &p.bias)) as f32;
            let kernel = [p.weight.len(), p.pooled.dim(1)?, 1, 1];
            let s = ConvShape::new(p.pooled.dims(), &kernel, 1, 0)?;
            let dw = conv::backward_weights(level, &s, &floats(&p.pooled)?, &n.dx);
            gradients.extend([dw, n.weight, n.bias].map(|d| d.iter().map(|v| alpha * v).collect()));
        }
        gradients.push(gates);
        Ok(gradients)
    }
}
