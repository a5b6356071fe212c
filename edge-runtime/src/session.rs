//! One thread that runs frames: its worker pool and the memory it works in.

use crate::engine::{Cpu, Executor, Observer, Workspace};
use crate::pool::Pool;
use crate::task::Arriving;
use crate::{Error, Result, Task};
use bundles::container::{Golden, golden_input};
use std::time::Instant;

/// Runs tasks one frame at a time. All tasks share its arena, which is as large as the largest needs.
#[derive(Debug)]
pub struct Session {
    pub(crate) cpu: Cpu,
}

/// What became of a golden vector.
#[derive(Debug, Clone, Copy)]
pub struct Replayed<'a> {
    /// The task that it belongs to.
    pub task: &'a Task,
    /// Its input and scores.
    pub golden: &'a Golden,
    /// How far from them the scores are here ([`Golden::distance`]).
    pub distance: f32,
    /// True when that is within its tolerance.
    pub passed: bool,
}

impl Session {
    /// A session on `threads` threads, the caller's included.
    pub fn new(threads: usize) -> Session {
        Session { cpu: Cpu { pool: Pool::new(threads), space: Workspace::default() } }
    }

    /// Threads at work, the caller's included.
    pub fn threads(&self) -> usize {
        self.cpu.pool.threads()
    }

    /// Makes room for `task`, so that running it allocates nothing.
    ///
    /// # Errors
    /// [`Error::TooLarge`](crate::Error::TooLarge) for more scratch than a device may be asked for;
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn reserve(&mut self, task: &Task) -> Result<()> {
        self.cpu.reserve(task.program())
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

    /// Replays the golden vectors of `task`, and tells `told` of each.
    ///
    /// # Errors
    /// [`Error::Health`], once all are replayed, for the first that did not pass, and for a task that has none:
    /// what compares nothing is no test passed. Otherwise as [`run`](Session::run).
    pub fn replay(&mut self, task: &Task, mut told: impl FnMut(Replayed<'_>)) -> Result<()> {
        let failed = |why| Error::Health { task: task.name().into(), why };
        if task.golden().is_empty() {
            return Err(failed("it has none to replay; pack it again".into()));
        }
        let mut outcome = Ok(());
        let mut input = vec![0.0; task.input().len()];
        for golden in task.golden() {
            golden_input(golden.seed, &mut input);
            let distance = golden.distance(self.run(task, &input)?);
            let passed = distance <= golden.tolerance;
            told(Replayed { task, golden, distance, passed });
            if !passed && outcome.is_ok() {
                let (isa, tolerance) = (task.backbone().isa(), golden.tolerance);
                outcome = Err(failed(format!(
                    "on {isa} a score is {distance:.3e} from its golden value, {tolerance:.1e} is allowed"
                )));
            }
        }
        outcome
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
        self.reserve(task)?;
        task.program().run(&mut self.cpu, &Arriving::new(task, until), input, observer)?;
        self.cpu.scores(task.program())
    }
}
