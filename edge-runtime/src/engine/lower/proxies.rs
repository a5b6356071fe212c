//! Folded proxies of one node, summed by one kernel call.

use super::{Lowering, Term, is_own_pointwise, named};
use crate::engine::step::{Fused, ProxyTerm, Recipe, ValueId, Work};
use crate::kernels::{self, ConvShape};
use crate::{Error, Result};
use bundles::plan::{Conv, Role, Shape};

impl Term<'_> {
    /// True for a folded proxy: its 1x1 convolution can be summed with others before any epilogue.
    pub(super) fn joins(&self) -> bool {
        self.gate.0 == Role::Proxy
            && self.alpha.is_none()
            && self.last.is_some_and(|(conv, affine)| affine.is_none() && is_own_pointwise(conv))
    }
}

/// The shape of a 1x1 convolution over a blocked map.
fn one_by_one(conv: &Conv, h: usize, w: usize) -> ConvShape {
    let Conv { c_in, c_out, .. } = *conv;
    ConvShape { c_in, h, w, c_out, kernel: 1, stride: 1, pad: 0, input_nchw: false }
}

impl Lowering<'_> {
    /// Computes the proxies of one node as a single sum of 1x1 convolutions.
    pub(super) fn proxies(
        &mut self,
        proxies: &[Term<'_>],
        onto: Option<ValueId>,
        mut epilogue: Fused,
    ) -> Result<ValueId> {
        let (mut terms, mut names, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        let mut to = None;
        for proxy in proxies {
            let Some((conv, _)) = proxy.last else { continue };
            self.gate = Some(proxy.gate);
            let reads = self.groups(proxy.source, &proxy.before)?;
            let reads = self.blocked(reads)?;
            let Shape { h, w, .. } = self.values[reads];
            let shape = one_by_one(conv, h, w);
            let at = self.span(kernels::packed_len(self.isa, &shape));
            self.recipe(Recipe::Kernel { tensor: format!("{}.weight", conv.name), shape, at });
            terms.push(ProxyTerm { source: proxy.gate.1, reads, c_in: conv.c_in, weights: at });
            names.push(conv.name.as_str());
            biases.extend(conv.bias.then(|| format!("{}.bias", conv.name)));
            to = Some(Shape::new(conv.c_out, h, w));
        }
        let (Some(to), Some(reads)) = (to, terms.first().map(|term| term.reads)) else {
            return Err(Error::Internal { what: "an empty sum of proxies".into() });
        };
        if !biases.is_empty() {
            let at = self.channels(to.c);
            self.recipe(Recipe::Sum { tensors: biases, len: to.c, at });
            epilogue.shift = Some(at);
        }
        let name = named(names.join(" + "), None, &epilogue);
        // A single proxy keeps its gate; several share one step.
        self.gate = (terms.len() == 1).then_some(proxies.first().map(|proxy| proxy.gate)).flatten();
        let out = onto.unwrap_or_else(|| self.value(to));
        terms.shrink_to_fit();
        self.push(name, reads, out, Work::Proxies { terms, epilogue });
        Ok(out)
    }
}
