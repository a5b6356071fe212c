//! Asking for a switch from another thread than the one that runs frames.

use super::TaskId;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Asks a [`Runtime`](super::Runtime) for switches, from any thread.
///
/// Asking is one store and waits for nobody. The switch takes place before the next frame, never during one; the
/// frame's thread looks with one load and waits for nobody either. The latest request counts.
#[derive(Debug, Clone, Default)]
pub struct Switcher {
    /// The slot asked for plus one; zero when nothing is.
    asked: Arc<AtomicUsize>,
}

impl Switcher {
    /// Makes `id` the task of the next frame. Where it is still being loaded, frames go on with the running
    /// task until it is ready. A task that is not resident is not switched to: the running one stays,
    /// [`Stats::failed_switches`](crate::Stats::failed_switches) counts it, and
    /// [`Runtime::poll`](super::Runtime::poll) says why.
    pub fn switch(&self, id: TaskId) {
        self.asked.store(id.0 + 1, Ordering::Release);
    }

    /// The slot asked for since the last call.
    pub(super) fn take(&self) -> Option<usize> {
        // A load first: most frames find nothing, and need not own the cache line for that.
        match self.asked.load(Ordering::Relaxed) {
            0 => None,
            _ => self.asked.swap(0, Ordering::Acquire).checked_sub(1),
        }
    }
}
