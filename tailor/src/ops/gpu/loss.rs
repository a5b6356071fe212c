//! Mean squared error.

use super::PARTS;
use super::launch::Threads::{Blocks, Each};
use super::launch::{launch, plain};
use crate::ops::node::node;
use candle_core::cuda::CudaStorage;
use candle_core::{Result, Tensor};

/// `mean((a - b)^2)`.
pub(super) fn mean_square(a: &Tensor, b: &Tensor) -> Result<CudaStorage> {
    let count = a.elem_count();
    let parts = plain(launch("square_parts", Blocks(PARTS), &[a, b], PARTS, &[count], &[])?, PARTS);
    launch("mean_of_parts", Blocks(1), &[&parts], 1, &[PARTS, count], &[])
}

/// Gradient of [`mean_square`] with respect to `a`, given the gradient `g` of the mean; if `relu`, with
/// respect to the input of the ReLU that produced `a`.
pub(super) fn difference(a: &Tensor, b: &Tensor, g: &Tensor, relu: bool) -> Result<Tensor> {
    let count = a.elem_count();
    let d = launch("difference", Each(count), &[a, b, g], count, &[relu.into()], &[])?;
    Ok(plain(d, a.shape().clone()))
}

/// [`mse`](crate::ops::mse).
pub(in crate::ops) fn mse(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (a.contiguous()?, b.detach().contiguous()?);
    let inner = a.detach();
    let value = mean_square(&inner, &b)?;
    node("mse", &[&a], value, (), move |_, g| Ok(vec![Some(difference(&inner, &b, &g.detach(), false)?)]))
}
