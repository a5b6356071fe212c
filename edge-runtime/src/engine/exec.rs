//! The loop over a compiled network's steps, and what it asks of whatever computes them.

use super::Program;
use super::step::Step;
use crate::{Error, Result};

/// What computes the steps of a program: the seam between the engine and the hardware.
///
/// [`Cpu`](super::cpu::Cpu) is the one there is. Steps come in order, each behind the ones whose values it reads, and
/// the arena's layout says which values may share memory; a device that runs them later than they are asked for
/// waits in [`scores`](Executor::scores).
pub(crate) trait Executor {
    /// Makes room for the values and intermediates of `program`, so that its steps allocate nothing.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::OutOfMemory`].
    fn reserve(&mut self, program: &Program) -> Result<()>;

    /// Computes `step`. `part` are the task's parameters of the step's part, laid out by its spans; `image` is the
    /// network's input, plain `(c, h, w)`.
    ///
    /// # Errors
    /// [`Error::Kernel`] and [`Error::Internal`], defects of this program.
    fn step(&mut self, program: &Program, step: &Step, part: &[f32], image: &[f32]) -> Result<()>;

    /// The scores, once every step was asked for.
    ///
    /// # Errors
    /// What went wrong on a device since.
    fn scores<'a>(&'a mut self, program: &Program) -> Result<&'a [f32]>;
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
    /// Computes the scores of `input`, plain `(c, h, w)` as [`Program::input`] says, on `executor`, which has room
    /// for this program.
    ///
    /// # Errors
    /// [`Error::Input`] when `input` has another size; [`Error::Kernel`] and [`Error::Internal`] for defects
    /// of this program; whatever `parts` answers.
    pub fn run(
        &self,
        executor: &mut impl Executor,
        parts: &impl Parts,
        input: &[f32],
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
            executor.step(self, step, part, input)?;
            observer.after(index);
        }
        Ok(())
    }
}
