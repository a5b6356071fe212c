//! Retraining pruned networks, one or several at a time.

use super::cut::{Cut, FINISH};
use super::select::{Attempt, Candidate};
use super::{Stage, Tailoring, Teacher};
use crate::net::Params;
use crate::train::student_loss;
use crate::{Error, Result};
use bundles::plan::Counter;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A retrained network, or why there is none.
pub(super) type Outcome = std::result::Result<Tried, Attempt>;

/// A retrained network and its row in the selection.
pub(super) struct Tried {
    pub(super) cut: Cut,
    pub(super) candidate: Candidate,
}

impl Tailoring<'_> {
    /// Retrains a pruned network, without the complexity penalty. If its training diverges, that is the
    /// attempt to report, and no reason to give up the others.
    pub(super) fn retrain(&self, mut cut: Cut, how: &Stage, teacher: &Teacher) -> Result<Outcome> {
        let objective = self.objective(teacher, None);
        let plan = &cut.plan;
        let loss = |params: &Params, batch: &_| student_loss(plan, params, batch, &objective);
        let fingerprint = self.recipe.candidate_fingerprint(&cut.stage, how);
        let validation = match self.run(&cut.stage, &fingerprint, how, plan, &mut cut.params, &loss) {
            Err(why @ Error::Diverged { .. }) => {
                return Ok(Err(Attempt::Diverged { dropped: cut.dropped, why: why.to_string() }));
            }
            validation => validation?,
        };
        let (folded, _) = crate::pack::deploy(&cut.plan, &cut.params)?;
        let candidate = Candidate {
            dropped: cut.dropped,
            stage: cut.stage.clone(),
            finished: cut.stage.starts_with(FINISH),
            validation,
            behind: self.behind(teacher, &cut.plan, &cut.params)?,
            cost: self.recipe.cost.total(&cut.plan)?,
            macs: folded.costs(Counter::True)?.total().macs,
            params: folded.task_params() + folded.backbone_params(),
            proxies: cut.plan.proxies(),
        };
        Ok(Ok(Tried { cut, candidate }))
    }

    /// Retrains all `cuts`, [`jobs`](Tailoring::jobs) at a time, each with an equal share of the threads.
    /// Results are in the order of `cuts` and do not depend on the number of jobs.
    pub(super) fn retrain_all(&self, cuts: Vec<Cut>, how: &Stage, teacher: &Teacher) -> Result<Vec<Outcome>> {
        let jobs = self.jobs.clamp(1, cuts.len().max(1));
        if jobs == 1 {
            return cuts.into_iter().map(|cut| self.retrain(cut, how, teacher)).collect();
        }
        let threads = (rayon::current_num_threads() / jobs).max(1);
        let waiting = Mutex::new(cuts.into_iter().enumerate());
        let done: Mutex<BTreeMap<usize, Outcome>> = Mutex::default();
        let work = || -> Result<()> {
            crate::startup::pool(threads)?.install(|| {
                loop {
                    let Some((place, cut)) = locked(&waiting).next() else { return Ok(()) };
                    match self.retrain(cut, how, teacher) {
                        Ok(outcome) => locked(&done).insert(place, outcome),
                        Err(error) => {
                            // Keep other workers from starting jobs whose results would be discarded.
                            locked(&waiting).by_ref().for_each(drop);
                            return Err(error);
                        }
                    };
                }
            })
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let ends = workers
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            ends.collect::<Vec<_>>().into_iter().collect::<Result<()>>()
        })?;
        Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect())
    }
}

/// Locks `mutex`, poisoned or not: a worker's panic is propagated by `join`.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
