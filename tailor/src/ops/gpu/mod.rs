//! Operations on NVIDIA GPUs: convolution as a matrix product over unfolded windows, and custom kernels
//! (`kernels.cu`) for what candle would compose of many. The number of launches is the bottleneck of a
//! training step.

mod conv;
mod gate;
mod launch;
mod loss;
mod matching;
mod norm;
mod pool;

use super::node::Value;
use super::stock;
use candle_core::cuda::CudaStorage;
use candle_core::{CudaDevice, Layout, Result, Tensor};
use launch::launch_in_place;

pub(super) use conv::{conv_norm, conv2d};
pub(super) use gate::{gated_sum, softmax};
pub(super) use loss::mse;
pub(super) use matching::local_match;
pub(super) use norm::{affine, batch_norm, follow};
pub(super) use pool::{average, max_pool2d};

/// Whether an operation on `x` runs here: on an NVIDIA GPU, unless the environment has `TAILOR_OPS=stock`.
pub(super) fn runs(x: &Tensor) -> bool {
    x.device().is_cuda() && !stock::everywhere()
}

/// Number of blocks for sums over whole tensors.
const PARTS: usize = 256;

/// A scalar zero.
pub(super) fn zero(device: &CudaDevice) -> Result<CudaStorage> {
    Ok(CudaStorage::wrap_cuda_slice(device.alloc_zeros::<f32>(1)?, device.clone()))
}

/// A scalar on the device of `t`.
pub(super) fn number(value: f32, t: &Tensor) -> Result<CudaStorage> {
    let device = t.device().as_cuda_device()?;
    Ok(CudaStorage::wrap_cuda_slice(device.clone_htod(&[value])?, device.clone()))
}

/// The velocity's half of [`sgd_step`](super::sgd_step).
pub(super) fn velocity(
    v: &mut CudaStorage,
    layout: &Layout,
    [gradient, parameter]: [(&CudaStorage, &Layout); 2],
    momentum: f32,
    decay: f32,
) -> Result<()> {
    launch_in_place("sgd_velocity", &[gradient, parameter], v, layout, &[momentum.into(), decay.into()])
}

/// The parameter's half of [`sgd_step`](super::sgd_step).
pub(super) fn descend(
    p: &mut CudaStorage,
    layout: &Layout,
    velocity: (&CudaStorage, &Layout),
    rate: f32,
) -> Result<()> {
    launch_in_place("sgd_descend", &[velocity], p, layout, &[rate.into()])
}

impl From<CudaStorage> for Value {
    fn from(storage: CudaStorage) -> Value {
        Value::Cuda(storage)
    }
}
