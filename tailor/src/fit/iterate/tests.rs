//! What is removed next, on a small backbone with random proxies.

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
    assert!(quarters.len() == 1 && quarters[0].plan == quarter.plan && quarters[0].stage == quarter.stage);
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
    let mut bench = bench();
    bench.whole.plan = backbone(&bench.ground);
    let (tailoring, bare) = (bench.tailoring(), &bench.whole);
    assert!(tailoring.leaner(bare, 1).unwrap().is_empty());
    assert!(tailoring.leaner(bare, 2).unwrap().is_empty(), "not even the first of two");
    assert!(tailoring.thinner(bare, 0).unwrap().is_empty());
}
