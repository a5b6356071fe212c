//! Residual adapters: a 1x1 convolution after (series) or in parallel to each frozen kernel, and norms per
//! task.
//!
//! Rebuffi, Bilen & Vedaldi, "Learning Multiple Visual Domains with Residual Adapters" (NeurIPS 2017) and
//! "Efficient Parametrization of Multi-domain Deep Neural Networks" (CVPR 2018). With kernel `f` and adapter
//! `a`, before the norm: series `y = f*x + a*(f*x)`, parallel `y = f*x + a*x` (with f's stride). Both are
//! linear in `x` and therefore a single convolution during training: series `(I + a) f`, parallel `f` with
//! `a` added to its centre tap.
//!
//! Deviations are in [`Place::published`]. From zero adapters, training starts from the backbone. The series
//! form is the formula of the 2018 paper; the batch-norm is in its code. The published networks have no 1x1
//! kernels: their shortcuts are pooled. Weight decay there was chosen on validation.

use super::bench::{Bench, Trained};
use super::kernels::{convs, on_frozen_kernels, weight};
use super::size::{Owned, Parts, Size, outputs};
use crate::Result;
use crate::net::{Params, Pass};
use bundles::plan::{Conv, Plan};
use candle_core::{DType, Device, Tensor};

/// Position of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the kernel's output, with a residual.
    Series,
    /// On the kernel's input.
    Parallel,
}

impl Place {
    /// Input channels of a convolution's adapter.
    fn inputs(self, conv: &Conv) -> usize {
        match self {
            Place::Series => conv.c_out,
            Place::Parallel => conv.c_in,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Place::Series => "adapters-series",
            Place::Parallel => "adapters-parallel",
        }
    }

    /// What users are told of it.
    pub(super) fn published(self) -> &'static str {
        match self {
            Place::Series => {
                "Rebuffi, Bilen & Vedaldi, NeurIPS 2017 and CVPR 2018. Here there is no batch norm between \
                 kernel and adapter. Together they are therefore (I + a) W, the same set of functions as \
                 DAN's M W, but they are counted as two layers, where DAN's kernels are combined once. \
                 Adapters start at zero; 1x1 kernels have none. Weight decay is the run's (there chosen for \
                 each data set), and there is no dropout."
            }
            Place::Parallel => {
                "Rebuffi, Bilen & Vedaldi, CVPR 2018. Adapters are counted as layers, although they too could be \
                 added to their kernels at a switch. Here they start at zero; 1x1 kernels have none. \
                 Weight decay is the run's (there chosen for each data set), and there is no dropout."
            }
        }
    }
}

pub(super) fn train(bench: &Bench<'_>, place: Place) -> Result<Trained> {
    let plan = bench.tailoring().backbone_plan()?;
    let mut params = start(&plan, &bench.ground.source.params, place, bench.recipe.seed, bench.device)?;
    let made = |conv: &Conv, params: &Params| kernel(place, conv, params);
    let run = (place.name(), place.name());
    let (params, validation) = bench.fit(run, bench.epochs(), &plan, &mut params, Pass::Train, &made)?;
    Ok(Trained { size: size(&plan, place)?, plan, params, validation, packed: None })
}

/// Adapters run as separate layers next to kernels that stay shared, as published.
pub(super) fn size(plan: &Plan, place: Place) -> Result<Size> {
    let parts = Parts::of(plan)?;
    let (mut numbers, mut macs) = (parts.norms + parts.head, parts.macs);
    for (conv, pixels) in outputs(plan)?.into_iter().filter(|(conv, _)| has_adapter(conv)) {
        let adapter = (conv.c_out * place.inputs(conv)) as u64;
        numbers += adapter;
        macs += adapter * pixels;
    }
    Ok(Size::new(parts.kernels, Owned { numbers, bits: 0 }, macs))
}

/// Frozen kernels, each with a zero adapter.
pub(super) fn start(
    plan: &Plan,
    backbone: &Params,
    place: Place,
    seed: u64,
    device: &Device,
) -> Result<Params> {
    let mut params = on_frozen_kernels(plan, backbone, seed, device)?;
    for conv in convs(plan).filter(|conv| has_adapter(conv)) {
        let zeros = Tensor::zeros((conv.c_out, place.inputs(conv)), DType::F32, device)?;
        params.free(adapter(conv), &zeros)?;
    }
    Ok(params)
}

fn has_adapter(conv: &Conv) -> bool {
    conv.kernel > 1
}

pub(super) fn adapter(conv: &Conv) -> String {
    format!("{}.adapter", conv.name)
}

/// The kernel equivalent to a convolution with its adapter.
pub(super) fn kernel(place: Place, conv: &Conv, params: &Params) -> Result<Option<Tensor>> {
    if !has_adapter(conv) {
        return Ok(None);
    }
    let (w, a) = (params.get(&weight(conv))?, params.get(&adapter(conv))?);
    let change = match place {
        Place::Series => a.matmul(&w.flatten_from(1)?)?.reshape(w.shape())?,
        Place::Parallel => {
            // Kernels are centred (padded by half their size), so strides and borders agree with a 1x1
            // kernel's.
            let around = conv.kernel / 2;
            let centre = a.reshape((conv.c_out, conv.c_in, 1, 1))?;
            centre.pad_with_zeros(2, around, around)?.pad_with_zeros(3, around, around)?
        }
    };
    Ok(Some((w + change)?))
}
