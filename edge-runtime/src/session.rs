//! The thread that runs frames: its worker pool and workspace.

use crate::engine::{Cpu, Executor, Observer, Workspace};
use crate::pool::Pool;
use crate::task::Arriving;
use crate::{Error, Result, Task};
use bundles::container::{Golden, golden_input};
use std::time::Instant;

/// Runs tasks one frame at a time. All tasks share its arena, which is sized for the largest of them.
#[derive(Debug)]
pub struct Session {
    pub(crate) cpu: Cpu,
}

/// Deviation from a golden vector, which was computed in f32, that half precision may cause.
const HALF_TOLERANCE: f32 = 0.02;

/// Result of replaying a golden vector.
#[derive(Debug, Clone, Copy)]
pub struct Replayed<'a> {
    /// The task that it belongs to.
    pub task: &'a Task,
    /// Its input and scores.
    pub golden: &'a Golden,
    /// How far from them the scores are here ([`Golden::distance`]).
    pub distance: f32,
    /// How far they may be: what the bundle allows, or 0.02 if the backbone computes in half precision.
    pub tolerance: f32,
    /// True if they are no further.
    pub passed: bool,
}

impl Session {
    /// A session on `threads` threads, including the caller.
    pub fn new(threads: usize) -> Session {
        Session { cpu: Cpu { pool: Pool::new(threads), space: Workspace::default() } }
    }

    /// Number of threads, including the caller.
    pub fn threads(&self) -> usize {
        self.cpu.pool.threads()
    }

    /// Reserves memory for `task`, so that running it does not allocate.
    ///
    /// # Errors
    /// [`Error::TooLarge`](crate::Error::TooLarge) if the scratch exceeds the limit for a device;
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn reserve(&mut self, task: &Task) -> Result<()> {
        self.cpu.reserve(task.program())
    }

    /// Scores (logits) of `input`, the preprocessed image `(c, h, w)`, row-major.
    ///
    /// Does not allocate after [`reserve`](Session::reserve) for this task.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) if `input` does not have the size the task expects.
    pub fn run<'a>(&'a mut self, task: &Task, input: &[f32]) -> Result<&'a [f32]> {
        self.run_observed(task, input, &mut ())
    }

    /// Replays the golden vectors of `task` and passes each result to `told`.
    ///
    /// # Errors
    /// [`Error::Health`] for the first that failed, after all were replayed, and for a task without any,
    /// since a test that compares nothing has not passed. Otherwise as [`run`](Session::run).
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
            let isa = task.backbone().isa();
            let tolerance = golden.tolerance.max(if isa.is_half() { HALF_TOLERANCE } else { 0.0 });
            let passed = distance <= tolerance;
            told(Replayed { task, golden, distance, tolerance, passed });
            if !passed && outcome.is_ok() {
                outcome = Err(failed(format!(
                    "on {isa} a score is {distance:.3e} from its golden value, {tolerance:.1e} is allowed"
                )));
            }
        }
        outcome
    }

    /// Like [`run`](Session::run); calls `observer` before and after each step.
    pub(crate) fn run_observed<'a>(
        &'a mut self,
        task: &Task,
        input: &[f32],
        observer: &mut impl Observer,
    ) -> Result<&'a [f32]> {
        self.run_until(task, input, None, observer)
    }

    /// Like [`run_observed`](Session::run_observed), but gives up at `until` if parameters are still
    /// arriving.
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
