//! Folded proxies of one node, summed by one kernel call.

use super::fused::End;
use super::{Kind, Lowering, Term, Value};
use crate::backbone::int8_shape;
use crate::engine::int8::step::{Kernel, Recipe, Work};
use crate::engine::lower::is_own_pointwise;
use crate::engine::params::Span;
use crate::engine::step::{self, AffineRecipe, ProxyTerm, ValueId};
use crate::kernels::ConvShape;
use crate::kernels::int8;
use crate::{Error, Result};
use bundles::plan::{Role, Shape};

impl Term<'_> {
    /// True for a proxy whose 1x1 convolution can be summed with others before any epilogue. Norm and alpha
    /// enter its scale and the shift that all of them share.
    pub(super) fn joins(&self) -> bool {
        self.gate.0 == Role::Proxy && self.last.is_some_and(|(conv, _)| is_own_pointwise(conv))
    }
}

impl Lowering<'_> {
    /// Computes the proxies of one node as a single sum of 1x1 convolutions.
    pub(super) fn proxies(&mut self, proxies: &[Term<'_>], end: End) -> Result<ValueId> {
        let Some((first, (conv, _))) = proxies.first().and_then(|first| Some((first, first.last?))) else {
            return Err(Error::Internal { what: "an empty sum of proxies".into() });
        };
        let (channels, len) = (conv.c_out, int8::padded(conv.c_out));
        let scales = self.span(proxies.len() * len);
        let (finish, mut add) = self.finish(scales, channels, &end)?;
        let (mut terms, mut names) = (Vec::with_capacity(proxies.len()), Vec::new());
        let to = Shape { c: channels, ..self.values[first.value].shape };
        for proxy in proxies {
            let Some((conv, affine)) = proxy.last else { continue };
            let Value { shape: Shape { h, w, .. }, kind: Kind::Bytes(from) } = self.values[proxy.value]
            else {
                return Err(Error::Internal { what: "a proxy of a non-u8 map".into() });
            };
            let shape = ConvShape { h, w, ..int8_shape(conv) };
            int8::check(&shape).map_err(|source| Error::Kernel { step: conv.name.clone(), source })?;
            let weights = self.span(int8::packed_len(&shape).div_ceil(4));
            let scale = Span { start: scales.start + terms.len() * len, len };
            self.recipe(step::Recipe::Int8(Box::new(Recipe {
                affine: AffineRecipe {
                    channels,
                    affine: affine.map(|affine| affine.name.clone()),
                    bias: conv.bias.then(|| (format!("{}.bias", conv.name), conv.owner)),
                    alpha: proxy.alpha,
                    scale: Some(scale),
                    shift: Some(finish.shift),
                },
                kernel: Kernel::Task { tensor: format!("{}.weight", conv.name), shape, at: weights },
                from,
                to: end.grid,
                add: add.take(),
                joins: !terms.is_empty(),
            })));
            terms.push(ProxyTerm { source: proxy.gate.1, reads: proxy.value, c_in: conv.c_in, weights });
            names.push(conv.name.as_str());
            names.extend(affine.map(|affine| affine.name.as_str()));
        }
        // A single proxy keeps its gate; several share one step.
        self.gate = (terms.len() == 1).then_some(first.gate);
        Ok(self.finished(names.join(" + "), first.value, to, end, Work::Proxies { terms, finish }))
    }
}
