//! The engine: a plan compiled to kernel calls over one arena, and the loop that makes those calls.
//!
//! Compiling ([`Program::compile`]) and loading parameters ([`params::fill`]) allocate; running a frame
//! ([`Program::run`]) does not. Steps are computed by an [`Executor`]; [`Cpu`] is the only implementation.

mod arena;
mod cpu;
mod exec;
pub(crate) mod int8;
mod lower;
pub(crate) mod params;
pub(crate) mod step;

pub(crate) use cpu::{Cpu, Workspace};
pub(crate) use exec::{Executor, Observer, Parts};
pub use params::Tensors;

use crate::kernels::{self, Isa, int8::Grid};
use crate::{Error, Result};
use bundles::plan::{Plan, Shape};
use lower::{INPUT, KernelSource, Lowered};
use std::ops::Range;
use step::{PartSpec, Step, Work};

/// Largest arena or parameter set of one task, in floats (1 GiB), so that a hostile file cannot demand more.
const MAX_FLOATS: usize = 1 << 28;

/// The error for more than [`MAX_FLOATS`].
fn too_large(what: String, floats: usize) -> Error {
    let (need, limit) = (floats.saturating_mul(4), MAX_FLOATS * 4);
    Error::TooLarge { what: what + ", in bytes", need, limit }
}

/// A compiled network: its steps, the arena layout of their values, and the parameters they need.
#[derive(Debug)]
pub(crate) struct Program {
    pub isa: Isa,
    pub input: Shape,
    pub classes: usize,
    pub steps: Vec<Step>,
    pub parts: Vec<PartSpec>,
    /// Range of each value in the arena.
    ranges: Vec<Range<usize>>,
    result: usize,
    /// Floats of the arena.
    pub arena_len: usize,
}

impl Program {
    /// Compiles `plan` for `isa`. [`Plan::check`] must have accepted it (as for every parsed bundle).
    ///
    /// # Errors
    /// [`Error::TooLarge`], and the errors of `kernels`.
    pub fn compile(file: &str, plan: &Plan, isa: Isa, kernels: KernelSource<'_>) -> Result<Program> {
        Program::assemble(file, plan, isa, lower::lower(plan, isa, kernels)?)
    }

    /// Compiles `plan` to int8 steps, with the quantisation parameters `grids` of its maps (in the order of
    /// [`Plan::maps`]).
    ///
    /// # Errors
    /// As for [`compile`](Program::compile); [`Error::Tensor`] if the number of grids differs from the plan's
    /// number of maps; [`Error::Incompatible`] for operations without an int8 form.
    pub fn compile_int8(
        file: &str,
        plan: &Plan,
        isa: Isa,
        kernels: int8::KernelSource<'_>,
        grids: &[Grid],
    ) -> Result<Program> {
        Program::assemble(file, plan, isa, int8::lower(file, plan, isa, kernels, grids)?)
    }

    fn assemble(file: &str, plan: &Plan, isa: Isa, mut lowered: Lowered) -> Result<Program> {
        let mut params = 0usize;
        for part in &lowered.parts {
            params = params.saturating_add(part.len);
        }
        if params > MAX_FLOATS {
            return Err(too_large(format!("{file}: parameters of the task"), params));
        }
        let sizes = lowered.sizes;
        if let Some(&size) = sizes.iter().find(|&&size| size > MAX_FLOATS) {
            return Err(too_large(format!("{file}: one feature map"), size));
        }
        // They live as long as the task.
        lowered.steps.shrink_to_fit();
        lowered.parts.iter_mut().for_each(|part| part.recipes.shrink_to_fit());
        let layout = arena::place(&lowered.steps, &sizes, INPUT, lowered.result, MAX_FLOATS)?;
        let program = Program {
            isa,
            input: plan.input,
            classes: plan.classes(),
            steps: lowered.steps,
            parts: lowered.parts,
            ranges: layout.ranges,
            result: lowered.result,
            arena_len: layout.len,
        };
        program.check_scratch(1)?;
        Ok(program)
    }

    /// Refuses a number of threads whose scratch would exceed the limit for a device.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn check_scratch(&self, threads: usize) -> Result<usize> {
        let floats = self.scratch_len(threads);
        if floats <= MAX_FLOATS {
            return Ok(floats);
        }
        Err(too_large(format!("scratch of {threads} threads"), floats))
    }

    /// Floats of scratch needed on `threads` threads.
    pub fn scratch_len(&self, threads: usize) -> usize {
        let convs = self.steps.iter().filter_map(|step| match &step.work {
            Work::Conv { shape, kernel, .. } => {
                Some(kernels::scratch_len(self.isa, shape, kernel.len(), threads))
            }
            Work::Int8(work) => Some(work.scratch_len()),
            _ => None,
        });
        convs.max().unwrap_or(0)
    }

    /// Approximate heap usage in bytes.
    pub fn bytes(&self) -> usize {
        let step = |step: &Step| size_of::<Step>() + step.name.capacity() + size_of_val(step.work.terms());
        let steps: usize = self.steps.iter().map(step).sum();
        let recipes: usize = self.parts.iter().map(|part| part.recipes.len()).sum();
        // Each names a tensor or two.
        let recipes = recipes * (size_of::<step::Recipe>() + 64);
        steps + recipes + size_of_val(&self.parts[..]) + size_of_val(&self.ranges[..])
    }

    /// The scores, after [`run`](Program::run) has returned.
    pub fn scores<'a>(&self, arena: &'a [f32]) -> &'a [f32] {
        let start = self.ranges.get(self.result).map_or(0, |range| range.start);
        arena.get(start..start + self.classes).unwrap_or(&[])
    }
}
