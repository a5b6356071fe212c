//! How a task's parameters come: part by part in execution order, made by any number of threads, while a frame may
//! already be running on those that are there.

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

/// How long a thread waits for a part that another one is making before it makes it, too.
const PATIENCE: Duration = Duration::from_micros(50);

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

    /// Where parameters come from, until all of them are there.
    pub(crate) fn source(&self) -> Option<Arc<Source>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// Makes part `p`, unless another thread is faster.
    fn make(&self, p: usize, tensors: &dyn Tensors, room: &mut Vec<f32>) {
        /// Even if this thread panics, nobody waits for its part for good.
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
        // None is left when another thread has begun the part, and may never end, or where the system had none to give.
        let memory = self.reserved(p).or_else(|| self.backbone.kept.memory(spec.len));
        let bytes = spec.len.saturating_mul(size_of::<f32>());
        let part = memory
            .ok_or(Error::OutOfMemory { bytes })
            .and_then(|part| params::fill(self.program().isa, spec, part.floats(), tensors, &shared, room));
        match part {
            // Refused when it is there already, or when the load was cancelled, which `fail` has noted.
            Ok(part) => drop(slot.set(Some(part))),
            Err(error) => self.fail(error),
        }
    }

    /// The memory that was taken for part `p`, for the first who asks.
    fn reserved(&self, p: usize) -> Option<Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).get_mut(p).and_then(Option::take)
    }

    /// Does something about part `p`, rather than wait for it: makes the next one that nobody has begun, or else `p`,
    /// whose maker may have lost its processor. False when this thread cannot.
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

    /// True when part `p` has come, or will not.
    fn is_there(&self, p: usize) -> bool {
        self.parts.get(p).is_none_or(|slot| slot.get().is_some())
    }

    /// Sees to it that the parts that other threads have begun are there.
    pub(crate) fn complete(&self) -> Result<()> {
        let outcome = (0..self.parts.len()).try_for_each(|p| self.arrived(p).map(drop));
        // It holds the bundle's bytes.
        self.set_source(None);
        outcome
    }

    /// Part `p`, when it has come.
    fn arrived(&self, p: usize) -> Result<&[f32]> {
        let slot = self.parts.get(p).ok_or_else(|| Error::Internal { what: format!("no part {p}") })?;
        while !self.is_there(p) && self.help(p) {}
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
        // What has come stays, and a switch asks.
        if self.is_whole.load(Ordering::Relaxed) {
            return true;
        }
        let whole = self.parts.iter().all(|slot| matches!(slot.get(), Some(Some(_))));
        self.is_whole.fetch_or(whole, Ordering::Relaxed);
        whole
    }

    /// True when its parameters will never be complete. (A load can be given up when all of them are there.)
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.get().is_some() && !self.is_complete()
    }

    /// Why they will not be.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get().filter(|_| self.has_failed())
    }
}

/// A task's parameters for one frame, which makes or waits for those still on their way until `until`, if that is set: what has been
/// begun then is made to its end, and one part is begun whatever the time, so that the last one comes in the end, however busy
/// the loader is and however late the frame.
pub(crate) struct Arriving<'a> {
    task: &'a Task,
    until: Option<Instant>,
    /// Whether this frame has done something about a part.
    has_helped: Cell<bool>,
}

impl Arriving<'_> {
    pub fn new(task: &Task, until: Option<Instant>) -> Arriving<'_> {
        Arriving { task, until, has_helped: Cell::new(false) }
    }
}

/// Pause between two looks at parameters that are on their way, where this thread cannot make them and a deadline forbids to wait
/// for good.
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
