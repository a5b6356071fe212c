//! A task's parameters: one allocation per part of the network, filled from the bundle's tensors.

use super::step::{AffineRecipe, PartSpec, Recipe};
use crate::kernels::{self, Floats, Isa, int8};
use crate::{Error, Result};
use bundles::plan::Owner;
use std::borrow::Cow;

/// Floats of a kernel that are read before they are packed: they fit a core's L1 cache together with their
/// destination.
const RUN: usize = 4096;

/// A range of floats inside one part of a task's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: usize,
    pub len: usize,
}

impl Span {
    /// The floats; empty if the part is shorter than expected (kernels then refuse the slice).
    pub fn of(self, part: &[f32]) -> &[f32] {
        part.get(self.start..self.start + self.len).unwrap_or(&[])
    }

    pub(super) fn of_mut(self, part: &mut [f32]) -> &mut [f32] {
        part.get_mut(self.start..self.start + self.len).unwrap_or(&mut [])
    }
}

/// The backbone's tensors by name and length.
pub(crate) type Shared<'a> = &'a dyn Fn(&str, usize) -> Result<Cow<'a, [f32]>>;

/// A source of named f32 tensors: a bundle, or a table in memory.
pub trait Tensors {
    /// Name of the source, for messages.
    fn name(&self) -> String;

    /// Writes the elements of tensor `name`, row-major, to `out`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if it is missing or does not have `out.len()` elements; any problem with its bytes.
    fn read(&self, name: &str, out: &mut [f32]) -> Result<()>;

    /// Passes the `len` elements of tensor `name`, row-major, to `take`, in runs of `run` (the last may be
    /// shorter), each with the position of its first element. `room` is a scratch buffer.
    ///
    /// # Errors
    /// As for [`read`](Tensors::read), and any error of `take`.
    fn read_runs(
        &self,
        name: &str,
        len: usize,
        run: usize,
        room: &mut Vec<f32>,
        take: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        room.resize(len, 0.0);
        self.read(name, room)?;
        let run = run.max(1);
        room.chunks(run).enumerate().try_for_each(|(i, numbers)| take(i * run, numbers))
    }

    /// Writes tensor `name` as bytes with a scale per row: as stored, or quantised on the fly.
    ///
    /// # Errors
    /// As for [`read`](Tensors::read).
    fn read_rows(&self, name: &str, out: &mut [i8], scales: &mut [f32]) -> Result<()> {
        let mut plain = vec![0.0; out.len()];
        self.read(name, &mut plain)?;
        round_rows(name, &plain, out, scales)
    }
}

/// Quantises an f32 tensor to bytes, each row with its own scale.
pub(crate) fn round_rows(name: &str, plain: &[f32], out: &mut [i8], scales: &mut [f32]) -> Result<()> {
    int8::quantise_rows(plain, scales.len(), int8::Bits::ALL, out, scales)
        .map_err(|source| Error::Kernel { step: name.into(), source })
}

impl Tensors for std::collections::HashMap<String, Vec<f32>> {
    fn name(&self) -> String {
        "tensors in memory".into()
    }

    fn read(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let found = self.get(name);
        match found {
            Some(numbers) if numbers.len() == out.len() => {
                out.copy_from_slice(numbers);
                Ok(())
            }
            _ => Err(Error::Tensor {
                file: self.name(),
                name: name.into(),
                want: out.len(),
                got: found.map(Vec::len),
            }),
        }
    }
}

/// Reads a tensor into a new vector.
pub(crate) fn read(from: &dyn Tensors, name: &str, len: usize) -> Result<Vec<f32>> {
    let mut numbers = vec![0.0; len];
    from.read(name, &mut numbers)?;
    Ok(numbers)
}

/// Like [`read`], into a reused buffer.
fn read_into<'a>(
    from: &dyn Tensors,
    name: &str,
    len: usize,
    into: &'a mut Vec<f32>,
) -> Result<&'a mut [f32]> {
    // Old contents are overwritten.
    into.resize(len, 0.0);
    from.read(name, into)?;
    Ok(into)
}

/// Computes one part's parameters in `part`, which has its length and arbitrary contents: the recipes write
/// every span in full. `room` is a scratch buffer that the caller reuses for the next part.
///
/// # Errors
/// Any error of [`Tensors::read`].
pub(crate) fn fill(
    isa: Isa,
    spec: &PartSpec,
    mut part: Floats,
    task: &dyn Tensors,
    backbone: Shared<'_>,
    room: &mut Vec<f32>,
) -> Result<Floats> {
    let alphas = match &spec.alpha {
        Some((name, len)) => read(task, name, *len)?,
        None => Vec::new(),
    };
    // Indices come from the same plan as the tensor's length, so the fallback is never used.
    let alpha = |index: Option<usize>| index.map_or(1.0, |i| alphas.get(i).copied().unwrap_or(0.0));
    for recipe in &spec.recipes {
        match recipe {
            Recipe::Kernel { tensor, shape, at } => {
                let per_channel = shape.c_in * shape.kernel * shape.kernel;
                let len = shape.c_out * per_channel;
                let failed = |source| Error::Kernel { step: tensor.clone(), source };
                let to = at.of_mut(&mut part);
                let Some(channels) = kernels::run(isa, shape) else {
                    let plain = read_into(task, tensor, len, room)?;
                    kernels::pack(isa, shape, plain, to).map_err(failed)?;
                    continue;
                };
                let channels = channels * (RUN / (channels * per_channel).max(1)).max(1);
                task.read_runs(tensor, len, channels * per_channel, room, &mut |start, plain| {
                    kernels::pack_run(isa, shape, start / per_channel, plain, to).map_err(failed)
                })?;
            }
            Recipe::Sum { tensors, len, at } => {
                let sum = at.of_mut(&mut part);
                sum.fill(0.0);
                for tensor in tensors {
                    let numbers = read_into(task, tensor, *len, room)?;
                    sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += *number);
                }
            }
            Recipe::Copy { tensor, at } => task.read(tensor, at.of_mut(&mut part))?,
            Recipe::Alpha { index, at } => at.of_mut(&mut part).fill(alpha(Some(*index))),
            Recipe::Affine(recipe) => {
                affine(recipe, alpha(recipe.alpha), &mut part, task, backbone, room)?;
            }
            Recipe::Int8(recipe) => super::int8::fill(recipe, &alpha, &mut part, task, backbone, room)?,
        }
    }
    Ok(part)
}

/// See [`Recipe::Affine`]: reads the affine in place, then applies the bias, then alpha.
pub(super) fn affine(
    recipe: &AffineRecipe,
    alpha: f32,
    part: &mut [f32],
    task: &dyn Tensors,
    backbone: Shared<'_>,
    room: &mut Vec<f32>,
) -> Result<()> {
    let n = recipe.channels;
    let spans = [(recipe.scale, "scale", 1.0), (recipe.shift, "shift", 0.0)];
    for (at, kind, neutral) in spans {
        let span = at.and_then(|at| at.of_mut(part).split_at_mut_checked(n));
        let Some((to, padding)) = span else { continue };
        padding.fill(0.0);
        match &recipe.affine {
            Some(name) => task.read(&format!("{name}.{kind}"), to)?,
            None => to.fill(neutral),
        }
    }
    if let Some((name, owner)) = &recipe.bias {
        let bias = match owner {
            Owner::Task => read_into(task, name, n, room)?,
            Owner::Backbone => {
                room.clear();
                room.extend_from_slice(&backbone(name, n)?);
                room
            }
        };
        if let Some(scale) = recipe.scale {
            bias.iter_mut().zip(scale.of(part)).for_each(|(bias, scale)| *bias *= scale);
        }
        if let Some(shift) = recipe.shift {
            shift.of_mut(part).iter_mut().zip(bias).for_each(|(shift, bias)| *shift += *bias);
        }
    }
    if recipe.alpha.is_some() {
        for at in [recipe.scale, recipe.shift].into_iter().flatten() {
            at.of_mut(part).iter_mut().for_each(|number| *number *= alpha);
        }
    }
    Ok(())
}
