//! The int8 form of a network: maps as bytes between layers, kernels as bytes, exact sums.
//!
//! Every map that [`Plan::maps`](bundles::plan::Plan::maps) lists has a grid: the numbers its bytes stand for. The
//! grids belong to the task, because its norms, proxies and alphas shape its maps; the kernels' scales belong to
//! whoever owns the kernel. At load both are multiplied into one scale and shift per output channel, so that a
//! convolution goes from bytes to bytes, and bits differ on no machine.

mod exec;
mod fill;
mod lower;
mod step;

pub(super) use fill::fill;
pub(crate) use lower::KernelSource;
pub(super) use lower::lower;
pub(crate) use step::{Recipe, Work};
