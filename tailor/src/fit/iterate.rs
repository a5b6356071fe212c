//! Iterative pruning: what a network could do without next, and how little it would be missed.

use super::Tailoring;
use super::pruning::{Cut, PRUNE, survivors};
use crate::Result;
use bundles::plan::{GateId, Plan, Role};
use std::collections::BTreeSet;

/// How stages begin that say what was taken away, in order.
const WITHOUT: &str = "without-";

/// What that says of a step that took proxies.
const PROXIES: &str = "p";

/// Share of all proxies' cost that a step takes away.
const THINNED: f64 = 0.5;

/// Share of a network's cost that has to go with them to be worth a retraining.
const WORTHWHILE: f64 = 0.02;

/// Rises of the validation loss below this count as none: then the larger saving comes first.
const NO_LOSS: f64 = 1e-3;

/// What was taken in turn to come to the network of that stage, blocks by the names that drawings give them; nothing for those of other
/// searches.
pub(crate) fn taken(stage: &str) -> String {
    let Some((_, path)) = stage.split_once(WITHOUT) else { return String::new() };
    let steps = path.split('-').map(|step| match step {
        PROXIES => "½ proxies".to_string(),
        block => format!("G{block}"),
    });
    steps.collect::<Vec<_>>().join(", ")
}

/// A leaner network, and what it saves for what.
struct Step {
    /// Rise of the validation loss for each unit of cost saved.
    price: f64,
    plan: Plan,
    taken: String,
    blocks: usize,
}

impl Tailoring<'_> {
    /// Every network that lacks one more block than `at`, and the one that lacks those of its proxies that are missed least, as
    /// many as cost half of what all of them do. First the one whose validation loss rises least for each unit of cost saved.
    /// What would part stem and classifier is left out.
    pub(super) fn leaner(&self, at: &Cut) -> Result<Vec<Cut>> {
        let now = (self.validation_loss(&at.plan, &at.params)?, self.recipe.cost.total(&at.plan)?);
        let (mut steps, mut proxies) = (Vec::new(), Vec::new());
        for (i, cell) in at.plan.cells.iter().enumerate() {
            for (gate, path) in cell.gates.iter().enumerate() {
                let id = GateId { node: i + 1, gate };
                let Some((price, plan)) = self.without(at, &BTreeSet::from([id]), now)? else { continue };
                match path.role {
                    Role::Block => {
                        steps.push(Step { price, plan, taken: id.node.to_string(), blocks: 1 });
                    }
                    Role::Proxy => proxies.push((price, id)),
                }
            }
        }
        proxies.sort_by(|a, b| a.0.total_cmp(&b.0));
        steps.extend(self.thinner(at, proxies.into_iter().map(|(_, id)| id), now)?);
        steps.sort_by(|a, b| a.price.total_cmp(&b.price));
        let before = at.stage.split_once(WITHOUT).map_or(String::new(), |(_, path)| format!("{path}-"));
        let cuts = steps.into_iter().map(|step| {
            let params = survivors(&at.plan, &at.params, &step.plan)?;
            let stage = format!("{PRUNE}{WITHOUT}{before}{}", step.taken);
            Ok(Cut { dropped: at.dropped + step.blocks, stage, plan: step.plan, params })
        });
        cuts.collect()
    }

    /// `at` without the first of these proxies, whose removal is worth a retraining.
    fn thinner(
        &self,
        at: &Cut,
        proxies: impl Iterator<Item = GateId>,
        now: (f64, f64),
    ) -> Result<Option<Step>> {
        let costs = self.recipe.cost.gates(&at.plan)?;
        let cost = |id: &GateId| costs[id.node - 1][id.gate];
        let live = at.plan.cells.iter().zip(&costs).flat_map(|(cell, costs)| cell.gates.iter().zip(costs));
        let all: f64 = live.filter(|(gate, _)| gate.role == Role::Proxy).map(|(_, cost)| cost).sum();
        let mut taken = BTreeSet::new();
        for id in proxies {
            if taken.iter().map(cost).sum::<f64>() >= THINNED * all {
                break;
            }
            taken.insert(id);
            // Two nodes may each be reached without one of two proxies, and not without both.
            if at.plan.without(&taken).map_or(true, |plan| plan.blocks() < at.plan.blocks()) {
                taken.remove(&id);
            }
        }
        if taken.is_empty() {
            return Ok(None);
        }
        let Some((price, plan)) = self.without(at, &taken, now)? else { return Ok(None) };
        let saved = now.1 - self.recipe.cost.total(&plan)?;
        let worthwhile = saved >= WORTHWHILE * now.1;
        Ok(worthwhile.then(|| Step { price, plan, taken: PROXIES.into(), blocks: 0 }))
    }

    /// `at` without these gates, and how much its validation loss rises for each unit of cost saved; none when stem and
    /// classifier would be apart.
    fn without(&self, at: &Cut, gates: &BTreeSet<GateId>, now: (f64, f64)) -> Result<Option<(f64, Plan)>> {
        let plan = match at.plan.without(gates) {
            Err(bundles::Error::Disconnected { .. }) => return Ok(None),
            plan => plan?,
        };
        let params = survivors(&at.plan, &at.params, &plan)?;
        let rise = self.validation_loss(&plan, &params)? - now.0;
        let saved = now.1 - self.recipe.cost.total(&plan)?;
        Ok(Some((rise.max(NO_LOSS) / saved.max(f64::MIN_POSITIVE), plan)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{Recipe, Work, testing};
    use crate::net::{Gating, Params};
    use crate::progress::Progress;
    use crate::random::Random;
    use bundles::plan::Skips;
    use candle_core::Device;

    #[test]
    fn the_way_to_a_network_is_told() {
        for stage in ["prune-without-7-p-12", "finish-without-7-p-12"] {
            assert_eq!(taken(stage), "G7, ½ proxies, G12");
        }
        assert_eq!(taken("prune-3"), "");
    }

    #[test]
    fn the_block_that_is_missed_least_comes_first() {
        let ground = testing::ground(1, true);
        let folder = tempfile::tempdir().unwrap();
        let (recipe, work) = (Recipe::small(), Work::open(folder.path()).unwrap());
        let progress = Progress::hidden();
        let tailoring = ground.tailoring(&recipe, &work, &Device::Cpu, &progress);
        let backbone = tailoring.backbone_plan().unwrap();
        let plan = backbone.with_proxies(Skips::Nearest(3), ground.source.arch.proxy_form()).unwrap();
        let numbers = &ground.source.params;
        let params = Params::student(&plan, numbers, true, Gating::Softmax, 5, &Device::Cpu).unwrap();
        // Proxies of an untrained student hardly do anything: these do, each as much as chance has it.
        let mut random = Random::new(&[9]);
        for (name, var) in params.vars().filter(|(name, _)| name.starts_with("proxy")) {
            let factor = 1.0 + random.below(400) as f64;
            var.set(&(var.as_tensor() * factor).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let whole = Cut { dropped: 0, stage: "prune-0".into(), plan, params };

        let leaner = tailoring.leaner(&whole).unwrap();
        let all = whole.plan.blocks();
        assert_eq!(leaner.len(), all + 1);
        let loss = |cut: &Cut| tailoring.validation_loss(&cut.plan, &cut.params).unwrap();
        let cost = |cut: &Cut| recipe.cost.total(&cut.plan).unwrap();
        let price = |cut: &Cut| (loss(cut) - loss(&whole)).max(NO_LOSS) / (cost(&whole) - cost(cut));
        let prices: Vec<f64> = leaner.iter().map(price).collect();
        assert!(prices.is_sorted() && prices[0] < prices[all], "{prices:?}");
        for cut in &leaner {
            match cut.stage.strip_prefix("prune-without-").unwrap() {
                PROXIES => assert_eq!((cut.dropped, cut.plan.blocks()), (0, all)),
                node => {
                    assert_eq!((cut.dropped, cut.plan.blocks()), (1, all - 1));
                    assert!(cut.plan.cells[node.parse::<usize>().unwrap() - 1].block().is_none(), "{node}");
                }
            }
        }
        let next = tailoring.leaner(&leaner[0]).unwrap();
        assert!(next.iter().all(|cut| cut.stage.starts_with(&format!("{}-", leaner[0].stage))));

        // Half of the proxies' cost goes, and those that are missed less than any that stays.
        let thin = leaner.iter().find(|cut| cut.dropped == 0).unwrap();
        let proxies = |cut: &Cut| -> f64 {
            let costs = recipe.cost.gates(&cut.plan).unwrap();
            let gates =
                cut.plan.cells.iter().zip(&costs).flat_map(|(cell, costs)| cell.gates.iter().zip(costs));
            gates.filter(|(gate, _)| gate.role == Role::Proxy).map(|(_, cost)| cost).sum()
        };
        let left = proxies(thin) / proxies(&whole);
        assert!((0.2..=0.5).contains(&left), "{left}");
        let now = (loss(&whole), cost(&whole));
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for (i, (cell, thinned)) in whole.plan.cells.iter().zip(&thin.plan.cells).enumerate() {
            for (gate, path) in cell.gates.iter().enumerate().filter(|(_, path)| path.role == Role::Proxy) {
                let one = BTreeSet::from([GateId { node: i + 1, gate }]);
                let (price, _) = tailoring.without(&whole, &one, now).unwrap().unwrap();
                if thinned.gates.contains(path) { kept.push(price) } else { taken.push(price) }
            }
        }
        let dearest = taken.iter().copied().fold(f64::MIN, f64::max);
        assert!(kept.iter().all(|price| *price >= dearest), "{taken:?} taken, {kept:?} kept");
        // Without any proxy, every block is needed.
        let bare = Cut { plan: backbone, ..whole };
        assert!(tailoring.leaner(&bare).unwrap().is_empty());
    }
}
