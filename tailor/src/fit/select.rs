//! Which pruned student wins: the leanest one whose validation accuracy stays within tolerance.

use super::recipe::Search;
use crate::Result;

/// One pruned and retrained student.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Blocks dropped by rank (exclusion may have removed more).
    pub dropped: usize,
    /// Right answers on validation, and its images.
    pub validation: crate::train::Score,
    /// Multiply-adds, `true` counter.
    pub macs: u64,
    /// Parameters, shared and task-owned.
    pub params: u64,
}

/// What became of one number of dropped blocks.
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
}

/// All attempts, and the winner.
#[derive(Debug, Clone)]
pub struct Selection {
    /// In the order they were tried.
    pub attempts: Vec<Attempt>,
    /// The winner's number of dropped blocks.
    pub dropped: usize,
    /// Whether the winner keeps within tolerance; when nothing does, the most accurate one wins.
    pub within: bool,
}

/// Searches `0..=blocks` dropped blocks. `attempt` prunes and retrains; `floor` is the accuracy to keep.
///
/// # Errors
/// Whatever `attempt` reports.
pub fn search(
    strategy: Search,
    blocks: usize,
    floor: f64,
    mut attempt: impl FnMut(usize) -> Result<Attempt>,
) -> Result<Selection> {
    let mut attempts = Vec::new();
    match strategy {
        Search::Sweep => {
            for dropped in 0..=blocks {
                let tried = attempt(dropped)?;
                let refused = matches!(tried, Attempt::Refused { .. });
                attempts.push(tried);
                // Ranks are fixed, so a larger cut contains this one and falls apart as well.
                if refused {
                    break;
                }
            }
        }
        Search::Bisect => {
            let (mut good, mut bad) = (None, blocks + 1);
            while good.map_or(0, |g: usize| g + 1) < bad {
                let low = good.map_or(0, |g| g + 1);
                let middle = low + (bad - 1 - low) / 2;
                let tried = attempt(middle)?;
                let keeps = matches!(&tried, Attempt::Trained(c) if c.validation.accuracy() >= floor);
                attempts.push(tried);
                if keeps {
                    good = Some(middle);
                } else {
                    bad = middle;
                }
            }
        }
    }
    Ok(choose(attempts, floor))
}

fn choose(attempts: Vec<Attempt>, floor: f64) -> Selection {
    let trained = || attempts.iter().filter_map(|a| if let Attempt::Trained(c) = a { Some(c) } else { None });
    let lean =
        trained().filter(|c| c.validation.accuracy() >= floor).min_by_key(|c| (c.macs, c.params, c.dropped));
    let accurate = || {
        trained().max_by(|a, b| {
            a.validation.accuracy().total_cmp(&b.validation.accuracy()).then(b.macs.cmp(&a.macs))
        })
    };
    let (dropped, within) = match (lean, accurate()) {
        (Some(lean), _) => (lean.dropped, true),
        (None, Some(accurate)) => (accurate.dropped, false),
        (None, None) => (0, false),
    };
    Selection { attempts, dropped, within }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Score;

    /// Accuracy in thousandths after dropping each number of blocks; `None` where the network falls apart.
    fn run(strategy: Search, accuracies: &[Option<usize>], floor: f64) -> (Selection, Vec<usize>) {
        let mut asked = Vec::new();
        let selection = search(strategy, accuracies.len() - 1, floor, |dropped| {
            asked.push(dropped);
            Ok(match accuracies[dropped] {
                Some(right) => Attempt::Trained(Candidate {
                    dropped,
                    validation: Score { right, n: 1000 },
                    macs: 1000 - dropped as u64,
                    params: 0,
                }),
                None => Attempt::Refused { dropped, why: "cut".into() },
            })
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
            assert_eq!((swept.dropped, swept.within), (dropped, within), "{accuracies:?}");
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
                assert_eq!(swept.dropped, halved.dropped, "{floor}");
            }
            assert!(some.len() <= 4 && some.len() < all.len(), "{some:?}");
        }
    }
}
