//! Pooling and subsampling.

use super::launch::Threads::Each;
use super::launch::{launch, plain};
use crate::ops::cpu::pool::PoolShape;
use crate::ops::node::node;
use candle_core::{Result, Shape, Tensor};

/// [`max_pool2d`](crate::ops::max_pool2d).
pub(in crate::ops) fn max_pool2d(x: &Tensor, s: PoolShape, shape: Shape) -> Result<Tensor> {
    let x = x.contiguous()?;
    let (inner, whole) = (x.detach(), x.shape().clone());
    let extents = [s.h, s.w, s.kernel, s.stride, s.pad, s.oh, s.ow];
    let count = shape.elem_count();
    let value = launch("max_pool", Each(count), &[&inner], count, &extents, &[])?;
    node("max_pool2d", &[&x], value, shape, move |_, g| {
        let count = whole.elem_count();
        let dx = launch("max_pool_input", Each(count), &[&inner, &g.detach()], count, &extents, &[])?;
        Ok(vec![Some(plain(dx, whole.clone()))])
    })
}

/// [`avg_pool2d`](crate::ops::avg_pool2d), and with a kernel of 1 [`subsample`](crate::ops::subsample).
pub(in crate::ops) fn average(name: &'static str, x: &Tensor, s: PoolShape, shape: Shape) -> Result<Tensor> {
    let x = x.contiguous()?;
    let whole = x.shape().clone();
    let extents = [s.h, s.w, s.kernel, s.stride, s.oh, s.ow];
    let count = shape.elem_count();
    let value = launch("average_pool", Each(count), &[&x.detach()], count, &extents, &[])?;
    node(name, &[&x], value, shape, move |_, g| {
        let count = whole.elem_count();
        let dx = launch("average_pool_input", Each(count), &[&g.detach()], count, &extents, &[])?;
        Ok(vec![Some(plain(dx, whole.clone()))])
    })
}
