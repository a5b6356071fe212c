//! 2-D convolution as a candle op.

use super::cpu::conv as kernel;
use super::cpu::level::Level;
use super::cpu::shape::ConvShape;
use super::node::{floats, node, plain, wanted};
use super::stock;
use candle_core::{Result, Tensor};

/// Convolution without bias, dilation or groups.
///
/// `x` is `(n, c_in, h, w)`, `w` is `(c_out, c_in, k, k)`, the result `(n, c_out, oh, ow)` with
/// `oh = (h + 2 * pad - k) / stride + 1`. With `frozen`, no gradient of `w` is computed; no gradient of `x`
/// is computed if it does not depend on anything trained.
///
/// # Errors
/// If the shapes do not fit.
pub fn conv2d(x: &Tensor, w: &Tensor, stride: usize, pad: usize, frozen: bool) -> Result<Tensor> {
    let s = ConvShape::new(x.dims(), w.dims(), stride, pad)?;
    let w = if frozen { w.detach() } else { w.clone() };
    #[cfg(feature = "cuda")]
    if super::gpu::runs(x) {
        return super::gpu::conv2d(x, &w, s);
    }
    if stock::composed(x) {
        return stock::conv2d(x, &w, stride, pad);
    }
    let (x, w) = (x.contiguous()?, w.contiguous()?);
    let level = Level::best();
    let value = kernel::forward(level, &s, &floats(&x)?, &floats(&w)?);
    let (kept_x, kept_w) = (x.clone(), w.clone());
    node("conv2d", &[&x, &w], value, (s.n, s.c_out, s.oh, s.ow), move |_, g| {
        let (x, w, g) = (&kept_x, &kept_w, floats(g)?);
        let dx = match wanted(x) {
            true => Some(plain(kernel::backward_data(level, &s, &g, &floats(w)?), x.shape())?),
            false => None,
        };
        let dw = match wanted(w) {
            true => Some(plain(kernel::backward_weights(level, &s, &floats(x)?, &g), w.shape())?),
            false => None,
        };
        Ok(vec![dx, dw])
    })
}
