//! Piggyback: a binary mask per task on the frozen weights of every convolution.
//!
//! Mallya, Davis & Lazebnik, "Piggyback: Adapting a Single Network to Multiple Tasks by Learning to Mask Weights" (ECCV
//! 2018). The mask is 1 where a trained real number exceeds 5e-3 and 0 elsewhere; every number starts at 1e-2; the
//! threshold passes gradients straight through, so that a number's gradient is that of its mask bit,
//! `dL/dm = dL/dW_eff * W`. Numbers are trained by Adam, the classifier by SGD at ten times the rate, as there.
//!
//! Deviations: a one-cycle schedule over the teacher's epochs (there: 30 epochs, a drop after 15), with a peak for masks of
//! 1e-2, the best of those tried on validation from 2e-3 to 2e-2 (there: 1e-4 throughout, and many more steps), and norms
//! trained for the task (there an option, found to help; frozen in the main table).

use super::bench::{Bench, Trained};
use super::kernels::{convs, on_frozen_kernels, weight};
use super::size::{Owned, Parts, Size};
use crate::Result;
use crate::net::{Params, Pass};
use crate::train::MASK;
use bundles::plan::{Conv, Plan};
use candle_core::{Device, Tensor};

/// What every number behind a mask starts at.
pub const START: f64 = 1e-2;
/// Numbers above it are a 1.
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

/// Frozen kernels with a mask of ones.
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

/// `W * [m > threshold]`, whose gradient with respect to `m` is as if it were `W * m`.
pub(super) fn kernel(conv: &Conv, params: &Params) -> Result<Option<Tensor>> {
    let (w, m) = (params.get(&weight(conv))?, params.get(&mask(conv))?);
    let hard = (w * m.detach().gt(THRESHOLD)?.to_dtype(w.dtype())?)?;
    // Exactly zero, with a gradient: the effective weights are the frozen ones or zero to the bit.
    let soft = (m - m.detach())?;
    Ok(Some((hard + (w * soft)?)?))
}
