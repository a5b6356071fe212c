//! The gated sum every node of the network ends in (NetTailor eq. 2).

use super::cpu::level::Level;
use super::cpu::simple as kernel;
use super::node::{Three, Value, floats, node2, node3, plain, wanted};
use super::stock;
use candle_core::{Result, Shape, Tensor, bail};

/// `y = [relu](sum_i alpha[gate_of[i]] * terms[i])`.
///
/// `terms` all have one shape; `gate_of[i]` names the entry of `alpha (g,)` that weighs term `i`, `None` weighs
/// it 1. Gradients flow to the terms and to `alpha`.
///
/// # Errors
/// No terms, unequal shapes, a gate without `alpha` or beyond its end.
pub fn gated_sum(
    terms: &[Tensor],
    gate_of: &[Option<usize>],
    alpha: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let Some(first) = terms.first() else { bail!("gated_sum: a node without terms") };
    if gate_of.len() != terms.len() || terms.iter().any(|t| t.dims() != first.dims()) {
        let shapes: Vec<_> = terms.iter().map(|t| t.dims()).collect();
        bail!(
            "gated_sum: {} gates for terms of shapes {shapes:?}, want one gate per term, equal shapes",
            gate_of.len()
        )
    }
    let gates = alpha.map_or(0, Tensor::elem_count);
    if let Some(gate) = gate_of.iter().flatten().find(|gate| **gate >= gates) {
        bail!("gated_sum: a term asks for gate {gate} of {gates}")
    }
    if stock::composed(first) {
        return stock::gated_sum(terms, gate_of, alpha, relu);
    }
    let alpha = alpha.map(Tensor::contiguous).transpose()?;
    if terms.len() == 1 {
        return match (gate_of[0], relu) {
            (None, false) => Ok(first.clone()),
            (None, true) => first.relu(),
            _ => stock::gated_sum(terms, gate_of, alpha.as_ref(), relu),
        };
    }
    let mut sum = first.clone();
    for (i, term) in terms.iter().enumerate().skip(1) {
        let gates = (if i == 1 { gate_of[0] } else { None }, gate_of[i]);
        sum = pair(&sum, term, gates, alpha.as_ref(), relu && i + 1 == terms.len())?;
    }
    Ok(sum)
}

fn pair(
    a: &Tensor,
    b: &Tensor,
    gates: (Option<usize>, Option<usize>),
    alpha: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if super::gpu::runs(a) {
        return super::gpu::blend(a, b, gates, alpha, relu);
    }
    let level = Level::best();
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let weights = alpha.map(|t| t.to_vec1::<f32>()).transpose()?.unwrap_or_default();
    let weight = |gate: Option<usize>| gate.map_or(1., |i| weights[i]);
    let (p, q) = (weight(gates.0), weight(gates.1));
    let value = kernel::blend_all(level, &floats(&a)?, &floats(&b)?, p, q, relu);
    let shape = a.shape().clone();
    let kept = (a.clone(), b.clone(), alpha.cloned());
    let count = weights.len();
    let backward = move |y: &Tensor, g: &Tensor| -> Result<Three> {
        let (a, b, alpha) = &kept;
        let (gs, ys) = (floats(g)?, floats(y)?);
        let of = |t: &Tensor, p: f32| match (wanted(t), p == 1. && !relu) {
            (false, _) => Ok(None),
            (true, true) => Ok(Some(g.clone())),
            (true, false) => plain(kernel::gate_all(level, &gs, &ys, p, relu), t.shape()).map(Some),
        };
        // Two terms of one weight have one gradient.
        let da = of(a, p)?;
        let db = if p == q && da.is_some() && wanted(b) { da.clone() } else { of(b, q)? };
        let dalpha = match alpha {
            Some(alpha) if wanted(alpha) => {
                let mut d = vec![0.; count];
                for (gate, term) in [(gates.0, a), (gates.1, b)] {
                    if let Some(gate) = gate {
                        d[gate] += kernel::gated_dot_all(level, &gs, &ys, &floats(term)?, relu);
                    }
                }
                Some(plain(d, alpha.shape())?)
            }
            _ => None,
        };
        Ok((da, db, dalpha))
    };
    pair_node((&a, &b), gates, alpha, value, shape, backward)
}

/// The node of one addition, of which `alpha` is an argument only if it weighs a term.
pub(super) fn pair_node<B>(
    (a, b): (&Tensor, &Tensor),
    gates: (Option<usize>, Option<usize>),
    alpha: Option<&Tensor>,
    value: impl Into<Value>,
    shape: Shape,
    backward: B,
) -> Result<Tensor>
where
    B: Fn(&Tensor, &Tensor) -> Result<Three> + Send + Sync + 'static,
{
    match alpha {
        Some(alpha) if gates.0.is_some() || gates.1.is_some() => {
            node3("gated_sum", (a, b, alpha), value, shape, backward)
        }
        _ => node2("gated_sum", (a, b), value, shape, move |y, g| {
            let (da, db, _) = backward(y, g)?;
            Ok((da, db))
        }),
    }
}
