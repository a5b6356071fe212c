//! Batch-norm and running averages.

use super::launch::Threads::{Blocks, Each};
use super::launch::{launch, plain};
use crate::ops::BatchNormOutput;
use crate::ops::node::{node, wanted};
use candle_core::cuda::CudaStorage;
use candle_core::{Result, Tensor};

/// What a batch-norm's gradients need, all detached.
pub(super) struct Norm {
    /// Input `(n, c, h, w)`.
    pub x: Tensor,
    /// Batch mean `(c,)`.
    pub mean: Tensor,
    /// Batch variance `(c,)`; times `biased`, it is the biased one.
    pub var: Tensor,
    /// Factor from `var` to the biased variance.
    pub biased: f64,
    /// Weight `(c,)`.
    pub weight: Tensor,
    /// Epsilon, added to the variance.
    pub eps: f64,
}

impl Norm {
    /// Forward pass: what the gradients need, the output, and the unbiased variance.
    pub(super) fn forward(
        x: &Tensor,
        weight: &Tensor,
        bias: &Tensor,
        eps: f64,
        relu: bool,
    ) -> Result<(Norm, CudaStorage, Tensor)> {
        let (n, c, h, w) = x.dims4()?;
        let (count, pixels) = (x.elem_count(), h * w);
        let stats = plain(launch("statistics", Blocks(c), &[x], 3 * c, &[n, c, pixels], &[])?, (3, c));
        let inputs = [x, &stats, weight, bias];
        let value = launch("normalise", Each(count), &inputs, count, &[c, pixels, relu.into()], &[eps])?;
        let (mean, var) = (stats.get(0)?, stats.get(1)?);
        let norm = Norm { x: x.clone(), mean, var, biased: 1.0, weight: weight.clone(), eps };
        Ok((norm, value, stats.get(2)?))
    }

    fn extents(&self, relu: bool) -> Result<[usize; 4]> {
        let (n, c, h, w) = self.x.dims4()?;
        Ok([n, c, h * w, relu.into()])
    }

    /// Gradients of weight and bias, `(2, c)`, given the gradient `g` of the output `y`.
    pub(super) fn sums(&self, y: &Tensor, g: &Tensor, relu: bool) -> Result<Tensor> {
        let c = self.weight.elem_count();
        let inputs = [&self.x, y, g, &self.mean, &self.var];
        let factors = [self.biased, self.eps];
        Ok(plain(launch("norm_sums", Blocks(c), &inputs, 2 * c, &self.extents(relu)?, &factors)?, (2, c)))
    }

    /// Gradient of the input, given these `sums`, times entry `gate.1` of alpha, if a gate is given.
    pub(super) fn input(
        &self,
        y: &Tensor,
        g: &Tensor,
        relu: bool,
        sums: &Tensor,
        gate: Option<(&Tensor, usize)>,
    ) -> Result<Tensor> {
        let (alpha, gates, gate) =
            gate.map_or((sums, 0, 0), |(alpha, gate)| (alpha, alpha.elem_count(), gate));
        let inputs = [&self.x, y, g, &self.mean, &self.var, &self.weight, sums, alpha];
        let count = self.x.elem_count();
        let [n, c, pixels, relu] = self.extents(relu)?;
        let extents = [n, c, pixels, relu, gates, gate];
        let d = launch("norm_input", Each(count), &inputs, count, &extents, &[self.biased, self.eps])?;
        Ok(plain(d, self.x.shape().clone()))
    }
}

/// [`batch_norm`](crate::ops::batch_norm).
pub(in crate::ops) fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    relu: bool,
) -> Result<BatchNormOutput> {
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let (norm, value, var) = Norm::forward(&x.detach(), &weight.detach(), &bias.detach(), eps, relu)?;
    let mean = norm.mean.clone();
    let wants = (wanted(&x), wanted(&weight) || wanted(&bias));
    let y = node("batch_norm", &[&x, &weight, &bias], value, x.shape().clone(), move |y, g| {
        let (y, g) = (y.detach(), g.detach());
        let sums = norm.sums(&y, &g, relu)?;
        let dx = wants.0.then(|| norm.input(&y, &g, relu, &sums, None)).transpose()?;
        let affine = |row: usize| wants.1.then(|| sums.get(row)).transpose();
        Ok(vec![dx, affine(0)?, affine(1)?])
    })?;
    Ok(BatchNormOutput { y, mean, var })
}

/// [`affine`](crate::ops::affine).
pub(in crate::ops) fn affine(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    let (_, c, h, w) = x.dims4()?;
    let (x, scale, shift) = (x.contiguous()?, scale.contiguous()?, shift.contiguous()?);
    let (count, extents) = (x.elem_count(), [c, h * w, relu.into()]);
    let value = launch("affine", Each(count), &[&x.detach(), &scale, &shift], count, &extents, &[])?;
    node("affine", &[&x], value, x.shape().clone(), move |y, g| {
        let inputs = [&y.detach(), &g.detach(), &scale];
        let dx = launch("affine_input", Each(count), &inputs, count, &extents, &[])?;
        Ok(vec![Some(plain(dx, y.shape().clone()))])
    })
}

/// [`follow`](crate::ops::follow).
pub(in crate::ops) fn follow(kept: &Tensor, seen: &Tensor, share: f64) -> Result<Tensor> {
    let count = kept.elem_count();
    let inputs = [&kept.detach(), &seen.detach()];
    Ok(plain(launch("follow", Each(count), &inputs, count, &[], &[share])?, kept.shape().clone()))
}
