//! A thread that loads, fills and drops tasks while another one runs frames.

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

/// Says which load a result belongs to, and lets the frame thread cancel it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ticket(Arc<AtomicBool>);

impl Ticket {
    /// Asks the loader to give this load up.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// True once [`cancel`](Ticket::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// True for a copy of the same ticket.
    pub fn is(&self, other: &Ticket) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What the frame thread asks for.
pub(crate) enum Job {
    /// Load a bundle for slot `slot`. Waits until nothing else is asked for, and until there is room.
    Load { slot: usize, ticket: Ticket, path: PathBuf },
    /// Make the parameters of a task whose plan is compiled; frames may already wait for them. Nothing when it is gone by then.
    Fill { slot: usize, ticket: Ticket, task: Weak<Task> },
    /// Help another thread to make them.
    Help { task: Weak<Task> },
    /// Free a task, so that the frame thread need not.
    Drop(Arc<Task>),
    /// Free memory.
    Free(Workspace),
    /// See whether there is room for a load now.
    Look,
}

/// What comes back.
pub(crate) struct Done {
    pub slot: usize,
    pub ticket: Ticket,
    pub outcome: Result<Loaded>,
}

/// A task, complete, and a larger workspace if the known one is too small for it.
pub(crate) struct Loaded {
    pub task: Arc<Task>,
    pub space: Option<Workspace>,
}

/// What the frame thread and the loader know of each other's memory.
#[derive(Debug)]
pub(crate) struct Room {
    /// Floats of arena and scratch that the frame thread has.
    arena: AtomicUsize,
    scratch: AtomicUsize,
    /// Bytes that tasks may take, and that resident ones take.
    budget: AtomicUsize,
    used: AtomicUsize,
    /// Bytes of loaded tasks that the frame thread has not taken in yet.
    parked: AtomicUsize,
    /// Whether the loader has a task to free.
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
    /// Notes what the frame thread has.
    pub fn note(&self, space: &Workspace) {
        self.arena.fetch_max(space.arena.len(), Ordering::Relaxed);
        self.scratch.fetch_max(space.scratch.len(), Ordering::Relaxed);
    }

    /// Notes what tasks may take, and what resident ones do.
    pub fn note_tasks(&self, budget: usize, used: usize) {
        self.budget.store(budget, Ordering::Relaxed);
        self.used.store(used, Ordering::Relaxed);
    }

    /// Notes that the frame thread has taken in a loaded task.
    pub fn taken_in(&self, task: &Task) {
        self.parked.fetch_sub(task.resident_bytes(), Ordering::Relaxed);
    }

    /// Whether the loader may be given a task to free: not where another one waits, for its memory would add up.
    pub fn lets_leave(&self) -> bool {
        !self.leaving.swap(true, Ordering::Relaxed)
    }

    /// Most bytes of a task that can ever be taken in.
    fn budget(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// Whether another task may be loaded: always where none waits to be taken in, because others may leave for it then.
    fn has_room(&self) -> bool {
        let parked = self.parked.load(Ordering::Relaxed);
        let used = self.used.load(Ordering::Relaxed).saturating_add(parked);
        parked == 0 || used <= self.budget.load(Ordering::Relaxed)
    }
}

/// The loader thread. Dropping it waits for the job under way.
pub(crate) struct Loader {
    jobs: Option<Sender<Job>>,
    done: Receiver<Done>,
    /// Results that lie in `done` whole.
    ready: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// # Errors
    /// [`Error::File`] when the system gives no thread.
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
                        // One that left its slot is nobody's any more, and a frame may have made all of another.
                        let Some(task) = task.upgrade() else { continue };
                        let outcome = guarded(&|| match task.source() {
                            Some(source) => fill(&task, &source, &ticket),
                            None => task.complete().map(|()| Arc::clone(&task)),
                        });
                        (slot, ticket, outcome)
                    }
                    Job::Help { task } => {
                        let Some(task) = task.upgrade() else { continue };
                        // What goes wrong is for the thread that is helped to report.
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
        let thread = thread.map_err(|error| Error::File {
            path: "loader thread".into(),
            action: "start",
            kind: error.kind(),
        })?;
        Ok(Loader { jobs: Some(jobs), done, ready, thread: Some(thread) })
    }

    /// Queues a job. Never waits.
    pub fn ask(&self, job: Job) -> Result<()> {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => Err(Error::Internal { what: "the loader thread is gone".into() }),
        }
    }

    /// The next finished job, if there is one. Never waits, not even for a loader that was stopped in the middle
    /// of sending: it looks into the channel only for what was counted after it had been sent.
    pub fn finished(&self) -> Option<Done> {
        if self.ready.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.ready.fetch_sub(1, Ordering::Relaxed);
        self.done.try_recv().ok()
    }

    /// The next finished job; waits for it. `None` when none can come any more.
    pub fn wait(&self) -> Option<Done> {
        let done = self.done.recv().ok()?;
        // It was sent; its count follows at once.
        while self.ready.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        self.ready.fetch_sub(1, Ordering::Relaxed);
        Some(done)
    }
}

/// What the loader has been asked for. Loads that nobody waits for come last.
struct Queue {
    inbox: Receiver<Job>,
    loads: VecDeque<Job>,
}

impl Queue {
    /// The next job; waits for it. `None` when none can come any more.
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

/// What `load` says; a panic, which is a defect, ends the load that meets it, not the thread that others wait for.
#[inline(never)]
fn guarded(load: &dyn Fn() -> Result<Arc<Task>>) -> Result<Arc<Task>> {
    let defect = || Error::Internal { what: "a panic while a task was loaded".into() };
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
    // A frame may have begun to make some.
    let outcome = outcome.and_then(|()| task.complete());
    if let Err(error) = &outcome {
        task.fail(error.clone());
    }
    drop(release);
    outcome.map(|()| Arc::clone(task))
}

fn larger(task: &Task, threads: usize, room: &Room) -> Option<Workspace> {
    // Where it is too much, the frame says so.
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
            // It answered all that it could.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loader")
    }
}
