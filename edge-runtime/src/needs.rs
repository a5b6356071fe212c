//! What a network will need of a device's memory, known before it is there.

use crate::backbone::Kernel;
use crate::engine::Program;
use crate::kernels::{self, ConvShape, Floats, Isa};
use crate::{Error, Result};
use bundles::plan::{Conv, Plan};
use std::cell::Cell;
use std::sync::Arc;

/// Memory of one network on one instruction set, in bytes.
///
/// All tasks of a [`Runtime`](crate::Runtime) share one workspace, as large as the largest of them needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Needs {
    /// Activations of a frame.
    pub arena: usize,
    /// Intermediate values of its convolutions.
    pub scratch: usize,
    /// The task's own parameters as they lie in memory, and its compiled plan.
    pub task: usize,
    /// The backbone kernels that it reads, in this instruction set's layout: mapped from a packed file, or repacked
    /// at open. All tasks share them.
    pub kernels: usize,
}

impl Needs {
    /// Arena and scratch.
    pub fn workspace(&self) -> usize {
        self.arena + self.scratch
    }
}

/// What `plan` will need in f32 on `isa` with `threads` threads, without its bundle's header. This machine need not have that
/// instruction set.
///
/// # Errors
/// What is wrong with the plan; [`Error::TooLarge`].
pub fn needs(plan: &Plan, isa: Isa, threads: usize) -> Result<Needs> {
    let floats = Cell::new(0);
    let nothing = Arc::new(Floats::default());
    let note = |_: &Conv, shape: &ConvShape| {
        floats.set(floats.get() + kernels::packed_len(isa, shape));
        Ok(Kernel::Packed(Arc::clone(&nothing)))
    };
    plan.check().map_err(Error::container(&plan.arch))?;
    let program = Program::compile(&plan.arch, plan, isa, &note)?;
    let parts: usize = program.parts.iter().map(|part| part.len).sum();
    Ok(Needs {
        arena: 4 * program.arena_len,
        scratch: 4 * program.scratch_len(threads),
        task: 4 * parts + program.bytes(),
        kernels: 4 * floats.get(),
    })
}
