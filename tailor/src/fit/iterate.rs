//! Iterative pruning: what a network could do without next, and how little it would be missed.

use super::Tailoring;
use super::retrain::{Cut, PRUNE, survivors};
use crate::Result;
use bundles::plan::{GateId, Plan, Role};
use std::collections::BTreeSet;

/// Blocks whose removal is tried at each step.
const TRIES: usize = 3;

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

impl Step {
    /// The network that it makes of `at`, still to be retrained.
    fn of(self, at: &Cut) -> Result<Cut> {
        let before = match at.stage.split_once(WITHOUT) {
            Some(_) => format!("{}-", at.stage),
            None if self.blocks == 0 => format!("{}-{WITHOUT}", at.stage),
            None => format!("{PRUNE}{WITHOUT}"),
        };
        let params = survivors(&at.plan, &at.params, &self.plan)?;
        let stage = format!("{before}{}", self.taken);
        Ok(Cut { dropped: at.dropped + self.blocks, stage, plan: self.plan, params })
    }
}

/// A network's gates of that kind.
fn gates(plan: &Plan, role: Role) -> impl Iterator<Item = GateId> {
    plan.cells.iter().enumerate().flat_map(move |(i, cell)| {
        let gates = cell.gates.iter().enumerate().filter(move |(_, path)| path.role == role);
        gates.map(move |(gate, _)| GateId { node: i + 1, gate })
    })
}

impl Tailoring<'_> {
    /// What could come after `at`: networks that lack one more block, first the one whose validation loss rises least for each
    /// unit of cost saved, and no more than [`TRIES`]. On the way to a budget, where what is taken stays taken, the one
    /// with [fewer proxies](Self::thinner) has its place among them. What would part stem and classifier is left out.
    pub(super) fn leaner(&self, at: &Cut) -> Result<Vec<Cut>> {
        let now = self.loss_and_cost(at)?;
        let mut steps = Vec::new();
        for id in gates(&at.plan, Role::Block) {
            let Some((price, plan)) = self.without(at, &BTreeSet::from([id]), now)? else { continue };
            steps.push(Step { price, plan, taken: id.node.to_string(), blocks: 1 });
        }
        if self.recipe.budget.is_some() {
            steps.extend(self.fewer_proxies(at, now)?);
        }
        steps.sort_by(|a, b| a.price.total_cmp(&b.price));
        steps.into_iter().take(TRIES).map(|step| step.of(at)).collect()
    }

    /// `at` without those of its proxies that are missed least, as many as cost half of what all of them do; nothing where that
    /// would hardly save anything. Proxies go last: those that are missed least now may be what a block's place could have
    /// been taken by.
    pub(super) fn thinner(&self, at: &Cut) -> Result<Vec<Cut>> {
        let step = self.fewer_proxies(at, self.loss_and_cost(at)?)?;
        step.into_iter().map(|step| step.of(at)).collect()
    }

    fn fewer_proxies(&self, at: &Cut, now: (f64, f64)) -> Result<Option<Step>> {
        let mut proxies = Vec::new();
        for id in gates(&at.plan, Role::Proxy) {
            if let Some((price, _)) = self.without(at, &BTreeSet::from([id]), now)? {
                proxies.push((price, id));
            }
        }
        proxies.sort_by(|a, b| a.0.total_cmp(&b.0));
        self.without_proxies(at, proxies.into_iter().map(|(_, id)| id), now)
    }

    /// `at` without the first of these proxies, whose removal is worth a retraining.
    fn without_proxies(
        &self,
        at: &Cut,
        proxies: impl Iterator<Item = GateId>,
        now: (f64, f64),
    ) -> Result<Option<Step>> {
        let costs = self.recipe.cost.gates(&at.plan)?;
        let cost = |id: &GateId| costs[id.node - 1][id.gate];
        let all: f64 = gates(&at.plan, Role::Proxy).map(|id| cost(&id)).sum();
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

    fn loss_and_cost(&self, at: &Cut) -> Result<(f64, f64)> {
        Ok((self.validation_loss(&at.plan, &at.params)?, self.recipe.cost.total(&at.plan)?))
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

        let all = whole.plan.blocks();
        let loss = |cut: &Cut| tailoring.validation_loss(&cut.plan, &cut.params).unwrap();
        let cost = |cut: &Cut| recipe.cost.total(&cut.plan).unwrap();
        let price = |cut: &Cut| (loss(cut) - loss(&whole)).max(NO_LOSS) / (cost(&whole) - cost(cut));
        let leaner = tailoring.leaner(&whole).unwrap();
        assert_eq!(leaner.len(), TRIES);
        for cut in &leaner {
            let node: usize = cut.stage.strip_prefix("prune-without-").unwrap().parse().unwrap();
            assert_eq!((cut.dropped, cut.plan.blocks()), (1, all - 1));
            assert!(cut.plan.cells[node - 1].block().is_none(), "{node}");
        }
        let prices: Vec<f64> = leaner.iter().map(price).collect();
        assert!(prices.is_sorted() && prices[0] < prices[TRIES - 1], "{prices:?}");
        for id in gates(&whole.plan, Role::Block) {
            let now = (loss(&whole), cost(&whole));
            let (price, plan) = tailoring.without(&whole, &BTreeSet::from([id]), now).unwrap().unwrap();
            assert!(price >= prices[TRIES - 1] || leaner.iter().any(|cut| cut.plan == plan), "{id:?}");
        }
        let next = tailoring.leaner(&leaner[0]).unwrap();
        assert!(next.iter().all(|cut| cut.stage.starts_with(&format!("{}-", leaner[0].stage))));

        // Proxies have their place among blocks only on the way to a budget.
        let thin = tailoring.thinner(&whole).unwrap();
        let [thin] = &thin[..] else { panic!("{} steps", thin.len()) };
        assert_eq!((&thin.stage[..], thin.dropped, thin.plan.blocks()), ("prune-0-without-p", 0, all));
        assert_eq!(tailoring.thinner(&leaner[0]).unwrap()[0].stage, format!("{}-p", leaner[0].stage));
        let budgeted = Recipe { budget: Some("50%".parse().unwrap()), ..recipe.clone() };
        let by_price = ground.tailoring(&budgeted, &work, &Device::Cpu, &progress).leaner(&whole).unwrap();
        let thinned = by_price.iter().position(|cut| cut.plan == thin.plan);
        let cheaper = prices.iter().filter(|cheaper| **cheaper < price(thin)).count();
        assert_eq!(thinned, (cheaper < TRIES).then_some(cheaper), "{prices:?}, {}", price(thin));
        assert_eq!(by_price.len(), TRIES);

        // Half of the proxies' cost goes, and those that are missed less than any that stays.
        let proxies = |cut: &Cut| -> f64 {
            let costs = recipe.cost.gates(&cut.plan).unwrap();
            gates(&cut.plan, Role::Proxy).map(|id| costs[id.node - 1][id.gate]).sum()
        };
        let left = proxies(thin) / proxies(&whole);
        assert!((0.2..=0.5).contains(&left), "{left}");
        let now = (loss(&whole), cost(&whole));
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        for id in gates(&whole.plan, Role::Proxy) {
            let (price, _) = tailoring.without(&whole, &BTreeSet::from([id]), now).unwrap().unwrap();
            let path = &whole.plan.cells[id.node - 1].gates[id.gate];
            let is_kept = thin.plan.cells[id.node - 1].gates.contains(path);
            if is_kept { kept.push(price) } else { taken.push(price) }
        }
        let dearest = taken.iter().copied().fold(f64::MIN, f64::max);
        assert!(kept.iter().all(|price| *price >= dearest), "{taken:?} taken, {kept:?} kept");
        // Without any proxy, every block is needed.
        let bare = Cut { plan: backbone, ..whole };
        assert!(tailoring.leaner(&bare).unwrap().is_empty() && tailoring.thinner(&bare).unwrap().is_empty());
    }
}
