//! Steps on the CPU: one kernel call each, without allocation.

use super::Program;
use super::exec::Executor;
use super::lower::INPUT;
use super::step::{Factor, Fused, Step, ValueId, Weights, Work};
use crate::kernels::{self, Epilogue, Floats, KernelError, MAX_TERMS, Term};
use crate::pool::Pool;
use crate::{Error, Result};
use std::ops::Range;

/// A frame's working memory. Allocated when a task is loaded, never during a frame.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub arena: Floats,
    pub scratch: Floats,
}

impl Workspace {
    /// Takes the larger of each buffer, and returns the rest for another thread to free.
    pub fn replace(&mut self, mut other: Workspace) -> Workspace {
        let pairs = [(&mut self.arena, &mut other.arena), (&mut self.scratch, &mut other.scratch)];
        for (memory, other) in pairs {
            if memory.len() < other.len() {
                std::mem::swap(memory, other);
            }
        }
        other
    }

    /// Grows the buffers to the given sizes; does nothing if they are large enough.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn grow(&mut self, arena: usize, scratch: usize) -> Result<()> {
        for (memory, want) in [(&mut self.arena, arena), (&mut self.scratch, scratch)] {
            if memory.len() < want {
                let bytes = want.saturating_mul(size_of::<f32>());
                *memory = Floats::try_zeros(want).ok_or(Error::OutOfMemory { bytes })?;
            }
        }
        Ok(())
    }
}

/// The CPU executor: worker threads and their workspace.
#[derive(Debug)]
pub(crate) struct Cpu {
    pub pool: Pool,
    pub space: Workspace,
}

impl Executor for Cpu {
    fn reserve(&mut self, program: &Program) -> Result<()> {
        self.space.grow(program.arena_len, program.check_scratch(self.pool.threads())?)
    }

    fn step(&mut self, program: &Program, step: &Step, part: &[f32], image: &[f32]) -> Result<()> {
        let Cpu { pool, space } = self;
        if let Work::Int8(work) = &step.work {
            return program.step8(step, work, part, image, space, pool);
        }
        let isa = program.isa;
        let (maps, out) = program.maps(step, image, &mut space.arena)?;
        let from = maps.of(step.reads)?;
        let coef = |factor: Factor| match factor {
            Factor::One => 1.0,
            Factor::At(at) => at.of(part).first().copied().unwrap_or(f32::NAN),
        };
        let finish = |fused: &Fused| -> Result<Epilogue<'_>> {
            let add = match fused.add {
                Some((value, factor)) => Some((maps.of(value)?, coef(factor))),
                None => None,
            };
            let (scale, shift) = (fused.scale.map(|at| at.of(part)), fused.shift.map(|at| at.of(part)));
            Ok(Epilogue { scale, shift, add, accumulate: fused.accumulate, relu: fused.relu })
        };
        let x = step.from;
        let done: Result<(), KernelError> = match &step.work {
            Work::Block => kernels::to_blocked(isa, x, from, out, pool),
            Work::Conv { shape, kernel, epilogue } => {
                let weights = match kernel {
                    Weights::Backbone(kernel) => kernel.floats(),
                    Weights::Task(at) => at.of(part),
                };
                let epilogue = finish(epilogue)?;
                kernels::conv(isa, shape, weights, from, &epilogue, out, &mut space.scratch, pool)
            }
            Work::Proxies { terms, epilogue } => {
                let mut sum = [Term::default(); MAX_TERMS];
                for (to, term) in sum.iter_mut().zip(terms) {
                    let (weights, input) = (term.weights.of(part), maps.of(term.reads)?);
                    *to = Term { channels: term.c_in, weights, input };
                }
                let sum = sum.get(..terms.len()).unwrap_or(&[]);
                kernels::pointwise(isa, step.to, sum, &finish(epilogue)?, out, pool)
            }
            Work::Affine { scale, shift, relu } => {
                kernels::affine(isa, x, scale.of(part), shift.of(part), *relu, from, out, pool)
            }
            Work::MaxPool(window) => kernels::max_pool(isa, x, *window, from, out, pool),
            Work::AvgPool(window) => kernels::avg_pool(isa, x, *window, from, out, pool),
            Work::Subsample { stride } => kernels::subsample(isa, x, *stride, from, out, pool),
            Work::PadChannels { front, back } => {
                kernels::pad_channels(isa, x, *front, *back, from, out, pool)
            }
            Work::GlobalAvgPool => kernels::global_avg_pool(isa, x, from, out, pool),
            Work::Linear { weight, bias } => {
                let (weight, bias) = (weight.of(part), Some(bias.of(part)));
                // Padding channels of the last block stay zero, as every kernel expects.
                out.iter_mut().skip(step.to.c).for_each(|padding| *padding = 0.0);
                kernels::linear(isa, x.c, step.to.c, weight, bias, from, out, pool)
            }
            // Handled above.
            Work::Int8(_) => Ok(()),
            Work::Sum { factor, accumulate, relu } => {
                let len = out.len();
                kernels::add_scaled(isa, len, from, coef(*factor), *accumulate, *relu, out, pool)
            }
        };
        done.map_err(|source| Error::Kernel { step: step.name.clone(), source })
    }

    fn scores<'a>(&'a mut self, program: &Program) -> Result<&'a [f32]> {
        Ok(program.scores(&self.space.arena))
    }
}

impl Program {
    /// The map that `step` writes, and all others for reading.
    pub(super) fn maps<'a>(
        &'a self,
        step: &'a Step,
        input: &'a [f32],
        arena: &'a mut [f32],
    ) -> Result<(Maps<'a>, &'a mut [f32])> {
        let range = self.ranges.get(step.writes).cloned().unwrap_or(0..0);
        let broken = || Error::Internal { what: format!("{} writes beyond the arena", step.name) };
        let (before, rest) = arena.split_at_mut_checked(range.start).ok_or_else(broken)?;
        let (out, after) = rest.split_at_mut_checked(range.len()).ok_or_else(broken)?;
        Ok((Maps { step, ranges: &self.ranges, input, before, after, written: range }, out))
    }
}

/// What a step may read: the image, and the arena before and after the map it writes.
pub(super) struct Maps<'a> {
    step: &'a Step,
    ranges: &'a [Range<usize>],
    input: &'a [f32],
    before: &'a [f32],
    after: &'a [f32],
    written: Range<usize>,
}

impl<'a> Maps<'a> {
    pub(super) fn of(&self, value: ValueId) -> Result<&'a [f32]> {
        if value == INPUT {
            return Ok(self.input);
        }
        let range = self.ranges.get(value).cloned().unwrap_or(0..0);
        let found = match range.start.checked_sub(self.written.end) {
            Some(start) => self.after.get(start..start + range.len()),
            None => self.before.get(range),
        };
        let what = || format!("{}: its maps overlap in the arena", self.step.name);
        found.ok_or_else(|| Error::Internal { what: what() })
    }
}
