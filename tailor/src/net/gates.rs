//! Gate values from their logits: a softmax over the live paths of a cell, or hard-concrete gates that reach zero.

use super::Params;
use super::params::Noise;
use crate::{Result, ops};
use bundles::plan::Plan;
use candle_core::Tensor;

/// How gate values come from logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Gating {
    /// The gates of a cell compete: a softmax (NetTailor sec. 3.2). Never exactly zero; small ones are cut by a threshold.
    #[default]
    Softmax,
    /// Each gate for itself, stretched and clipped to 0..1, so that it can close for good; random while it is
    /// trained (Louizos, Welling & Kingma, ICLR 2018, with their constants).
    HardConcrete,
}

/// Temperature of the concrete distribution.
const BETA: f64 = 2.0 / 3.0;
/// What the unit interval is stretched to before it is clipped: its lower end …
const LOW: f64 = -0.1;
/// … and its upper end.
const HIGH: f64 = 1.1;

/// Alpha of each live gate: for cell `l` a tensor `(gates,)`, or `None` where the node is dead or its gates
/// are not scaled (a plain backbone). Hard-concrete gates have their deterministic value (eq. 13 there).
///
/// # Errors
/// When a logit tensor is missing.
pub fn alphas(plan: &Plan, params: &Params) -> Result<Vec<Option<Tensor>>> {
    each(plan, params, |stored| match params.gating() {
        _ if params.is_packed() => Ok(stored.clone()),
        Gating::Softmax => Ok(ops::softmax(stored)?),
        Gating::HardConcrete => clipped(&sigmoid(stored)?),
    })
}

/// Gates as one training step sees them.
#[derive(Debug, Clone)]
pub struct Sampled {
    /// Values that weigh the paths, as [`alphas`] shapes them.
    pub alphas: Vec<Option<Tensor>>,
    /// Probability that each gate is open at all: what expected complexity is made from. For a softmax, alpha itself.
    pub open: Vec<Option<Tensor>>,
}

/// Gates of one step of training. Hard-concrete gates are drawn at random from `seed`, softmax gates are what they are.
///
/// # Errors
/// When a logit tensor is missing.
pub fn sampled(plan: &Plan, params: &Params, seed: u64) -> Result<Sampled> {
    if params.gating() == Gating::Softmax {
        let alphas = alphas(plan, params)?;
        return Ok(Sampled { open: alphas.clone(), alphas });
    }
    let mut noise = Noise::new(seed);
    let drawn = each(plan, params, |logits| {
        let odds: Vec<f32> = (0..logits.elem_count())
            .map(|_| {
                let u = noise.uniform();
                (u / (1.0 - u)).ln() as f32
            })
            .collect();
        let odds = Tensor::from_vec(odds, logits.shape(), logits.device())?;
        clipped(&sigmoid(&((logits + odds)? / BETA)?)?)
    })?;
    let open = each(plan, params, |logits| sigmoid(&(logits - BETA * (-LOW / HIGH).ln())?))?;
    Ok(Sampled { alphas: drawn, open })
}

fn each(
    plan: &Plan,
    params: &Params,
    mut value: impl FnMut(&Tensor) -> Result<Tensor>,
) -> Result<Vec<Option<Tensor>>> {
    let of_cell = |(i, cell): (usize, &bundles::plan::Cell)| {
        if cell.scaled_gates() == 0 {
            return Ok(None);
        }
        value(params.get(&Plan::alpha_name(i + 1))?).map(Some)
    };
    plan.cells.iter().enumerate().map(of_cell).collect()
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((x.neg()?.exp()? + 1.0)?.recip()?)
}

/// `s` in 0..1, stretched to `LOW..HIGH` and clipped to 0..1.
fn clipped(s: &Tensor) -> Result<Tensor> {
    // max(0, min(1, x)) from ReLUs, whose gradients are right at both ends.
    let stretched = s.affine(HIGH - LOW, LOW)?.relu()?;
    Ok(stretched.affine(-1.0, 1.0)?.relu()?.affine(-1.0, 1.0)?)
}
