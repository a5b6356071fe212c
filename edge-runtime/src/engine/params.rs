//! A task's parameters: one allocation per part of the network, filled from the bundle's tensors.

use super::step::{AffineRecipe, PartSpec, Recipe};
use crate::kernels::{self, Floats, Isa, int8};
use crate::{Error, Result};
use bundles::plan::Owner;

/// A range of floats inside one part of a task's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub start: usize,
    pub len: usize,
}

impl Span {
    /// The floats, empty when the part is shorter than promised (kernels then refuse the slice).
    pub fn of(self, part: &[f32]) -> &[f32] {
        part.get(self.start..self.start + self.len).unwrap_or(&[])
    }

    pub(super) fn of_mut(self, part: &mut [f32]) -> &mut [f32] {
        part.get_mut(self.start..self.start + self.len).unwrap_or(&mut [])
    }
}

/// A source of named f32 tensors: a bundle, or a table in memory.
pub trait Tensors {
    /// Name of the source for messages.
    fn name(&self) -> String;

    /// Writes the numbers of tensor `name`, row-major, into `out`.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is absent or does not hold `out.len()` numbers; whatever the source finds
    /// wrong with its bytes.
    fn read(&self, name: &str, out: &mut [f32]) -> Result<()>;

    /// Writes tensor `name` as bytes, and the scale of each of its rows: as they are stored, or rounded now.
    ///
    /// # Errors
    /// As [`read`](Tensors::read).
    fn read_rows(&self, name: &str, out: &mut [i8], scales: &mut [f32]) -> Result<()> {
        let mut plain = vec![0.0; out.len()];
        self.read(name, &mut plain)?;
        round_rows(name, &plain, out, scales)
    }
}

/// Rounds a tensor that is stored in floats to bytes, each row by a scale of its own.
pub(crate) fn round_rows(name: &str, plain: &[f32], out: &mut [i8], scales: &mut [f32]) -> Result<()> {
    int8::quantise_rows(plain, scales.len(), out, scales)
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

/// Reads a tensor into memory of its own.
pub(crate) fn read(from: &dyn Tensors, name: &str, len: usize) -> Result<Vec<f32>> {
    let mut numbers = vec![0.0; len];
    from.read(name, &mut numbers)?;
    Ok(numbers)
}

/// Makes one part's parameters.
///
/// # Errors
/// Whatever [`Tensors::read`] finds.
pub(crate) fn fill(
    isa: Isa,
    spec: &PartSpec,
    task: &dyn Tensors,
    backbone: &dyn Fn(&str, usize) -> Result<Vec<f32>>,
) -> Result<Floats> {
    let mut part = Floats::zeros(spec.len);
    let alphas = match &spec.alpha {
        Some((name, len)) => read(task, name, *len)?,
        None => Vec::new(),
    };
    // Indices come from the same plan as the tensor's length, so the fallback is never taken.
    let alpha = |index: Option<usize>| index.map_or(1.0, |i| alphas.get(i).copied().unwrap_or(0.0));
    for recipe in &spec.recipes {
        match recipe {
            Recipe::Kernel { tensor, shape, at } => {
                let plain = read(task, tensor, shape.c_out * shape.c_in * shape.kernel * shape.kernel)?;
                kernels::pack(isa, shape, &plain, at.of_mut(&mut part))
                    .map_err(|source| Error::Kernel { step: tensor.clone(), source })?;
            }
            Recipe::Sum { tensors, len, at } => {
                let sum = at.of_mut(&mut part);
                for tensor in tensors {
                    let numbers = read(task, tensor, *len)?;
                    sum.iter_mut().zip(numbers).for_each(|(sum, number)| *sum += number);
                }
            }
            Recipe::Copy { tensor, at } => task.read(tensor, at.of_mut(&mut part))?,
            Recipe::Alpha { index, at } => at.of_mut(&mut part).fill(alpha(Some(*index))),
            Recipe::Affine(recipe) => {
                affine(recipe, alpha(recipe.alpha), &mut part, task, backbone)?;
            }
            Recipe::Int8(recipe) => super::int8::fill(recipe, &alpha, &mut part, task, backbone)?,
        }
    }
    Ok(part)
}

pub(super) fn affine(
    recipe: &AffineRecipe,
    alpha: f32,
    part: &mut [f32],
    task: &dyn Tensors,
    backbone: &dyn Fn(&str, usize) -> Result<Vec<f32>>,
) -> Result<()> {
    let n = recipe.channels;
    let (mut scale, mut shift) = match &recipe.affine {
        Some(name) => (read(task, &format!("{name}.scale"), n)?, read(task, &format!("{name}.shift"), n)?),
        None => (vec![1.0; n], vec![0.0; n]),
    };
    if let Some((name, owner)) = &recipe.bias {
        let bias = match owner {
            Owner::Task => read(task, name, n)?,
            Owner::Backbone => backbone(name, n)?,
        };
        for ((shift, scale), bias) in shift.iter_mut().zip(&scale).zip(bias) {
            *shift += scale * bias;
        }
    }
    for (at, numbers) in [(recipe.scale, &mut scale), (recipe.shift, &mut shift)] {
        if let Some(at) = at {
            for (to, from) in at.of_mut(part).iter_mut().zip(numbers) {
                *to = alpha * *from;
            }
        }
    }
    Ok(())
}
