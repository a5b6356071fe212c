//! Running frames: the running task's answer to one image.

use super::{Runtime, Slot, TaskId};
use crate::input::Frame;
use crate::{Error, Replayed, Result, Task};
use std::sync::Arc;
use std::time::Instant;

/// The answer to one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores<'a> {
    /// The task that answered.
    pub task: &'a str,
    /// One score per class, before softmax.
    pub logits: &'a [f32],
    /// Index of the highest score.
    pub class: usize,
    /// Its label; empty if the task has no labels.
    pub label: &'a str,
    /// Its probability (softmax).
    pub score: f32,
    /// Whether the answer came after the frame's deadline.
    pub late: bool,
}

impl Runtime {
    /// Classifies one image with the running task and its own preprocessing.
    ///
    /// Does not allocate, unless image or task differ in size from the last few.
    ///
    /// # Errors
    /// [`Error::Input`] for invalid images; [`Error::NotResident`] if there is no running task;
    /// [`Error::Deadline`]; the error of a streamed task that failed (the previous task runs again).
    pub fn frame(&mut self, frame: Frame<'_>) -> Result<Scores<'_>> {
        self.answer(|this, task, until| {
            let preparation = task.outline.preparation.as_ref().ok_or_else(|| Error::Input {
                got: "an image".into(),
                want: format!("preprocessed tensors: task `{}` has no preprocessing", task.name()),
            })?;
            let input = this.preparer.prepare(preparation, frame)?;
            this.session.run_until(task, input, until, &mut ()).map(drop)
        })
    }

    /// Classifies one preprocessed image, `(c, h, w)` as given by [`Task::input`](crate::Task::input).
    ///
    /// # Errors
    /// As [`frame`](Runtime::frame).
    pub fn tensor(&mut self, input: &[f32]) -> Result<Scores<'_>> {
        self.answer(|this, task, until| this.session.run_until(task, input, until, &mut ()).map(drop))
    }

    /// Replays the golden vectors of a task in memory, as [`Session::replay`](crate::Session::replay) does.
    /// The running task does not change, and no frame is counted.
    ///
    /// # Errors
    /// [`Error::NotResident`]; as [`Session::replay`](crate::Session::replay).
    pub fn self_test(&mut self, id: TaskId, told: impl FnMut(Replayed<'_>)) -> Result<()> {
        let slot = self.slots.get(id.0).ok_or_else(|| id.unknown())?;
        let absent = || Error::NotResident { task: Some(slot.name.clone()) };
        let task = Arc::clone(slot.task.as_ref().ok_or_else(absent)?);
        self.session.replay(&task, told)
    }

    /// The running task's answer, which `run` left in the arena.
    fn answer(
        &mut self,
        run: impl FnOnce(&mut Runtime, &Task, Option<Instant>) -> Result<()>,
    ) -> Result<Scores<'_>> {
        let start = Instant::now();
        self.obey();
        let running =
            self.current.and_then(|index| Some((index, Arc::clone(self.slots.get(index)?.task.as_ref()?))));
        let Some((index, task)) = running else {
            self.stats.failed_frames += 1;
            return Err(Error::NotResident { task: None });
        };
        let until = self.until(index, start);
        let outcome = run(self, &task, until);
        drop(task);
        self.finish(index, start, outcome)
    }

    /// When a frame waiting for its task's parameters gives up.
    fn until(&self, index: usize, start: Instant) -> Option<Instant> {
        let deadline = self.deadline.filter(|_| self.slots[index].loading.is_some());
        deadline.and_then(|deadline| start.checked_add(deadline))
    }

    /// Follows a [`Switcher`]'s request if it can be done without waiting.
    fn obey(&mut self) {
        let Some(slot) = self.switcher.take().or(self.wanted) else { return };
        self.wanted = Some(slot);
        // Finished loads are taken in between frames (`poll`), unless this switch needs one.
        if self.slots.get(slot).is_some_and(|slot| slot.loading.is_some()) {
            self.collect();
        }
        // A frame of a task still being streamed would wait for its parts.
        let loading = |slot: &Slot| {
            let is_there = slot.task.as_ref().is_some_and(|task| task.is_complete());
            slot.loading.is_some() && !is_there
        };
        if self.slots.get(slot).is_some_and(loading) {
            return;
        }
        if let Err(error) = self.change(TaskId(slot)) {
            self.wanted = None;
            self.stats.failed_switches += 1;
            *self.slots.get_mut(slot).map_or(&mut self.refused, |slot| &mut slot.error) = Some(error);
        }
    }

    fn finish(&mut self, index: usize, start: Instant, outcome: Result<()>) -> Result<Scores<'_>> {
        let late = self.stats.frame(start.elapsed(), self.deadline, outcome.is_ok());
        if let Err(error) = outcome {
            if let Some(broken) = self.without_broken(index) {
                // The loader may find the same error, too late to be counted.
                let load = self.slots[index].loading.take();
                self.stats.failed_loads += u64::from(load.is_some());
                // If the frame failed for another reason, `poll` or `switch` report this one.
                self.slots[index].error = broken.failure().filter(|failure| **failure != error).cloned();
            }
            return Err(error);
        }
        let Some(task) = self.slots[index].task.as_deref() else {
            return Err(Error::NotResident { task: Some(self.slots[index].name.clone()) });
        };
        let logits = task.program().scores(&self.session.cpu.space.arena);
        let (class, score) = best(logits);
        let label = task.labels().get(class).map_or("", String::as_str);
        Ok(Scores { task: task.name(), logits, class, label, score, late })
    }
}

/// The highest score and its softmax probability.
fn best(logits: &[f32]) -> (usize, f32) {
    let (mut class, mut top) = (0, f32::NEG_INFINITY);
    for (i, &logit) in logits.iter().enumerate() {
        if logit > top {
            (class, top) = (i, logit);
        }
    }
    let total: f32 = logits.iter().map(|logit| (logit - top).exp()).sum();
    (class, 1.0 / total)
}
