//! Gates, and gated sums.

use super::PARTS;
use super::launch::Threads::{Blocks, Each};
use super::launch::{launch, plain};
use crate::ops::node::{node, wanted};
use candle_core::cuda::CudaStorage;
use candle_core::{Result, Tensor};

/// Number of terms a kernel takes.
const TERMS: usize = 8;

/// Extends one to eight items to eight by repeating the last.
fn padded<T: Copy>(some: &[T]) -> Vec<T> {
    (0..TERMS).map(|i| some[i.min(some.len() - 1)]).collect()
}

/// Terms and their weights, detached and contiguous.
pub(super) struct Gated {
    /// At least one term; all have the same shape.
    pub terms: Vec<Tensor>,
    /// The index in `alpha` of each term's weight.
    pub gate_of: Vec<Option<usize>>,
    /// Weights, if any.
    pub alpha: Option<Tensor>,
}

impl Gated {
    /// Number of entries of `alpha`, the padded indices of `gates` (one past the end for no gate), and
    /// `alpha` itself or, without one, an arbitrary tensor.
    fn weights(&self, gates: &[Option<usize>]) -> (usize, Vec<usize>, &Tensor) {
        let of = self.alpha.as_ref().map_or(0, Tensor::elem_count);
        let gates: Vec<usize> = gates.iter().map(|gate| gate.unwrap_or(of)).collect();
        (of, padded(&gates), self.alpha.as_ref().unwrap_or(&self.terms[0]))
    }

    /// `[relu](sum_i alpha[gate_of[i]] * terms[i])`.
    fn value(&self, relu: bool) -> Result<CudaStorage> {
        let (mut terms, mut gates) = (self.terms.clone(), self.gate_of.clone());
        while terms.len() > TERMS {
            let sum = plain(self.sum(&terms[..TERMS], &gates[..TERMS], false)?, terms[0].shape().clone());
            terms.splice(..TERMS, [sum]);
            gates.splice(..TERMS, [None]);
        }
        self.sum(&terms, &gates, relu)
    }

    /// The sum of at most as many terms as a kernel takes.
    fn sum(&self, terms: &[Tensor], gates: &[Option<usize>], relu: bool) -> Result<CudaStorage> {
        let count = terms[0].elem_count();
        let (of, gates, alpha) = self.weights(gates);
        let extents = [vec![terms.len(), of, relu.into()], gates].concat();
        let inputs = [padded(&terms.iter().collect::<Vec<_>>()), vec![alpha]].concat();
        launch("gated", Each(count), &inputs, count, &extents, &[])
    }

    /// Gradients of the `wanted` terms, given the gradient `g` of the value `y`. Terms with the same weight
    /// have the same gradient.
    fn of_terms(&self, y: &Tensor, g: &Tensor, relu: bool, wanted: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let count = g.elem_count();
        let mut gates: Vec<Option<usize>> = Vec::new();
        for (gate, _) in self.gate_of.iter().zip(wanted).filter(|(_, wanted)| **wanted) {
            if !gates.contains(gate) {
                gates.push(*gate);
            }
        }
        let mut each = Vec::new();
        for gates in gates.chunks(TERMS) {
            if let ([None], false) = (gates, relu) {
                each.push(g.clone());
                continue;
            }
            let (of, padded, alpha) = self.weights(gates);
            let extents = [vec![gates.len(), of, relu.into()], padded].concat();
            let length = gates.len() * count;
            let d = plain(launch("gated_terms", Each(count), &[y, g, alpha], length, &extents, &[])?, length);
            for i in 0..gates.len() {
                each.push(d.narrow(0, i * count, count)?.reshape(g.shape())?);
            }
        }
        let of = |(gate, wanted): (&Option<usize>, &bool)| {
            let at = gates.iter().position(|other| other == gate)?;
            wanted.then(|| each[at].clone())
        };
        Ok(self.gate_of.iter().zip(wanted).map(of).collect())
    }

    /// Gradient of alpha `(gates,)`, given the gradient `g` of the value `y`.
    pub(super) fn of_gates(&self, y: &Tensor, g: &Tensor, relu: bool) -> Result<Tensor> {
        let (of, ..) = self.weights(&self.gate_of);
        let mut sum = Tensor::zeros(of, g.dtype(), g.device())?;
        for (terms, gates) in self.terms.chunks(TERMS).zip(self.gate_of.chunks(TERMS)) {
            let (_, gates, _) = self.weights(gates);
            let inputs = [padded(&terms.iter().collect::<Vec<_>>()), vec![y, g]].concat();
            let extents = [g.elem_count(), terms.len(), relu.into()];
            let parts = launch("gated_parts", Blocks(PARTS), &inputs, TERMS * PARTS, &extents, &[])?;
            let parts = plain(parts, (TERMS, PARTS));
            let extents = [vec![PARTS, terms.len(), of], gates].concat();
            sum = plain(launch("gated_gates", Blocks(1), &[&parts, &sum], of, &extents, &[])?, of);
        }
        Ok(sum)
    }
}

/// [`gated_sum`](crate::ops::gated_sum).
pub(in crate::ops) fn gated_sum(
    terms: &[Tensor],
    gate_of: &[Option<usize>],
    alpha: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let inner = |t: &Tensor| t.detach().contiguous();
    let sum = Gated {
        terms: terms.iter().map(inner).collect::<Result<_>>()?,
        gate_of: gate_of.to_vec(),
        alpha: alpha.map(inner).transpose()?,
    };
    let value = sum.value(relu)?;
    let mut arguments: Vec<&Tensor> = terms.iter().collect();
    // If no term is weighted, alpha has no gradient.
    arguments.extend(alpha.filter(|_| gate_of.iter().any(Option::is_some)));
    let wants: Vec<bool> = arguments.iter().map(|t| wanted(t)).collect();
    node("gated_sum", &arguments, value, terms[0].shape().clone(), move |y, g| {
        let (of_terms, of_alpha) = wants.split_at(sum.terms.len());
        let (y, g) = (y.detach(), g.detach());
        let mut gradients = sum.of_terms(&y, &g, relu, of_terms)?;
        for &wanted in of_alpha {
            gradients.push(wanted.then(|| sum.of_gates(&y, &g, relu)).transpose()?);
        }
        Ok(gradients)
    })
}

/// [`softmax`](crate::ops::softmax).
pub(in crate::ops) fn softmax(logits: &Tensor) -> Result<Tensor> {
    let logits = logits.contiguous()?;
    let of = logits.elem_count();
    let value = launch("softmax", Blocks(1), &[&logits.detach()], of, &[of], &[])?;
    node("softmax", &[&logits], value, of, move |y, g| {
        let dx = launch("softmax_input", Blocks(1), &[&y.detach(), &g.detach()], of, &[of], &[])?;
        Ok(vec![Some(plain(dx, of))])
    })
}
