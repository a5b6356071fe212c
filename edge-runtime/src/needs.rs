//! A network's memory requirements, computed without loading it.

use crate::backbone::{Kernel, Kernel8, int8_shape};
use crate::engine::Program;
use crate::kernels::int8::{self, Grid};
use crate::kernels::{self, ConvShape, Floats, Isa};
use crate::{Error, Result};
use bundles::plan::{Conv, Plan};
use std::cell::Cell;
use std::sync::Arc;

/// Memory requirements of one network on one instruction set, in bytes.
///
/// All tasks of a [`Runtime`](crate::Runtime) share one workspace, sized for the largest of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Needs {
    /// Activations (feature maps) of a frame.
    pub arena: usize,
    /// Scratch buffers of its convolutions.
    pub scratch: usize,
    /// The task's own parameters as stored in memory, and its compiled plan.
    pub task: usize,
    /// The backbone kernels that it reads, in this instruction set's layout: mapped from a packed file, or
    /// repacked at open. All tasks share them.
    pub kernels: usize,
}

impl Needs {
    /// Arena plus scratch.
    pub fn workspace(&self) -> usize {
        self.arena + self.scratch
    }
}

/// What `plan` will need in f32 on `isa` with `threads` threads, excluding its bundle's header. This machine
/// need not support that instruction set.
///
/// # Errors
/// If the plan is invalid; [`Error::TooLarge`].
pub fn needs(plan: &Plan, isa: Isa, threads: usize) -> Result<Needs> {
    let floats = Cell::new(0);
    let nothing = Arc::new(Floats::default());
    let note = |_: &Conv, shape: &ConvShape| {
        floats.set(floats.get() + kernels::packed_len(isa, shape));
        Ok(Kernel::Packed(Arc::clone(&nothing)))
    };
    plan.check().map_err(Error::container(&plan.arch))?;
    let program = Program::compile(&plan.arch, plan, isa, &note)?;
    Ok(of(&program, threads, size_of::<f32>() * floats.get()))
}

/// Like [`needs`], in int8.
///
/// # Errors
/// As for [`needs`]; [`Error::Incompatible`] for operations without an int8 form.
pub fn needs_int8(plan: &Plan, isa: Isa, threads: usize) -> Result<Needs> {
    let bytes = Cell::new(0);
    let note = |conv: &Conv| {
        let scales = size_of::<f32>() * conv.c_out;
        bytes.set(bytes.get() + int8::packed_len(&int8_shape(conv)) + scales);
        Ok(Kernel8::default())
    };
    plan.check().map_err(Error::container(&plan.arch))?;
    // The quantisation parameters do not affect memory.
    let grids = vec![Grid { scale: 1.0, zero: 0 }; plan.maps().len()];
    let program = Program::compile_int8(&plan.arch, plan, isa, &note, &grids)?;
    Ok(of(&program, threads, bytes.get()))
}

fn of(program: &Program, threads: usize, kernels: usize) -> Needs {
    let parts: usize = program.parts.iter().map(|part| part.len).sum();
    Needs {
        arena: size_of::<f32>() * program.arena_len,
        scratch: size_of::<f32>() * program.scratch_len(threads),
        task: size_of::<f32>() * parts + program.bytes(),
        kernels,
    }
}
