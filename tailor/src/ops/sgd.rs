//! In-place SGD with momentum.

use super::cpu::level::Level;
use super::cpu::simple;
use super::stock;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var, bail};

/// `velocity = momentum * velocity + (gradient + weight_decay * parameter)`.
struct Velocity {
    momentum: f32,
    weight_decay: f32,
}

/// `parameter -= lr * velocity`.
struct Descend {
    lr: f32,
}

fn read<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&values[start..end]),
        _ => bail!("sgd: parameters, gradients and velocities must be contiguous f32"),
    }
}

fn write<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((start, end))) => Ok(&mut values[start..end]),
        _ => bail!("sgd: parameters, gradients and velocities must be contiguous f32"),
    }
}

impl InplaceOp3 for Velocity {
    fn name(&self) -> &'static str {
        "sgd velocity"
    }
    fn cpu_fwd(
        &self,
        v: &mut CpuStorage,
        lv: &Layout,
        g: &CpuStorage,
        lg: &Layout,
        p: &CpuStorage,
        lp: &Layout,
    ) -> Result<()> {
        let (v, g, p) = (write(v, lv)?, read(g, lg)?, read(p, lp)?);
        simple::velocity_all(Level::best(), v, g, p, self.momentum, self.weight_decay);
        Ok(())
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        v: &mut CudaStorage,
        lv: &Layout,
        g: &CudaStorage,
        lg: &Layout,
        p: &CudaStorage,
        lp: &Layout,
    ) -> Result<()> {
        super::gpu::velocity(v, lv, [(g, lg), (p, lp)], self.momentum, self.weight_decay)
    }
}

impl InplaceOp2 for Descend {
    fn name(&self) -> &'static str {
        "sgd descent"
    }
    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, p: &mut CudaStorage, lp: &Layout, v: &CudaStorage, lv: &Layout) -> Result<()> {
        super::gpu::descend(p, lp, (v, lv), self.lr)
    }
    fn cpu_fwd(&self, p: &mut CpuStorage, lp: &Layout, v: &CpuStorage, lv: &Layout) -> Result<()> {
        simple::descend_all(Level::best(), write(p, lp)?, read(v, lv)?, self.lr);
        Ok(())
    }
}

/// One step of SGD with momentum and weight decay as in PyTorch (no dampening, no Nesterov): `velocity =
/// momentum * velocity + gradient + weight_decay * parameter; parameter -= lr * velocity`.
///
/// `velocity` starts as zeros of the parameter's shape, and must not share its storage with any other tensor.
///
/// # Errors
/// If shapes differ.
pub fn sgd_step(
    parameter: &Var,
    gradient: &Tensor,
    velocity: &mut Tensor,
    lr: f64,
    momentum: f64,
    weight_decay: f64,
) -> Result<()> {
    if parameter.dims() != gradient.dims() || parameter.dims() != velocity.dims() {
        bail!(
            "sgd_step: parameter {:?}, gradient {:?} and velocity {:?} differ in shape",
            parameter.dims(),
            gradient.dims(),
            velocity.dims()
        )
    }
    if !stock::composed(parameter) {
        let step = Velocity { momentum: momentum as f32, weight_decay: weight_decay as f32 };
        velocity.inplace_op3(&gradient.contiguous()?, parameter.as_tensor(), &step)?;
        return parameter.inplace_op2(velocity, &Descend { lr: lr as f32 });
    }
    let pull = (gradient + (parameter.as_detached_tensor() * weight_decay)?)?;
    *velocity = ((velocity.detach() * momentum)? + pull)?.detach();
    parameter.set(&(parameter.as_detached_tensor() - (&*velocity * lr)?)?.detach())
}
