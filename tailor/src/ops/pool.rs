//! Pooling, subsampling and channel padding as candle ops.

use super::cpu::level::Level;
use super::cpu::pool::{self as kernel, PoolShape};
use super::node::{floats, node, plain};
use super::stock;
use candle_core::{D, Result, Shape, Tensor, bail};

fn pool_shape(
    what: &str,
    x: &Tensor,
    kernel: usize,
    stride: usize,
    pad: usize,
) -> Result<(PoolShape, Shape)> {
    let &[n, c, h, w] = x.dims() else { bail!("{what}: x {:?} must be (n, c, h, w)", x.dims()) };
    if kernel == 0 || stride == 0 || 2 * pad > kernel || h + 2 * pad < kernel || w + 2 * pad < kernel {
        bail!(
            "{what}: kernel {kernel}, stride {stride}, pad {pad} do not fit x {:?} (want pad <= kernel / 2)",
            x.dims()
        )
    }
    let out = |size: usize| (size + 2 * pad - kernel) / stride + 1;
    let s = PoolShape { h, w, kernel, stride, pad, oh: out(h), ow: out(w) };
    Ok((s, Shape::from((n, c, s.oh, s.ow))))
}

/// Square max-pool with minus-infinity padding: `(n, c, h, w)` to `(n, c, oh, ow)`. A window's gradient goes
/// to its first maximum.
///
/// # Errors
/// If the window does not fit `x`, or the padding is more than half of it.
pub fn max_pool2d(x: &Tensor, kernel: usize, stride: usize, pad: usize) -> Result<Tensor> {
    let (s, shape) = pool_shape("max_pool2d", x, kernel, stride, pad)?;
    #[cfg(feature = "cuda")]
    if super::gpu::runs(x) {
        return super::gpu::max_pool2d(x, s, shape);
    }
    if stock::composed(x) {
        return stock::max_pool2d(x, kernel, stride, pad);
    }
    let x = x.contiguous()?;
    let level = Level::best();
    let value = kernel::max(level, &s, &floats(&x)?);
    let kept = x.clone();
    node("max_pool2d", &[&x], value, shape, move |y, g| {
        let dx = kernel::max_backward(level, &s, &floats(&kept)?, &floats(y)?, &floats(g)?);
        Ok(vec![Some(plain(dx, kept.shape())?)])
    })
}

/// Square average pool without padding: `(n, c, h, w)` to `(n, c, oh, ow)`.
///
/// # Errors
/// If the window does not fit `x`.
pub fn avg_pool2d(x: &Tensor, kernel: usize, stride: usize) -> Result<Tensor> {
    let (s, shape) = pool_shape("avg_pool2d", x, kernel, stride, 0)?;
    #[cfg(feature = "cuda")]
    if super::gpu::runs(x) {
        return super::gpu::average("avg_pool2d", x, s, shape);
    }
    if stock::composed(x) {
        return stock::avg_pool2d(x, kernel, stride);
    }
    let x = x.contiguous()?;
    let (value, whole) = (kernel::average(&s, &floats(&x)?), x.shape().clone());
    node("avg_pool2d", &[&x], value, shape, move |_, g| {
        Ok(vec![Some(plain(kernel::average_backward(&s, &floats(g)?), whole.clone())?)])
    })
}

/// Mean over height and width: `(n, c, h, w)` to `(n, c)`.
///
/// # Errors
/// If `x` does not have four axes.
pub fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    x.flatten_from(2)?.mean(D::Minus1)
}

/// Keeps every `stride`-th row and column, starting with the first: `(n, c, h, w)` to `(n, c, ceil(h /
/// stride), ceil(w / stride))`.
///
/// # Errors
/// If `x` does not have four axes, or `stride` is 0.
pub fn subsample(x: &Tensor, stride: usize) -> Result<Tensor> {
    let (s, shape) = pool_shape("subsample", x, 1, stride, 0)?;
    #[cfg(feature = "cuda")]
    if super::gpu::runs(x) {
        return super::gpu::average("subsample", x, s, shape);
    }
    if stock::composed(x) {
        return stock::subsample(x, stride);
    }
    let x = x.contiguous()?;
    let (value, whole) = (kernel::average(&s, &floats(&x)?), x.shape().clone());
    node("subsample", &[&x], value, shape, move |_, g| {
        Ok(vec![Some(plain(kernel::average_backward(&s, &floats(g)?), whole.clone())?)])
    })
}

/// Pads `x (n, c, h, w)` with `front` channels of zeros before and `back` after its own.
///
/// # Errors
/// If `x` has no channel axis.
pub fn pad_channels(x: &Tensor, front: usize, back: usize) -> Result<Tensor> {
    x.pad_with_zeros(1, front, back)
}
