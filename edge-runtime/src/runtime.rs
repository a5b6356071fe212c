//! Tasks in slots: load, prefetch, stream, switch, evict. Frames are in `frames`, slot contents in
//! `residents`.

mod frames;
mod residents;
mod switcher;

pub use frames::Scores;
pub use switcher::Switcher;

use crate::backbone::Backbone;
use crate::input::Preparer;
use crate::loader::{Job, Loader, Room, Ticket};
use crate::stats::{Gauges, Resident, Stats};
use crate::{Error, Result, Session, Task};
use bundles::container::{Stored, hex};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A task's slot in a [`Runtime`]. Stays valid when the task is evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId(pub(crate) usize);

impl TaskId {
    /// The error for a number that is not a slot.
    fn unknown(self) -> Error {
        // From C it may be negative, see `ffi::task`.
        let number = isize::try_from(self.0).unwrap_or_else(|_| -(!self.0 as isize));
        Error::NotResident { task: Some(format!("{number}")) }
    }
}

#[derive(Debug)]
struct Slot {
    name: String,
    path: Option<PathBuf>,
    task: Option<Arc<Task>>,
    /// The complete predecessor of `task` while `task` is still being streamed in.
    before: Option<Arc<Task>>,
    /// The load in progress. Results with another ticket are out of date.
    loading: Option<Ticket>,
    /// Why the last load failed.
    error: Option<Error>,
    /// When it was last switched to, for eviction.
    used: u64,
}

/// Smaller bundles are loaded rather than streamed, because waking another thread would take longer.
const STREAM_FROM: usize = 256 * 1024;

/// One backbone, many tasks, one camera.
///
/// Everything is allocated when a task is loaded; [`frame`](Runtime::frame) and [`switch`](Runtime::switch)
/// to a resident task neither allocate nor block. (Results of the loader thread are taken in by
/// [`poll`](Runtime::poll), by `switch`, and by a frame if a switch to the loaded task was requested:
/// this moves the task into its slot and evicts others if the budget requires it.) Loads run on a thread of
/// their own ([`prefetch`](Runtime::prefetch), [`stream`](Runtime::stream)) or on the caller's
/// ([`load`](Runtime::load)); in both cases the running task is unaffected, and a load that fails or is
/// cancelled ([`evict`](Runtime::evict)) leaves it in place. Other threads request switches through a
/// [`Switcher`]; these take place between frames.
#[derive(Debug)]
pub struct Runtime {
    backbone: Arc<Backbone>,
    session: Session,
    preparer: Preparer,
    slots: Vec<Slot>,
    current: Option<usize>,
    /// The task to return to if a streamed one fails.
    fallback: Option<usize>,
    budget: usize,
    deadline: Option<Duration>,
    stream_from: usize,
    switcher: Switcher,
    /// A switch requested through a [`Switcher`] whose task is still being loaded.
    wanted: Option<usize>,
    /// The task of a switch under way, which taking in loads must not evict.
    switching: Option<usize>,
    /// Error of the last switch that a [`Switcher`] requested to a slot that does not exist.
    refused: Option<Error>,
    clock: u64,
    room: Arc<Room>,
    loader: Option<Loader>,
    stats: Stats,
}

impl Runtime {
    /// A runtime without tasks, on `threads` threads, including the caller.
    pub fn new(backbone: Arc<Backbone>, threads: usize) -> Runtime {
        Runtime {
            backbone,
            session: Session::new(threads),
            preparer: Preparer::default(),
            slots: Vec::new(),
            current: None,
            fallback: None,
            budget: usize::MAX,
            deadline: None,
            stream_from: STREAM_FROM,
            switcher: Switcher::default(),
            wanted: None,
            switching: None,
            refused: None,
            clock: 0,
            room: Arc::default(),
            loader: None,
            stats: Stats::default(),
        }
    }

    /// Sets the memory budget for resident tasks, in bytes. If a load exceeds it, the least recently used
    /// tasks are evicted. A load takes its memory before others are evicted, and so does one prefetched task
    /// that no [`poll`](Runtime::poll) has taken in yet: further ones wait for that if they would exceed the
    /// budget. One evicted task may still be waiting for the loader to free it.
    ///
    /// Not counted are caches for later loads: memory of the last evicted task (at most 1 MiB), headers and
    /// compiled plans of evicted tasks (up to 512 KiB), the buffers of two readers (up to 4.25 MiB each,
    /// usually a tenth of that) and a file buffer (up to 256 KiB); nor kernels of a generic backbone that
    /// tasks of other image sizes need in another form, which are repacked in addition to the first ones; nor
    /// the workspace, nor the buffers in which frames are prepared (grey, resized and as the network's input,
    /// and resized in one direction for four pairs of sizes).
    pub fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
        self.tell();
    }

    /// Sets the time a frame may take. A later answer is marked and counted; a frame whose task is still
    /// being streamed in gives up at its deadline instead of blocking, after finishing the part it is making.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline;
    }

    /// Sets the smallest bundle, in bytes, for which the loader thread is used (256 KiB by default):
    /// [`stream`](Runtime::stream) streams such bundles, and [`load`](Runtime::load) decodes them on two
    /// threads. For smaller ones, waking another thread takes longer than it saves.
    pub fn set_stream_from(&mut self, bytes: usize) {
        self.stream_from = bytes;
    }

    /// A handle through which other threads request switches.
    pub fn switcher(&self) -> Switcher {
        self.switcher.clone()
    }

    /// The backbone.
    pub fn backbone(&self) -> &Arc<Backbone> {
        &self.backbone
    }

    /// Counters since the runtime was created.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Counters and gauges as Prometheus text, with names and digests of resident tasks.
    pub fn metrics(&self) -> String {
        let gauges = Gauges {
            tasks: self.resident().count(),
            task_bytes: self.resident_bytes(),
            workspace_bytes: self.workspace_bytes(),
            backbone_bytes: self.backbone.file_bytes() + self.backbone.repacked().bytes,
        };
        let tasks = self.resident().map(|(id, task)| Resident {
            name: task.name().to_owned(),
            digest: task.digest().map_or(String::new(), |digest| hex(&digest)),
            is_running: self.current == Some(id.0),
        });
        self.stats.prometheus(gauges, tasks)
    }

    /// Loads a task bundle on this thread and makes it resident, replacing a task of the same name.
    ///
    /// # Errors
    /// As for [`Task::load`]; [`Error::TooLarge`] if it does not fit the budget. The running task stays.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<TaskId> {
        let path = path.as_ref();
        let task = self.counted(|this| {
            let stored = this.backbone.kept.open(path)?;
            this.make(path.display().to_string(), stored)
        })?;
        self.admit(task, Some(path))
    }

    /// Loads a complete task on this thread, with the loader's help if the bundle is large enough.
    fn make(&mut self, file: String, stored: Stored<'static>) -> Result<Arc<Task>> {
        if stored.len() < self.stream_from {
            return Task::from_stored(&self.backbone, &file, stored, self.budget).map(Arc::new);
        }
        let (task, source) = Task::begin(&self.backbone, file, stored, self.budget, true)?;
        // Without a loader, this thread does all the work.
        if let Ok(loader) = self.loader() {
            let _ = loader.ask(Job::Help { task: Arc::downgrade(&task) });
        }
        task.fill_from(&source.file, &source.bundle, || false)?;
        task.complete()?;
        Ok(task)
    }

    /// Like [`load`](Runtime::load), from bytes in memory.
    ///
    /// # Errors
    /// As for [`load`](Runtime::load).
    pub fn load_bytes(&mut self, file: &str, bytes: &[u8]) -> Result<TaskId> {
        let task = self.counted(|this| Task::from_stored(&this.backbone, file, bytes.into(), this.budget))?;
        self.admit(Arc::new(task), None)
    }

    /// Makes a task that was built in memory resident.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it does not fit the budget.
    pub fn insert(&mut self, task: Task) -> Result<TaskId> {
        self.admit(Arc::new(task), None)
    }

    /// Hints that the bundle at `path` will be needed: starts loading it on the loader thread, unless a task
    /// from that path is resident. Its slot becomes resident at a later [`poll`](Runtime::poll) or
    /// [`switch`](Runtime::switch), replacing an idle task of the same name; until then the path serves as
    /// its name.
    ///
    /// # Errors
    /// Only if there is no loader thread; `poll` reports what is wrong with the bundle.
    pub fn prefetch(&mut self, path: impl AsRef<Path>) -> Result<TaskId> {
        let path = path.as_ref();
        let known = self.slots.iter().position(|slot| slot.path.as_deref() == Some(path));
        let slot = known.unwrap_or_else(|| self.new_slot(path.display().to_string(), Some(path)));
        if self.slots[slot].task.is_none() && self.slots[slot].loading.is_none() {
            let ticket = Ticket::default();
            self.loader()?.ask(Job::Load { slot, ticket: ticket.clone(), path: path.into() })?;
            self.slots[slot].loading = Some(ticket);
        }
        Ok(TaskId(slot))
    }

    /// Compiles a bundle's plan here and lets the loader thread make its parameters, first cells first. The
    /// task can be switched to at once: a frame waits for each cell's parameters only when it gets there. If
    /// the system cannot create another thread, everything is made here.
    ///
    /// # Errors
    /// As for [`load`](Runtime::load). Invalid parameters are reported by the first
    /// [`frame`](Runtime::frame), which returns to the task that ran before.
    pub fn stream(&mut self, path: impl AsRef<Path>) -> Result<TaskId> {
        let path = path.as_ref();
        let stored = self.counted(|this| this.backbone.kept.open(path))?;
        let file = path.display().to_string();
        if stored.len() < self.stream_from || self.loader().is_err() {
            let task = self.counted(|this| this.make(file, stored))?;
            return self.admit(task, Some(path));
        }
        let (task, _) = self.counted(|this| Task::begin(&this.backbone, file, stored, this.budget, false))?;
        let id = self.admit(Arc::clone(&task), Some(path))?;
        let ticket = Ticket::default();
        self.loader()?.ask(Job::Fill { slot: id.0, ticket: ticket.clone(), task: Arc::downgrade(&task) })?;
        self.slots[id.0].loading = Some(ticket);
        Ok(id)
    }

    /// Makes `id` the task of the frames to come. Only moves a pointer if it is resident.
    ///
    /// # Errors
    /// [`Error::NotResident`], or why its load failed.
    pub fn switch(&mut self, id: TaskId) -> Result<()> {
        self.switching = Some(id.0);
        self.collect();
        self.switching = None;
        self.change(id)
    }

    /// [`switch`](Runtime::switch) without taking in the loader's results.
    fn change(&mut self, id: TaskId) -> Result<()> {
        let Some(slot) = self.slots.get_mut(id.0) else {
            return Err(id.unknown());
        };
        if slot.task.is_none() {
            let absent = Error::NotResident { task: Some(slot.name.clone()) };
            return Err(slot.error.take().unwrap_or(absent));
        }
        self.clock += 1;
        slot.used = self.clock;
        self.wanted = None;
        if self.current != Some(id.0) {
            // Fall back to a complete task only: one that is still being streamed in may be broken, too.
            let whole = self.current.filter(|&slot| self.task_in(slot).is_some_and(Task::is_complete));
            self.fallback = whole.or(self.fallback);
            self.current = Some(id.0);
            self.stats.switches += 1;
        }
        Ok(())
    }

    /// Evicts a task, and cancels its load if one is in progress. Its slot remains known.
    ///
    /// # Errors
    /// [`Error::Usage`] for the running task; [`Error::NotResident`] for a number that is not a slot.
    pub fn evict(&mut self, id: TaskId) -> Result<()> {
        let Some(slot) = self.slots.get_mut(id.0) else { return Err(id.unknown()) };
        if self.current == Some(id.0) {
            return Err(Error::Usage {
                got: format!("task `{}` is running and cannot be evicted", slot.name),
                want: "a switch to another task first".into(),
            });
        }
        self.fallback = self.fallback.filter(|slot| *slot != id.0);
        self.wanted = self.wanted.filter(|slot| *slot != id.0);
        if let Some(ticket) = slot.loading.take() {
            ticket.cancel();
            self.stats.cancelled_loads += 1;
        }
        let (task, before) = (slot.task.take(), slot.before.take());
        if let Some(task) = &task {
            task.fail(Error::Cancelled { task: task.name().into() });
            self.stats.evictions += 1;
        }
        self.discard(task);
        self.discard(before);
        self.tell();
        Ok(())
    }

    /// Takes in the loader's results without blocking. Returns the first failure; the others are returned by
    /// [`switch`](Runtime::switch) or by further calls.
    ///
    /// # Errors
    /// Why a load, or a switch requested through a [`Switcher`], failed.
    pub fn poll(&mut self) -> Result<()> {
        self.collect();
        let mut errors = self.slots.iter_mut().map(|slot| &mut slot.error).chain([&mut self.refused]);
        errors.find_map(Option::take).map_or(Ok(()), Err)
    }

    /// Waits until nothing is being loaded. Returns the first failure; the others are returned by further calls.
    ///
    /// # Errors
    /// Why a load failed.
    pub fn settle(&mut self) -> Result<()> {
        while self.slots.iter().any(|slot| slot.loading.is_some()) {
            match self.loader.as_ref().and_then(Loader::wait) {
                Some(done) => self.take_in(done),
                None => {
                    self.slots.iter_mut().for_each(|slot| slot.loading = None);
                    return Err(Error::Internal { what: "the loader thread is gone".into() });
                }
            }
        }
        self.poll()
    }

    /// Bytes of the arena and scratch that all tasks share, excluding the buffers in which frames are
    /// prepared.
    pub fn workspace_bytes(&self) -> usize {
        4 * (self.session.cpu.space.arena.len() + self.session.cpu.space.scratch.len())
    }
}

impl Drop for Runtime {
    /// Cancels pending loads, so that dropping waits only for the one in progress.
    fn drop(&mut self) {
        self.slots.iter().filter_map(|slot| slot.loading.as_ref()).for_each(Ticket::cancel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Isa;
    use std::collections::HashMap;

    #[test]
    fn dropping_a_runtime_cancels_queued_loads() {
        let backbone = Backbone::from_tensors(Isa::Portable, HashMap::new());
        let mut runtime = Runtime::new(backbone, 1);
        let ids = ["a.task", "b.task"].map(|path| runtime.prefetch(path).unwrap());
        let tickets = ids.map(|id| runtime.slots[id.0].loading.clone().unwrap());
        assert!(tickets.iter().all(|ticket| !ticket.is_cancelled()));
        drop(runtime);
        assert!(tickets.iter().all(Ticket::is_cancelled));
    }
}
