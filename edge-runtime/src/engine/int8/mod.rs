//! The int8 form of a network: activations and kernels as bytes, exact integer sums.
//!
//! Every map that [`Plan::maps`](bundles::plan::Plan::maps) lists has a `Grid`: its quantisation parameters,
//! scale and zero point. The grids belong to the task, because its norms, proxies and alphas shape its
//! activations; a kernel's scales belong to the kernel's owner. At load both are combined into one scale and
//! shift per output channel, so that a convolution maps bytes to bytes, with bit-identical results on every
//! machine.

mod exec;
mod fill;
mod lower;
pub(in crate::engine) mod step;

pub(super) use fill::fill;
pub(crate) use lower::KernelSource;
pub(super) use lower::lower;
pub(crate) use step::{Recipe, Work};
