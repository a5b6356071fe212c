//! Which pruned student wins: the leanest one whose validation accuracy stays within tolerance, or the most accurate one
//! within a budget.

use super::recipe::Search;
use crate::Result;
use std::ops::RangeInclusive;

/// One pruned and retrained student.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Blocks dropped by choice (exclusion may have removed more).
    pub dropped: usize,
    /// Name of its retraining in metrics and checkpoints.
    pub stage: String,
    /// Right answers on validation, and its images.
    pub validation: crate::train::Score,
    /// What it costs by the recipe's measure.
    pub cost: f64,
    /// Multiply-adds, `true` counter.
    pub macs: u64,
    /// Parameters, shared and task-owned.
    pub params: u64,
}

/// What became of one way to prune.
#[derive(Debug, Clone, PartialEq)]
pub enum Attempt {
    /// It was retrained.
    Trained(Candidate),
    /// Pruning refused: the reason.
    Refused {
        /// Blocks that were to be dropped.
        dropped: usize,
        /// Why not.
        why: String,
    },
    /// What is left costs more than the budget.
    Over {
        /// Blocks that were dropped.
        dropped: usize,
        /// Its cost by the recipe's measure.
        cost: f64,
        /// Cost and budget in words.
        why: String,
    },
}

impl Attempt {
    /// Blocks that were, or were to be, dropped.
    pub fn dropped(&self) -> usize {
        match self {
            Attempt::Trained(Candidate { dropped, .. })
            | Attempt::Refused { dropped, .. }
            | Attempt::Over { dropped, .. } => *dropped,
        }
    }

    fn trained(&self) -> Option<&Candidate> {
        if let Attempt::Trained(candidate) = self { Some(candidate) } else { None }
    }
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// Validation accuracy that counts as within tolerance.
    pub floor: f64,
    /// The most a network may cost, by the recipe's measure.
    pub budget: Option<f64>,
}

/// All attempts, and the winner.
#[derive(Debug, Clone)]
pub struct Selection {
    /// By number of dropped blocks.
    pub attempts: Vec<Attempt>,
    /// Which of them won.
    winner: Option<usize>,
    /// Whether the winner keeps within tolerance; without a budget, when nothing does, the most accurate one wins.
    pub within: bool,
}

impl Selection {
    /// Chooses from all that was tried.
    pub fn of(attempts: Vec<Attempt>, goal: &Goal) -> Selection {
        let trained = || attempts.iter().enumerate().filter_map(|(i, a)| Some((i, a.trained()?)));
        let accurate = || {
            trained().max_by(|(_, a), (_, b)| {
                let by_cost = b.cost.total_cmp(&a.cost);
                a.validation.accuracy().total_cmp(&b.validation.accuracy()).then(by_cost)
            })
        };
        let lean = || {
            let within = trained().filter(|(_, c)| c.validation.accuracy() >= goal.floor);
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
        let within = won.is_some_and(|(_, candidate)| candidate.validation.accuracy() >= goal.floor);
        let winner = won.map(|(i, _)| i);
        Selection { attempts, winner, within }
    }

    /// The network that is kept.
    pub fn winner(&self) -> Option<&Candidate> {
        self.winner.and_then(|i| self.attempts.get(i)?.trained())
    }
}

/// Searches these numbers of dropped blocks. `attempt` prunes and retrains several of them, in any order it likes, and
/// answers in theirs.
///
/// # Errors
/// Whatever `attempt` reports.
pub fn search(
    strategy: Search,
    numbers: RangeInclusive<usize>,
    goal: &Goal,
    mut attempt: impl FnMut(&[usize]) -> Result<Vec<Attempt>>,
) -> Result<Selection> {
    let mut attempts = Vec::new();
    match strategy {
        Search::Sweep | Search::Iterative => {
            for tried in attempt(&numbers.collect::<Vec<_>>())? {
                let refused = matches!(tried, Attempt::Refused { .. });
                attempts.push(tried);
                // Ranks are fixed, so a larger cut contains this one and falls apart as well.
                if refused {
                    break;
                }
            }
        }
        // Dropping more never helps accuracy, so the first network within the budget is the best one.
        Search::Bisect if goal.budget.is_some() => {
            for dropped in numbers {
                attempts.extend(attempt(&[dropped])?);
                if !matches!(attempts.last(), Some(Attempt::Over { .. })) {
                    break;
                }
            }
        }
        Search::Bisect => {
            let first = *numbers.start();
            let (mut good, mut bad) = (None, numbers.end() + 1);
            while good.map_or(first, |g: usize| g + 1) < bad {
                let low = good.map_or(first, |g| g + 1);
                let middle = low + (bad - 1 - low) / 2;
                let tried = attempt(&[middle])?;
                let keeps = |a: &Attempt| a.trained().is_some_and(|c| c.validation.accuracy() >= goal.floor);
                if tried.iter().any(keeps) {
                    good = Some(middle);
                } else {
                    bad = middle;
                }
                attempts.extend(tried);
            }
        }
    }
    Ok(Selection::of(attempts, goal))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Score;

    fn attempt(dropped: usize, right: Option<usize>) -> Attempt {
        match right {
            Some(right) => Attempt::Trained(Candidate {
                dropped,
                stage: format!("prune-{dropped}"),
                validation: Score { right, n: 1000 },
                cost: 1000.0 - dropped as f64,
                macs: 1000 - dropped as u64,
                params: 0,
            }),
            None => Attempt::Refused { dropped, why: "cut".into() },
        }
    }

    fn chosen(selection: &Selection) -> usize {
        selection.winner().unwrap().dropped
    }

    /// Accuracy in thousandths after dropping each number of blocks; `None` where the network falls apart.
    fn run(strategy: Search, accuracies: &[Option<usize>], floor: f64) -> (Selection, Vec<usize>) {
        let mut asked = Vec::new();
        let goal = Goal { floor, budget: None };
        let selection = search(strategy, 0..=accuracies.len() - 1, &goal, |numbers| {
            asked.extend_from_slice(numbers);
            Ok(numbers.iter().map(|&dropped| attempt(dropped, accuracies[dropped])).collect())
        });
        (selection.unwrap(), asked)
    }

    #[test]
    fn the_leanest_within_tolerance_wins() {
        let cases: [(&[Option<usize>], f64, usize, bool); 4] = [
            (&[Some(990), Some(985), Some(970), Some(900), None], 0.98, 1, true),
            (&[Some(990), Some(985), Some(984), Some(983), None], 0.98, 3, true),
            (&[Some(970), Some(975), Some(900), Some(800), None], 0.98, 1, false),
            (&[Some(985), None, None, None, None], 0.98, 0, true),
        ];
        for (accuracies, floor, dropped, within) in cases {
            let (swept, _) = run(Search::Sweep, accuracies, floor);
            assert_eq!((chosen(&swept), swept.within), (dropped, within), "{accuracies:?}");
        }
    }

    #[test]
    fn bisection_finds_the_same_in_fewer_attempts_when_accuracy_falls_with_size() {
        let accuracies: Vec<_> = (0..10).map(|k| (k < 9).then_some(995 - 5 * k)).collect();
        for floor in [0.999, 0.99, 0.975, 0.96, 0.9] {
            let (swept, all) = run(Search::Sweep, &accuracies, floor);
            let (halved, some) = run(Search::Bisect, &accuracies, floor);
            assert_eq!(swept.within, halved.within, "{floor}");
            if swept.within {
                assert_eq!(chosen(&swept), chosen(&halved), "{floor}");
            }
            assert!(some.len() <= 4 && some.len() < all.len(), "{some:?}");
        }
    }

    #[test]
    fn within_a_budget_the_most_accurate_wins_whatever_its_cost() {
        let goal = Goal { floor: 0.98, budget: Some(998.0) };
        let accuracies = [990, 985, 970, 975, 900];
        let run = |strategy| {
            let mut trained = Vec::new();
            let selection = search(strategy, 0..=4, &goal, |numbers| {
                let of = |&dropped: &usize| match 1000.0 - dropped as f64 {
                    cost if cost > 998.0 => Attempt::Over { dropped, cost, why: "too much".into() },
                    _ => {
                        trained.push(dropped);
                        attempt(dropped, Some(accuracies[dropped]))
                    }
                };
                Ok(numbers.iter().map(of).collect())
            });
            (selection.unwrap(), trained)
        };
        let (swept, trained) = run(Search::Sweep);
        assert_eq!((chosen(&swept), swept.within, trained), (3, false, vec![2, 3, 4]));
        let (halved, trained) = run(Search::Bisect);
        assert_eq!((chosen(&halved), trained), (2, vec![2]));
        let nothing = Selection::of(vec![Attempt::Over { dropped: 0, cost: 1.0, why: "x".into() }], &goal);
        assert!(nothing.winner().is_none());
    }
}
