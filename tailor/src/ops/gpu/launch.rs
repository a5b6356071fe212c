//! Compiles and launches the kernels.

use candle_core::cuda::cudarc::driver::{CudaSlice, LaunchConfig, PushKernelArg};
use candle_core::cuda::cudarc::nvrtc::compile_ptx;
use candle_core::cuda::{CudaDType, CudaStorage, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, Layout, Result, Shape, Storage, Tensor, bail};
use std::sync::OnceLock;

/// Threads per block.
const BLOCK: usize = 256;

/// Threads per block of a reduction.
const WIDE: usize = 512;

/// The number of threads of a launch.
#[derive(Debug, Clone, Copy)]
pub(super) enum Threads {
    /// One per element, for this many elements.
    Each(usize),
    /// This many blocks, each computing a sum.
    Blocks(usize),
}

/// The kernels as PTX for any GPU, compiled on first use.
fn kernels() -> Result<&'static str> {
    static PTX: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compiled = PTX.get_or_init(|| {
        let ptx = compile_ptx(include_str!("kernels.cu"));
        ptx.map(|ptx| ptx.to_src()).map_err(|error| format!("{error:?}"))
    });
    match compiled {
        Ok(ptx) => Ok(ptx),
        Err(error) => bail!("the GPU kernels do not compile: {error}"),
    }
}

/// A length that fits the kernels' counters.
fn counted(length: usize) -> Result<u32> {
    match i32::try_from(length) {
        Ok(length) => Ok(length as u32),
        Err(_) => bail!("a tensor of {length} elements is too long for the GPU kernels; use smaller batches"),
    }
}

fn device(t: &Tensor) -> Result<CudaDevice> {
    Ok(t.device().as_cuda_device()?.clone())
}

/// Runs kernel `name` on contiguous f32 `inputs` and returns its output of `length` elements.
pub(super) fn launch(
    name: &str,
    threads: Threads,
    inputs: &[&Tensor],
    length: usize,
    extents: &[usize],
    factors: &[f64],
) -> Result<CudaStorage> {
    let Some(first) = inputs.first() else { bail!("{name}: no input") };
    let device = device(first)?;
    counted(length)?;
    // SAFETY: every kernel writes all elements of its output before anything reads them.
    let mut output = unsafe { device.alloc::<f32>(length)? };
    let held: Vec<_> = inputs.iter().map(|t| t.storage_and_layout()).collect();
    let mut sources = Vec::new();
    for (storage, layout) in &held {
        let Storage::Cuda(storage) = &**storage else { bail!("{name}: a tensor is not on the GPU") };
        sources.push((storage, *layout));
    }
    run(&device, name, threads, &sources, &mut output, extents, factors)?;
    Ok(CudaStorage::wrap_cuda_slice(output, device))
}

/// Runs kernel `name` on contiguous f32 `inputs` and on `changed`, which it reads and writes.
pub(super) fn launch_in_place(
    name: &str,
    inputs: &[(&CudaStorage, &Layout)],
    changed: &mut CudaStorage,
    layout: &Layout,
    factors: &[f64],
) -> Result<()> {
    let count = layout.shape().elem_count();
    let device = changed.device.clone();
    let whole = f32::as_cuda_slice_mut(changed)?;
    if layout.contiguous_offsets() != Some((0, whole.len())) {
        bail!("{name}: parameters and velocities must be whole contiguous tensors")
    }
    run(&device, name, Threads::Each(count), inputs, whole, &[], factors)
}

fn run(
    device: &CudaDevice,
    name: &str,
    threads: Threads,
    inputs: &[(&CudaStorage, &Layout)],
    output: &mut CudaSlice<f32>,
    extents: &[usize],
    factors: &[f64],
) -> Result<()> {
    let function = device.get_or_load_custom_func(name, "tailor", kernels()?)?;
    let mut views = Vec::new();
    for (storage, layout) in inputs {
        let Some((start, end)) = layout.contiguous_offsets() else {
            bail!("{name}: a strided tensor of shape {:?}: call contiguous() first", layout.shape())
        };
        views.push(f32::as_cuda_slice(storage)?.slice(start..end));
    }
    let (count, grid, block) = match threads {
        Threads::Each(count) => (Some(counted(count)?), count.div_ceil(BLOCK), BLOCK),
        Threads::Blocks(blocks) => (None, blocks, WIDE),
    };
    let extents = extents.iter().map(|&extent| counted(extent)).collect::<Result<Vec<u32>>>()?;
    let factors: Vec<f32> = factors.iter().map(|&factor| factor as f32).collect();
    let mut arguments = function.builder();
    views.iter().for_each(|view| _ = arguments.arg(view));
    arguments.arg(output);
    count.iter().chain(&extents).for_each(|extent| _ = arguments.arg(extent));
    factors.iter().for_each(|factor| _ = arguments.arg(factor));
    let shape = LaunchConfig {
        grid_dim: (counted(grid)?.max(1), 1, 1),
        block_dim: (block as u32, 1, 1),
        shared_mem_bytes: 0,
    };
    // SAFETY: the arguments match the kernel's declaration in type and order; each caller passes the lengths
    // that the kernel reads and writes; candle keeps everything on one stream.
    unsafe { arguments.launch(shape) }.w()?;
    Ok(())
}

/// A tensor without history that holds a kernel's output.
pub(super) fn plain(storage: CudaStorage, shape: impl Into<Shape>) -> Tensor {
    // `from_storage` trusts the shape it is given; here it comes from the same extents as the storage.
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}
