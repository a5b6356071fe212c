//! The order in which networks are pruned and retrained, and when the search stops.

#[cfg(test)]
mod tests;

use super::select::{Attempt, Candidate, Goal, Selection};
use crate::Result;
use std::ops::{Range, RangeInclusive};

/// Tries every one of these numbers of dropped blocks, up to the first that pruning refuses. `attempt` prunes
/// and retrains several of them in any order, and returns the results in the given order.
///
/// # Errors
/// Any error of `attempt`.
pub fn sweep(
    numbers: RangeInclusive<usize>,
    attempt: impl FnOnce(&[usize]) -> Result<Vec<Attempt>>,
) -> Result<Vec<Attempt>> {
    let mut attempts = attempt(&numbers.collect::<Vec<_>>())?;
    // Block ranks are fixed, so a larger cut contains this one and is disconnected as well.
    if let Some(refused) = attempts.iter().position(|tried| matches!(tried, Attempt::Refused { .. })) {
        attempts.truncate(refused + 1);
    }
    Ok(attempts)
}

/// Bisects these numbers of dropped blocks, assuming that dropping more never improves accuracy, for the most
/// that stay within tolerance or [near](Goal::slack) it. With a budget, the first network that fits it and
/// whose training does not diverge is then the best one; no more are retrained.
///
/// # Errors
/// Any error of `attempt`.
pub fn bisect(
    numbers: RangeInclusive<usize>,
    goal: &Goal,
    mut attempt: impl FnMut(usize) -> Result<Attempt>,
) -> Result<Vec<Attempt>> {
    if goal.budget.is_none() {
        return halve(*numbers.start()..numbers.end() + 1, |c| goal.is_near(c), attempt);
    }
    let mut attempts = Vec::new();
    for dropped in numbers {
        attempts.push(attempt(dropped)?);
        if let Some(Attempt::Trained(_) | Attempt::Refused { .. }) = attempts.last() {
            break;
        }
    }
    Ok(attempts)
}

/// Bisects these places in a list of leaner and leaner networks, assuming that once `keeps` rejects one, it
/// rejects all after it.
///
/// # Errors
/// Any error of `attempt`.
pub fn halve(
    places: Range<usize>,
    keeps: impl Fn(&Candidate) -> bool,
    mut attempt: impl FnMut(usize) -> Result<Attempt>,
) -> Result<Vec<Attempt>> {
    let mut attempts = Vec::new();
    // Everything before `low` is known to be kept, everything from `bad` on is known not to be.
    let (mut low, mut bad) = (places.start, places.end);
    while low < bad {
        let middle = low + (bad - 1 - low) / 2;
        let tried = attempt(middle)?;
        if tried.trained().is_some_and(&keeps) {
            low = middle + 1;
        } else {
            bad = middle;
        }
        attempts.push(tried);
    }
    Ok(attempts)
}

/// Like [`halve`], but starts from the leanest network, steps back by doubling distances and then bisects
/// between the last two places: for when the leanest networks are likely to be kept and are the cheapest to
/// try.
///
/// # Errors
/// Any error of `attempt`.
pub fn gallop(
    places: Range<usize>,
    keeps: impl Fn(&Candidate) -> bool,
    mut attempt: impl FnMut(usize) -> Result<Attempt>,
) -> Result<Vec<Attempt>> {
    let mut attempts = Vec::new();
    let (mut bad, mut step) = (places.end, 1);
    while places.start < bad {
        let place = bad.saturating_sub(step).max(places.start);
        let tried = attempt(place)?;
        let is_kept = tried.trained().is_some_and(&keeps);
        attempts.push(tried);
        if is_kept {
            attempts.extend(halve(place + 1..bad, keeps, attempt)?);
            break;
        }
        (bad, step) = (place, 2 * step);
    }
    Ok(attempts)
}

/// Like [`gallop`], but if nothing is kept, the places it skipped follow, from the leanest on, as far as they
/// are `worth` it: for when a network may be kept although its neighbours on both sides are not.
///
/// # Errors
/// Any error of `attempt`.
pub fn gallop_and_return(
    places: Range<usize>,
    worth: impl Fn(usize) -> bool,
    keeps: impl Fn(&Candidate) -> bool,
    mut attempt: impl FnMut(usize) -> Result<Attempt>,
) -> Result<Vec<Attempt>> {
    let is_kept = |tried: &Attempt| tried.trained().is_some_and(&keeps);
    let mut seen = Vec::new();
    let mut attempts = gallop(places.clone(), &keeps, |place| {
        seen.push(place);
        attempt(place)
    })?;
    for place in places.rev().filter(|place| !seen.contains(place) && worth(*place)) {
        if attempts.iter().any(is_kept) {
            break;
        }
        attempts.push(attempt(place)?);
    }
    Ok(attempts)
}

/// Goes from `first` to leaner and leaner networks and returns all that were retrained. `leaner` lists the
/// next networks to try, best first, for a given number of blocks to remove. They are retrained until one is
/// within tolerance, or [near](Goal::slack) enough that the long fine-tuning may bring it there; the search
/// continues from that one. The step doubles, up to `longest`, as long as networks are within tolerance, and
/// is halved for good when no network of a step is near; the search ends when that happens with a step of
/// one. With a budget, the first network is always taken, whatever its accuracy, until the budget is met.
/// `retrain` returns `None` if training came to nothing; the next network is then tried.
///
/// # Errors
/// Any error of `leaner` and `retrain`.
pub fn descend<Cut, Network>(
    first: Network,
    goal: &Goal,
    mut longest: usize,
    candidate: impl Fn(&Network) -> &Candidate,
    leaner: impl Fn(&Network, usize) -> Result<Vec<Cut>>,
    mut retrain: impl FnMut(Cut) -> Result<Option<Network>>,
) -> Result<Vec<Network>> {
    let mut all = vec![first];
    let mut at = 0;
    let mut step = 1;
    while step > 0 && goal.budget.is_none_or(|budget| candidate(&all[at]).cost > budget) {
        let mut found = None;
        for cut in leaner(&all[at], step)? {
            let Some(retrained) = retrain(cut)? else { continue };
            all.push(retrained);
            let last = all.len() - 1;
            if goal.budget.is_some() || goal.is_near(candidate(&all[last])) {
                found = Some(last);
                break;
            }
        }
        if let Some(next) = found {
            at = next;
            let is_sure = goal.is_within(candidate(&all[at]));
            step = if is_sure { step.saturating_mul(2).min(longest) } else { step };
        } else {
            longest = step / 2;
            step = longest;
        }
    }
    Ok(all)
}

/// The leanest network within tolerance or [near](Goal::slack) it.
pub fn leanest<'a>(attempts: &'a [Attempt], goal: &Goal) -> Option<&'a Candidate> {
    let near = attempts.iter().filter_map(Attempt::trained).filter(|c| goal.is_near(c));
    near.min_by(|a, b| a.cost.total_cmp(&b.cost))
}

/// Networks worth the long fine-tuning, most expensive first: with a budget, the one that would be selected
/// as it is; otherwise all that are [near](Goal::slack) the tolerance, or if none is, the one that would be
/// selected.
pub fn worth_finishing(attempts: &[Attempt], goal: &Goal) -> Vec<Candidate> {
    let near =
        attempts.iter().filter_map(Attempt::trained).filter(|c| goal.budget.is_none() && goal.is_near(c));
    let mut worth: Vec<Candidate> = near.cloned().collect();
    worth.sort_by(|a, b| b.cost.total_cmp(&a.cost).then(a.dropped.cmp(&b.dropped)));
    if worth.is_empty() {
        worth.extend(Selection::of(attempts.to_vec(), goal).winner().cloned());
    }
    worth
}
