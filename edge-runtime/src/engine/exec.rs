//! Runs a compiled network: one kernel call per step, nothing allocated.

use super::Program;
use super::lower::INPUT;
use super::step::{Factor, Fused, Step, ValueId, Weights, Work};
use crate::kernels::{self, Epilogue, Floats, KernelError};
use crate::pool::Pool;
use crate::{Error, Result};

/// Memory a frame works in. Allocated when a task is loaded, never during a frame.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub arena: Floats,
    pub scratch: Floats,
}

impl Workspace {
    /// Takes over a larger one; the old memory is freed here.
    pub fn replace(&mut self, larger: Workspace) {
        for (memory, other) in [(&mut self.arena, larger.arena), (&mut self.scratch, larger.scratch)] {
            if memory.len() < other.len() {
                *memory = other;
            }
        }
    }

    /// Makes room; nothing happens when there is enough.
    pub fn grow(&mut self, arena: usize, scratch: usize) {
        for (memory, want) in [(&mut self.arena, arena), (&mut self.scratch, scratch)] {
            if memory.len() < want {
                *memory = Floats::zeros(want);
            }
        }
    }
}

/// Parameters of part `p`, as they become available.
pub(crate) trait Parts {
    /// The floats of part `p`.
    ///
    /// # Errors
    /// When they will never come.
    fn part(&self, p: usize) -> Result<&[f32]>;
}

/// Told the time of every step, when somebody wants to know.
pub(crate) trait Observer {
    /// Called before step `index`.
    fn before(&mut self, index: usize);
    /// Called after step `index`.
    fn after(&mut self, index: usize);
}

impl Observer for () {
    fn before(&mut self, _index: usize) {}
    fn after(&mut self, _index: usize) {}
}

impl Program {
    /// Computes the scores of `input`, plain `(c, h, w)` as [`Program::input`] says.
    ///
    /// # Errors
    /// [`Error::Input`] when `input` has another size; [`Error::Kernel`] and [`Error::Internal`] for defects
    /// of this program; whatever `parts` answers.
    pub fn run(
        &self,
        parts: &impl Parts,
        input: &[f32],
        space: &mut Workspace,
        pool: &Pool,
        observer: &mut impl Observer,
    ) -> Result<()> {
        if input.len() != self.input.len() {
            return Err(Error::Input {
                got: format!("{} numbers", input.len()),
                want: format!("{} ({})", self.input.len(), self.input),
            });
        }
        for (index, step) in self.steps.iter().enumerate() {
            let part = parts.part(step.part)?;
            observer.before(index);
            self.step(step, part, input, space, pool)?;
            observer.after(index);
        }
        Ok(())
    }

    fn step(
        &self,
        step: &Step,
        part: &[f32],
        input: &[f32],
        space: &mut Workspace,
        pool: &Pool,
    ) -> Result<()> {
        let isa = self.isa;
        if let Work::Int8(work) = &step.work {
            return self.step8(step, work, part, input, space, pool);
        }
        let add = match &step.work {
            Work::Conv { epilogue, .. } => epilogue.add,
            _ => None,
        };
        let (from, added, out) = self.views(step, add.map(|(value, _)| value), input, &mut space.arena)?;
        let coef = |factor: Factor| match factor {
            Factor::One => 1.0,
            Factor::At(at) => at.of(part).first().copied().unwrap_or(f32::NAN),
        };
        let x = step.from;
        let done: Result<(), KernelError> = match &step.work {
            Work::Block => kernels::to_blocked(isa, x, from, out, pool),
            Work::Conv { shape, kernel, epilogue } => {
                let weights = match kernel {
                    Weights::Backbone(kernel) => kernel.floats(),
                    Weights::Task(at) => at.of(part),
                };
                let &Fused { scale, shift, accumulate, relu, .. } = epilogue;
                let epilogue = Epilogue {
                    scale: scale.map(|at| at.of(part)),
                    shift: shift.map(|at| at.of(part)),
                    add: add.map(|(_, factor)| (added, coef(factor))),
                    accumulate,
                    relu,
                };
                kernels::conv(isa, shape, weights, from, &epilogue, out, &mut space.scratch, pool)
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
                // Channels that only fill the last block stay zero, as every kernel expects.
                out.iter_mut().skip(step.to.c).for_each(|padding| *padding = 0.0);
                kernels::linear(isa, x.c, step.to.c, weight, bias, from, out, pool)
            }
            // Done above.
            Work::Int8(_) => Ok(()),
            Work::Sum { factor, accumulate, relu } => {
                let len = out.len();
                kernels::add_scaled(isa, len, from, coef(*factor), *accumulate, *relu, out, pool)
            }
        };
        done.map_err(|source| Error::Kernel { step: step.name.clone(), source })
    }

    /// The step's input, the map it adds (empty without one), and its output, out of one arena.
    fn views<'a>(
        &self,
        step: &Step,
        add: Option<ValueId>,
        input: &'a [f32],
        arena: &'a mut [f32],
    ) -> Result<(&'a [f32], &'a [f32], &'a mut [f32])> {
        let range = |value: ValueId| self.ranges.get(value).cloned().unwrap_or(0..0);
        let broken = |_| Error::Internal { what: format!("{}: its maps overlap in the arena", step.name) };
        let (from, out) = (range(step.reads), range(step.writes));
        let add = add.filter(|&add| add != step.reads).map(range);
        let shared = add.is_none();
        let image = step.reads == INPUT;
        let (from, added, out): (&[f32], &[f32], &mut [f32]) = match (image, add) {
            (true, None) => {
                let [out] = arena.get_disjoint_mut([out]).map_err(broken)?;
                (input, &[], out)
            }
            (true, Some(add)) => {
                let [add, out] = arena.get_disjoint_mut([add, out]).map_err(broken)?;
                (input, add, out)
            }
            (false, None) => {
                let [from, out] = arena.get_disjoint_mut([from, out]).map_err(broken)?;
                (from, &[], out)
            }
            (false, Some(add)) => {
                let [from, add, out] = arena.get_disjoint_mut([from, add, out]).map_err(broken)?;
                (from, add, out)
            }
        };
        Ok((from, if shared { from } else { added }, out))
    }
}
