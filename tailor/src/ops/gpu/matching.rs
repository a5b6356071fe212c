//! Local teacher matching from the traces of the forward pass.

use super::conv::kernel_gradient;
use super::gate::Gated;
use super::launch::Threads::Blocks;
use super::launch::{launch, plain};
use super::loss::{difference, mean_square};
use super::norm::Norm;
use crate::ops::cpu::shape::ConvShape;
use crate::ops::matching::{ProxyTrace, arguments};
use crate::ops::node::{Gradients, node};
use candle_core::{Result, Tensor};

/// One proxy's trace, detached and contiguous.
struct Proxy {
    pooled: Tensor,
    norm: Norm,
    bias: Tensor,
    shape: ConvShape,
    gate: usize,
}

impl Proxy {
    fn new(p: &ProxyTrace) -> Result<Proxy> {
        let inner = |t: &Tensor| t.detach().contiguous();
        let count = (p.conv_out.elem_count() / p.norm_weight.elem_count()) as f64;
        let norm = Norm {
            x: inner(&p.conv_out)?,
            mean: inner(&p.mean)?,
            var: inner(&p.var)?,
            biased: (count - 1.0) / count,
            weight: inner(&p.norm_weight)?,
            eps: p.eps,
        };
        let shape = ConvShape::new(p.pooled.dims(), p.weight.dims(), 1, 0)?;
        Ok(Proxy { pooled: inner(&p.pooled)?, norm, bias: inner(&p.norm_bias)?, shape, gate: p.gate })
    }

    /// Gradients of kernel, norm weight, norm bias, and of alpha (added to `others`), given the gradient `d`
    /// of the sum that the proxy is a term of.
    fn gradients(&self, d: &Tensor, alpha: &Tensor, others: &Tensor) -> Result<[Tensor; 4]> {
        let (c, gates) = (self.bias.elem_count(), alpha.elem_count());
        let sums = self.norm.sums(d, d, false)?;
        let inputs = [&sums, &self.norm.weight, &self.bias, alpha, others];
        let all = launch("gated_norm", Blocks(1), &inputs, 2 * c + gates, &[c, gates, self.gate], &[])?;
        let all = plain(all, 2 * c + gates);
        let dz = self.norm.input(d, d, false, &sums, Some((alpha, self.gate)))?;
        let kernel = kernel_gradient(&self.pooled, &dz, &self.shape)?;
        Ok([kernel, all.narrow(0, 0, c)?, all.narrow(0, c, c)?, all.narrow(0, 2 * c, gates)?])
    }
}

/// [`local_match`](crate::ops::local_match).
pub(in crate::ops) fn local_match(
    y: &Tensor,
    target: &Tensor,
    relu: bool,
    block: &[Tensor],
    block_gate: usize,
    proxies: &[ProxyTrace],
    alpha: &Tensor,
) -> Result<Tensor> {
    let inner = |t: &Tensor| t.detach().contiguous();
    let (y, target) = (inner(y)?, inner(target)?);
    let value = mean_square(&y, &target)?;
    let inner_alpha = inner(alpha)?;
    let block = match block {
        [] => None,
        _ => Some(Gated {
            terms: block.iter().map(inner).collect::<Result<_>>()?,
            gate_of: vec![Some(block_gate); block.len()],
            alpha: Some(inner_alpha.clone()),
        }),
    };
    let traces = proxies.iter().map(Proxy::new).collect::<Result<Vec<_>>>()?;
    node("local_match", &arguments(proxies, alpha), value, (), move |_, g| {
        let d = difference(&y, &target, &g.detach(), relu)?;
        let mut of_gates = match &block {
            Some(block) => block.of_gates(&d, &d, false)?,
            None => inner_alpha.zeros_like()?,
        };
        let mut gradients = Gradients::new();
        for trace in &traces {
            let [kernel, weight, bias, gates] = trace.gradients(&d, &inner_alpha, &of_gates)?;
            gradients.extend([kernel, weight, bias].map(Some));
            of_gates = gates;
        }
        gradients.push(Some(of_gates));
        Ok(gradients)
    })
}
