//! How a task's parameters arrive: part by part in execution order, made by any number of threads, while a
//! frame may already be running on the parts that are there.

use super::Task;
use crate::bundle::BundleTensors;
use crate::engine::{Parts, Tensors, params};
use crate::kept::{Memory, Reader};
use crate::{Error, Result};
use bundles::container::Bundle;
use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long a thread waits for a part that another thread is making before it makes the part as well.
const PATIENCE: Duration = Duration::from_micros(50);

/// A task's bundle while its parameters are being made.
#[derive(Debug)]
pub(crate) struct Source {
    pub file: String,
    pub bundle: Bundle<'static>,
}

impl Task {
    /// Sets the source of the parameters, so that a thread waiting for them can make them itself.
    pub(super) fn expect(&self, source: &Arc<Source>) {
        self.set_source(Some(Arc::clone(source)));
    }

    fn set_source(&self, source: Option<Arc<Source>>) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = source;
    }

    /// The source of the parameters, until all of them are there.
    pub(crate) fn source(&self) -> Option<Arc<Source>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Like [`fill`](Task::fill), from the task's bundle with one of the backbone's readers.
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

    /// Makes the parameters that no other thread is making, in execution order, until `cancelled`. Those that
    /// other threads have started may still be pending when this returns; see [`complete`](Task::complete).
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

    /// Makes the next part; returns false if all have been started.
    fn fill_next(&self, tensors: &dyn Tensors, room: &mut Vec<f32>) -> bool {
        let n = self.begun.fetch_add(1, Ordering::Relaxed);
        if n >= self.parts.len() {
            return false;
        }
        let p = match self.first {
            Some(first) if n == 0 => first,
            Some(first) if n <= first => n - 1,
            _ => n,
        };
        self.make(p, tensors, room);
        true
    }

    /// Makes part `p`, unless another thread finishes it first.
    fn make(&self, p: usize, tensors: &dyn Tensors, room: &mut Vec<f32>) {
        /// Even if this thread panics, nobody waits for its part forever.
        struct Release<'a>(&'a Task, usize);
        impl Drop for Release<'_> {
            fn drop(&mut self) {
                if !self.0.is_there(self.1) {
                    self.0.fail(Error::Cancelled { task: self.0.name().into() });
                }
            }
        }
        let (Some(spec), Some(slot)) = (self.program().parts.get(p), self.parts.get(p)) else { return };
        let _release = Release(self, p);
        let shared = |name: &str, len| self.backbone.tensor(name, len);
        // `None` if another thread has started the part (and may never finish), or if the allocation failed.
        let memory = self.reserved(p).or_else(|| self.backbone.kept.memory(spec.len));
        let bytes = spec.len.saturating_mul(size_of::<f32>());
        let part = memory
            .ok_or(Error::OutOfMemory { bytes })
            .and_then(|part| params::fill(self.program().isa, spec, part.floats(), tensors, &shared, room));
        match part {
            // Ignored if the part is there already, or if the load was cancelled, which `fail` has recorded.
            Ok(part) => drop(slot.set(Some(part))),
            Err(error) => self.fail(error),
        }
    }

    /// The memory reserved for part `p`; only the first caller gets it.
    fn reserved(&self, p: usize) -> Option<Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).get_mut(p).and_then(Option::take)
    }

    /// Works towards part `p` instead of waiting for it: makes the next part that no thread has started, or
    /// else `p` itself, whose maker may have been preempted. Returns false if this thread cannot help.
    fn help(&self, p: usize) -> bool {
        let Some(source) = self.source() else { return false };
        let kept = &self.backbone.kept;
        let Ok(Reader { decoder, mut room }) = kept.reader(&source.file) else { return false };
        let tensors = BundleTensors::new(&source.file, &source.bundle, decoder);
        if !self.fill_next(&tensors, &mut room) {
            let start = Instant::now();
            while !self.is_there(p) && start.elapsed() < PATIENCE {
                std::hint::spin_loop();
            }
            if !self.is_there(p) {
                self.make(p, &tensors, &mut room);
            }
        }
        kept.keep_reader(Reader { decoder: tensors.into_decoder(), room });
        true
    }

    /// True if part `p` has arrived or never will.
    fn is_there(&self, p: usize) -> bool {
        self.parts.get(p).is_none_or(|slot| slot.get().is_some())
    }

    /// Waits for, or makes, the parts that other threads have started.
    pub(crate) fn complete(&self) -> Result<()> {
        let outcome = (0..self.parts.len()).try_for_each(|p| self.arrived(p).map(drop));
        // The source holds the bundle's bytes.
        self.set_source(None);
        outcome
    }

    /// Returns part `p` once it has arrived.
    fn arrived(&self, p: usize) -> Result<&[f32]> {
        let slot = self.parts.get(p).ok_or_else(|| Error::Internal { what: format!("no part {p}") })?;
        while !self.is_there(p) && self.help(p) {}
        match slot.wait() {
            Some(part) => Ok(part),
            None => Err(self.failure.get().cloned().unwrap_or(Error::Cancelled { task: self.name().into() })),
        }
    }

    /// Ends all waiting for parameters: they will never arrive.
    pub(crate) fn fail(&self, error: Error) {
        let _ = self.failure.set(error);
        self.set_source(None);
        for slot in &self.parts {
            let _ = slot.set(None);
        }
    }

    /// True when every parameter is there.
    pub fn is_complete(&self) -> bool {
        // Parts that have arrived stay, and every switch calls this.
        if self.is_whole.load(Ordering::Relaxed) {
            return true;
        }
        let whole = self.parts.iter().all(|slot| matches!(slot.get(), Some(Some(_))));
        self.is_whole.fetch_or(whole, Ordering::Relaxed);
        whole
    }

    /// True if its parameters will never be complete. (A load may also be cancelled when all of them are
    /// there already.)
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.get().is_some() && !self.is_complete()
    }

    /// Why the parameters will never be complete.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get().filter(|_| self.has_failed())
    }
}

/// A task's parameters for one frame. Makes or waits for those still pending until `until`, if set. A part
/// started before then is finished, and one part is started regardless of the time, so that the last one
/// arrives eventually, however busy the loader is and however late the frame.
pub(crate) struct Arriving<'a> {
    task: &'a Task,
    until: Option<Instant>,
    /// Whether this frame has already helped with a part.
    has_helped: Cell<bool>,
}

impl Arriving<'_> {
    pub fn new(task: &Task, until: Option<Instant>) -> Arriving<'_> {
        Arriving { task, until, has_helped: Cell::new(false) }
    }
}

/// Polling interval for pending parameters that this thread cannot make, when a deadline rules out blocking.
const PAUSE: Duration = Duration::from_micros(50);

impl Parts for Arriving<'_> {
    fn part(&self, p: usize) -> Result<&[f32]> {
        let task = self.task;
        if let Some(until) = self.until {
            while !task.is_there(p) {
                if Instant::now() >= until && self.has_helped.get() {
                    return Err(Error::Deadline { task: task.name().into() });
                }
                self.has_helped.set(true);
                if !task.help(p) {
                    std::thread::sleep(PAUSE);
                }
            }
        }
        task.arrived(p)
    }
}
