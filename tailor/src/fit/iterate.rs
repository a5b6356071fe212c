//! Iterative pruning: which part of a network to remove next, and how much that costs in validation loss.

#[cfg(test)]
mod tests;

use super::Tailoring;
use super::cut::{Cut, FINISH, PRUNE, survivors};
use crate::Result;
use crate::net::Params;
use crate::progress::Bar;
use bundles::plan::{Cell, GateId, Plan, Role};
use std::collections::BTreeSet;

/// Number of blocks whose removal is tried at each step.
const TRIES: usize = 3;

/// Prefix of stages whose names list what was removed, in order.
pub(super) const WITHOUT: &str = "without-";

/// Separator between blocks removed in the same step.
const TOGETHER: &str = "+";

/// A step that removes proxies: its name in stages, its name for the user, and the share of all proxies' cost
/// it removes.
pub(super) struct Thinning {
    named: &'static str,
    told: &'static str,
    share: f64,
}

/// The larger one first; once it has failed, only the smaller one is tried.
pub(super) const THINNINGS: [Thinning; 2] = [
    Thinning { named: "p", told: "½ proxies", share: 0.5 },
    Thinning { named: "q", told: "¼ proxies", share: 0.25 },
];

/// Minimum share of a network's cost that it must save to be worth a retraining.
const WORTHWHILE: f64 = 0.02;

/// Rises of the validation loss below this count as this much, so that the larger saving comes first.
const NO_LOSS: f64 = 1e-3;

/// Lists what was removed, step by step, to arrive at the network of that stage, with blocks named as in
/// drawings. Empty for stages of other searches.
pub(crate) fn taken(stage: &str) -> String {
    let Some((_, path)) = stage.split_once(WITHOUT) else { return String::new() };
    let steps = path.split('-').map(|step| match THINNINGS.iter().find(|thinning| thinning.named == step) {
        Some(thinning) => thinning.told.to_string(),
        None => format!("G{}", step.replace(TOGETHER, " + G")),
    });
    steps.collect::<Vec<_>>().join(", ")
}

/// A leaner network, and what it saves at what price.
struct Step {
    /// Rise of the validation loss per unit of cost saved.
    price: f64,
    plan: Plan,
    taken: String,
    blocks: usize,
}

impl Step {
    /// Applies the step to `at`; the result is yet to be retrained.
    fn of(self, at: &Cut) -> Result<Cut> {
        let origin = match at.stage.strip_prefix(FINISH) {
            Some(finished) => format!("{PRUNE}{finished}"),
            None => at.stage.clone(),
        };
        let before = match origin.split_once(WITHOUT) {
            Some(_) => format!("{origin}-"),
            None if self.blocks == 0 => format!("{origin}-{WITHOUT}"),
            None => format!("{PRUNE}{WITHOUT}"),
        };
        let params = survivors(&at.plan, &at.params, &self.plan)?;
        let stage = format!("{before}{}", self.taken);
        Ok(Cut { dropped: at.dropped + self.blocks, stage, plan: self.plan, params })
    }
}

/// The network's gates with the given role.
fn gates(plan: &Plan, role: Role) -> impl Iterator<Item = GateId> {
    plan.cells.iter().enumerate().flat_map(move |(i, cell)| {
        let gates = cell.gates.iter().enumerate().filter(move |(_, path)| path.role == role);
        gates.map(move |(gate, _)| GateId { node: i + 1, gate })
    })
}

/// Whether every block that could be dropped in `before`, because a proxy bypasses it, still can in `less`.
fn keeps_ways_round(before: &Plan, less: &Plan) -> bool {
    let has_way = |cell: &Cell| cell.proxies().next().is_some();
    let pairs = before.cells.iter().zip(&less.cells);
    pairs.into_iter().all(|(before, less)| less.block().is_none() || !has_way(before) || has_way(less))
}

/// Rise of the loss per unit of cost saved; infinite if there is no loss any more because activations
/// overflow.
fn price(rise: f64, saved: f64) -> f64 {
    if rise.is_nan() { f64::INFINITY } else { rise.max(NO_LOSS) / saved.max(f64::MIN_POSITIVE) }
}

impl Tailoring<'_> {
    /// The networks to try after `at`. With `blocks` of 1, networks with one block less, sorted by the rise
    /// of the validation loss per unit of cost saved, at most [`TRIES`] of them; on the way to a budget,
    /// where no removal is undone, the one with [fewer proxies](Self::thinner) is ranked among them. With
    /// more `blocks`, the network that lacks that many, chosen greedily one by one. Removals that would
    /// disconnect stem and classifier are left out.
    pub(super) fn leaner(&self, at: &Cut, blocks: usize) -> Result<Vec<Cut>> {
        if blocks > 1 {
            return Ok(self.without_blocks(at, blocks)?.into_iter().collect());
        }
        let now = self.loss_and_cost(&at.plan, &at.params)?;
        let bar = self.ranking(&at.plan, Role::Block, 1);
        let mut steps = self.without_a_block(&at.plan, &at.params, now, &bar)?;
        bar.clear(|| format!("{} of {} can go", steps.len(), at.stage));
        if self.recipe.budget.is_some() {
            steps.extend(self.fewer_proxies(at, &self.by_price(at, now)?, now, &THINNINGS[0])?);
        }
        steps.sort_by(|a, b| a.price.total_cmp(&b.price));
        steps.into_iter().take(TRIES).map(|step| step.of(at)).collect()
    }

    /// `at` without that many blocks, if that many can be removed.
    fn without_blocks(&self, at: &Cut, blocks: usize) -> Result<Option<Cut>> {
        if blocks > at.plan.blocks() {
            return Ok(None);
        }
        let mut params = survivors(&at.plan, &at.params, &at.plan)?;
        let mut plan = at.plan.clone();
        let mut taken = Vec::with_capacity(blocks);
        let bar = self.ranking(&plan, Role::Block, blocks);
        while taken.len() < blocks {
            let now = self.loss_and_cost(&plan, &params)?;
            let steps = self.without_a_block(&plan, &params, now, &bar)?;
            let Some(best) = steps.into_iter().min_by(|a, b| a.price.total_cmp(&b.price)) else { break };
            params = survivors(&plan, &params, &best.plan)?;
            plan = best.plan;
            taken.push(best.taken);
        }
        bar.clear(|| format!("of {}, {} are missed least", at.stage, taken.join(", ")));
        if taken.len() < blocks {
            return Ok(None);
        }
        let step = Step { price: 0.0, plan, taken: taken.join(TOGETHER), blocks };
        step.of(at).map(Some)
    }

    /// The bar for removing that many of the plan's gates with this role, one after the other, each time the
    /// best of those that are left.
    fn ranking(&self, plan: &Plan, role: Role, removed: usize) -> Bar {
        let all = gates(plan, role).count();
        let networks: usize = (0..removed).map(|gone| all.saturating_sub(gone)).sum();
        let what = if role == Role::Block { "blocks" } else { "proxies" };
        self.progress.stage(&format!("rank {what}"), networks as u64, 0)
    }

    /// All networks with one block less.
    fn without_a_block(&self, plan: &Plan, params: &Params, now: (f64, f64), bar: &Bar) -> Result<Vec<Step>> {
        let steps = gates(plan, Role::Block).map(|id| {
            let less = self.without(plan, params, &BTreeSet::from([id]), now)?;
            bar.step(|| format!("without G{}", id.node));
            Ok(less.map(|(price, plan)| Step { price, plan, taken: id.node.to_string(), blocks: 1 }))
        });
        steps.filter_map(Result::transpose).collect()
    }

    /// `at` without its least important proxies: as many as make up half of all proxies' cost and, in case
    /// that is too much, a quarter; the first `left_out` of [`THINNINGS`] are skipped. Empty if that would
    /// save next to nothing. Proxies go last, because one that is unimportant now may be what could replace a
    /// block.
    pub(super) fn thinner(&self, at: &Cut, left_out: usize) -> Result<Vec<Cut>> {
        let now = self.loss_and_cost(&at.plan, &at.params)?;
        let proxies = self.by_price(at, now)?;
        let last = at.stage.rsplit('-').next();
        let first = THINNINGS.iter().position(|thinning| last == Some(thinning.named)).unwrap_or(left_out);
        let mut steps: Vec<Step> = Vec::new();
        for thinning in &THINNINGS[first..] {
            let step = self.fewer_proxies(at, &proxies, now, thinning)?;
            // With few proxies, a quarter may be as many as half.
            steps.extend(step.filter(|step| steps.last().is_none_or(|larger| larger.plan != step.plan)));
        }
        steps.into_iter().map(|step| step.of(at)).collect()
    }

    /// Proxies that can be removed, sorted by the loss per unit of cost saved.
    fn by_price(&self, at: &Cut, now: (f64, f64)) -> Result<Vec<GateId>> {
        let mut proxies = Vec::new();
        let bar = self.ranking(&at.plan, Role::Proxy, 1);
        for id in gates(&at.plan, Role::Proxy) {
            if let Some((price, _)) = self.without(&at.plan, &at.params, &BTreeSet::from([id]), now)? {
                proxies.push((price, id));
            }
            bar.step(|| format!("without a proxy into node {}", id.node));
        }
        bar.clear(|| format!("{} of {} can go", proxies.len(), at.stage));
        proxies.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(proxies.into_iter().map(|(_, id)| id).collect())
    }

    /// `at` without the first of these proxies, if that is worth a retraining. On the way to a budget, where
    /// blocks are still to be removed, every node with a bypass keeps one.
    fn fewer_proxies(
        &self,
        at: &Cut,
        proxies: &[GateId],
        now: (f64, f64),
        thinning: &Thinning,
    ) -> Result<Option<Step>> {
        let costs = self.recipe.cost.gates(&at.plan)?;
        let cost = |id: &GateId| costs[id.node - 1][id.gate];
        let all: f64 = gates(&at.plan, Role::Proxy).map(|id| cost(&id)).sum();
        let mut taken = BTreeSet::new();
        for &id in proxies {
            if taken.iter().map(cost).sum::<f64>() >= thinning.share * all {
                break;
            }
            taken.insert(id);
            // Two nodes may each be reachable without one of two proxies, but not without both.
            let can_go = at.plan.without(&taken).is_ok_and(|less| {
                let keeps_ways = self.recipe.budget.is_none() || keeps_ways_round(&at.plan, &less);
                keeps_ways && less.blocks() == at.plan.blocks()
            });
            if !can_go {
                taken.remove(&id);
            }
        }
        if taken.is_empty() {
            return Ok(None);
        }
        let Some((price, plan)) = self.without(&at.plan, &at.params, &taken, now)? else { return Ok(None) };
        let saved = now.1 - self.recipe.cost.total(&plan)?;
        let worthwhile = saved >= WORTHWHILE * now.1;
        Ok(worthwhile.then(|| Step { price, plan, taken: thinning.named.into(), blocks: 0 }))
    }

    fn loss_and_cost(&self, plan: &Plan, params: &Params) -> Result<(f64, f64)> {
        Ok((self.validation_loss(plan, params)?, self.recipe.cost.total(plan)?))
    }

    /// The network without these gates, and the rise of its validation loss per unit of cost saved. `None` if
    /// that would disconnect stem and classifier.
    fn without(
        &self,
        plan: &Plan,
        params: &Params,
        gates: &BTreeSet<GateId>,
        now: (f64, f64),
    ) -> Result<Option<(f64, Plan)>> {
        let less = match plan.without(gates) {
            Err(bundles::Error::Disconnected { .. }) => return Ok(None),
            less => less?,
        };
        let params = survivors(plan, params, &less)?;
        let rise = self.validation_loss(&less, &params)? - now.0;
        let saved = now.1 - self.recipe.cost.total(&less)?;
        Ok(Some((price(rise, saved), less)))
    }
}
