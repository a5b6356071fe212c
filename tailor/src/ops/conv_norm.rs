//! A convolution and the batch-norm behind it as one candle op.

use super::cpu::level::Level;
use super::cpu::shape::ConvShape;
use super::cpu::{conv, norm};
use super::node::{floats, node3, plain, wanted};
use super::norm::{channels, unbiased};
use super::{BatchNormOutput, batch_norm, conv2d, stock};
use candle_core::{Result, Tensor};

/// What a convolution and its batch-norm are made of.
#[derive(Debug, Clone, Copy)]
pub struct ConvNorm<'a> {
    /// Kernel `(c_out, c_in, k, k)`.
    pub kernel: &'a Tensor,
    /// Step in both directions.
    pub stride: usize,
    /// Zeros on every side.
    pub pad: usize,
    /// The kernel gets no gradient.
    pub frozen_kernel: bool,
    /// Batch-norm weight `(c_out,)`.
    pub weight: &'a Tensor,
    /// Batch-norm bias `(c_out,)`.
    pub bias: &'a Tensor,
    /// The batch-norm's epsilon.
    pub eps: f64,
    /// Ends with ReLU.
    pub relu: bool,
    /// Weight and bias get no gradient.
    pub frozen_affine: bool,
}

/// What [`conv_norm`] returns.
#[derive(Debug, Clone)]
pub struct ConvNormOutput {
    /// Output of the convolution, before batch-norm, detached: `(n, c_out, oh, ow)`.
    pub conv_out: Tensor,
    /// The batch-norm's output and statistics.
    pub norm: BatchNormOutput,
}

/// [`batch_norm`] of [`conv2d`], in training mode.
///
/// The same values and gradients as the two in turn. As one node of the graph, the gradient between them is never
/// a tensor that candle zeroes, adds to and keeps.
///
/// # Errors
/// Shapes that do not fit each other.
pub fn conv_norm(x: &Tensor, of: ConvNorm<'_>) -> Result<ConvNormOutput> {
    let ConvNorm { stride, pad, eps, relu, frozen_affine, .. } = of;
    if stock::in_parts(x) {
        let z = conv2d(x, of.kernel, stride, pad, of.frozen_kernel)?;
        let norm = batch_norm(&z, of.weight, of.bias, eps, relu, frozen_affine)?;
        return Ok(ConvNormOutput { conv_out: z.detach(), norm });
    }
    let s = ConvShape::new(x.dims(), of.kernel.dims(), stride, pad)?;
    let fixed = |t: &Tensor, frozen: bool| if frozen { t.detach() } else { t.clone() };
    let (x, kernel) = (x.contiguous()?, fixed(of.kernel, of.frozen_kernel).contiguous()?);
    let level = Level::best();
    let conv_out =
        plain(conv::forward(level, &s, &floats(&x)?, &floats(&kernel)?), (s.n, s.c_out, s.oh, s.ow))?;
    let (_, _, pixels) = channels("conv_norm", &conv_out, [of.weight, of.bias])?;
    // A custom op takes three tensors: weight and bias are one of them.
    let affine = Tensor::stack(&[fixed(of.weight, frozen_affine), fixed(of.bias, frozen_affine)], 0)?;
    let (value, stats) = {
        let affine = floats(&affine)?;
        let (weight, bias) = affine.split_at(s.c_out);
        norm::forward(level, &floats(&conv_out)?, pixels, weight, bias, eps, relu)
    };
    let (mean, var) = unbiased(&stats, s.n * pixels)?;
    let kept = (x.clone(), kernel.clone(), affine.clone(), conv_out.clone());
    let shape = conv_out.shape().clone();
    let y = node3("conv_norm", (&x, &kernel, &affine), value, shape, move |_, g| {
        let (x, kernel, affine, z) = &kept;
        let d = {
            let both = floats(affine)?;
            let (weight, bias) = both.split_at(s.c_out);
            norm::backward(level, &floats(z)?, &floats(g)?, pixels, weight, bias, &stats, eps, relu)
        };
        let dx = match wanted(x) {
            true => Some(plain(conv::backward_data(level, &s, &d.dx, &floats(kernel)?), x.shape())?),
            false => None,
        };
        let dw = match wanted(kernel) {
            true => Some(plain(conv::backward_weights(level, &s, &floats(x)?, &d.dx), kernel.shape())?),
            false => None,
        };
        let affine = match wanted(affine) {
            true => Some(plain([d.weight, d.bias].concat(), affine.shape())?),
            false => None,
        };
        Ok((dx, dw, affine))
    })?;
    Ok(ConvNormOutput { conv_out, norm: BatchNormOutput { y, mean, var } })
}
