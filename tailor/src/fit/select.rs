//! Selection among pruned students: the leanest one whose validation accuracy is within tolerance or, with a
//! budget, the most accurate one that fits it.

use super::Behind;

/// One pruned and retrained student.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Blocks dropped by choice (exclusion may have removed more).
    pub dropped: usize,
    /// Name of its retraining stage in metrics and checkpoints.
    pub stage: String,
    /// Whether it has had the long fine-tuning.
    pub finished: bool,
    /// Validation accuracy.
    pub validation: crate::train::Score,
    /// Accuracy gap to the teacher.
    pub behind: Behind,
    /// Cost by the recipe's measure.
    pub cost: f64,
    /// Multiply-adds, `true` counter.
    pub macs: u64,
    /// Parameters, shared and task-owned.
    pub params: u64,
    /// Number of proxies.
    pub proxies: usize,
}

/// The outcome of one way to prune.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// It was retrained.
    Trained(Candidate),
    /// Pruning refused.
    Refused {
        /// Blocks that were to be dropped.
        dropped: usize,
        /// The reason.
        why: String,
    },
    /// Its training diverged: the loss or the network is no longer finite.
    Diverged {
        /// Blocks that were dropped.
        dropped: usize,
        /// Where that was noticed.
        why: String,
    },
    /// The pruned network exceeds the budget and was not retrained.
    Over {
        /// Blocks that were dropped.
        dropped: usize,
        /// Cost by the recipe's measure.
        cost: f64,
        /// Cost and budget as text.
        why: String,
    },
}

impl Attempt {
    /// Number of blocks that were, or were to be, dropped.
    pub fn dropped(&self) -> usize {
        match self {
            Attempt::Trained(Candidate { dropped, .. })
            | Attempt::Refused { dropped, .. }
            | Attempt::Diverged { dropped, .. }
            | Attempt::Over { dropped, .. } => *dropped,
        }
    }

    pub(super) fn trained(&self) -> Option<&Candidate> {
        if let Attempt::Trained(candidate) = self { Some(candidate) } else { None }
    }
}

/// The selection criteria.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// How far validation accuracy may fall short of the teacher's.
    pub tolerance: f64,
    /// Safety margin, in standard errors of the gap, that a network has to keep from the tolerance: the
    /// leanest of many networks is likely to be one that validation flatters. A network with no gap at all is
    /// always within tolerance.
    pub caution: f64,
    /// How far beyond the tolerance a network may be and still be fine-tuned for long, which may recover the
    /// difference.
    pub slack: f64,
    /// Maximum cost, by the recipe's measure.
    pub budget: Option<f64>,
}

/// Rounding error allowed when quotients of integers are compared.
const ROUNDING: f64 = 1e-9;

impl Goal {
    /// Whether the candidate fits the budget.
    fn affords(&self, candidate: &Candidate) -> bool {
        self.budget.is_none_or(|budget| candidate.cost <= budget)
    }

    /// Whether the candidate is within tolerance, by the safety margin.
    pub(super) fn is_within(&self, candidate: &Candidate) -> bool {
        let Candidate { behind, validation, .. } = candidate;
        behind.gap <= (self.tolerance - self.caution * behind.error).max(0.0) + ROUNDING
            && !behind.answers_fall_short(validation.n, self.tolerance)
    }

    /// Whether the candidate is within tolerance, or close enough that the long fine-tuning may bring it
    /// there.
    pub(super) fn is_near(&self, candidate: &Candidate) -> bool {
        let (allowed, Candidate { behind, validation, .. }) = (self.tolerance + self.slack, candidate);
        let beyond = self.slack > 0.0
            && behind.gap <= allowed + ROUNDING
            && !behind.answers_fall_short(validation.n, allowed);
        self.is_within(candidate) || beyond
    }
}

/// All attempts and the winner.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Sorted by number of dropped blocks.
    pub attempts: Vec<Attempt>,
    /// Index of the winner.
    winner: Option<usize>,
    /// Whether the winner is within tolerance. Without a budget, if no candidate is, the most accurate one
    /// wins.
    pub within: bool,
}

impl Selection {
    /// Selects among all attempts. Without a budget, if any candidate has been fine-tuned for long, only among
    /// those: of all others, some would be within tolerance by chance. Within a budget, where accuracy alone
    /// decides, the long fine-tuning may also have made a network worse.
    pub fn of(mut attempts: Vec<Attempt>, goal: &Goal) -> Selection {
        attempts.sort_by_key(Attempt::dropped);
        let affordable = |attempt: &Attempt| attempt.trained().is_some_and(|c| goal.affords(c) && c.finished);
        let finished = attempts.iter().any(affordable);
        let trained = || {
            let all = attempts.iter().enumerate().filter_map(|(i, a)| Some((i, a.trained()?)));
            all.filter(move |(_, c)| goal.affords(c) && (c.finished == finished || goal.budget.is_some()))
        };
        let accurate = || {
            trained().max_by(|(_, a), (_, b)| {
                let falls_short = |c: &Candidate| c.behind.answers_fall_short(c.validation.n, goal.tolerance);
                let by_answers = falls_short(b).cmp(&falls_short(a));
                let by_cost = b.cost.total_cmp(&a.cost);
                by_answers.then(b.behind.gap.total_cmp(&a.behind.gap)).then(by_cost)
            })
        };
        let lean = || {
            let within = trained().filter(|(_, c)| goal.is_within(c));
            within.min_by(|(_, a), (_, b)| {
                a.cost
                    .total_cmp(&b.cost)
                    .then((a.macs, a.params, a.dropped).cmp(&(b.macs, b.params, b.dropped)))
            })
        };
        let won = match goal.budget {
            Some(_) => accurate(),
            None => lean().or_else(accurate),
        };
        let within = won.is_some_and(|(_, candidate)| goal.is_within(candidate));
        let winner = won.map(|(i, _)| i);
        Selection { attempts, winner, within }
    }

    /// The selected network.
    pub fn winner(&self) -> Option<&Candidate> {
        self.winner.and_then(|i| self.attempts.get(i)?.trained())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::train::Score;

    pub(in crate::fit) fn attempt(dropped: usize, right: Option<usize>) -> Attempt {
        match right {
            Some(right) => Attempt::Trained(Candidate {
                dropped,
                stage: format!("prune-{dropped}"),
                finished: false,
                validation: Score { right, n: 1000 },
                behind: Behind {
                    gap: (1000 - right) as f64 / 1000.0,
                    error: 0.0,
                    lost: 1000 - right,
                    won: 0,
                },
                cost: 1000.0 - dropped as f64,
                macs: 1000 - dropped as u64,
                params: 0,
                proxies: 0,
            }),
            None => Attempt::Refused { dropped, why: "cut".into() },
        }
    }

    /// The criteria for a teacher that is always right.
    pub(in crate::fit) fn goal(floor: f64) -> Goal {
        Goal { tolerance: 1.0 - floor, caution: 0.0, slack: 0.0, budget: None }
    }

    pub(in crate::fit) fn chosen(selection: &Selection) -> usize {
        selection.winner().unwrap().dropped
    }

    #[test]
    fn only_what_was_finished_is_kept() {
        let finished = |dropped, right| match attempt(dropped, Some(right)) {
            Attempt::Trained(candidate) => Attempt::Trained(Candidate { finished: true, ..candidate }),
            other => other,
        };
        let short = || (0..5).map(|dropped| attempt(dropped, Some(990)));
        let keeps = |long: Vec<Attempt>| {
            let selection = Selection::of(short().chain(long).collect(), &goal(0.98));
            let won = selection.winner().unwrap();
            (won.dropped, won.finished, selection.within)
        };
        assert_eq!(keeps(vec![]), (4, false, true));
        assert_eq!(keeps(vec![finished(2, 985), finished(3, 979)]), (2, true, true));
        assert_eq!(keeps(vec![finished(2, 970), finished(1, 975)]), (1, true, false));
        let within_budget = |right| {
            let goal = Goal { budget: Some(998.0), ..goal(0.98) };
            let selection = Selection::of(short().chain([finished(3, right)]).collect(), &goal);
            let won = selection.winner().unwrap();
            (won.dropped, won.finished)
        };
        assert_eq!(within_budget(991), (3, true));
        assert_eq!(within_budget(989), (4, false), "no more accurate for it; the leanest of equals");
    }

    #[test]
    fn no_metric_makes_up_for_answers_that_fall_short() {
        // By the metric, the leaner one is ahead of its teacher.
        let likely = |dropped, right| match attempt(dropped, Some(right)) {
            Attempt::Trained(c) => {
                let behind = Behind { gap: 0.02 - dropped as f64 / 100.0, ..c.behind };
                Attempt::Trained(Candidate { behind, ..c })
            }
            other => other,
        };
        for (tolerance, budget, want) in
            [(0.02, None, (1, true)), (0.0, None, (1, false)), (0.0, Some(1e9), (1, false))]
        {
            let goal = Goal { tolerance, budget, ..goal(0.0) };
            let selection = Selection::of(vec![likely(1, 997), likely(3, 600)], &goal);
            assert_eq!((chosen(&selection), selection.within), want, "{goal:?}");
        }
        let Attempt::Trained(poor) = likely(3, 600) else { unreachable!() };
        assert!(
            !Goal { slack: 0.1, ..goal(0.9) }.is_near(&poor)
                && Goal { slack: 0.3, ..goal(0.9) }.is_near(&poor)
        );
    }

    #[test]
    fn the_safety_margin_applies_unless_there_is_no_gap() {
        let cautious = Goal { tolerance: 0.01, caution: 1.0, slack: 0.0, budget: None };
        let within = |goal: &Goal, gap, error| {
            let Attempt::Trained(candidate) = attempt(0, Some(0)) else { unreachable!() };
            let behind = Behind { gap, error, lost: 0, won: 0 };
            goal.is_within(&Candidate { behind, ..candidate })
        };
        for (gap, error, keeps) in
            [(0.007, 0.003, true), (0.008, 0.003, false), (0.003, 0.007, true), (0.004, 0.007, false)]
        {
            assert_eq!(within(&cautious, gap, error), keeps, "{gap} behind, give or take {error}");
        }
        let near = Goal { slack: 0.002, ..cautious };
        let is_near = |goal: &Goal, gap| {
            let Attempt::Trained(candidate) = attempt(0, Some(0)) else { unreachable!() };
            let behind = Behind { gap, error: 0.004, lost: 0, won: 0 };
            goal.is_near(&Candidate { behind, ..candidate })
        };
        assert!(is_near(&near, 0.012) && !is_near(&near, 0.013));
        assert!(is_near(&cautious, 0.006) && !is_near(&cautious, 0.007), "nothing wins it back");
        assert!(within(&cautious, 0.0, 0.5) && !within(&cautious, 0.001, 0.5), "not behind is within");
        assert!(within(&Goal { caution: 0.0, ..cautious }, 0.01, 0.5), "validation's word as it is");
    }
}
