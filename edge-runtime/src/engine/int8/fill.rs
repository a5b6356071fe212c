//! Factors of int8 steps: grids, kernel scales, norms and alphas combined into one scale and shift per
//! channel.

use super::step::{Add, Kernel, Recipe};
use crate::engine::Tensors;
use crate::engine::params::{self, Span};
use crate::kernels::int8::{self, padded};
use crate::kernels::{self, ConvShape};
use crate::{Error, Result};

/// Computes what one recipe describes. With scale `s` and zero point `z` of the input and kernel scale `w`,
/// the `(scale, shift)` of a convolution become `(scale s w, shift - scale s w z sum of weights)`, which is
/// then converted to the output's grid. Of several terms, each has its own scale; their shifts are added up.
///
/// # Errors
/// Any error of [`Tensors`].
pub(crate) fn fill(
    recipe: &Recipe,
    alpha: &dyn Fn(Option<usize>) -> f32,
    part: &mut [f32],
    task: &dyn Tensors,
    backbone: params::Shared<'_>,
    room: &mut Vec<f32>,
) -> Result<()> {
    let at = |span: Option<Span>| span.unwrap_or(Span { start: 0, len: 0 });
    let (scale, shift) = (at(recipe.affine.scale), at(recipe.affine.shift));
    let before = if recipe.joins { shift.of(part).to_vec() } else { Vec::new() };
    params::affine(&recipe.affine, alpha(recipe.affine.alpha), part, task, backbone, room)?;
    let channels = recipe.affine.channels;
    let rows = rows(&recipe.kernel, channels, part, task)?;
    let inverse = recipe.to.map_or(1.0, |to| 1.0 / f64::from(to.scale));
    // The first term brings the output's zero point.
    let zero = recipe.to.filter(|_| !recipe.joins).map_or(0.0, |to| f64::from(to.zero));
    let mut added = 0.0;
    if let Some(Add { from, alpha: index, at }) = recipe.add {
        let factor = f64::from(alpha(index)) * f64::from(from.scale) * inverse;
        added = factor * f64::from(from.zero);
        at.of_mut(part).fill(factor as f32);
    }
    for (c, &(weight, sum)) in rows.iter().enumerate() {
        let (Some(a), Some(b)) = (scale.of(part).get(c), shift.of(part).get(c)) else { break };
        let factor = f64::from(*a) * f64::from(recipe.from.scale) * weight * inverse;
        let offset = f64::from(*b) * inverse + zero - factor * f64::from(recipe.from.zero) * sum - added;
        scale.of_mut(part)[c] = factor as f32;
        shift.of_mut(part)[c] = offset as f32 + before.get(c).unwrap_or(&0.0);
    }
    Ok(())
}

/// Per channel, the kernel's scale and the sum of its weights; both 1 without a kernel.
fn rows(kernel: &Kernel, channels: usize, part: &mut [f32], task: &dyn Tensors) -> Result<Vec<(f64, f64)>> {
    match kernel {
        Kernel::None => Ok(vec![(1.0, 1.0); channels]),
        Kernel::Backbone(shape, kernel) => sums("kernel", shape, kernel.weights(), &kernel.scales),
        Kernel::Task { tensor, shape, at } => {
            let len = shape.c_out * shape.c_in * shape.kernel * shape.kernel;
            let (mut plain, mut scales) = (vec![0; len], vec![0.0; shape.c_out]);
            task.read_rows(tensor, &mut plain, &mut scales)?;
            let packed = kernels::signed_mut(kernels::bytes_mut(at.of_mut(part)));
            packed.fill(0);
            int8::pack(shape, &plain, packed)
                .map_err(|source| Error::Kernel { step: tensor.clone(), source })?;
            sums(tensor, shape, packed, &scales)
        }
    }
}

fn sums(name: &str, shape: &ConvShape, packed: &[i8], scales: &[f32]) -> Result<Vec<(f64, f64)>> {
    let mut sums = vec![0; padded(shape.c_out)];
    int8::row_sums(shape, packed, &mut sums).map_err(|source| Error::Kernel { step: name.into(), source })?;
    Ok(scales.iter().zip(sums).map(|(&scale, sum)| (f64::from(scale), f64::from(sum))).collect())
}
