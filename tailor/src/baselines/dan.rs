//! DAN: each filter of a task is a linear combination of the filters of the same layer.
//!
//! Rosenfeld & Tsotsos, "Incremental Learning Through Deep Adaptation" (2017; TPAMI 2020). For each
//! convolution, a matrix `(c_out, c_out)`, initialised to the identity, multiplies the frozen kernel `(c_out,
//! c_in k k)`. Biases (here the norms) and the classifier belong to the task.
//!
//! Deviations are in [`PUBLISHED`]. The identity is the paper's "diagonal" initialisation, which it found as
//! good as fitting the matrices to a fine-tuned network. The paper's switching variable between base and
//! adapted filters is the device's choice of task, not part of training.

use super::bench::{Bench, Trained};
use super::kernels::{convs, on_frozen_kernels, weight};
use super::size::{Owned, Parts, Size};
use crate::Result;
use crate::net::{Params, Pass};
use bundles::plan::{Conv, Plan};
use candle_core::{DType, Device, Tensor};

/// What users are told of it.
pub(super) const PUBLISHED: &str =
    "Rosenfeld & Tsotsos, 2017 (TPAMI 2020). Here weight decay pulls the matrices towards 0.";

pub(super) fn train(bench: &Bench<'_>) -> Result<Trained> {
    let plan = bench.tailoring().backbone_plan()?;
    let mut params = start(&plan, &bench.ground.source.params, bench.recipe.seed, bench.device)?;
    let epochs = bench.epochs();
    let (params, validation) = bench.fit(("dan", "dan"), epochs, &plan, &mut params, Pass::Train, &kernel)?;
    Ok(Trained { size: size(&plan)?, plan, params, validation, packed: None })
}

/// Kernels are combined once, when switching to the task, so inference costs the same as the backbone's.
pub(super) fn size(plan: &Plan) -> Result<Size> {
    let parts = Parts::of(plan)?;
    let matrices: u64 = convs(plan).map(|conv| (conv.c_out * conv.c_out) as u64).sum();
    let owned = Owned { numbers: matrices + parts.norms + parts.head, bits: 0 };
    Ok(Size::new(parts.kernels, owned, parts.macs))
}

/// Frozen kernels, each with an identity matrix.
pub(super) fn start(plan: &Plan, backbone: &Params, seed: u64, device: &Device) -> Result<Params> {
    let mut params = on_frozen_kernels(plan, backbone, seed, device)?;
    for conv in convs(plan) {
        params.free(controller(conv), &Tensor::eye(conv.c_out, DType::F32, device)?)?;
    }
    Ok(params)
}

pub(super) fn controller(conv: &Conv) -> String {
    format!("{}.controller", conv.name)
}

/// `M W`.
pub(super) fn kernel(conv: &Conv, params: &Params) -> Result<Option<Tensor>> {
    let (w, m) = (params.get(&weight(conv))?, params.get(&controller(conv))?);
    Ok(Some(m.matmul(&w.flatten_from(1)?)?.reshape(w.shape())?))
}
