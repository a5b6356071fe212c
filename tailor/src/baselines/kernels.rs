//! The effective kernel: what a method makes of a convolution's frozen kernel, as a differentiable function of what it
//! trains.

use crate::Result;
use crate::net::Params;
use bundles::plan::{Conv, Op, Plan};
use candle_core::{Device, Tensor};
use std::collections::HashSet;

/// The kernel `(c_out, c_in, k, k)` of a convolution, from the numbers in training; `None` leaves it as it is.
pub type Kernel<'a> = &'a dyn Fn(&Conv, &Params) -> Result<Option<Tensor>>;

/// Convolutions of the plan, each kernel once.
pub fn convs(plan: &Plan) -> impl Iterator<Item = &Conv> {
    let mut seen = HashSet::new();
    plan.ops().filter_map(move |op| match op {
        Op::Conv(conv) => seen.insert(conv.name.as_str()).then_some(conv),
        _ => None,
    })
}

/// Name of a convolution's kernel.
pub fn weight(conv: &Conv) -> String {
    format!("{}.weight", conv.name)
}

/// The backbone's kernels, frozen; its norms, free; a fresh classifier (the teacher's of the same seed).
pub fn on_frozen_kernels(plan: &Plan, backbone: &Params, seed: u64, device: &Device) -> Result<Params> {
    let mut params = Params::teacher(plan, backbone, seed, device)?;
    for conv in convs(plan) {
        params.freeze(weight(conv), backbone.get(&weight(conv))?.clone());
    }
    Ok(params)
}

/// `params` as the network reads them in a training step: kernels derived by `kernel`, with their gradients' way back.
pub fn derived(plan: &Plan, params: &Params, kernel: Kernel<'_>) -> Result<Params> {
    let mut kernels = Vec::new();
    for conv in convs(plan) {
        if let Some(tensor) = kernel(conv, params)? {
            kernels.push((weight(conv), tensor));
        }
    }
    Ok(params.with_derived(kernels))
}

/// The same for inference: kernels are plain frozen tensors.
pub fn settled(plan: &Plan, params: &Params, kernel: Kernel<'_>) -> Result<Params> {
    let mut settled = params.clone();
    for conv in convs(plan) {
        if let Some(tensor) = kernel(conv, params)? {
            settled.freeze(weight(conv), tensor);
        }
    }
    Ok(settled)
}
