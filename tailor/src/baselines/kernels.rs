//! Effective kernels: what a method makes of a convolution's frozen kernel, as a differentiable function of
//! its trained parameters.

use crate::Result;
use crate::net::Params;
use bundles::plan::{Conv, Op, Plan};
use candle_core::{Device, Tensor};
use std::collections::HashSet;

/// Computes the kernel `(c_out, c_in, k, k)` of a convolution from the parameters in training; `None` leaves
/// it unchanged.
pub type Kernel<'a> = &'a dyn Fn(&Conv, &Params) -> Result<Option<Tensor>>;

/// The plan's convolutions, each once.
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

/// The backbone's kernels, frozen; its norms, trained; and a new classifier (identical to the teacher's with
/// the same seed).
pub fn on_frozen_kernels(plan: &Plan, backbone: &Params, seed: u64, device: &Device) -> Result<Params> {
    let mut params = Params::teacher(plan, backbone, seed, device)?;
    for conv in convs(plan) {
        params.freeze(weight(conv), backbone.get(&weight(conv))?.clone());
    }
    Ok(params)
}

/// The parameters of a training step: kernels are derived by `kernel`, and gradients flow back through it.
pub fn derived(plan: &Plan, params: &Params, kernel: Kernel<'_>) -> Result<Params> {
    let mut kernels = Vec::new();
    for conv in convs(plan) {
        if let Some(tensor) = kernel(conv, params)? {
            kernels.push((weight(conv), tensor));
        }
    }
    Ok(params.with_derived(kernels))
}

/// The parameters for inference: kernels are plain frozen tensors.
pub fn settled(plan: &Plan, params: &Params, kernel: Kernel<'_>) -> Result<Params> {
    let mut settled = params.clone();
    for conv in convs(plan) {
        if let Some(tensor) = kernel(conv, params)? {
            settled.freeze(weight(conv), tensor);
        }
    }
    Ok(settled)
}
