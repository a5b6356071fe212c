//! The operations on NVIDIA GPUs: convolution as a matrix product over unfolded windows, and kernels of our own
//! (`kernels.cu`) for what candle composes of many.

mod launch;

use super::cpu::pool::PoolShape;
use super::cpu::shape::ConvShape;
use super::matching::recomputed;
use super::node::{Three, Value, node1, node2, node3, wanted};
use super::{BatchNormOutput, ProxyTrace, stock};
use candle_core::backend::BackendStorage;
use candle_core::cuda::CudaStorage;
use candle_core::{Layout, Result, Shape, Storage, Tensor, bail};
use launch::Threads::{Blocks, Each};
use launch::{launch, launch_in_place, plain};

/// Whether an operation on `x` is one of these: on an NVIDIA GPU, unless the environment says `TAILOR_OPS=stock`.
pub(super) fn runs(x: &Tensor) -> bool {
    x.device().is_cuda() && !stock::everywhere()
}

/// Blocks that the products of a whole gradient are summed by.
const PARTS: usize = 256;

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
fn product(w: &Tensor, columns: &Tensor, s: &ConvShape) -> Result<CudaStorage> {
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

/// [`conv2d`](super::conv2d).
pub(super) fn conv2d(x: &Tensor, w: &Tensor, s: ConvShape) -> Result<Tensor> {
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    // Detached: what happens inside is no part of the graph.
    let (inner_x, inner_w) = (x.detach(), w.detach());
    let value = product(&matrix(&inner_w, &s)?, &columns(&inner_x, &s)?, &s)?;
    let wants = (wanted(&x), wanted(&w));
    node2("conv2d", (&x, &w), value, Shape::from((s.n, s.c_out, s.oh, s.ow)), move |_, g| {
        let (rows, pixels) = (s.c_in * s.k * s.k, s.oh * s.ow);
        let g = g.detach().reshape((s.n, s.c_out, pixels))?;
        let dx = match wants.0 {
            true => {
                let w = matrix(&inner_w, &s)?.t()?.broadcast_as((s.n, rows, s.c_out))?;
                let columns = w.matmul(&g)?;
                Some(match s.pointwise() {
                    true => columns.reshape((s.n, s.c_in, s.h, s.w))?,
                    false => {
                        let count = s.n * s.image_in();
                        let extents = [s.h, s.w, s.k, s.stride, s.pad, s.oh, s.ow];
                        let dx = launch("fold", Each(count), &[&columns], count, &extents, &[])?;
                        plain(dx, (s.n, s.c_in, s.h, s.w))
                    }
                })
            }
            false => None,
        };
        let dw = match wants.1 {
            true => {
                let each = g.matmul(&columns(&inner_x, &s)?.transpose(1, 2)?)?;
                Some(each.sum(0)?.reshape((s.c_out, s.c_in, s.k, s.k))?)
            }
            false => None,
        };
        Ok((dx, dw))
    })
}

/// [`batch_norm`](super::batch_norm).
pub(super) fn batch_norm(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
    relu: bool,
) -> Result<BatchNormOutput> {
    let (n, c, h, w) = x.dims4()?;
    let (count, pixels) = (x.elem_count(), h * w);
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let inner = (x.detach(), weight.detach(), bias.detach());
    let stats = plain(launch("statistics", Blocks(c), &[&inner.0], 2 * c, &[n, c, pixels], &[])?, (2, c));
    let inputs = [&inner.0, &stats, &inner.1, &inner.2];
    let value = launch("normalise", Each(count), &inputs, count, &[c, pixels, relu.into()], &[eps])?;
    let samples = (n * pixels) as f64;
    let (mean, var) = (stats.get(0)?, (stats.get(1)? * (samples / (samples - 1.).max(1.)))?);
    let wants = (wanted(&x), wanted(&weight) || wanted(&bias));
    let y = node3("batch_norm", (&x, &weight, &bias), value, x.shape().clone(), move |y, g| {
        let (x, weight, _) = &inner;
        let (y, g) = (y.detach(), g.detach());
        let extents = [n, c, pixels, relu.into()];
        let sums = launch("norm_sums", Blocks(c), &[x, &y, &g, &stats], 2 * c, &extents, &[eps])?;
        let sums = plain(sums, (2, c));
        let dx = match wants.0 {
            true => {
                let inputs = [x, &y, &g, &stats, weight, &sums];
                let dx = launch("norm_input", Each(count), &inputs, count, &extents, &[eps])?;
                Some(plain(dx, x.shape().clone()))
            }
            false => None,
        };
        let affine = match wants.1 {
            true => (Some(sums.get(0)?.contiguous()?), Some(sums.get(1)?.contiguous()?)),
            false => (None, None),
        };
        Ok((dx, affine.0, affine.1))
    })?;
    Ok(BatchNormOutput { y, mean, var })
}

/// [`affine`](super::affine).
pub(super) fn affine(x: &Tensor, scale: &Tensor, shift: &Tensor, relu: bool) -> Result<Tensor> {
    let (_, c, h, w) = x.dims4()?;
    let (x, scale, shift) = (x.contiguous()?, scale.contiguous()?, shift.contiguous()?);
    let (count, extents) = (x.elem_count(), [c, h * w, relu.into()]);
    let value = launch("affine", Each(count), &[&x.detach(), &scale, &shift], count, &extents, &[])?;
    node1("affine", &x, value, x.shape().clone(), move |y, g| {
        let inputs = [&y.detach(), &g.detach(), &scale];
        let dx = launch("affine_input", Each(count), &inputs, count, &extents, &[])?;
        Ok(Some(plain(dx, y.shape().clone())))
    })
}

/// [`max_pool2d`](super::max_pool2d).
pub(super) fn max_pool2d(x: &Tensor, s: PoolShape, shape: Shape) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (inner, whole) = (x.detach(), x.shape().clone());
    let extents = [s.h, s.w, s.kernel, s.stride, s.pad, s.oh, s.ow];
    let count = shape.elem_count();
    let value = launch("max_pool", Each(count), &[&inner], count, &extents, &[])?;
    node1("max_pool2d", &x, value, shape, move |_, g| {
        let count = whole.elem_count();
        let dx = launch("max_pool_input", Each(count), &[&inner, &g.detach()], count, &extents, &[])?;
        Ok(Some(plain(dx, whole.clone())))
    })
}

/// [`avg_pool2d`](super::avg_pool2d), and with a kernel of 1 [`subsample`](super::subsample).
pub(super) fn average(name: &'static str, x: &Tensor, s: PoolShape, shape: Shape) -> Result<Tensor> {
    let x = x.contiguous()?;
    let whole = x.shape().clone();
    let extents = [s.h, s.w, s.kernel, s.stride, s.oh, s.ow];
    let count = shape.elem_count();
    let value = launch("average_pool", Each(count), &[&x.detach()], count, &extents, &[])?;
    node1(name, &x, value, shape, move |_, g| {
        let count = whole.elem_count();
        let dx = launch("average_pool_input", Each(count), &[&g.detach()], count, &extents, &[])?;
        Ok(Some(plain(dx, whole.clone())))
    })
}

/// [`gated_sum`](super::gated_sum), of two terms or more, one addition after the other.
pub(super) fn gated_sum(
    terms: &[Tensor],
    gate_of: &[Option<usize>],
    alpha: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let Some(first) = terms.first() else { bail!("gated_sum: a node without terms") };
    let mut sum = first.clone();
    for (i, term) in terms.iter().enumerate().skip(1) {
        let gates = (if i == 1 { gate_of[0] } else { None }, gate_of[i]);
        sum = blend(&sum, term, gates, alpha, relu && i + 1 == terms.len())?;
    }
    Ok(sum)
}

/// One addition.
fn blend(
    a: &Tensor,
    b: &Tensor,
    gates: (Option<usize>, Option<usize>),
    alpha: Option<&Tensor>,
    relu: bool,
) -> Result<Tensor> {
    let (a, b) = (a.contiguous()?, b.contiguous()?);
    let count = a.elem_count();
    let of = alpha.map_or(0, Tensor::elem_count);
    // Beyond the last gate: a weight of 1.
    let index = |gate: Option<usize>| gate.unwrap_or(of);
    let (gate_a, gate_b) = (index(gates.0), index(gates.1));
    let inner = (a.detach(), b.detach(), alpha.map_or_else(|| a.detach(), Tensor::detach));
    let extents = [of, gate_a, gate_b, relu.into()];
    let value = launch("blend", Each(count), &[&inner.0, &inner.1, &inner.2], count, &extents, &[])?;
    let shape = a.shape().clone();
    let wants = (wanted(&a), wanted(&b), alpha.is_some_and(wanted));
    let backward = move |y: &Tensor, g: &Tensor| -> Result<Three> {
        let (a, b, alpha) = &inner;
        let (y, g) = (y.detach(), g.detach());
        let term = |wanted: bool, gate: usize| -> Result<Option<Tensor>> {
            if !wanted || (gate >= of && !relu) {
                return Ok(wanted.then(|| g.clone()));
            }
            let extents = [of, gate, relu.into()];
            let d = launch("blend_term", Each(count), &[&y, &g, alpha], count, &extents, &[])?;
            Ok(Some(plain(d, a.shape().clone())))
        };
        let da = term(wants.0, gate_a)?;
        // Two terms of one weight have one gradient.
        let db =
            if gate_a == gate_b && da.is_some() && wants.1 { da.clone() } else { term(wants.1, gate_b)? };
        let dalpha = match wants.2 {
            true => {
                let extents = [count, relu.into()];
                let parts = launch("blend_parts", Blocks(PARTS), &[a, b, &y, &g], 2 * PARTS, &extents, &[])?;
                let parts = plain(parts, (2, PARTS));
                let extents = [PARTS, of, gate_a, gate_b];
                let d = launch("blend_gates", Blocks(1), &[&parts], of, &extents, &[])?;
                Some(plain(d, alpha.shape().clone()))
            }
            false => None,
        };
        Ok((da, db, dalpha))
    };
    match alpha {
        Some(alpha) if gates.0.is_some() || gates.1.is_some() => {
            node3("gated_sum", (&a, &b, alpha), value, shape, backward)
        }
        // `alpha` is an argument only if it weighs a term.
        _ => node2("gated_sum", (&a, &b), value, shape, move |y, g| {
            let (da, db, _) = backward(y, g)?;
            Ok((da, db))
        }),
    }
}

/// [`local_match`](super::local_match), by computing the cell again from detached inputs.
pub(super) fn local_match(
    target: &Tensor,
    relu: bool,
    block: &[Tensor],
    block_gate: usize,
    proxies: &[ProxyTrace],
    alpha: &Tensor,
) -> Result<Tensor> {
    let proxy = |p: &ProxyTrace| {
        let z = super::conv2d(&p.pooled.detach(), &p.weight, 1, 0, false)?;
        Ok(super::batch_norm(&z, &p.norm_weight, &p.norm_bias, p.eps, false, false)?.y)
    };
    let sum = |terms: &[Tensor], gates: &[Option<usize>]| super::gated_sum(terms, gates, Some(alpha), relu);
    recomputed(target, block, block_gate, proxies, proxy, sum)
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
