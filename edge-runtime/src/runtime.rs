//! Tasks in slots: load, prefetch, stream, switch, evict, and the frames in between.

use crate::backbone::Backbone;
use crate::input::{Frame, Preparer};
use crate::loader::{Done, Job, Loader, Room};
use crate::stats::Stats;
use crate::{Error, Result, Session, Task};
use bundles::container::Bundle;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A task's slot in a [`Runtime`]. Stays valid when the task is evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId(usize);

/// The answer to one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores<'a> {
    /// The task that answered.
    pub task: &'a str,
    /// One score per class, before softmax.
    pub logits: &'a [f32],
    /// Index of the highest score.
    pub class: usize,
    /// Its label; empty when the task has no labels.
    pub label: &'a str,
    /// Its probability (softmax).
    pub score: f32,
    /// True when the answer came after the frame's deadline.
    pub late: bool,
}

#[derive(Debug)]
struct Slot {
    name: String,
    path: Option<PathBuf>,
    task: Option<Arc<Task>>,
    loading: bool,
    /// Why the last load failed.
    error: Option<Error>,
    /// When it was switched to last, for eviction.
    used: u64,
}

/// One backbone, many tasks, one camera.
///
/// Everything is allocated when a task is loaded; [`frame`](Runtime::frame) and [`switch`](Runtime::switch)
/// to a resident task allocate nothing and wait for nobody. Loads run on a thread of their own
/// ([`prefetch`](Runtime::prefetch), [`stream`](Runtime::stream)) or on the caller's
/// ([`load`](Runtime::load)); either way the running task is not touched, and a load that fails leaves it
/// where it was.
#[derive(Debug)]
pub struct Runtime {
    backbone: Arc<Backbone>,
    session: Session,
    preparer: Preparer,
    slots: Vec<Slot>,
    current: Option<usize>,
    /// The task to return to when a streamed one fails.
    fallback: Option<usize>,
    budget: usize,
    deadline: Option<Duration>,
    clock: u64,
    room: Arc<Room>,
    loader: Option<Loader>,
    stats: Stats,
}

impl Runtime {
    /// A runtime without tasks, on `threads` threads, the caller's included.
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
            clock: 0,
            room: Arc::default(),
            loader: None,
            stats: Stats::default(),
        }
    }

    /// Most bytes of resident tasks. The least recently used go first when a load exceeds it.
    pub fn set_budget(&mut self, bytes: usize) {
        self.budget = bytes;
    }

    /// Time a frame may take. A later answer is marked and counted; a frame whose task is still being
    /// streamed in gives up then instead of blocking.
    pub fn set_deadline(&mut self, deadline: Option<Duration>) {
        self.deadline = deadline;
    }

    /// The backbone.
    pub fn backbone(&self) -> &Arc<Backbone> {
        &self.backbone
    }

    /// What happened so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Loads a task bundle on this thread and makes it resident. A task of the same name is replaced.
    ///
    /// # Errors
    /// As [`Task::load`]; [`Error::TooLarge`] when it does not fit the budget. The running task stays.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<TaskId> {
        let path = path.as_ref();
        let task = self.counted(|this| Task::load(&this.backbone, path))?;
        self.admit(Arc::new(task), Some(path))
    }

    /// As [`load`](Runtime::load), from bytes in memory.
    ///
    /// # Errors
    /// As [`load`](Runtime::load).
    pub fn load_bytes(&mut self, file: &str, bytes: &[u8]) -> Result<TaskId> {
        let task = self.counted(|this| Task::from_bytes(&this.backbone, file, bytes))?;
        self.admit(Arc::new(task), None)
    }

    /// Makes a task that was built in memory resident.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when it does not fit the budget.
    pub fn insert(&mut self, task: Task) -> Result<TaskId> {
        self.admit(Arc::new(task), None)
    }

    /// Begins to load a bundle on the loader thread. Its slot becomes resident at a later
    /// [`poll`](Runtime::poll) or [`switch`](Runtime::switch).
    ///
    /// # Errors
    /// Only when there is no loader thread; what is wrong with the bundle comes from `poll`.
    pub fn prefetch(&mut self, path: impl AsRef<Path>) -> Result<TaskId> {
        let path = path.as_ref();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let slot = self.slot(&name, Some(path));
        if self.slots[slot].task.is_none() && !self.slots[slot].loading {
            self.loader()?.ask(Job::Load { slot, path: path.into() })?;
            self.slots[slot].loading = true;
        }
        Ok(TaskId(slot))
    }

    /// Compiles a bundle's plan here and lets the loader thread make its parameters, first cells first. The
    /// task can be switched to at once: a frame waits for each cell's parameters only when it gets there.
    ///
    /// # Errors
    /// As [`load`](Runtime::load). What is wrong with the parameters comes from the first
    /// [`frame`](Runtime::frame), which returns to the task that ran before.
    pub fn stream(&mut self, path: impl AsRef<Path>) -> Result<TaskId> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::file(path, "read"))?;
        let file = path.display().to_string();
        let task = self.counted(|this| {
            let bundle = Bundle::parse(&bytes).map_err(Error::container(&file))?;
            Task::begin(&this.backbone, &file, &bundle, bytes.len()).map(Arc::new)
        })?;
        self.loader()?;
        let id = self.admit(Arc::clone(&task), Some(path))?;
        self.slots[id.0].loading = true;
        self.loader()?.ask(Job::Fill { slot: id.0, task, file, bytes })?;
        Ok(id)
    }

    /// Makes `id` the task of the frames to come. A pointer move when it is resident.
    ///
    /// # Errors
    /// [`Error::NotResident`]; or why its load failed.
    pub fn switch(&mut self, id: TaskId) -> Result<()> {
        self.collect();
        let Some(slot) = self.slots.get_mut(id.0) else {
            return Err(Error::NotResident { task: format!("{id:?}") });
        };
        if slot.task.is_none() {
            let absent = Error::NotResident { task: slot.name.clone() };
            return Err(slot.error.take().unwrap_or(absent));
        }
        self.clock += 1;
        slot.used = self.clock;
        if self.current != Some(id.0) {
            self.fallback = self.current;
            self.current = Some(id.0);
            self.stats.switches += 1;
        }
        Ok(())
    }

    /// Takes a task out of memory. Its slot stays known.
    ///
    /// # Errors
    /// [`Error::Usage`] for the running task.
    pub fn evict(&mut self, id: TaskId) -> Result<()> {
        if self.current == Some(id.0) {
            return Err(Error::Usage {
                got: format!("evicting the running task `{}`", self.slots[id.0].name),
                want: "switch to another task first".into(),
            });
        }
        if self.fallback == Some(id.0) {
            self.fallback = None;
        }
        if let Some(task) = self.slots.get_mut(id.0).and_then(|slot| slot.task.take()) {
            task.fail(Error::Cancelled { task: task.name().into() });
            self.stats.evictions += 1;
            // The loader frees it when there is one, so that this thread need not.
            if let Some(loader) = &self.loader {
                let _ = loader.ask(Job::Drop(task));
            }
        }
        Ok(())
    }

    /// Takes in what the loader has finished, without waiting. The first failure is returned; the others
    /// come from [`switch`](Runtime::switch).
    ///
    /// # Errors
    /// Why a load failed.
    pub fn poll(&mut self) -> Result<()> {
        self.collect();
        self.slots.iter_mut().find_map(|slot| slot.error.take()).map_or(Ok(()), Err)
    }

    /// Waits until nothing is being loaded.
    ///
    /// # Errors
    /// Why a load failed.
    pub fn settle(&mut self) -> Result<()> {
        while self.slots.iter().any(|slot| slot.loading) {
            match self.loader.as_ref().and_then(Loader::wait) {
                Some(done) => self.take_in(done),
                None => return Err(Error::Internal { what: "the loader thread is gone".into() }),
            }
        }
        self.poll()
    }

    /// The slot of a task by its name.
    pub fn find(&self, name: &str) -> Option<TaskId> {
        self.slots.iter().position(|slot| slot.name == name).map(TaskId)
    }

    /// Resident tasks.
    pub fn resident(&self) -> impl Iterator<Item = (TaskId, &Task)> {
        self.slots.iter().enumerate().filter_map(|(i, slot)| Some((TaskId(i), slot.task.as_deref()?)))
    }

    /// The running task.
    pub fn current(&self) -> Option<(TaskId, &Task)> {
        let id = self.current?;
        Some((TaskId(id), self.slots.get(id)?.task.as_deref()?))
    }

    /// Bytes of resident tasks, without backbone and arena.
    pub fn resident_bytes(&self) -> usize {
        self.resident().map(|(_, task)| task.resident_bytes()).sum()
    }

    /// Bytes of the arena and scratch that all tasks share.
    pub fn workspace_bytes(&self) -> usize {
        4 * (self.session.space.arena.len() + self.session.space.scratch.len())
    }

    /// Classifies one image with the running task and its own preprocessing.
    ///
    /// Allocates nothing, except when the image's size differs from that of the frame before.
    ///
    /// # Errors
    /// [`Error::Input`] for something that is no image; [`Error::NotResident`] when there is no running
    /// task; [`Error::Deadline`]; why a streamed task failed (the task before it runs again).
    pub fn frame(&mut self, frame: Frame<'_>) -> Result<Scores<'_>> {
        let start = Instant::now();
        let index = self.running()?;
        let Some(task) = self.slots[index].task.as_deref() else {
            return Err(Error::NotResident { task: self.slots[index].name.clone() });
        };
        let preparation = task.preparation.as_ref().ok_or_else(|| Error::Input {
            got: "an image".into(),
            want: format!("preprocessed tensors: task `{}` has no preprocessing", task.name()),
        })?;
        let input = self.preparer.prepare(preparation, frame)?;
        let until = self.deadline.filter(|_| self.slots[index].loading).map(|deadline| start + deadline);
        let outcome = self.session.run_until(task, input, until, &mut ()).map(drop);
        self.finish(index, start, outcome)
    }

    /// Classifies one preprocessed image, `(c, h, w)` as [`Task::input`] says.
    ///
    /// # Errors
    /// As [`frame`](Runtime::frame).
    pub fn tensor(&mut self, input: &[f32]) -> Result<Scores<'_>> {
        let start = Instant::now();
        let index = self.running()?;
        let Some(task) = self.slots[index].task.as_deref() else {
            return Err(Error::NotResident { task: self.slots[index].name.clone() });
        };
        let until = self.deadline.filter(|_| self.slots[index].loading).map(|deadline| start + deadline);
        let outcome = self.session.run_until(task, input, until, &mut ()).map(drop);
        self.finish(index, start, outcome)
    }

    fn running(&self) -> Result<usize> {
        self.current.ok_or_else(|| Error::NotResident { task: "none was switched to".into() })
    }

    fn finish(&mut self, index: usize, start: Instant, outcome: Result<()>) -> Result<Scores<'_>> {
        let late = self.stats.frame(start.elapsed(), self.deadline, outcome.is_ok());
        if let Err(error) = outcome {
            let slot = &mut self.slots[index];
            let lost = slot.task.as_ref().is_some_and(|task| task.has_failed());
            if lost {
                // A streamed task turned out broken: the one before it runs on.
                slot.task = None;
                self.current = self.fallback.take();
            }
            return Err(error);
        }
        let Some(task) = self.slots[index].task.as_deref() else {
            return Err(Error::NotResident { task: self.slots[index].name.clone() });
        };
        let logits = task.program.scores(&self.session.space.arena);
        let (class, score) = best(logits);
        let label = task.labels().get(class).map_or("", String::as_str);
        Ok(Scores { task: task.name(), logits, class, label, score, late })
    }

    /// Counts a failed load.
    fn counted<T>(&mut self, load: impl FnOnce(&Runtime) -> Result<T>) -> Result<T> {
        let outcome = load(self);
        self.stats.failed_loads += u64::from(outcome.is_err());
        outcome
    }

    fn loader(&mut self) -> Result<&Loader> {
        let loader = match self.loader.take() {
            Some(loader) => loader,
            None => {
                self.room.note(&self.session.space);
                let (backbone, room) = (Arc::clone(&self.backbone), Arc::clone(&self.room));
                Loader::start(backbone, self.session.threads(), room)?
            }
        };
        Ok(self.loader.insert(loader))
    }

    fn collect(&mut self) {
        while let Some(done) = self.loader.as_ref().and_then(Loader::finished) {
            self.take_in(done);
        }
    }

    fn take_in(&mut self, done: Done) {
        let slot = &mut self.slots[done.slot];
        slot.loading = false;
        let loaded = match done.outcome {
            Ok(loaded) => loaded,
            Err(error) => {
                self.stats.failed_loads += 1;
                // A running task that was being streamed in is removed by its own next frame; see `finish`.
                if self.current != Some(done.slot) {
                    slot.task = slot.task.take().filter(|task| !task.has_failed());
                    slot.error = Some(error);
                }
                return;
            }
        };
        if let Some(space) = loaded.space {
            self.session.space.replace(space);
        }
        let streamed = slot.task.as_ref().is_some_and(|task| Arc::ptr_eq(task, &loaded.task));
        // A streamed task sits in its slot already.
        if !streamed && let Err(error) = self.settle_in(done.slot, loaded.task) {
            self.slots[done.slot].error = Some(error);
        }
    }

    fn admit(&mut self, task: Arc<Task>, path: Option<&Path>) -> Result<TaskId> {
        self.collect();
        self.session.reserve(&task);
        self.room.note(&self.session.space);
        let slot = self.slot(task.name(), path);
        self.settle_in(slot, task)?;
        Ok(TaskId(slot))
    }

    /// Puts a task into its slot and evicts others until the budget is kept.
    fn settle_in(&mut self, slot: usize, task: Arc<Task>) -> Result<()> {
        let need = task.resident_bytes();
        let taken = |this: &Runtime| -> usize {
            let others = this.slots.iter().enumerate().filter(|(i, _)| *i != slot);
            others.filter_map(|(_, slot)| slot.task.as_ref()).map(|task| task.resident_bytes()).sum()
        };
        while taken(self).saturating_add(need) > self.budget {
            let kept = [self.current, Some(slot)];
            let victim = (0..self.slots.len())
                .filter(|i| !kept.contains(&Some(*i)) && self.slots[*i].task.is_some())
                .min_by_key(|i| self.slots[*i].used);
            let Some(victim) = victim else {
                self.stats.failed_loads += 1;
                return Err(Error::TooLarge {
                    what: format!("task `{}` beside the running one, in bytes", task.name()),
                    need: taken(self).saturating_add(need),
                    limit: self.budget,
                });
            };
            self.evict(TaskId(victim))?;
        }
        self.clock += 1;
        let entry = &mut self.slots[slot];
        entry.name = task.name().into();
        entry.used = self.clock;
        entry.error = None;
        entry.task = Some(task);
        self.stats.loads += 1;
        Ok(())
    }

    /// The slot of this path or name, a new one if there is none.
    fn slot(&mut self, name: &str, path: Option<&Path>) -> usize {
        let same = |slot: &Slot| match (path, &slot.path) {
            (Some(path), Some(own)) if path == own => true,
            _ => slot.name == name,
        };
        if let Some(known) = self.slots.iter().position(same) {
            return known;
        }
        let (name, path) = (name.to_owned(), path.map(Path::to_path_buf));
        self.slots.push(Slot { name, path, task: None, loading: false, error: None, used: 0 });
        self.slots.len() - 1
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
