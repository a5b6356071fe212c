//! A small persistent thread pool with static splits, for work that lasts microseconds.
//!
//! Each thread owns a share of the parts of a run and claims it when it wakes up; a thread that has finished
//! its own share takes over unclaimed ones. A worker that the OS does not schedule therefore delays a frame
//! only if it is preempted in the middle of its share.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a worker spins before it parks: longer than the gap between two layers of a frame, much shorter
/// than the gap between two frames, and short enough not to matter when no core is free for it.
const SPIN: Duration = Duration::from_micros(60);

/// Maximum number of threads in a pool, including the caller.
pub const MOST_THREADS: usize = 256;

/// Spins between two reads of the clock.
const SPINS: usize = 64;

/// The current run; valid while `Shared::pending` is above zero.
#[derive(Clone, Copy)]
struct Job {
    /// The closure, with its lifetime erased.
    f: *const (dyn Fn(usize) + Sync),
    parts: usize,
    threads: usize,
}

/// A counter on its own cache line.
#[derive(Default)]
#[repr(align(64))]
struct Counter(AtomicUsize);

struct Shared {
    /// Written by the caller of [`Pool::run`] while no part is pending; read by whoever has claimed a share.
    job: UnsafeCell<Option<Job>>,
    /// Per thread, the caller first: 1 while its share is unclaimed.
    unclaimed: Box<[Counter]>,
    /// Shares of the current run that are not finished.
    pending: Counter,
    /// Counts runs, so that workers notice a new one.
    epoch: AtomicUsize,
    /// Set when a part of the current run panicked.
    panicked: AtomicBool,
    stop: AtomicBool,
    /// Workers that have started.
    started: AtomicUsize,
    /// Per worker: true while it is parked or about to be.
    parked: Box<[AtomicBool]>,
}

// SAFETY: `job` is the only field that is not `Sync` by itself. It is written only under `Pool::turn` while
// nothing is pending, and read only between claiming a share and counting it out of `pending`.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer inside points to a `Sync` closure, so it may be called from any thread.
unsafe impl Send for Shared {}

/// Persistent worker threads; the thread that calls [`run`](Pool::run) works too.
///
/// Nothing is allocated after construction. A run started while another is in progress (from a second thread,
/// or from inside a part) is executed by its caller alone, so nesting is slow but cannot deadlock.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
    turn: Mutex<()>,
}

/// The indices of `parts` that thread `t` of `n` takes: contiguous, with sizes differing by at most one.
pub(crate) fn share(parts: usize, t: usize, n: usize) -> std::ops::Range<usize> {
    let (each, rest) = (parts / n, parts % n);
    let start = t * each + t.min(rest);
    start..start + each + usize::from(t < rest)
}

impl Pool {
    /// A pool of `threads` threads, including the caller, capped at [`MOST_THREADS`]. If the system refuses
    /// to create a thread, the pool is smaller; see [`threads`](Pool::threads).
    pub fn new(threads: usize) -> Pool {
        Pool::start(threads, work)
    }

    /// A pool whose workers run `work`.
    fn start(threads: usize, work: impl Fn(&Shared, usize) + Clone + Send + 'static) -> Pool {
        let count = threads.clamp(1, MOST_THREADS) - 1;
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            unclaimed: (0..=count).map(|_| Counter::default()).collect(),
            pending: Counter::default(),
            epoch: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            started: AtomicUsize::new(0),
            parked: (0..count).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut workers = Vec::with_capacity(count);
        for index in 0..count {
            let (mine, work) = (Arc::clone(&shared), work.clone());
            let name = format!("edge-worker-{index}");
            let life = move || {
                mine.started.fetch_add(1, Ordering::Release);
                work(&mine, index);
            };
            let Ok(handle) = thread::Builder::new().name(name).spawn(life) else { break };
            let thread = handle.thread().clone();
            workers.push((handle, thread));
        }
        // A new thread's own allocations should happen here, not during the first frame.
        while shared.started.load(Ordering::Acquire) < workers.len() {
            thread::yield_now();
        }
        Pool { shared, workers, turn: Mutex::new(()) }
    }

    /// A pool that runs everything on the calling thread.
    pub fn single() -> Pool {
        Pool::new(1)
    }

    /// Number of threads that share a run, including the caller.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `f(0)` to `f(parts - 1)`, each exactly once, and returns when all are done.
    ///
    /// Thread `t` takes a contiguous range of parts, the same one on every call, so caches stay warm.
    ///
    /// # Panics
    /// If a part panicked, after all others have finished.
    pub fn run(&self, parts: usize, f: &(dyn Fn(usize) + Sync)) {
        let n = self.threads();
        let turn = if n > 1 && parts > 1 { self.turn.try_lock().ok() } else { None };
        let Some(turn) = turn else {
            (0..parts).for_each(f);
            return;
        };
        // SAFETY: only the lifetime changes. The pointer is used only between claiming a share and counting
        // it out of `pending`, and this function does not return or unwind before `pending` is zero.
        let f_static: *const (dyn Fn(usize) + Sync) =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
        let shared = &*self.shared;
        // SAFETY: `turn` is held and no share is pending or claimable, so no other thread reads the job.
        unsafe { *shared.job.get() = Some(Job { f: f_static, parts, threads: n }) };
        let shares = n.min(parts);
        shared.pending.0.store(shares, Ordering::Relaxed);
        for unclaimed in shared.unclaimed.iter().take(shares) {
            unclaimed.0.store(1, Ordering::Release);
        }
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (index, (_, thread)) in self.workers.iter().enumerate() {
            if shared.parked[index].swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
        let mine = shared.work_off(0);
        let mut spins = 0;
        while shared.pending.0.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < 16 * SPINS {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
        let panicked = shared.panicked.swap(false, Ordering::Relaxed);
        drop(turn);
        if let Err(panic) = mine {
            std::panic::resume_unwind(panic);
        }
        assert!(!panicked, "a part of a parallel run panicked on a worker thread");
    }

    /// Splits `data` into chunks of `chunk` elements (the last may be shorter) and calls `f(index, chunk)`
    /// for each, in parallel.
    pub fn for_each_chunk<T: Send>(
        &self,
        data: &mut [T],
        chunk: usize,
        f: &(dyn Fn(usize, &mut [T]) + Sync),
    ) {
        if chunk == 0 {
            return;
        }
        let len = data.len();
        let base = Base(data.as_mut_ptr());
        self.run(len.div_ceil(chunk), &|index| {
            let start = index * chunk;
            // SAFETY: `start < len` because `index < ceil(len / chunk)`; the range ends at `len` at most; and
            // `run` passes every index exactly once, so no two of these slices overlap. `data` stays mutably
            // borrowed until `run` has returned.
            let part = unsafe { std::slice::from_raw_parts_mut(base.at(start), chunk.min(len - start)) };
            f(index, part);
        });
    }
}

/// A pointer that may cross threads; its user keeps the elements touched by each thread disjoint.
struct Base<T>(*mut T);

impl<T> Base<T> {
    fn at(&self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

// SAFETY: see the type: the only user, `for_each_chunk`, gives each thread its own range of elements, which
// are `Send`.
unsafe impl<T: Send> Sync for Base<T> {}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (handle, thread) in self.workers.drain(..) {
            thread.unpark();
            // A worker catches the panics of its parts, so `join` cannot fail in a way worth reporting.
            let _ = handle.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Shared {
    /// Claims and runs shares until none is left, starting with that of thread `first`.
    ///
    /// # Errors
    /// The payload of the first part that panicked on this thread.
    fn work_off(&self, first: usize) -> thread::Result<()> {
        let mut outcome = Ok(());
        let n = self.unclaimed.len();
        for t in (first..n).chain(0..first) {
            // Check with a plain load first: usually there is nothing, and a load does not take the cache
            // line from its owner. The swap is Acquire so that whoever claims a share sees its job.
            let unclaimed = &self.unclaimed[t].0;
            if unclaimed.load(Ordering::Relaxed) == 0 || unclaimed.swap(0, Ordering::Acquire) == 0 {
                continue;
            }
            // SAFETY: this share is claimed and not yet counted out, so the caller of `run` is waiting: the
            // job is set and nobody writes it. It may belong to a later run than the one this loop started
            // with.
            if let Some(job) = unsafe { *self.job.get() } {
                let parts = share(job.parts, t, job.threads);
                // SAFETY: as above, the closure outlives this call.
                let f = unsafe { &*job.f };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| parts.for_each(f))) {
                    self.panicked.store(true, Ordering::Relaxed);
                    // Further payloads are not dropped, because that could panic again. On a worker, the caller
                    // of `run` would then wait forever; on the caller's thread, `run` would unwind while workers
                    // still use the job.
                    match outcome {
                        Ok(()) => outcome = Err(panic),
                        Err(_) => std::mem::forget(panic),
                    }
                }
            }
            self.pending.0.fetch_sub(1, Ordering::Release);
        }
        outcome
    }
}

/// A worker's main loop: wait for the epoch to change, then work off shares.
fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let (mut until, mut spins) = (None, 0);
        loop {
            let epoch = shared.epoch.load(Ordering::SeqCst);
            if epoch != seen {
                seen = epoch;
                break;
            }
            std::hint::spin_loop();
            spins += 1;
            if spins % SPINS != 0 {
                continue;
            }
            let now = Instant::now();
            if now < *until.get_or_insert(now + SPIN) {
                continue;
            }
            // The order matters: set the flag, then check the epoch again. `run` advances the epoch, then
            // checks the flag, so at least one of the two sees the other. A swap, because QEMU lets an
            // aarch64 store and the following load be reordered on x86, whatever their ordering.
            shared.parked[index].swap(true, Ordering::SeqCst);
            if shared.epoch.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            shared.parked[index].store(false, Ordering::SeqCst);
        }
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // The panic is recorded in `panicked` for the caller of `run`; dropping its payload could end this
        // thread.
        if let Err(panic) = shared.work_off(index + 1) {
            std::mem::forget(panic);
        }
    }
}

#[cfg(test)]
mod tests;
