//! The loop over a compiled network's steps, and the interface to what computes them.

use super::Program;
use super::step::Step;
use crate::{Error, Result};

/// Computes the steps of a program: the interface between the engine and the hardware.
///
/// [`Cpu`](super::cpu::Cpu) is the only implementation. Steps are issued in order, each after those whose
/// values it reads, and the arena's layout determines which values may share memory; a device that executes
/// them asynchronously waits in [`scores`](Executor::scores).
pub(crate) trait Executor {
    /// Reserves memory for the values and intermediates of `program`, so that its steps do not allocate.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::OutOfMemory`].
    fn reserve(&mut self, program: &Program) -> Result<()>;

    /// Computes `step`. `part` holds the task's parameters for the step's part, laid out by its spans;
    /// `image` is the network's input, plain `(c, h, w)`.
    ///
    /// # Errors
    /// [`Error::Kernel`] and [`Error::Internal`], which are defects of this program.
    fn step(&mut self, program: &Program, step: &Step, part: &[f32], image: &[f32]) -> Result<()>;

    /// Returns the scores after every step has been issued.
    ///
    /// # Errors
    /// Any failure of the steps issued so far.
    fn scores<'a>(&'a mut self, program: &Program) -> Result<&'a [f32]>;
}

/// Parameters of part `p`, as they become available.
pub(crate) trait Parts {
    /// The floats of part `p`.
    ///
    /// # Errors
    /// If they will never become available.
    fn part(&self, p: usize) -> Result<&[f32]>;
}

/// Observes the execution of every step, for profiling.
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
    /// Computes the scores of `input`, plain `(c, h, w)` of shape [`Program::input`], on `executor`, which
    /// has reserved memory for this program.
    ///
    /// # Errors
    /// [`Error::Input`] if `input` has another size; [`Error::Kernel`] and [`Error::Internal`] for defects of
    /// this program; any error of `parts`.
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
