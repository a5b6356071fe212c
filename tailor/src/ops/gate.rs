//! Gates, and the gated sum at the end of every node (NetTailor eq. 2).

use super::cpu::level::Level;
use super::cpu::simple as kernel;
use super::node::{floats, node, plain, wanted};
use super::stock;
use candle_core::{Result, Tensor, bail};

/// Softmax of `logits (g,)`, with the same shape.
///
/// # Errors
/// If `logits` is not a vector, or is empty.
pub fn softmax(logits: &Tensor) -> Result<Tensor> {
    if logits.dims1()? == 0 {
        bail!("softmax: empty tensor")
    }
    #[cfg(feature = "cuda")]
    if super::gpu::runs(logits) {
        return super::gpu::softmax(logits);
    }
    if stock::composed(logits) {
        return stock::softmax(logits);
    }
    let x: Vec<f32> = logits.to_vec1()?;
    let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f32> = x.iter().map(|x| (x - largest).exp()).collect();
    let sum: f32 = exponentials.iter().sum();
    let value: Vec<f32> = exponentials.iter().map(|e| e / sum).collect();
    let kept = value.clone();
    node("softmax", &[logits], value, x.len(), move |_, g| {
        let g: Vec<f32> = g.to_vec1()?;
        let dot: f32 = g.iter().zip(&kept).map(|(g, y)| g * y).sum();
        let dx: Vec<f32> = g.iter().zip(&kept).map(|(g, y)| y * (g - dot)).collect();
        Ok(vec![Some(plain(dx, kept.len())?)])
    })
}

/// `y = [relu](sum_i alpha[gate_of[i]] * terms[i])`.
///
/// All `terms` have the same shape; `gate_of[i]` is the index in `alpha (g,)` of the weight of term `i`,
/// `None` for a weight of 1. Gradients flow to the terms and to `alpha`.
///
/// # Errors
/// If there are no terms, shapes differ, or a gate has no entry in `alpha`.
pub fn gated_sum(
    terms: &[Tensor],
    gate_of: &[Option<usize>],
    alpha: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let Some(first) = terms.first() else { bail!("gated_sum: no terms") };
    if gate_of.len() != terms.len() || terms.iter().any(|t| t.dims() != first.dims()) {
        let shapes: Vec<_> = terms.iter().map(|t| t.dims()).collect();
        bail!(
            "gated_sum: {} gates for terms of shapes {shapes:?}, want one gate per term, equal shapes",
            gate_of.len()
        )
    }
    let gates = alpha.map_or(0, Tensor::elem_count);
    if let Some(gate) = gate_of.iter().flatten().find(|gate| **gate >= gates) {
        bail!("gated_sum: a term refers to gate {gate} of {gates}")
    }
    if stock::composed(first) {
        return stock::gated_sum(terms, gate_of, alpha, relu);
    }
    let alpha = alpha.map(Tensor::contiguous).transpose()?;
    if let ([None], false) = (gate_of, relu) {
        return Ok(first.clone());
    }
    #[cfg(feature = "cuda")]
    if super::gpu::runs(first) {
        return super::gpu::gated_sum(terms, gate_of, alpha.as_ref(), relu);
    }
    let sum = Sum {
        level: Level::best(),
        terms: terms.iter().map(Tensor::contiguous).collect::<Result<_>>()?,
        gate_of: gate_of.to_vec(),
        alpha: alpha.as_ref().map(|t| t.to_vec1()).transpose()?.unwrap_or_default(),
        relu,
    };
    let value = sum.value()?;
    let mut arguments: Vec<&Tensor> = terms.iter().collect();
    // If no term is weighted, alpha has no gradient.
    arguments.extend(alpha.as_ref().filter(|_| gate_of.iter().any(Option::is_some)));
    let wants: Vec<bool> = arguments.iter().map(|t| wanted(t)).collect();
    node("gated_sum", &arguments, value, first.shape().clone(), move |y, g| {
        let (terms, alpha) = wants.split_at(sum.terms.len());
        sum.gradients(y, g, terms, alpha.first().copied())
    })
}

/// One sum, with what its gradients need.
struct Sum {
    level: Level,
    terms: Vec<Tensor>,
    gate_of: Vec<Option<usize>>,
    alpha: Vec<f32>,
    relu: bool,
}

impl Sum {
    fn weight(&self, i: usize) -> f32 {
        self.gate_of[i].map_or(1., |gate| self.alpha[gate])
    }

    fn value(&self) -> Result<Vec<f32>> {
        let terms = self.terms.iter().map(floats).collect::<Result<Vec<_>>>()?;
        let terms: Vec<(&[f32], f32)> =
            terms.iter().enumerate().map(|(i, term)| (&**term, self.weight(i))).collect();
        Ok(kernel::weighted_sum(self.level, &terms, self.relu))
    }

    /// Gradients of the `wanted` terms and, if `alpha` is `Some`, that of alpha, if wanted.
    fn gradients(
        &self,
        y: &Tensor,
        g: &Tensor,
        wanted: &[bool],
        alpha: Option<bool>,
    ) -> Result<Vec<Option<Tensor>>> {
        let level = self.level;
        // The gradient before the ReLU.
        let g = match self.relu {
            true => plain(kernel::passed_all(level, &floats(g)?, &floats(y)?), g.shape())?,
            false => g.clone(),
        };
        let gs = floats(&g)?;
        let mut gradients: Vec<Option<Tensor>> = vec![None; self.terms.len()];
        let mut d_alpha = vec![0.; self.alpha.len()];
        for (i, term) in self.terms.iter().enumerate() {
            let weight = self.weight(i);
            // Terms with the same weight have the same gradient.
            let before = (0..i).find(|&j| gradients[j].is_some() && self.gate_of[j] == self.gate_of[i]);
            let ready = match before {
                Some(j) => gradients[j].clone(),
                None => (weight == 1.).then(|| g.clone()),
            };
            let gate = self.gate_of[i].filter(|_| alpha == Some(true));
            let (scaled, dot) = match (wanted[i] && ready.is_none(), gate) {
                (true, Some(_)) => {
                    let (d, dot) = kernel::scaled_with_dot(level, &gs, &floats(term)?, weight);
                    (Some(d), dot)
                }
                (true, None) => (Some(kernel::scaled(level, &gs, weight)), 0.),
                (false, Some(_)) => (None, kernel::dot_all(level, &gs, &floats(term)?)),
                (false, None) => (None, 0.),
            };
            if let Some(gate) = gate {
                d_alpha[gate] += dot;
            }
            gradients[i] = match scaled {
                Some(d) => Some(plain(d, term.shape())?),
                None => ready.filter(|_| wanted[i]),
            };
        }
        if let Some(is_wanted) = alpha {
            let count = d_alpha.len();
            gradients.push(if is_wanted { Some(plain(d_alpha, count)?) } else { None });
        }
        Ok(gradients)
    }
}
