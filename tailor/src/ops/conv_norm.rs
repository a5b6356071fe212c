//! A convolution and the batch-norm after it as one candle op.

use super::cpu::level::Level;
use super::cpu::shape::ConvShape;
use super::cpu::{conv, norm};
use super::node::{floats, node, plain, wanted};
use super::norm::unbiased;
use super::{BatchNormOutput, batch_norm, conv2d, stock};
use candle_core::{Result, Tensor, bail};

/// Operands and options of a convolution with batch-norm.
#[derive(Debug, Clone, Copy)]
pub struct ConvNorm<'a> {
    /// Kernel `(c_out, c_in, k, k)`.
    pub kernel: &'a Tensor,
    /// Stride in both directions.
    pub stride: usize,
    /// Zero padding on every side.
    pub pad: usize,
    /// Whether the kernel gets no gradient.
    pub frozen_kernel: bool,
    /// Batch-norm weight `(c_out,)`.
    pub weight: &'a Tensor,
    /// Batch-norm bias `(c_out,)`.
    pub bias: &'a Tensor,
    /// The batch-norm's epsilon.
    pub eps: f64,
    /// Whether a ReLU follows.
    pub relu: bool,
    /// Whether weight and bias get no gradient.
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
/// Values and gradients are those of the two operations in sequence. In a single graph node, candle never has
/// to zero, accumulate and keep a tensor for the gradient between them.
///
/// # Errors
/// If the shapes do not fit.
pub fn conv_norm(x: &Tensor, of: ConvNorm<'_>) -> Result<ConvNormOutput> {
    let ConvNorm { stride, pad, eps, relu, frozen_affine, .. } = of;
    let fixed = |t: &Tensor, frozen: bool| if frozen { t.detach() } else { t.clone() };
    let s = ConvShape::new(x.dims(), of.kernel.dims(), stride, pad)?;
    if [of.weight, of.bias].iter().any(|t| t.dims() != [s.c_out]) {
        let [a, b] = [of.weight, of.bias].map(|t| t.dims().to_vec());
        bail!(
            "conv_norm: kernel {:?} wants per-channel tensors ({},), found {a:?} and {b:?}",
            of.kernel.dims(),
            s.c_out
        )
    }
    #[cfg(feature = "cuda")]
    if super::gpu::runs(x) {
        let (weight, bias) = (fixed(of.weight, frozen_affine), fixed(of.bias, frozen_affine));
        return super::gpu::conv_norm(x, &fixed(of.kernel, of.frozen_kernel), [&weight, &bias], s, eps, relu);
    }
    if stock::composed(x) {
        let z = conv2d(x, of.kernel, stride, pad, of.frozen_kernel)?;
        let norm = batch_norm(&z, of.weight, of.bias, eps, relu, frozen_affine)?;
        return Ok(ConvNormOutput { conv_out: z.detach(), norm });
    }
    let (x, kernel) = (x.contiguous()?, fixed(of.kernel, of.frozen_kernel).contiguous()?);
    let weight = fixed(of.weight, frozen_affine).contiguous()?;
    let bias = fixed(of.bias, frozen_affine).contiguous()?;
    let level = Level::best();
    let conv_out =
        plain(conv::forward(level, &s, &floats(&x)?, &floats(&kernel)?), (s.n, s.c_out, s.oh, s.ow))?;
    let pixels = s.oh * s.ow;
    let (value, stats) =
        norm::forward(level, &floats(&conv_out)?, pixels, &floats(&weight)?, &floats(&bias)?, eps, relu);
    let (mean, var) = unbiased(&stats, s.n * pixels)?;
    let kept = (x.clone(), kernel.clone(), weight.clone(), bias.clone(), conv_out.clone());
    let shape = conv_out.shape().clone();
    let y = node("conv_norm", &[&x, &kernel, &weight, &bias], value, shape, move |_, g| {
        let (x, kernel, weight, bias, z) = &kept;
        let (zs, g, ws, bs) = (floats(z)?, floats(g)?, floats(weight)?, floats(bias)?);
        let d = norm::backward(level, &zs, &g, pixels, &ws, &bs, &stats, eps, relu);
        let dx = match wanted(x) {
            true => Some(plain(conv::backward_data(level, &s, &d.dx, &floats(kernel)?), x.shape())?),
            false => None,
        };
        let dw = match wanted(kernel) {
            true => Some(plain(conv::backward_weights(level, &s, &floats(x)?, &d.dx), kernel.shape())?),
            false => None,
        };
        let d_weight = if wanted(weight) { Some(plain(d.weight, weight.shape())?) } else { None };
        let d_bias = if wanted(bias) { Some(plain(d.bias, bias.shape())?) } else { None };
        Ok(vec![dx, dw, d_weight, d_bias])
    })?;
    Ok(ConvNormOutput { conv_out, norm: BatchNormOutput { y, mean, var } })
}
