//! Which networks are tried, in which order, and which one is then selected.

use super::*;
use crate::fit::select::tests::{attempt, chosen, goal};

/// Accuracy in thousandths for each number of dropped blocks; `None` where the network is disconnected.
fn swept(accuracies: &[Option<usize>], floor: f64) -> Selection {
    let all = |numbers: &[usize]| Ok(numbers.iter().map(|&n| attempt(n, accuracies[n])).collect());
    let attempts = sweep(0..=accuracies.len() - 1, all).unwrap();
    Selection::of(attempts, &goal(floor))
}

fn halved(accuracies: &[Option<usize>], floor: f64) -> Selection {
    let goal = goal(floor);
    let attempts = bisect(0..=accuracies.len() - 1, &goal, |n| Ok(attempt(n, accuracies[n])));
    Selection::of(attempts.unwrap(), &goal)
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
        let swept = swept(accuracies, floor);
        assert_eq!((chosen(&swept), swept.within), (dropped, within), "{accuracies:?}");
    }
}

#[test]
fn bisection_finds_the_same_in_fewer_attempts_when_accuracy_falls_with_size() {
    let accuracies: Vec<_> = (0..10).map(|k| (k < 9).then_some(995 - 5 * k)).collect();
    for floor in [0.999, 0.99, 0.975, 0.96, 0.9] {
        let (swept, halved) = (swept(&accuracies, floor), halved(&accuracies, floor));
        assert_eq!(swept.within, halved.within, "{floor}");
        if swept.within {
            assert_eq!(chosen(&swept), chosen(&halved), "{floor}");
        }
        assert!(halved.attempts.len() <= 4 && swept.attempts.len() == 10, "{halved:?}");
    }
}

#[test]
fn bisection_tolerates_what_finishing_may_recover() {
    let tried = |slack| -> Vec<usize> {
        let goal = Goal { slack, ..goal(0.98) };
        let attempts = bisect(0..=8, &goal, |n| Ok(attempt(n, Some(990 - 4 * n))));
        attempts.unwrap().iter().map(Attempt::dropped).collect()
    };
    // 974 correct without four blocks, 982 without two.
    assert_eq!(tried(0.0), [4, 1, 2, 3]);
    assert_eq!(tried(0.01), [4, 6, 5]);
}

#[test]
fn a_gallop_begins_with_the_leanest_and_finds_what_halving_does() {
    let tried = |count: usize, good: usize| -> Vec<usize> {
        let attempts = gallop(0..count, |c| c.dropped < good, |n| Ok(attempt(n, Some(n))));
        attempts.unwrap().iter().map(Attempt::dropped).collect()
    };
    assert_eq!(tried(9, 9), [8]);
    assert_eq!(tried(9, 7), [8, 6, 7]);
    assert_eq!(tried(9, 3), [8, 6, 2, 4, 3]);
    assert_eq!(tried(9, 0), [8, 6, 2, 0]);
    assert!(tried(0, 0).is_empty());
    for (count, good) in (0..12).flat_map(|count| (0..=count).map(move |good| (count, good))) {
        let (kept, refused): (Vec<_>, Vec<_>) = tried(count, good).into_iter().partition(|n| *n < good);
        assert_eq!(kept.into_iter().max(), good.checked_sub(1), "{good} of {count}");
        assert_eq!(refused.into_iter().min(), (good < count).then_some(good), "{good} of {count}");
    }
}

#[test]
fn a_gallop_in_vain_returns_to_what_it_skipped() {
    let tried = |good: &[usize], worth: &[usize]| -> Vec<usize> {
        let attempts = gallop_and_return(
            0..9,
            |n| worth.contains(&n),
            |c| good.contains(&c.dropped),
            |n| Ok(attempt(n, Some(n))),
        );
        attempts.unwrap().iter().map(Attempt::dropped).collect()
    };
    assert_eq!(tried(&[], &[]), [8, 6, 2, 0]);
    assert_eq!(tried(&[], &[0, 1, 5, 6, 7]), [8, 6, 2, 0, 7, 5, 1]);
    assert_eq!(tried(&[1, 5], &[1, 4, 5, 7]), [8, 6, 2, 0, 7, 5], "the leanest that is kept");
    assert_eq!(tried(&[2, 7], &[7]), [8, 6, 2, 4, 3], "not if the gallop itself finds one");
}

#[test]
fn within_a_budget_the_most_accurate_wins_whatever_its_cost() {
    let goal = Goal { budget: Some(998.0), ..goal(0.98) };
    let accuracies = [990, 985, 970, 975, 900];
    let trained = std::cell::RefCell::new(Vec::new());
    let of = |dropped: usize| match 1000.0 - dropped as f64 {
        cost if cost > 998.0 => Attempt::Over { dropped, cost, why: "too much".into() },
        _ => {
            trained.borrow_mut().push(dropped);
            attempt(dropped, Some(accuracies[dropped]))
        }
    };
    let all = |numbers: &[usize]| Ok(numbers.iter().map(|&dropped| of(dropped)).collect());
    let swept = Selection::of(sweep(0..=4, all).unwrap(), &goal);
    assert_eq!((chosen(&swept), swept.within), (3, false));
    let halved = Selection::of(bisect(0..=4, &goal, |dropped| Ok(of(dropped))).unwrap(), &goal);
    assert_eq!(chosen(&halved), 2);
    assert_eq!(trained.take(), [2, 3, 4, 2], "the sweep retrains all that fit, bisection only one of them");
    // One that diverges is not the last.
    let tried = bisect(0..=4, &goal, |dropped| {
        Ok(match of(dropped) {
            Attempt::Trained(_) if dropped == 2 => Attempt::Diverged { dropped, why: "not finite".into() },
            outcome => outcome,
        })
    });
    assert_eq!(tried.unwrap().iter().map(Attempt::dropped).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let nothing = Selection::of(vec![Attempt::Over { dropped: 0, cost: 1.0, why: "x".into() }], &goal);
    assert!(nothing.winner().is_none());
    // On the way to the budget, networks that exceed it are retrained too; they are reported but never
    // selected.
    let on_the_way = [0, 1, 2, 4].map(|dropped| match attempt(dropped, Some(accuracies[dropped])) {
        Attempt::Trained(c) => Attempt::Trained(Candidate { cost: 1000.0 - dropped as f64, ..c }),
        other => other,
    });
    assert_eq!(chosen(&Selection::of(on_the_way[..3].to_vec(), &goal)), 2);
    assert!(Selection::of(on_the_way[..2].to_vec(), &goal).winner().is_none());
}

/// Descends through networks represented by the blocks they lack; the best block to drop is the lowest.
/// Accuracies are in thousandths, by missing blocks; 990 if not listed.
fn descended(goal: &Goal, accuracies: &[(&str, usize)]) -> (Vec<String>, String) {
    let network = |stage: String| {
        let right = accuracies.iter().find(|(lacks, _)| *lacks == stage).map_or(990, |(_, right)| *right);
        let Attempt::Trained(candidate) = attempt(stage.len(), Some(right)) else { unreachable!() };
        Candidate { stage, ..candidate }
    };
    let longest = if goal.budget.is_some() { 1 } else { usize::MAX };
    let leaner = |at: &Candidate, step: usize| {
        let left: Vec<char> = "12345678".chars().filter(|block| !at.stage.contains(*block)).collect();
        Ok(match step {
            1 => left.iter().take(3).map(|block| format!("{}{block}", at.stage)).collect(),
            _ if left.len() < step => vec![],
            _ => {
                vec![left[..step].iter().fold(at.stage.clone(), |stage, block| format!("{stage}{block}"))]
            }
        })
    };
    // Accuracy 0 stands for a network whose training diverged.
    let retrain = |stage| Ok(Some(network(stage)).filter(|trained| trained.validation.right > 0));
    let all = descend(network(String::new()), goal, longest, |c| c, leaner, retrain);
    let all = all.unwrap();
    let stages = all.iter().map(|c| c.stage.clone()).collect();
    let selection = Selection::of(all.into_iter().map(Attempt::Trained).collect(), goal);
    (stages, selection.winner().unwrap().stage.clone())
}

/// Accuracies, networks in the order they are tried, and the winner.
type Case<'a> = (&'a [(&'a str, usize)], &'a [&'a str], &'a str);

#[test]
fn a_step_out_of_tolerance_is_rolled_back_and_the_next_block_tried() {
    let goal = Goal { slack: 0.001, ..goal(0.98) };
    let cases: [Case; 6] = [
        (&[], &["", "1", "123", "1234567", "12345678"], "12345678"),
        // A step that is too long is retaken at half the length, and none that long is tried again.
        (
            &[("1234567", 900), ("1234578", 900)],
            &["", "1", "123", "1234567", "12345", "1234567", "123456", "1234567", "1234568", "12345687"],
            "12345687",
        ),
        // Single blocks: the second and third are tried, then the search ends.
        (&[("123", 900), ("12", 978), ("13", 978), ("14", 978)], &["", "1", "123", "12", "13", "14"], "1"),
        // A network that is near is good enough to go on from, but neither lengthens the step nor is
        // selected as it is.
        (
            &[("1", 979), ("12", 978), ("13", 979), ("132", 900), ("134", 900), ("135", 900)],
            &["", "1", "12", "13", "132", "134", "135"],
            "",
        ),
        (&[("", 970), ("1", 978), ("2", 960), ("3", 960)], &["", "1", "2", "3"], "1"),
        // One whose training diverged is not among those retrained, and the next one is tried.
        (&[("1", 0), ("213", 0), ("21", 900), ("23", 0), ("24", 900)], &["", "2", "21", "24"], "2"),
    ];
    for (accuracies, tried, won) in cases {
        assert_eq!(descended(&goal, accuracies), (tried.iter().map(|t| t.to_string()).collect(), won.into()));
    }
    // A budget is met whatever the accuracy, and no further step is taken.
    let goal = Goal { budget: Some(998.0), ..goal };
    let (tried, _) = descended(&goal, &[("1", 500), ("12", 400)]);
    assert_eq!(tried, ["", "1", "12"]);
}

#[test]
fn near_networks_or_else_the_winner_are_worth_finishing() {
    let goal = Goal { slack: 0.01, ..goal(0.98) };
    let worth = |accuracies: &[Option<usize>], goal: &Goal| -> Vec<usize> {
        let attempts: Vec<_> =
            accuracies.iter().enumerate().map(|(n, &right)| attempt(n, right)).rev().collect();
        worth_finishing(&attempts, goal).iter().map(|c| c.dropped).collect()
    };
    let accuracies = [Some(990), Some(965), Some(985), Some(970), Some(960), None];
    assert_eq!(worth(&accuracies, &goal), [0, 2, 3]);
    assert_eq!(worth(&accuracies[3..], &Goal { slack: 0.0, ..goal }), [0], "the most accurate");
    assert_eq!(worth(&accuracies, &Goal { budget: Some(1000.0), ..goal }), [0], "chosen by accuracy already");
    assert!(worth(&[None], &goal).is_empty());
    let leanest = |accuracies: &[Option<usize>]| {
        let attempts: Vec<_> = accuracies.iter().map(|&right| attempt(right.unwrap_or(9), right)).collect();
        leanest(&attempts, &goal).map(|c| c.dropped)
    };
    assert_eq!(
        (leanest(&accuracies), leanest(&accuracies[4..])),
        (Some(990), None),
        "cost falls with blocks"
    );
}
