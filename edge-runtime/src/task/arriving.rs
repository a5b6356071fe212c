//! How a task's parameters come: part by part in execution order, made by any number of threads, while a frame may
//! already be running on those that are there.

use super::Task;
use crate::bundle::BundleTensors;
use crate::engine::{Parts, Tensors, params};
use crate::kept::Reader;
use crate::{Error, Result};
use bundles::container::Bundle;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// A task's bundle, while its parameters are being made.
#[derive(Debug)]
pub(crate) struct Source {
    pub file: String,
    pub bundle: Bundle<'static>,
}

impl Task {
    /// Says where parameters come from, so that whoever waits for some can make them.
    pub(super) fn expect(&self, source: &Arc<Source>) {
        self.set_source(Some(Arc::clone(source)));
    }

    fn set_source(&self, source: Option<Arc<Source>>) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = source;
    }

    /// [`fill`](Task::fill) from its bundle, with one of the backbone's readers.
    pub(crate) fn fill_from(
        &self,
        file: &str,
        bundle: &Bundle<'_>,
        cancelled: impl Fn() -> bool,
    ) -> Result<()> {
        let kept = &self.backbone.kept;
        let Reader { decoder, mut room } = kept.reader(file)?;
        let tensors = BundleTensors::new(file, bundle, decoder);
        let outcome = self.fill(&tensors, &mut room, cancelled);
        kept.keep_reader(Reader { decoder: tensors.into_decoder(), room });
        outcome
    }

    /// Makes the parameters that no other thread makes, in execution order, until `cancelled`. Those that others
    /// have begun may still be on their way when this returns; see [`complete`](Task::complete).
    pub(super) fn fill(
        &self,
        tensors: &dyn Tensors,
        room: &mut Vec<f32>,
        cancelled: impl Fn() -> bool,
    ) -> Result<()> {
        loop {
            if cancelled() {
                self.fail(Error::Cancelled { task: self.name().into() });
            }
            if self.has_failed() || !self.fill_next(tensors, room) {
                break;
            }
        }
        match self.failure.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Makes the next part; false when all have been begun.
    fn fill_next(&self, tensors: &dyn Tensors, room: &mut Vec<f32>) -> bool {
        let p = self.begun.fetch_add(1, Ordering::Relaxed);
        let (Some(spec), Some(slot)) = (self.program().parts.get(p), self.parts.get(p)) else {
            // They hold the bundle's bytes as long as they need it.
            self.set_source(None);
            return false;
        };
        /// Even if this thread panics, nobody waits for its part for good.
        struct Release<'a>(&'a Task, usize);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                if self.0.parts.get(self.1).is_some_and(|slot| slot.get().is_none()) {
                    self.0.fail(Error::Cancelled { task: self.0.name().into() });
                }
            }
        }
        let _release = Release(self, p);
        let shared = |name: &str, len| self.backbone.tensor(name, len);
        let part = self.backbone.kept.floats(spec.len);
        match params::fill(self.program().isa, spec, part, tensors, &shared, room) {
            // Refused only when the load was cancelled, which `fail` has noted.
            Ok(part) => drop(slot.set(Some(part))),
            Err(error) => self.fail(error),
        }
        true
    }

    /// Makes one part for a frame that would otherwise wait; false when there is none left to make.
    fn help(&self) -> bool {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(source) = source else { return false };
        let kept = &self.backbone.kept;
        // Without a reader there is the loader, which has one.
        let Ok(Reader { decoder, mut room }) = kept.reader(&source.file) else { return false };
        let tensors = BundleTensors::new(&source.file, &source.bundle, decoder);
        let more = self.fill_next(&tensors, &mut room);
        kept.keep_reader(Reader { decoder: tensors.into_decoder(), room });
        more
    }

    /// Waits for the parts that other threads have begun.
    pub(crate) fn complete(&self) -> Result<()> {
        (0..self.parts.len()).try_for_each(|p| self.arrived(p).map(drop))
    }

    /// Waits for part `p`.
    fn arrived(&self, p: usize) -> Result<&[f32]> {
        let slot = self.parts.get(p).ok_or_else(|| Error::Internal { what: format!("no part {p}") })?;
        match slot.wait() {
            Some(part) => Ok(part),
            None => Err(self.failure.get().cloned().unwrap_or(Error::Cancelled { task: self.name().into() })),
        }
    }

    /// Ends the wait of whoever waits for parameters: they will not come.
    pub(crate) fn fail(&self, error: Error) {
        let _ = self.failure.set(error);
        self.set_source(None);
        for slot in &self.parts {
            let _ = slot.set(None);
        }
    }

    /// True when every parameter is there.
    pub fn is_complete(&self) -> bool {
        self.parts.iter().all(|slot| matches!(slot.get(), Some(Some(_))))
    }

    /// True when its parameters will never be complete.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }
}

/// A task's parameters for one frame, which waits for those still on their way until `until`, if that is set.
pub(crate) struct Arriving<'a> {
    pub task: &'a Task,
    pub until: Option<Instant>,
}

/// Pause between two looks at parameters that are on their way, when a deadline forbids to wait for good.
const PAUSE: Duration = Duration::from_micros(50);

impl Parts for Arriving<'_> {
    fn part(&self, p: usize) -> Result<&[f32]> {
        let task = self.task;
        let there = || task.parts.get(p).is_none_or(|slot| slot.get().is_some());
        while !there() {
            match self.until {
                Some(until) if Instant::now() >= until => {
                    return Err(Error::Deadline { task: task.name().into() });
                }
                Some(_) => std::thread::sleep(PAUSE),
                // Rather than sleep, this thread makes parts, too.
                None if task.help() => {}
                None => break,
            }
        }
        task.arrived(p)
    }
}
