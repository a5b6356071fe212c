//! From trained gates to the deployed network: cut, retrain, select.

#[cfg(test)]
mod tests;

use super::cut::Cut;
use super::iterate::THINNINGS;
use super::retrain::{Outcome, Tried};
use super::search::{bisect, descend, gallop_and_return, leanest, sweep, worth_finishing};
use super::select::{Attempt, Candidate, Goal, Selection};
use super::{Behind, Recipe, Search, Student, Tailoring, Teacher};
use crate::net::{Gating, Params};
use crate::train::Score;
use crate::{Error, Result};
use bundles::plan::Plan;
use std::collections::BTreeMap;

/// The network that goes to the device.
pub struct Pruned {
    /// What survived.
    pub plan: Plan,
    /// Retrained parameters.
    pub params: Params,
    /// Accuracy on validation.
    pub validation: Score,
    /// Accuracy gap to the teacher.
    pub behind: Behind,
    /// How it was selected.
    pub selection: Selection,
}

/// How far beyond the tolerance, in tolerances, the long fine-tuning may recover.
const REACH: f64 = 2.0;

/// Retrained networks by stage.
#[derive(Default)]
struct Tries(BTreeMap<String, Cut>);

impl Tries {
    fn put(&mut self, cut: Cut) {
        self.0.insert(cut.stage.clone(), cut);
    }

    fn keep(&mut self, outcome: Outcome) -> Attempt {
        match outcome {
            Ok(Tried { cut, candidate }) => {
                self.put(cut);
                Attempt::Trained(candidate)
            }
            Err(attempt) => attempt,
        }
    }

    /// Removes and returns the networks of these candidates, in order.
    fn take(&mut self, candidates: &[Candidate]) -> Vec<Cut> {
        candidates.iter().filter_map(|candidate| self.0.remove(&candidate.stage)).collect()
    }
}

/// Whether networks were fine-tuned for long and none came within tolerance: the step that led to them was
/// too large after all.
fn nothing_kept(finished: &[Attempt], goal: &Goal) -> bool {
    !finished.is_empty() && finished.iter().filter_map(Attempt::trained).all(|c| !goal.is_within(c))
}

impl Tailoring<'_> {
    /// Prunes and retrains by the recipe's search, [fine-tunes](Recipe::finish) promising candidates for
    /// long, and repeats both with fewer and fewer proxies. Selects the leanest network within tolerance of
    /// the teacher's validation accuracy or, with a budget, the most accurate network that fits it.
    ///
    /// # Errors
    /// Any error of training; [`Error::Training`] if no connected network fits.
    pub fn prune(&self, teacher: &Teacher, student: &Student) -> Result<Pruned> {
        let goal = self.goal()?;
        let mut tries = Tries::default();
        let mut attempts = self.search(teacher, student, &goal, &mut tries)?;
        attempts.extend(self.finish(&worth_finishing(&attempts, &goal), true, teacher, &goal, &mut tries)?);
        for left_out in 0..THINNINGS.len() {
            let thinned = self.thin(&attempts, left_out, teacher, &goal, &mut tries)?;
            let mut finished = Vec::new();
            if leanest(&thinned, &goal).is_some() {
                finished =
                    self.finish(&worth_finishing(&thinned, &goal), false, teacher, &goal, &mut tries)?;
            }
            let go_on = nothing_kept(&finished, &goal);
            // A round may arrive at the same networks as the previous one.
            let known = attempts.clone();
            let is_new = |a: &Attempt| match a.trained() {
                Some(c) => known.iter().filter_map(Attempt::trained).all(|known| known.stage != c.stage),
                None => !known.contains(a),
            };
            attempts.extend(finished.into_iter().chain(thinned).filter(is_new));
            if !go_on {
                break;
            }
        }
        let selection = Selection::of(attempts, &goal);
        let won = selection.winner().and_then(|won| Some((tries.0.remove(&won.stage)?, won)));
        let Some((cut, &Candidate { validation, behind, .. })) = won else {
            return Err(self.nothing(&selection));
        };
        Ok(Pruned { plan: cut.plan, params: cut.params, validation, behind, selection })
    }

    /// All attempts of the recipe's search; the retrained networks go into `tries`.
    fn search(
        &self,
        teacher: &Teacher,
        student: &Student,
        goal: &Goal,
        tries: &mut Tries,
    ) -> Result<Vec<Attempt>> {
        let how = &self.recipe.retrain;
        let first = self.closed_blocks(student)?;
        let numbers = first..=student.plan.blocks();
        match self.recipe.search {
            Search::Sweep => sweep(numbers, |numbers| {
                let (mut attempts, mut cuts) = (Vec::new(), Vec::new());
                for &dropped in numbers {
                    match self.affordable(student, dropped, goal)? {
                        Ok(cut) => cuts.push(cut),
                        Err(attempt) => attempts.push(attempt),
                    }
                }
                let all = self.retrain_all(cuts, how, teacher)?;
                attempts.extend(all.into_iter().map(|outcome| tries.keep(outcome)));
                attempts.sort_by_key(Attempt::dropped);
                Ok(attempts)
            }),
            Search::Bisect => bisect(numbers, goal, |dropped| {
                Ok(match self.affordable(student, dropped, goal)? {
                    Ok(cut) => tries.keep(self.retrain(cut, how, teacher)?),
                    Err(attempt) => attempt,
                })
            }),
            Search::Iterative => {
                let cut = match self.cut(student, first)? {
                    Ok(cut) => cut,
                    Err(refused) => return Ok(vec![refused]),
                };
                let first = match self.retrain(cut, how, teacher)? {
                    Ok(first) => first,
                    Err(diverged) => return Ok(vec![diverged]),
                };
                let leaner = |at: &Tried, blocks| self.leaner(&at.cut, blocks);
                // On the way to a budget, one at a time, so as not to overshoot it.
                let longest = if goal.budget.is_some() { 1 } else { usize::MAX };
                self.descend(first, goal, longest, leaner, teacher, tries)
            }
        }
    }

    /// [Descends](descend) from `first` and returns it and all networks that were tried.
    fn descend(
        &self,
        first: Tried,
        goal: &Goal,
        longest: usize,
        leaner: impl Fn(&Tried, usize) -> Result<Vec<Cut>>,
        teacher: &Teacher,
        tries: &mut Tries,
    ) -> Result<Vec<Attempt>> {
        let mut diverged = Vec::new();
        let retrain = |cut| {
            let outcome = self.retrain(cut, &self.recipe.retrain, teacher)?;
            Ok(outcome.map_err(|attempt| diverged.push(attempt)).ok())
        };
        let all = descend(first, goal, longest, |at| &at.candidate, leaner, retrain)?;
        Ok(all.into_iter().map(|tried| tries.keep(Ok(tried))).chain(diverged).collect())
    }

    /// Fine-tunes some of these candidates for long to find the leanest one that is then within tolerance. If
    /// none is and `skipped_too`, those in between follow if they are within tolerance as they are: validation
    /// is noisy, and one of them may stay there although none around it does.
    fn finish(
        &self,
        candidates: &[Candidate],
        skipped_too: bool,
        teacher: &Teacher,
        goal: &Goal,
        tries: &mut Tries,
    ) -> Result<Vec<Attempt>> {
        let Some(how) = self.recipe.finishing() else { return Ok(Vec::new()) };
        let cuts = tries.take(candidates);
        let attempts = gallop_and_return(
            0..cuts.len(),
            |n| skipped_too && goal.is_within(&candidates[n]),
            |candidate| goal.is_within(candidate),
            |n| Ok(tries.keep(self.retrain(cuts[n].to_finish()?, &how, teacher)?)),
        )?;
        // They count again if all that was finished has diverged; within a budget, they always count.
        cuts.into_iter().for_each(|cut| tries.put(cut));
        Ok(attempts)
    }

    /// Continues from the network that would be selected to fewer and fewer proxies, skipping the first
    /// `left_out` thinnings. Not after a sweep, which follows the paper and leaves proxies to their gates.
    fn thin(
        &self,
        attempts: &[Attempt],
        left_out: usize,
        teacher: &Teacher,
        goal: &Goal,
        tries: &mut Tries,
    ) -> Result<Vec<Attempt>> {
        if self.recipe.search == Search::Sweep || goal.budget.is_some() {
            return Ok(Vec::new());
        }
        let selection = Selection::of(attempts.to_vec(), goal);
        let Some(candidate) = selection.winner().filter(|_| selection.within) else { return Ok(Vec::new()) };
        let Some(cut) = tries.0.remove(&candidate.stage) else { return Ok(Vec::new()) };
        let thinner = |at: &Tried, _| self.thinner(&at.cut, left_out);
        let first = Tried { cut, candidate: candidate.clone() };
        let all = self.descend(first, goal, 1, thinner, teacher, tries)?;
        // The first is known already.
        Ok(all.into_iter().skip(1).collect())
    }

    /// Prunes `dropped` blocks and retrains the rest (one candidate of a sweep), unless pruning refuses or
    /// the budget is exceeded.
    ///
    /// # Errors
    /// Any error of training.
    pub fn candidate(&self, teacher: &Teacher, student: &Student, dropped: usize) -> Result<Attempt> {
        let goal = self.goal()?;
        Ok(match self.affordable(student, dropped, &goal)? {
            Ok(cut) => match self.retrain(cut, &self.recipe.retrain, teacher)? {
                Ok(tried) => Attempt::Trained(tried.candidate),
                Err(attempt) => attempt,
            },
            Err(attempt) => attempt,
        })
    }

    /// The student without its `dropped` lowest-ranked blocks, if that network fits the budget.
    fn affordable(
        &self,
        student: &Student,
        dropped: usize,
        goal: &Goal,
    ) -> Result<std::result::Result<Cut, Attempt>> {
        Ok(match self.cut(student, dropped)? {
            Ok(cut) => match self.over(&cut, goal)? {
                Some(over) => Err(over),
                None => Ok(cut),
            },
            refused => refused,
        })
    }

    fn goal(&self) -> Result<Goal> {
        let backbone = self.backbone_plan()?;
        let budget = self.recipe.budget.map(|b| b.resolve(&self.recipe.cost, &backbone)).transpose()?;
        let Recipe { tolerance, caution, .. } = *self.recipe;
        let slack = if self.recipe.finishing().is_some() { REACH * tolerance } else { 0.0 };
        Ok(Goal { tolerance, caution, slack, budget })
    }

    /// What to do if too many proxies are closed.
    fn to_open_proxies(&self) -> &'static str {
        match self.recipe.gating {
            Gating::Softmax => "train longer or lower --theta",
            Gating::HardConcrete => "lower --gamma1 or let proxies reach further with --skips",
        }
    }

    /// The attempt to report, without training, for a network that exceeds the budget.
    fn over(&self, cut: &Cut, goal: &Goal) -> Result<Option<Attempt>> {
        let cost = self.recipe.cost.total(&cut.plan)?;
        let Some(budget) = goal.budget.filter(|budget| cost > *budget) else { return Ok(None) };
        let why = format!("{} of {}", self.recipe.cost.say(cost), self.recipe.cost.say(budget));
        Ok(Some(Attempt::Over { dropped: cut.dropped, cost, why }))
    }

    fn nothing(&self, selection: &Selection) -> Error {
        let leanest = selection.attempts.iter().filter_map(|attempt| match attempt {
            Attempt::Over { cost, .. } | Attempt::Trained(Candidate { cost, .. }) => Some(*cost),
            Attempt::Refused { .. } | Attempt::Diverged { .. } => None,
        });
        let has_diverged = |attempt: &Attempt| matches!(attempt, Attempt::Diverged { .. });
        let diverged = selection.attempts.iter().filter(|attempt| has_diverged(attempt)).count();
        if diverged > 0 && selection.attempts.iter().all(|attempt| attempt.trained().is_none()) {
            return Error::training(
                "prune",
                format!("the training of every candidate diverged ({diverged} of them)"),
                "lower --retrain-rate",
            );
        }
        let is_refused = |attempt: &Attempt| matches!(attempt, Attempt::Refused { .. });
        let refused = selection.attempts.iter().filter(|attempt| is_refused(attempt)).count();
        match leanest.min_by(f64::total_cmp) {
            Some(cost) if refused > 0 => Error::training(
                "prune",
                format!(
                    "no network fits the budget; the leanest connected one takes {}, and leaner ones ({refused}) are disconnected",
                    self.recipe.cost.say(cost)
                ),
                format!("{} so that proxies stay open, or raise --budget", self.to_open_proxies()),
            ),
            Some(cost) => Error::training(
                "prune",
                format!(
                    "no network fits the budget; the leanest one tried takes {}",
                    self.recipe.cost.say(cost)
                ),
                match self.recipe.search {
                    Search::Iterative => "raise --budget, or let proxies reach further with --skips",
                    Search::Sweep | Search::Bisect => {
                        "raise --budget, or use --search iterative, which drops proxies as well"
                    }
                },
            ),
            None => Error::training(
                "prune",
                "no number of dropped blocks leaves a connected network",
                self.to_open_proxies(),
            ),
        }
    }
}
