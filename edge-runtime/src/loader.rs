//! The loader thread: loads, fills and drops tasks while another thread runs frames.

use crate::backbone::Backbone;
use crate::engine::Workspace;
use crate::task::Source;
use crate::{Error, Result, Task};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

/// Identifies the load that a result belongs to, and lets the frame thread cancel it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ticket(Arc<AtomicBool>);

impl Ticket {
    /// Asks the loader to abort this load.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Ticket::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether `other` is a copy of the same ticket.
    pub fn is(&self, other: &Ticket) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Requests of the frame thread.
pub(crate) enum Job {
    /// Load a bundle for slot `slot`. Waits until no other job is queued and [`Room::has_room`].
    Load { slot: usize, ticket: Ticket, path: PathBuf },
    /// Make the parameters of a task whose plan is compiled; frames may already be waiting for them. A no-op
    /// if the task is gone by then.
    Fill { slot: usize, ticket: Ticket, task: Weak<Task> },
    /// Help another thread to make a task's parameters.
    Help { task: Weak<Task> },
    /// Free a task, so that the frame thread need not.
    Drop(Arc<Task>),
    /// Free memory.
    Free(Workspace),
    /// Check again whether there is room for a load.
    Look,
}

/// A result of the loader.
pub(crate) struct Done {
    pub slot: usize,
    pub ticket: Ticket,
    pub outcome: Result<Loaded>,
}

/// A complete task, and a larger workspace if the known one is too small for it.
pub(crate) struct Loaded {
    pub task: Arc<Task>,
    pub space: Option<Workspace>,
}

/// Memory accounting shared by the frame thread and the loader.
#[derive(Debug)]
pub(crate) struct Room {
    /// Size of the frame thread's arena and scratch, in floats.
    arena: AtomicUsize,
    scratch: AtomicUsize,
    /// Memory budget for tasks, and memory used by resident ones, in bytes.
    budget: AtomicUsize,
    used: AtomicUsize,
    /// Bytes of loaded tasks that the frame thread has not taken in yet.
    parked: AtomicUsize,
    /// Whether the loader still has a task to free.
    leaving: AtomicBool,
}

impl Default for Room {
    fn default() -> Room {
        let zero = AtomicUsize::default;
        Room {
            arena: zero(),
            scratch: zero(),
            budget: AtomicUsize::new(usize::MAX),
            used: zero(),
            parked: zero(),
            leaving: AtomicBool::new(false),
        }
    }
}

impl Room {
    /// Records the size of the frame thread's workspace.
    pub fn note(&self, space: &Workspace) {
        self.arena.fetch_max(space.arena.len(), Ordering::Relaxed);
        self.scratch.fetch_max(space.scratch.len(), Ordering::Relaxed);
    }

    /// Records the memory budget for tasks and the memory used by resident ones.
    pub fn note_tasks(&self, budget: usize, used: usize) {
        self.budget.store(budget, Ordering::Relaxed);
        self.used.store(used, Ordering::Relaxed);
    }

    /// Records that the frame thread has taken in a loaded task.
    pub fn taken_in(&self, task: &Task) {
        self.parked.fetch_sub(task.resident_bytes(), Ordering::Relaxed);
    }

    /// Claims the loader for freeing a task. False while another one waits to be freed, because their memory
    /// would add up.
    pub fn lets_leave(&self) -> bool {
        !self.leaving.swap(true, Ordering::Relaxed)
    }

    /// Maximum bytes of a task that can ever be taken in.
    fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// Whether another task may be loaded: always if none is waiting to be taken in, because others can then
    /// be evicted for it.
    fn has_room(&self) -> bool {
        let parked = self.parked.load(Ordering::Relaxed);
        let used = self.used.load(Ordering::Relaxed).saturating_add(parked);
        parked == 0 || used <= self.budget.load(Ordering::Relaxed)
    }
}

/// The loader thread. Dropping it waits for the job in progress.
pub(crate) struct Loader {
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    /// Number of results that have been sent completely and not yet received.
    ready: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// # Errors
    /// [`Error::File`] if the thread cannot be created.
    pub fn start(backbone: Arc<Backbone>, threads: usize, room: Arc<Room>) -> Result<Loader> {
        let (jobs, inbox) = channel();
        let (outbox, done) = channel();
        let ready = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ready);
        let mut queue = Queue { inbox, loads: VecDeque::new() };
        let work = move || {
            while let Some(job) = queue.next(&room) {
                let (slot, ticket, outcome) = match job {
                    Job::Drop(task) => {
                        drop(task);
                        room.leaving.store(false, Ordering::Relaxed);
                        continue;
                    }
                    Job::Free(space) => {
                        drop(space);
                        continue;
                    }
                    Job::Look => continue,
                    Job::Load { slot, ticket, path } => {
                        let outcome = guarded(&|| load(&backbone, &path, &ticket, room.budget()));
                        (slot, ticket, outcome)
                    }
                    Job::Fill { slot, ticket, task } => {
                        // A task that has left its slot is no longer needed; a frame may have made all parts
                        // of this one.
                        let Some(task) = task.upgrade() else { continue };
                        let outcome = guarded(&|| match task.source() {
                            Some(source) => fill(&task, &source, &ticket),
                            None => task.complete().map(|()| Arc::clone(&task)),
                        });
                        (slot, ticket, outcome)
                    }
                    Job::Help { task } => {
                        let Some(task) = task.upgrade() else { continue };
                        // Errors are reported by the thread that is being helped.
                        let _ = guarded(&|| {
                            let Some(source) = task.source() else { return Ok(Arc::clone(&task)) };
                            task.fill_from(&source.file, &source.bundle, || false)?;
                            Ok(Arc::clone(&task))
                        });
                        continue;
                    }
                };
                let outcome = outcome.map(|task| {
                    room.parked.fetch_add(task.resident_bytes(), Ordering::Relaxed);
                    Loaded { space: larger(&task, threads, &room), task }
                });
                if outbox.send(Done { slot, ticket, outcome }).is_err() {
                    return;
                }
                count.fetch_add(1, Ordering::Release);
            }
        };
        let thread = std::thread::Builder::new().name("edge-loader".into()).spawn(work);
        let thread = thread.map_err(Error::file("loader thread", "start"))?;
        Ok(Loader { jobs: Some(jobs), done, ready, thread: Some(thread) })
    }

    /// Queues a job. Does not block.
    pub fn ask(&self, job: Job) -> Result<()> {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(Error::Internal { what: "the loader thread is gone".into() }),
        }
    }

    /// The next finished job, if there is one. Does not block, not even if the loader was preempted in the
    /// middle of sending: it only receives results that were counted after they had been sent.
    pub fn finished(&self) -> Option<Done> {
        if self.ready.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.ready.fetch_sub(1, Ordering::Relaxed);
        self.done.try_recv().ok()
    }

    /// Waits for the next finished job. `None` if there will be no more.
    pub fn wait(&self) -> Option<Done> {
        let done = self.done.recv().ok()?;
        // It has been sent; its count follows immediately.
        while self.ready.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        self.ready.fetch_sub(1, Ordering::Relaxed);
        Some(done)
    }
}

/// Pending jobs. Loads, which nobody waits for, come last.
struct Queue {
    inbox: Receiver<Job>,
    loads: VecDeque<Job>,
}

impl Queue {
    /// Waits for the next job. `None` if there will be no more.
    fn next(&mut self, room: &Room) -> Option<Job> {
        loop {
            let job = match self.inbox.try_recv() {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => match room.has_room().then(|| self.loads.pop_front()).flatten() {
                    Some(load) => return Some(load),
                    None => self.inbox.recv().ok()?,
                },
            };
            match job {
                Job::Load { .. } => self.loads.push_back(job),
                job => return Some(job),
            }
        }
    }
}

/// Runs `load`; a panic, which is a defect, ends only that load, not the thread that others wait for.
#[inline(never)]
fn guarded(load: &dyn Fn() -> Result<Arc<Task>>) -> Result<Arc<Task>> {
    let defect = || Error::Internal { what: "panic while loading a task".into() };
    catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| Err(defect()))
}

/// Loads a bundle from its file, unless the load is cancelled meanwhile.
fn load(backbone: &Arc<Backbone>, path: &Path, ticket: &Ticket, most: usize) -> Result<Arc<Task>> {
    if ticket.is_cancelled() {
        return Err(Error::Cancelled { task: path.display().to_string() });
    }
    let stored = backbone.kept.open(path)?;
    let (task, source) = Task::begin(backbone, path.display().to_string(), stored, most, true)?;
    task.fill_from(&source.file, &source.bundle, || ticket.is_cancelled())?;
    task.complete()?;
    Ok(task)
}

/// Fills `task`. Whatever happens, even a panic, nobody is left waiting for its parameters.
fn fill(task: &Arc<Task>, source: &Source, ticket: &Ticket) -> Result<Arc<Task>> {
    struct Release<'a>(&'a Task);
    impl Drop for Release<'_> {
        fn drop(&mut self) {
            if !self.0.is_complete() {
                self.0.fail(Error::Cancelled { task: self.0.name().into() });
            }
        }
    }
    let release = Release(task);
    let outcome = task.fill_from(&source.file, &source.bundle, || ticket.is_cancelled());
    // A frame may have started on some of them.
    let outcome = outcome.and_then(|()| task.complete());
    if let Err(error) = &outcome {
        task.fail(error.clone());
    }
    drop(release);
    outcome.map(|()| Arc::clone(task))
}

fn larger(task: &Task, threads: usize, room: &Room) -> Option<Workspace> {
    // If it exceeds the limit, the frame reports it.
    let (arena, scratch) = (task.program().arena_len, task.program().check_scratch(threads).ok()?);
    let known = (room.arena.load(Ordering::Relaxed), room.scratch.load(Ordering::Relaxed));
    if arena <= known.0 && scratch <= known.1 {
        return None;
    }
    let mut space = Workspace::default();
    space.grow(arena.max(known.0), scratch.max(known.1)).ok()?;
    room.note(&space);
    Some(space)
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It has answered everything it could.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loader")
    }
}
