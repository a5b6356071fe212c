//! A task in memory: its compiled network and its parameters.

use crate::backbone::Backbone;
use crate::engine::{Parts, Program, Tensors, params};
use crate::{Error, Result};
use bundles::plan::{Plan, Shape};
use std::sync::{Arc, OnceLock};

/// One tailored network, ready to run (or becoming so: parts arrive in execution order).
#[derive(Debug)]
pub struct Task {
    name: String,
    labels: Vec<String>,
    backbone: Arc<Backbone>,
    pub(crate) program: Program,
    /// Parameters of stem, cells and head; `None` inside when they will never come.
    parts: Vec<OnceLock<Option<Box<[f32]>>>>,
    failure: OnceLock<Error>,
}

impl Task {
    /// A task from a plan and its task-owned tensors.
    ///
    /// # Errors
    /// What is wrong with the plan, [`Error::Tensor`] for tensors that are missing on either side,
    /// [`Error::TooLarge`].
    pub fn from_tensors(
        backbone: &Arc<Backbone>,
        name: &str,
        plan: &Plan,
        tensors: &dyn Tensors,
    ) -> Result<Task> {
        let task = Task::compile(backbone, name, plan, Vec::new())?;
        task.fill(tensors)?;
        Ok(task)
    }

    fn compile(backbone: &Arc<Backbone>, name: &str, plan: &Plan, labels: Vec<String>) -> Result<Task> {
        let kernel = |conv: &_, shape: &_| backbone.kernel(conv, shape);
        let program = Program::compile(name, plan, backbone.isa, &kernel)?;
        let parts = program.parts.iter().map(|_| OnceLock::new()).collect();
        let failure = OnceLock::new();
        Ok(Task { name: name.into(), labels, backbone: Arc::clone(backbone), program, parts, failure })
    }

    /// Makes the parameters, part by part in execution order. A frame may already be running.
    fn fill(&self, tensors: &dyn Tensors) -> Result<()> {
        let backbone = |name: &str, len| self.backbone.tensor(name, len);
        for (spec, slot) in self.program.parts.iter().zip(&self.parts) {
            match params::fill(self.program.isa, spec, tensors, &backbone) {
                Ok(part) => {
                    let _ = slot.set(Some(part));
                }
                Err(error) => {
                    self.fail(error.clone());
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Ends the wait of whoever waits for parameters.
    fn fail(&self, error: Error) {
        let _ = self.failure.set(error);
        for slot in &self.parts {
            let _ = slot.set(None);
        }
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Class names, in the order of the scores. Empty when the bundle holds none.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Number of scores.
    pub fn classes(&self) -> usize {
        self.program.classes
    }

    /// Shape of the preprocessed image.
    pub fn input(&self) -> Shape {
        self.program.input
    }

    /// Bytes this task holds in memory, without the backbone and the arena that all tasks share.
    pub fn resident_bytes(&self) -> usize {
        let parts: usize = self.program.parts.iter().map(|part| 4 * part.len).sum();
        parts + self.program.bytes() + self.labels.iter().map(|label| label.len() + 24).sum::<usize>()
    }

    /// Bytes of activations and scratch a frame needs on `threads` threads.
    pub fn workspace_bytes(&self, threads: usize) -> usize {
        4 * (self.program.arena_len + self.program.scratch_len(threads))
    }
}

impl Parts for Task {
    fn part(&self, p: usize) -> Result<&[f32]> {
        let slot = self.parts.get(p).ok_or_else(|| Error::Internal { what: format!("no part {p}") })?;
        match slot.wait() {
            Some(part) => Ok(part),
            None => Err(self.failure.get().cloned().unwrap_or(Error::Cancelled { task: self.name.clone() })),
        }
    }
}
