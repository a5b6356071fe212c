//! Gate values from logits: a softmax over the live paths of a cell, or hard-concrete gates, which reach
//! zero.

use super::Params;
use super::params::Noise;
use crate::{Result, ops};
use bundles::plan::Plan;
use candle_core::Tensor;

/// How gate values are computed from logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Gating {
    /// The gates of a cell compete: a softmax (NetTailor sec. 3.2). Never exactly zero; small ones are cut at
    /// --theta.
    #[default]
    Softmax,
    /// Each gate is independent, and stretched and clipped to 0..1, so that it can close exactly; random
    /// during training (Louizos, Welling & Kingma, ICLR 2018, with their constants).
    HardConcrete,
}

/// Temperature of the concrete distribution.
const BETA: f64 = 2.0 / 3.0;
/// Lower end of the interval to which 0..1 is stretched before clipping.
const LOW: f64 = -0.1;
/// Upper end of that interval.
const HIGH: f64 = 1.1;

/// Alphas of the live gates: for each cell a tensor `(gates,)`, or `None` if the node is dead or its gates
/// are not scaled (a plain backbone). Hard-concrete gates have their deterministic value (eq. 13 of Louizos
/// et al.).
///
/// # Errors
/// If a logit tensor is missing.
pub fn alphas(plan: &Plan, params: &Params) -> Result<Vec<Option<Tensor>>> {
    each(plan, params, |stored| match params.gating() {
        _ if params.is_packed() => Ok(stored.clone()),
        Gating::Softmax => Ok(ops::softmax(stored)?),
        Gating::HardConcrete => clipped(&sigmoid(stored)?),
    })
}

/// The gates of one training step.
#[derive(Debug, Clone)]
pub struct Sampled {
    /// Values that weight the paths, shaped as by [`alphas`].
    pub alphas: Vec<Option<Tensor>>,
    /// Probability that each gate is open at all, from which expected complexity is computed. For a softmax,
    /// alpha itself.
    pub open: Vec<Option<Tensor>>,
}

/// Gates of one training step. Hard-concrete gates are sampled with `seed`; softmax gates are deterministic.
///
/// # Errors
/// If a logit tensor is missing.
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
    // max(0, min(1, x)) from ReLUs, whose gradients are correct at both ends.
    let stretched = s.affine(HIGH - LOW, LOW)?.relu()?;
    Ok(stretched.affine(-1.0, 1.0)?.relu()?.affine(-1.0, 1.0)?)
}
