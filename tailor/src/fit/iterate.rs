//! Iterative pruning: which part of a network to remove next, and how much that costs in validation loss.

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
const WITHOUT: &str = "without-";

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

/// The line that says that parts of `at` have been ranked.
fn ranked(at: &Cut) -> String {
    format!("by the loss without each, in {}", at.stage)
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
        bar.clear(|| ranked(at));
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
        bar.clear(|| ranked(at));
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
        bar.clear(|| ranked(at));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{Ground, Recipe, Work, testing};
    use crate::net::{Gating, Params};
    use crate::progress::Progress;
    use crate::random::Random;
    use bundles::plan::Skips;
    use candle_core::Device;

    #[test]
    fn the_removals_of_a_stage_are_listed() {
        for stage in ["prune-without-7-p-12", "finish-without-7-p-12"] {
            assert_eq!(taken(stage), "G7, ½ proxies, G12");
        }
        assert_eq!(taken("prune-without-7-2+12-p"), "G7, G2 + G12, ½ proxies");
        assert_eq!(taken("prune-3-without-p-q"), "½ proxies, ¼ proxies");
        assert_eq!(taken("prune-3"), "");
    }

    #[test]
    fn a_network_without_a_loss_is_the_last_choice() {
        assert_eq!(price(0.2, 4.0), 0.05);
        assert_eq!(price(-0.2, 4.0), NO_LOSS / 4.0);
        assert!(price(f64::NAN, 4.0) == f64::INFINITY && price(f64::INFINITY, 4.0) == f64::INFINITY);
    }

    /// A task, and the whole student of a small backbone to prune.
    struct Bench {
        ground: Ground,
        recipe: Recipe,
        work: Work,
        progress: Progress,
        whole: Cut,
        _folder: tempfile::TempDir,
    }

    fn bench() -> Bench {
        let ground = testing::ground(1, true);
        let folder = tempfile::tempdir().unwrap();
        let (recipe, work) = (Recipe::small(), Work::open(folder.path()).unwrap());
        let backbone = backbone(&ground);
        let plan = backbone.with_proxies(Skips::Nearest(3), ground.source.arch.proxy_form()).unwrap();
        let numbers = &ground.source.params;
        let params = Params::student(&plan, numbers, true, Gating::Softmax, 5, &Device::Cpu).unwrap();
        // Proxies of an untrained student contribute almost nothing; scale them up by random factors.
        let mut random = Random::new(&[9]);
        for (name, var) in params.vars().filter(|(name, _)| name.starts_with("proxy")) {
            let factor = 1.0 + random.below(400) as f64;
            var.set(&(var.as_tensor() * factor).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let whole = Cut { dropped: 0, stage: "prune-0".into(), plan, params };
        Bench { ground, recipe, work, progress: Progress::hidden(), whole, _folder: folder }
    }

    fn backbone(ground: &Ground) -> Plan {
        let size = ground.train.images.size();
        ground.source.arch.plan(size.height, size.width, ground.classes.len()).unwrap()
    }

    impl Bench {
        fn tailoring(&self) -> Tailoring<'_> {
            self.ground.tailoring(&self.recipe, &self.work, &Device::Cpu, &self.progress)
        }

        fn now(&self, cut: &Cut) -> (f64, f64) {
            self.tailoring().loss_and_cost(&cut.plan, &cut.params).unwrap()
        }

        /// What the step from the whole student to `cut` costs.
        fn price(&self, cut: &Cut) -> f64 {
            let ((loss, cost), (less_loss, less_cost)) = (self.now(&self.whole), self.now(cut));
            price(less_loss - loss, cost - less_cost)
        }

        /// What it costs to remove only this gate from the whole student.
        fn price_of(&self, id: GateId) -> f64 {
            let Cut { plan, params, .. } = &self.whole;
            let gate = BTreeSet::from([id]);
            self.tailoring().without(plan, params, &gate, self.now(&self.whole)).unwrap().unwrap().0
        }

        /// Cost of all proxies.
        fn proxies(&self, cut: &Cut) -> f64 {
            let costs = self.recipe.cost.gates(&cut.plan).unwrap();
            gates(&cut.plan, Role::Proxy).map(|id| costs[id.node - 1][id.gate]).sum()
        }
    }

    /// The node whose block this network, made from the whole student, lacks.
    fn node(cut: &Cut) -> usize {
        cut.stage.strip_prefix("prune-without-").unwrap().parse().unwrap()
    }

    #[test]
    fn the_least_important_block_comes_first() {
        let bench = bench();
        let all = bench.whole.plan.blocks();
        let leaner = bench.tailoring().leaner(&bench.whole, 1).unwrap();
        assert_eq!(leaner.len(), TRIES);
        for cut in &leaner {
            assert_eq!((cut.dropped, cut.plan.blocks()), (1, all - 1));
            assert!(cut.plan.cells[node(cut) - 1].block().is_none(), "{}", cut.stage);
        }
        let prices: Vec<f64> = leaner.iter().map(|cut| bench.price(cut)).collect();
        assert!(prices.is_sorted() && prices[0] < prices[TRIES - 1], "{prices:?}");
        for id in gates(&bench.whole.plan, Role::Block) {
            let is_tried = leaner.iter().any(|cut| node(cut) == id.node);
            assert!(is_tried || bench.price_of(id) >= prices[TRIES - 1], "{id:?}");
        }
        let next = bench.tailoring().leaner(&leaner[0], 1).unwrap();
        assert!(next.iter().all(|cut| cut.stage.starts_with(&format!("{}-", leaner[0].stage))));
    }

    #[test]
    fn two_blocks_at_once_are_the_best_and_then_the_best_without_it() {
        let bench = bench();
        let tailoring = bench.tailoring();
        let first = tailoring.leaner(&bench.whole, 1).unwrap();
        let next = tailoring.leaner(&first[0], 1).unwrap();
        let two = tailoring.leaner(&bench.whole, 2).unwrap();
        let [two] = &two[..] else { panic!("{} steps", two.len()) };
        let (one, other) = next[0].stage.rsplit_once('-').unwrap();
        assert_eq!(two.plan, next[0].plan);
        assert_eq!((&two.stage, two.dropped), (&format!("{one}{TOGETHER}{other}"), 2));
        assert!(tailoring.leaner(&bench.whole, bench.whole.plan.blocks() + 1).unwrap().is_empty());
    }

    #[test]
    fn thinning_takes_the_least_important_half_or_quarter_of_the_proxies() {
        let bench = bench();
        let (tailoring, whole) = (bench.tailoring(), &bench.whole);
        let all = whole.plan.blocks();
        let thin = tailoring.thinner(whole, 0).unwrap();
        let [thin] = &thin[..] else { panic!("{} steps: a quarter hardly saves anything", thin.len()) };
        assert_eq!((&thin.stage[..], thin.dropped, thin.plan.blocks()), ("prune-0-without-p", 0, all));
        let left = bench.proxies(thin) / bench.proxies(whole);
        assert!((0.2..=0.5).contains(&left), "{left}");
        let is_kept = |id: &GateId| {
            let path = &whole.plan.cells[id.node - 1].gates[id.gate];
            thin.plan.cells[id.node - 1].gates.contains(path)
        };
        let (kept, taken): (Vec<_>, Vec<_>) = gates(&whole.plan, Role::Proxy).partition(is_kept);
        let dearest = taken.iter().map(|&id| bench.price_of(id)).fold(f64::MIN, f64::max);
        assert!(kept.iter().all(|&id| bench.price_of(id) >= dearest), "{taken:?} taken, {kept:?} kept");

        let without = &tailoring.leaner(whole, 1).unwrap()[0];
        let fewer = tailoring.thinner(without, 0).unwrap();
        let [half, quarter] = &fewer[..] else { panic!("{} steps", fewer.len()) };
        assert_eq!(half.stage, format!("{}-p", without.stage));
        assert_eq!(quarter.stage, format!("{}-q", without.stage));
        assert!(fewer.iter().all(|cut| (cut.dropped, cut.plan.blocks()) == (1, all - 1)));
        let [half, left] = [half, quarter].map(|cut| bench.proxies(cut) / bench.proxies(without));
        assert!(half < left && (0.5..=0.75).contains(&left), "{half}, {left}");
        let quarters = tailoring.thinner(without, 1).unwrap();
        assert!(
            quarters.len() == 1 && quarters[0].plan == quarter.plan && quarters[0].stage == quarter.stage
        );
        // Where half was too much, half of what a quarter left is not tried.
        let again = tailoring.thinner(quarter, 0).unwrap();
        let [again] = &again[..] else { panic!("{} steps", again.len()) };
        assert_eq!(again.stage, format!("{}-q", quarter.stage));
    }

    #[test]
    fn on_the_way_to_a_budget_proxies_rank_among_blocks_and_each_keeps_a_bypass() {
        let mut bench = bench();
        let prices: Vec<f64> = gates(&bench.whole.plan, Role::Block).map(|id| bench.price_of(id)).collect();
        let thin = bench.tailoring().thinner(&bench.whole, 0).unwrap().remove(0);
        bench.recipe.budget = Some("50%".parse().unwrap());
        let careful = bench.tailoring().thinner(&bench.whole, 0).unwrap().remove(0);
        let is_free = |cell: &Cell| cell.block().is_none() || cell.proxies().next().is_some();
        assert!(careful.plan.cells.iter().all(is_free), "a block is stuck");
        assert!(!thin.plan.cells.iter().all(is_free), "nothing to be careful about");
        let by_price = bench.tailoring().leaner(&bench.whole, 1).unwrap();
        let thinned = by_price.iter().position(|cut| cut.plan == careful.plan);
        let cheaper = prices.iter().filter(|cheaper| **cheaper < bench.price(&careful)).count();
        assert_eq!(thinned, (cheaper < TRIES).then_some(cheaper), "{prices:?}, {}", bench.price(&careful));
        assert_eq!(by_price.len(), TRIES);
    }

    #[test]
    fn without_any_proxy_nothing_can_be_removed() {
        let bench = bench();
        let params = testing::backbone(testing::CLASSES).1;
        let bare = Cut { plan: backbone(&bench.ground), params, dropped: 0, stage: "prune-0".into() };
        let tailoring = bench.tailoring();
        assert!(tailoring.leaner(&bare, 1).unwrap().is_empty());
        assert!(tailoring.thinner(&bare, 0).unwrap().is_empty());
    }
}
