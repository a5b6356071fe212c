//! One thread that runs frames: its worker pool and the memory it works in.

use crate::engine::{Observer, Workspace};
use crate::pool::Pool;
use crate::task::Arriving;
use crate::{Result, Task};
use std::time::Instant;

/// Runs tasks one frame at a time. All tasks share its arena, which is as large as the largest needs.
#[derive(Debug)]
pub struct Session {
    pool: Pool,
    pub(crate) space: Workspace,
}

impl Session {
    /// A session on `threads` threads, the caller's included.
    pub fn new(threads: usize) -> Session {
        Session { pool: Pool::new(threads), space: Workspace::default() }
    }

    /// Threads at work, the caller's included.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Makes room for `task`, so that running it allocates nothing.
    pub fn reserve(&mut self, task: &Task) {
        let (arena, scratch) = (task.program.arena_len, task.program.scratch_len(self.threads()));
        self.space.grow(arena, scratch);
    }

    /// Scores (logits) of `input`, the preprocessed image `(c, h, w)`, row-major.
    ///
    /// Allocates nothing after [`reserve`](Session::reserve) for this task.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) when `input` does not have the size the task expects.
    pub fn run<'a>(&'a mut self, task: &Task, input: &[f32]) -> Result<&'a [f32]> {
        self.run_observed(task, input, &mut ())
    }

    /// [`run`](Session::run), telling `observer` when each step starts and ends.
    pub(crate) fn run_observed<'a>(
        &'a mut self,
        task: &Task,
        input: &[f32],
        observer: &mut impl Observer,
    ) -> Result<&'a [f32]> {
        self.run_until(task, input, None, observer)
    }

    /// [`run_observed`](Session::run_observed) that gives up at `until` when parameters are still on their way.
    pub(crate) fn run_until<'a>(
        &'a mut self,
        task: &Task,
        input: &[f32],
        until: Option<Instant>,
        observer: &mut impl Observer,
    ) -> Result<&'a [f32]> {
        self.reserve(task);
        task.program.run(&Arriving { task, until }, input, &mut self.space, &self.pool, observer)?;
        Ok(task.program.scores(&self.space.arena))
    }
}
