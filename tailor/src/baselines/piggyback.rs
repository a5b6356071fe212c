//! Piggyback: a binary mask per task on the frozen weights of every convolution.
//!
//! Mallya, Davis & Lazebnik, "Piggyback: Adapting a Single Network to Multiple Tasks by Learning to Mask
//! Weights" (ECCV 2018). The mask is 1 where a trained real-valued score exceeds 5e-3, and 0 elsewhere; all
//! scores start at 1e-2. The threshold uses a straight-through estimator, so that a score's gradient is that
//! of its mask bit, `dL/dm = dL/dW_eff * W`. As in the paper, scores are trained by Adam and the classifier
//! by SGD at ten times the rate.
//!
//! Deviations are in [`PUBLISHED`]; besides, the schedule is a one-cycle over the teacher's epochs (there: 30
//! epochs with a drop after 15). The masks' rate was the best on validation of those tried from 2e-3 to 2e-2.
//! Trained norms are an option in the paper, which found that they help.

use super::bench::{Bench, Trained};
use super::kernels::{convs, on_frozen_kernels, weight};
use super::size::{Owned, Parts, Size};
use crate::Result;
use crate::net::{Params, Pass};
use crate::train::MASK;
use bundles::plan::{Conv, Plan};
use candle_core::{Device, Tensor};

/// What users are told of it.
pub(super) const PUBLISHED: &str = "Mallya, Davis & Lazebnik, ECCV 2018. Here the masks' rate peaks at 1e-2 \
                                    unless set by --rate (there 1e-4 throughout, with many more steps), and \
                                    norms are trained for the task (there frozen in the main table).";

/// Initial value of all scores.
pub const START: f64 = 1e-2;
/// A mask bit is 1 where its score exceeds this.
pub const THRESHOLD: f64 = 5e-3;

pub(super) fn train(bench: &Bench<'_>) -> Result<Trained> {
    let plan = bench.tailoring().backbone_plan()?;
    let mut params = start(&plan, &bench.ground.source.params, bench.recipe.seed, bench.device)?;
    let epochs = bench.epochs();
    let (params, validation) =
        bench.fit(("piggyback", "piggyback"), epochs, &plan, &mut params, Pass::Train, &kernel)?;
    let parts = Parts::of(&plan)?;
    let owned = Owned { numbers: parts.norms + parts.head, bits: parts.kernels };
    let size = Size::new(parts.kernels, owned, parts.macs);
    Ok(Trained { plan, params, validation, size, packed: None })
}

/// Frozen kernels with masks of ones.
pub(super) fn start(plan: &Plan, backbone: &Params, seed: u64, device: &Device) -> Result<Params> {
    let mut params = on_frozen_kernels(plan, backbone, seed, device)?;
    for conv in convs(plan) {
        let numbers = (params.get(&weight(conv))?.ones_like()? * START)?;
        params.free(mask(conv), &numbers)?;
    }
    Ok(params)
}

fn mask(conv: &Conv) -> String {
    format!("{}{MASK}", conv.name)
}

/// `W * [m > threshold]`, with the gradient of `W * m` with respect to `m`.
pub(super) fn kernel(conv: &Conv, params: &Params) -> Result<Option<Tensor>> {
    let (w, m) = (params.get(&weight(conv))?, params.get(&mask(conv))?);
    let hard = (w * m.detach().gt(THRESHOLD)?.to_dtype(w.dtype())?)?;
    // Exactly zero, but with a gradient: each effective weight is bit-identical to the frozen one, or zero.
    let soft = (m - m.detach())?;
    Ok(Some((hard + (w * soft)?)?))
}
