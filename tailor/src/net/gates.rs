//! Gate values: a softmax over the logits of a cell's live paths.

use super::Params;
use crate::Result;
use bundles::plan::Plan;
use candle_core::{D, Tensor};

/// Alpha of each live gate: for cell `l` a tensor `(gates,)`, or `None` where the node is dead or its gates
/// are not scaled (a plain backbone).
///
/// # Errors
/// When a logit tensor is missing.
pub fn alphas(plan: &Plan, params: &Params) -> Result<Vec<Option<Tensor>>> {
    let of_cell = |(i, cell): (usize, &bundles::plan::Cell)| {
        if cell.scaled_gates() == 0 {
            return Ok(None);
        }
        let stored = params.get(&Plan::alpha_name(i + 1))?;
        Ok(Some(if params.is_packed() { stored.clone() } else { softmax(stored)? }))
    };
    plan.cells.iter().enumerate().map(of_cell).collect()
}

fn softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?.exp()?;
    Ok(shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?)
}
