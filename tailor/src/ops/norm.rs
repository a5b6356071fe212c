//! Batch-norm and per-channel affine as candle ops.

use super::cpu::level::Level;
use super::cpu::norm as kernel;
use super::node::{floats, node, plain, wanted};
use super::stock;
use candle_core::{Result, Tensor, bail};

/// Result of [`batch_norm`].
#[derive(Debug, Clone)]
pub struct BatchNormOutput {
    /// Normalised output, with the shape of the input.
    pub y: Tensor,
    /// Batch mean `(c,)`, detached.
    pub mean: Tensor,
    /// Unbiased batch variance `(c,)`, detached, as used for running statistics.
    pub var: Tensor,
}

fn channels(what: &str, x: &Tensor, vectors: [&Tensor; 2]) -> Result<(usize, usize, usize)> {
    let &[n, c, h, w] = x.dims() else { bail!("{what}: x {:?} must be (n, c, h, w)", x.dims()) };
    if x.elem_count() == 0 || vectors.iter().any(|v| v.dims() != [c]) {
        let [a, b] = vectors.map(|v| v.dims().to_vec());
        bail!("{what}: x {:?} wants per-channel tensors ({c},), found {a:?} and {b:?}", x.dims())
    }
    Ok((n, c, h * w))
}

/// Mean and unbiased variance `(c,)` of batch statistics over `count` values per channel.
pub(crate) fn unbiased(stats: &kernel::Statistics, count: usize) -> Result<(Tensor, Tensor)> {
    let count = count as f32;
    let var: Vec<f32> = stats.var.iter().map(|v| v * (count / (count - 1.).max(1.))).collect();
    let c = var.len();
    Ok((plain(stats.mean.clone(), c)?, plain(var, c)?))
}

/// Batch-norm in training mode: `y = [relu]((x - mean) / sqrt(var + eps) * weight + bias)` with the batch's
/// own mean and biased variance; gradients flow through both.
///
/// `x` is `(n, c, h, w)`, `weight` and `bias` are `(c,)`. With `frozen_affine`, these get no gradient.
///
/// # Errors
/// If the shapes do not fit.
pub fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    relu: bool,
    frozen_affine: bool,
) -> Result<BatchNormOutput> {
    let (n, _, pixels) = channels("batch_norm", x, [weight, bias])?;
    let fix = |t: &Tensor| if frozen_affine { t.detach() } else { t.clone() };
    let (weight, bias) = (fix(weight), fix(bias));
    #[cfg(feature = "cuda")]
    if super::gpu::runs(x) {
        return super::gpu::batch_norm(x, &weight, &bias, eps, relu);
    }
    if stock::composed(x) {
        return stock::batch_norm(x, &weight, &bias, eps, relu);
    }
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let level = Level::best();
    let (value, stats) =
        kernel::forward(level, &floats(&x)?, pixels, &floats(&weight)?, &floats(&bias)?, eps, relu);
    let (mean, var) = unbiased(&stats, n * pixels)?;
    let shape = x.shape().clone();
    let kept = (x.clone(), weight.clone(), bias.clone());
    let y = node("batch_norm", &[&x, &weight, &bias], value, shape, move |_, g| {
        let (x, weight, bias) = &kept;
        let (xs, g, ws, bs) = (floats(x)?, floats(g)?, floats(weight)?, floats(bias)?);
        let d = kernel::backward(level, &xs, &g, pixels, &ws, &bs, &stats, eps, relu);
        let dx = if wanted(x) { Some(plain(d.dx, x.shape())?) } else { None };
        let dw = if wanted(weight) { Some(plain(d.weight, weight.shape())?) } else { None };
        let db = if wanted(bias) { Some(plain(d.bias, bias.shape())?) } else { None };
        Ok(vec![dx, dw, db])
    })?;
    Ok(BatchNormOutput { y, mean, var })
}

/// Updates an exponential moving average: `kept * (1 - share) + seen * share`.
///
/// # Errors
/// If shapes differ.
pub fn follow(kept: &Tensor, seen: &Tensor, share: f64) -> Result<Tensor> {
    if kept.dims() != seen.dims() {
        bail!("follow: shapes {:?} and {:?} must be equal", kept.dims(), seen.dims())
    }
    #[cfg(feature = "cuda")]
    if super::gpu::runs(kept) {
        return super::gpu::follow(kept, seen, share);
    }
    (kept.detach() * (1. - share))? + (seen.detach() * share)?
}

/// Batch-norm in inference mode: `y = [relu](x * scale[c] + shift[c])`, with constants `scale` and `shift`
/// `(c,)`.
///
/// # Errors
/// If the shapes do not fit.
pub fn affine(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    let (_, _, pixels) = channels("affine", x, [scale, shift])?;
    let (scale, shift) = (scale.detach(), shift.detach());
    #[cfg(feature = "cuda")]
    if super::gpu::runs(x) {
        return super::gpu::affine(x, &scale, &shift, relu);
    }
    if stock::composed(x) {
        return stock::affine(x, &scale, &shift, relu);
    }
    let (x, scale, shift) = (x.contiguous()?, scale.contiguous()?, shift.contiguous()?);
    let level = Level::best();
    let value = kernel::affine(level, &floats(&x)?, pixels, &floats(&scale)?, &floats(&shift)?, relu);
    let (shape, kept) = (x.shape().clone(), x.clone());
    node("affine", &[&x], value, shape, move |_, g| {
        let (xs, g, scale, shift) = (floats(&kept)?, floats(g)?, floats(&scale)?, floats(&shift)?);
        let dx = kernel::affine_backward(level, &xs, &g, pixels, &scale, &shift, relu);
        Ok(vec![Some(plain(dx, kept.shape())?)])
    })
}
