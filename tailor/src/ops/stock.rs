//! The same operations composed of candle's own, for devices without dedicated kernels, and as a reference
//! for those kernels. Only ops whose gradients are correct in candle are used (its max-pool is not among
//! them).

use super::matching::ProxyTrace;
use super::norm::BatchNormOutput;
use candle_core::{D, Result, Tensor};
use std::sync::LazyLock;

/// Whether the environment requests these compositions everywhere: `TAILOR_OPS=stock`.
static EVERYWHERE: LazyLock<bool> =
    LazyLock::new(|| std::env::var_os("TAILOR_OPS").is_some_and(|v| v == "stock"));

/// Whether an operation on `x` is composed of candle's own: on devices without dedicated kernels, and
/// everywhere if the environment has `TAILOR_OPS=stock`.
pub(super) fn composed(x: &Tensor) -> bool {
    !(x.device().is_cpu() || x.device().is_cuda()) || *EVERYWHERE
}

/// Whether the environment requests these compositions on every device.
#[cfg(feature = "cuda")]
pub(super) fn everywhere() -> bool {
    *EVERYWHERE
}

/// [`conv2d`](super::conv2d), without an option for frozen kernels.
///
/// # Errors
/// Any error of candle, for example for shapes that do not fit.
pub fn conv2d(x: &Tensor, w: &Tensor, stride: usize, pad: usize) -> Result<Tensor> {
    let (_, _, h, width) = x.dims4()?;
    let k = w.dim(2)?;
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let rest = |size: usize| (size + 2 * pad).saturating_sub(k) % stride;
    if rest(h) == rest(width) {
        return x.conv2d(&w, pad, stride, 1, 1);
    }
    // Candle's backward uses the rows' remainder for the columns too, so both are cut off beforehand.
    let mut x = x;
    for (axis, size) in [(2, h), (3, width)] {
        x = x.pad_with_zeros(axis, pad, pad)?.narrow(axis, 0, size + 2 * pad - rest(size))?;
    }
    x.contiguous()?.conv2d(&w, 0, stride, 1, 1)
}

fn per_channel(v: &Tensor) -> Result<Tensor> {
    v.reshape((1, v.elem_count(), 1, 1))
}

/// [`batch_norm`](super::batch_norm).
///
/// # Errors
/// Any error of candle, for example for shapes that do not fit.
pub fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    relu: bool,
) -> Result<BatchNormOutput> {
    let mean = x.mean_keepdim((0, 2, 3))?;
    let centred = x.broadcast_sub(&mean)?;
    let var = centred.sqr()?.mean_keepdim((0, 2, 3))?;
    let scale = per_channel(weight)?.div(&(&var + eps)?.sqrt()?)?;
    let y = centred.broadcast_mul(&scale)?.broadcast_add(&per_channel(bias)?)?;
    let count = (x.elem_count() / weight.elem_count()) as f64;
    Ok(BatchNormOutput {
        y: if relu { y.relu()? } else { y },
        mean: mean.flatten_all()?.detach(),
        var: (var.flatten_all()?.detach() * (count / (count - 1.).max(1.)))?,
    })
}

/// [`affine`](super::affine).
///
/// # Errors
/// Any error of candle, for example for shapes that do not fit.
pub fn affine(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    let y = x.broadcast_mul(&per_channel(scale)?)?.broadcast_add(&per_channel(shift)?)?;
    if relu { y.relu() } else { Ok(y) }
}

/// Every `stride`-th row and column, starting at `(i, j)`, `oh` and `ow` of them.
fn strided(x: &Tensor, (i, j): (usize, usize), stride: usize, (oh, ow): (usize, usize)) -> Result<Tensor> {
    let index = |from: usize, count: usize| {
        let positions: Vec<u32> = (0..count).map(|o| (from + o * stride) as u32).collect();
        Tensor::from_vec(positions, count, x.device())
    };
    x.contiguous()?.index_select(&index(i, oh)?, 2)?.index_select(&index(j, ow)?, 3)
}

fn windows(x: &Tensor, kernel: usize, stride: usize) -> Result<Vec<Tensor>> {
    let (_, _, h, w) = x.dims4()?;
    let out = ((h - kernel) / stride + 1, (w - kernel) / stride + 1);
    (0..kernel * kernel).map(|t| strided(x, (t / kernel, t % kernel), stride, out)).collect()
}

/// [`max_pool2d`](super::max_pool2d); of several equal maxima, the first gets the gradient, as there.
///
/// # Errors
/// Any error of candle, for example for shapes that do not fit.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, pad: usize) -> Result<Tensor> {
    let mut padded = x.clone();
    for axis in [2, 3] {
        if pad > 0 {
            let mut shape = padded.dims().to_vec();
            shape[axis] = pad;
            let border = Tensor::full(f32::NEG_INFINITY, shape, x.device())?;
            padded = Tensor::cat(&[&border, &padded, &border], axis)?;
        }
    }
    let windows = windows(&padded, kernel, stride)?;
    let mut largest = windows[0].clone();
    for window in &windows[1..] {
        // Not `maximum`, which would share the gradient between equal elements.
        largest = window.gt(&largest)?.where_cond(window, &largest)?;
    }
    Ok(largest)
}

/// [`avg_pool2d`](super::avg_pool2d).
///
/// # Errors
/// Any error of candle, for example for shapes that do not fit.
pub fn avg_pool2d(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let windows = windows(x, kernel, stride)?;
    let mut sum = windows[0].clone();
    for window in &windows[1..] {
        sum = (sum + window)?;
    }
    sum / (kernel * kernel) as f64
}

/// [`subsample`](super::subsample).
///
/// # Errors
/// Any error of candle, for example for shapes that do not fit.
pub fn subsample(x: &Tensor, stride: usize) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    strided(x, (0, 0), stride, (h.div_ceil(stride), w.div_ceil(stride)))
}

/// [`gated_sum`](super::gated_sum).
///
/// # Errors
/// If there are no terms; any error of candle, for example for shapes that do not fit.
pub fn gated_sum(
    terms: &[Tensor],
    gate_of: &[Option<usize>],
    alpha: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for (term, gate) in terms.iter().zip(gate_of) {
        let term = match (gate, alpha) {
            (Some(gate), Some(alpha)) => {
                term.broadcast_mul(&alpha.narrow(0, *gate, 1)?.reshape((1, 1, 1, 1))?)?
            }
            _ => term.clone(),
        };
        sum = Some(match sum {
            Some(sum) => (sum + term)?,
            None => term,
        });
    }
    let Some(sum) = sum else { candle_core::bail!("gated_sum: no terms") };
    if relu { sum.relu() } else { Ok(sum) }
}

/// [`softmax`](super::softmax).
///
/// # Errors
/// Any error of candle, for example for an empty tensor.
pub fn softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?.exp()?;
    shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)
}

/// [`mse`](super::mse).
///
/// # Errors
/// Any error of candle, for example for shapes that differ.
pub fn mse(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    (a - b.detach())?.sqr()?.mean_all()
}

/// [`local_match`](super::local_match), by computing the cell again from detached inputs.
///
/// # Errors
/// Any error of candle, for example for shapes that do not fit.
pub fn local_match(
    target: &Tensor,
    relu: bool,
    block: &[Tensor],
    block_gate: usize,
    proxies: &[ProxyTrace],
    alpha: &Tensor,
) -> Result<Tensor> {
    let mut terms: Vec<Tensor> = block.iter().map(Tensor::detach).collect();
    let mut gates = vec![Some(block_gate); terms.len()];
    for p in proxies {
        let z = conv2d(&p.pooled.detach(), &p.weight, 1, 0)?;
        terms.push(batch_norm(&z, &p.norm_weight, &p.norm_bias, p.eps, false)?.y);
        gates.push(Some(p.gate));
    }
    mse(&gated_sum(&terms, &gates, Some(alpha), relu)?, target)
}
