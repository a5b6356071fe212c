//! Losses as candle ops, and scalars with known slopes.

use super::cpu::level::Level;
use super::cpu::simple as kernel;
use super::node::{floats, node, plain, wanted};
use super::stock;
use candle_core::{D, DType, Result, Tensor, bail};

/// `mean((a - b)^2)` over all elements, a scalar; `b` is treated as a constant.
///
/// # Errors
/// If shapes differ or the tensors are empty.
pub fn mse(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() || a.elem_count() == 0 {
        bail!("mse: shapes {:?} and {:?} must be equal and not empty", a.dims(), b.dims())
    }
    #[cfg(feature = "cuda")]
    if super::gpu::runs(a) {
        return super::gpu::mse(a, b);
    }
    if stock::composed(a) {
        return stock::mse(a, b);
    }
    let level = Level::best();
    let (a, b) = (a.contiguous()?, b.detach().contiguous()?);
    let value = kernel::mse(level, &floats(&a)?, &floats(&b)?);
    let kept = a.clone();
    node("mse", &[&a], vec![value], (), move |_, g| {
        let factor = 2. * g.to_scalar::<f32>()? / kept.elem_count() as f32;
        let d = kernel::masked_difference_all(level, &floats(&kept)?, &floats(&b)?, factor, false);
        Ok(vec![Some(plain(d, kept.shape())?)])
    })
}

/// Mean cross-entropy of `logits (n, classes)` against `labels (n,)` (`u32`), a scalar.
///
/// With label smoothing `e` the target is `1 - e` on the label plus `e / classes` everywhere, as in PyTorch.
///
/// # Errors
/// If shapes do not fit, or labels are not `u32`.
pub fn cross_entropy(logits: &Tensor, labels: &Tensor, label_smoothing: f64) -> Result<Tensor> {
    let (n, _) = logits.dims2()?;
    if labels.dims() != [n] || labels.dtype() != DType::U32 {
        bail!("cross_entropy: labels {:?} {:?}, want u32 [{n}]", labels.dtype(), labels.dims())
    }
    let log_p = log_softmax(logits)?;
    let hit = log_p.gather(&labels.unsqueeze(1)?, 1)?.mean_all()?;
    if label_smoothing == 0. {
        return hit.neg();
    }
    (hit * -(1. - label_smoothing))? - (log_p.mean_all()? * label_smoothing)?
}

/// Mean cross-entropy of `logits (n, classes)` against the class probabilities of `target`, which are logits
/// of the same shape and treated as constant; both are divided by `temperature` first. A scalar. (Hinton,
/// Vinyals & Dean, "Distilling the knowledge in a neural network".)
///
/// # Errors
/// If shapes differ.
pub fn soft_cross_entropy(logits: &Tensor, target: &Tensor, temperature: f64) -> Result<Tensor> {
    if logits.dims() != target.dims() {
        bail!("soft_cross_entropy: shapes {:?} and {:?} must be equal", logits.dims(), target.dims())
    }
    let p = log_softmax(&(target.detach() / temperature)?)?.exp()?;
    (log_softmax(&(logits / temperature)?)? * p)?.sum(D::Minus1)?.mean_all()?.neg()
}

/// Logits are small: stock ops are good enough everywhere.
fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

/// A scalar with known `value`, and known `slopes` with respect to each of `arguments`, which are vectors
/// `(g,)`.
///
/// # Errors
/// If there are no arguments, or the slopes' shapes differ from theirs.
pub fn scalar(name: &'static str, arguments: &[&Tensor], value: f64, slopes: &[Vec<f64>]) -> Result<Tensor> {
    let Some(first) = arguments.first() else { bail!("{name}: no arguments") };
    let fits =
        arguments.len() == slopes.len() && arguments.iter().zip(slopes).all(|(a, s)| a.dims() == [s.len()]);
    if !fits {
        let (shapes, counts): (Vec<_>, Vec<_>) =
            (arguments.iter().map(|a| a.dims()).collect(), slopes.iter().map(Vec::len).collect());
        bail!("{name}: {counts:?} slopes along tensors of shapes {shapes:?}")
    }
    // In one transfer: each would be a separate copy to a GPU.
    let numbers: Vec<f32> = slopes.iter().flatten().map(|v| *v as f32).collect();
    let all = Tensor::from_vec(numbers, slopes.iter().map(Vec::len).sum::<usize>(), first.device())?;
    let ends = slopes.iter().scan(0, |at, slopes| {
        *at += slopes.len();
        Some(*at)
    });
    let along = ends.zip(slopes).map(|(end, slopes)| all.narrow(0, end - slopes.len(), slopes.len()));
    let along = along.collect::<Result<Vec<Tensor>>>()?;
    if stock::composed(first) {
        // Only the first-order term matters for gradients.
        let mut sum = Tensor::new(value as f32, first.device())?;
        for (a, slopes) in arguments.iter().zip(&along) {
            sum = (sum + ((*a - a.detach())? * slopes)?.sum_all()?)?;
        }
        return Ok(sum);
    }
    let along: Vec<Option<Tensor>> =
        arguments.iter().zip(along).map(|(a, slopes)| wanted(a).then_some(slopes)).collect();
    #[cfg(feature = "cuda")]
    if super::gpu::runs(first) {
        let value = super::gpu::number(value as f32, first)?;
        return node(name, arguments, value, (), move |_, g| times(&along, g));
    }
    node(name, arguments, vec![value as f32], (), move |_, g| times(&along, g))
}

/// The slopes times the scalar `g`.
fn times(slopes: &[Option<Tensor>], g: &Tensor) -> Result<Vec<Option<Tensor>>> {
    slopes.iter().map(|slopes| slopes.as_ref().map(|s| s.broadcast_mul(&g.detach())).transpose()).collect()
}
