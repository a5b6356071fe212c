//! Convolution as a product of the kernel with unfolded windows, optionally followed by batch-norm.

use super::launch::Threads::Each;
use super::launch::{launch, plain};
use super::norm::Norm;
use crate::ops::cpu::shape::ConvShape;
use crate::ops::node::{node, wanted};
use crate::ops::{BatchNormOutput, ConvNormOutput};
use candle_core::backend::BackendStorage;
use candle_core::cuda::CudaStorage;
use candle_core::{Result, Storage, Tensor, bail};

fn columns(x: &Tensor, s: &ConvShape) -> Result<Tensor> {
    let pixels = s.oh * s.ow;
    if s.pointwise() {
        return x.reshape((s.n, s.c_in, pixels));
    }
    let rows = s.c_in * s.k * s.k;
    let count = s.n * rows * pixels;
    let extents = [s.h, s.w, s.k, s.stride, s.pad, s.oh, s.ow];
    Ok(plain(launch("unfold", Each(count), &[x], count, &extents, &[])?, (s.n, rows, pixels)))
}

fn matrix(w: &Tensor, s: &ConvShape) -> Result<Tensor> {
    w.reshape((s.c_out, s.c_in * s.k * s.k))
}

/// `w` times the columns of every image.
fn product(w: &Tensor, x: &Tensor, s: &ConvShape) -> Result<CudaStorage> {
    let (w, columns) = (matrix(w, s)?, columns(x, s)?);
    let (rows, pixels) = (s.c_in * s.k * s.k, s.oh * s.ow);
    let ((w, w_layout), (columns, layout)) = (w.storage_and_layout(), columns.storage_and_layout());
    match (&*w, &*columns) {
        (Storage::Cuda(w), Storage::Cuda(columns)) => {
            let w_layout = w_layout.broadcast_as((s.n, s.c_out, rows))?;
            w.matmul(columns, (s.n, s.c_out, pixels, rows), &w_layout, layout)
        }
        _ => bail!("conv2d: image and kernel must both be on the GPU"),
    }
}

/// Gradient of a convolution's input.
fn input_gradient(w: &Tensor, g: &Tensor, s: &ConvShape) -> Result<Tensor> {
    let rows = s.c_in * s.k * s.k;
    let g = g.reshape((s.n, s.c_out, s.oh * s.ow))?;
    let columns = matrix(w, s)?.t()?.broadcast_as((s.n, rows, s.c_out))?.matmul(&g)?;
    if s.pointwise() {
        return columns.reshape((s.n, s.c_in, s.h, s.w));
    }
    let count = s.n * s.image_in();
    let extents = [s.h, s.w, s.k, s.stride, s.pad, s.oh, s.ow];
    Ok(plain(launch("fold", Each(count), &[&columns], count, &extents, &[])?, (s.n, s.c_in, s.h, s.w)))
}

/// Gradient of a convolution's kernel.
pub(super) fn kernel_gradient(x: &Tensor, g: &Tensor, s: &ConvShape) -> Result<Tensor> {
    let g = g.reshape((s.n, s.c_out, s.oh * s.ow))?;
    let each = g.matmul(&columns(x, s)?.transpose(1, 2)?)?;
    each.sum(0)?.reshape((s.c_out, s.c_in, s.k, s.k))
}

/// [`conv2d`](crate::ops::conv2d).
pub(in crate::ops) fn conv2d(x: &Tensor, w: &Tensor, s: ConvShape) -> Result<Tensor> {
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    // Detached: operations inside the node are not part of the graph.
    let (inner_x, inner_w) = (x.detach(), w.detach());
    let value = product(&inner_w, &inner_x, &s)?;
    let wants = (wanted(&x), wanted(&w));
    node("conv2d", &[&x, &w], value, (s.n, s.c_out, s.oh, s.ow), move |_, g| {
        let g = g.detach();
        let dx = wants.0.then(|| input_gradient(&inner_w, &g, &s)).transpose()?;
        let dw = wants.1.then(|| kernel_gradient(&inner_x, &g, &s)).transpose()?;
        Ok(vec![dx, dw])
    })
}

/// [`conv_norm`](crate::ops::conv_norm).
pub(in crate::ops) fn conv_norm(
    x: &Tensor,
    kernel: &Tensor,
    [weight, bias]: [&Tensor; 2],
    s: ConvShape,
    eps: f64,
    relu: bool,
) -> Result<ConvNormOutput> {
    let (x, kernel) = (x.contiguous()?, kernel.contiguous()?);
    let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
    let inner = (x.detach(), kernel.detach());
    let conv_out = plain(product(&inner.1, &inner.0, &s)?, (s.n, s.c_out, s.oh, s.ow));
    let (norm, value, var) = Norm::forward(&conv_out, &weight.detach(), &bias.detach(), eps, relu)?;
    let mean = norm.mean.clone();
    let wants = (wanted(&x), wanted(&kernel), wanted(&weight) || wanted(&bias));
    let shape = conv_out.shape().clone();
    let y = node("conv_norm", &[&x, &kernel, &weight, &bias], value, shape, move |y, g| {
        let ((x, kernel), y, g) = (&inner, y.detach(), g.detach());
        let sums = norm.sums(&y, &g, relu)?;
        let (mut dx, mut dw) = (None, None);
        if wants.0 || wants.1 {
            let d = norm.input(&y, &g, relu, &sums, None)?;
            dx = wants.0.then(|| input_gradient(kernel, &d, &s)).transpose()?;
            dw = wants.1.then(|| kernel_gradient(x, &d, &s)).transpose()?;
        }
        let affine = |row: usize| wants.2.then(|| sums.get(row)).transpose();
        Ok(vec![dx, dw, affine(0)?, affine(1)?])
    })?;
    Ok(ConvNormOutput { conv_out, norm: BatchNormOutput { y, mean, var } })
}
