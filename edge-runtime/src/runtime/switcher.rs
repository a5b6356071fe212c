//! Requesting a switch from a thread other than the one that runs frames.

use super::TaskId;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests switches of a [`Runtime`](super::Runtime) from any thread.
///
/// A request is a single store and never blocks. The switch takes place before the next frame, never during
/// one; the frame thread checks with a single load and never blocks either. The latest request wins.
#[derive(Debug, Clone, Default)]
pub struct Switcher {
    /// The requested slot plus one; zero if there is no request.
    asked: Arc<AtomicUsize>,
}

impl Switcher {
    /// Makes `id` the task of the next frame. If it is still being loaded, frames continue with the running
    /// task until it is ready. If it is not resident, the running task stays,
    /// [`Stats::failed_switches`](crate::Stats::failed_switches) counts the request, and
    /// [`Runtime::poll`](super::Runtime::poll) says why.
    pub fn switch(&self, id: TaskId) {
        self.asked.store(id.0 + 1, Ordering::Release);
    }

    /// The slot requested since the last call.
    pub(super) fn take(&self) -> Option<usize> {
        // Load first: most frames find nothing and need not own the cache line for that.
        match self.asked.load(Ordering::Relaxed) {
            0 => None,
            _ => self.asked.swap(0, Ordering::Acquire).checked_sub(1),
        }
    }
}
