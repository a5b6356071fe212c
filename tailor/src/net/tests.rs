//! Expected complexity by hand, forward passes against packed networks, and what each pass records.

use super::*;
use crate::ops;
use crate::pack::deploy;
use crate::random::Random;
use bundles::plan::{Arch, Counter, Owner, Plan, Role, Skips};
use candle_core::{Device, Tensor};

fn arch(name: &str) -> Arch {
    name.parse().unwrap()
}

/// Random parameters for a backbone; norms have non-trivial statistics.
fn random_backbone(plan: &Plan, seed: u64) -> Params {
    let mut random = Random::new(&[seed]);
    let mut params = Params::default();
    for op in plan.ops() {
        for spec in op.tensors() {
            let fan_in: usize = spec.shape.iter().skip(1).product::<usize>().max(1);
            let std = (2.0 / fan_in as f64).sqrt() as f32;
            if let Some(norm) = spec.name.strip_suffix(".scale") {
                let n = spec.shape[0];
                let mut draw = |low: f32, high: f32| {
                    let values: Vec<f32> =
                        (0..n).map(|_| low + (high - low) * random.unit() as f32).collect();
                    Tensor::from_vec(values, n, &Device::Cpu).unwrap()
                };
                params.freeze(format!("{norm}.weight"), draw(0.5, 1.5));
                params.freeze(format!("{norm}.bias"), draw(-0.2, 0.2));
                params.freeze(format!("{norm}.running_mean"), draw(-0.2, 0.2));
                params.freeze(format!("{norm}.running_var"), draw(0.5, 1.5));
            } else if !spec.name.ends_with(".shift") {
                let values: Vec<f32> = (0..spec.len()).map(|_| std * random.normal() as f32).collect();
                params.freeze(spec.name, Tensor::from_vec(values, spec.shape, &Device::Cpu).unwrap());
            }
        }
    }
    params
}

fn images(n: usize, size: usize) -> Tensor {
    let mut random = Random::new(&[7]);
    let values: Vec<f32> = (0..n * 3 * size * size).map(|_| random.normal() as f32).collect();
    Tensor::from_vec(values, (n, 3, size, size), &Device::Cpu).unwrap()
}

fn student(name: &str, size: usize, free_norms: bool) -> (Plan, Params) {
    let arch = arch(name);
    let backbone = arch.plan(size, size, 5).unwrap();
    let plan = backbone.with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap();
    let params =
        Params::student(&plan, &random_backbone(&backbone, 3), free_norms, Gating::Softmax, 11, &Device::Cpu)
            .unwrap();
    (plan, params)
}

fn furthest(a: &Tensor, b: &Tensor) -> f32 {
    let scale = a.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap().max(1e-6);
    let far = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    far.to_scalar::<f32>().unwrap() / scale
}

fn uniform_alphas(plan: &Plan) -> Vec<Option<Tensor>> {
    let of = |n: usize| Tensor::full(1.0 / n as f32, n, &Device::Cpu).unwrap();
    plan.cells.iter().map(|cell| Some(of(cell.gates.len()))).collect()
}

fn complexity(plan: &Plan, backbone: &Plan, formula: Formula) -> Complexity {
    let costs = plan.costs(Counter::Paper).unwrap();
    let per_gate = costs.gates.iter().map(|g| g.iter().map(|c| c.macs as f64).collect()).collect();
    let whole = backbone.costs(Counter::Paper).unwrap().without_head().macs as f64;
    Complexity::new(plan, per_gate, whole, formula).unwrap()
}

#[test]
fn the_papers_formula_rewards_diffuse_gates_and_the_product_does_not() {
    let arch = arch("resnet34");
    let backbone = arch.plan(224, 224, 10).unwrap();
    let plan = backbone.with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap();
    let expected = |formula| {
        let e = complexity(&plan, &backbone, formula).expected(&uniform_alphas(&plan)).unwrap();
        e.to_scalar::<f32>().unwrap()
    };
    assert!((expected(Formula::Paper) + 0.37).abs() < 0.005, "{}", expected(Formula::Paper));
    assert!(expected(Formula::Product) > 0.05, "{}", expected(Formula::Product));
}

#[test]
fn a_network_that_always_runs_costs_what_it_costs() {
    // With one gate per cell, alpha is 1 everywhere, so expected complexity is the blocks' share of the
    // whole.
    let backbone = arch("cifar-resnet20-a").plan(32, 32, 10).unwrap();
    let costs = backbone.costs(Counter::Paper).unwrap();
    let blocks: u64 = costs.gates.iter().flatten().map(|c| c.macs).sum();
    let want = blocks as f32 / costs.without_head().macs as f32;
    let got =
        complexity(&backbone, &backbone, Formula::Product).expected(&uniform_alphas(&backbone)).unwrap();
    assert!((got.to_scalar::<f32>().unwrap() - want).abs() < 1e-6);
}

#[test]
fn a_fresh_student_starts_with_the_published_gates() {
    let (plan, params) = student("cifar-resnet20-b", 32, false);
    let gates = alphas(&plan, &params).unwrap();
    let last: Vec<f32> = gates[8].as_ref().unwrap().to_vec1().unwrap();
    assert_eq!(plan.cells[8].gates[0].role, Role::Block);
    assert!((last[0] - 0.948).abs() < 5e-4, "{last:?}");
}

#[test]
fn only_the_tasks_own_tensors_are_trained() {
    for free_norms in [false, true] {
        let (plan, params) = student("cifar-resnet20-b", 32, free_norms);
        let shared: Vec<String> =
            plan.tensors().into_iter().filter(|t| t.owner == Owner::Backbone).map(|t| t.name).collect();
        assert!(shared.len() > 20);
        assert!(shared.iter().all(|name| !params.is_free(name)));
        assert_eq!(params.is_free("layer1.0.bn1.weight"), free_norms);
        assert!(!params.is_free("layer1.0.bn1.running_mean"));
        assert!(params.is_free("proxy3.0.conv.weight") && params.is_free("cell3.alpha"));
    }
}

#[test]
fn the_deployed_network_gives_the_same_scores() {
    for (name, size) in [("cifar-resnet20-a", 32), ("wrn16-1", 32), ("wrn26-decathlon", 32), ("resnet50", 64)]
    {
        let (plan, params) = student(name, size, false);
        let x = images(2, size);
        let scores = Net { plan: &plan, params: &params }.forward(&x, Pass::Infer).unwrap().logits;
        let (folded, tensors) = deploy(&plan, &params).unwrap();
        let mut packed = Params::packed();
        for t in tensors {
            packed.freeze(t.name, Tensor::from_vec(t.values, t.shape, &Device::Cpu).unwrap());
        }
        for t in folded.tensors().into_iter().filter(|t| t.owner == Owner::Backbone) {
            packed.freeze(t.name.clone(), params.get(&t.name).unwrap().clone());
        }
        let again = Net { plan: &folded, params: &packed }.forward(&x, Pass::Infer).unwrap().logits;
        assert!(furthest(&scores, &again) < 1e-4, "{name}: {}", furthest(&scores, &again));
    }
}

#[test]
fn local_matching_from_recorded_values_equals_computing_the_cell_again() {
    let (plan, params) = student("cifar-resnet20-b", 16, false);
    let net = Net { plan: &plan, params: &params };
    let x = images(4, 16);
    for node in [1, 4, 9] {
        let forward = net.forward(&x, Pass::Trace).unwrap();
        let target = (forward.nodes[node].as_ref().unwrap().detach() * 0.5).unwrap();
        assert!(forward.is_traced(node));
        let fast = net.match_locally(&forward, node, &target).unwrap();
        let plain = net.forward(&x, Pass::Train).unwrap();
        assert!(!plain.is_traced(node));
        let slow = net.match_locally(&plain, node, &target).unwrap();
        assert!(furthest(&slow, &fast) < 1e-5);
        let [fast, slow] = [fast, slow].map(|loss| ops::backward(&loss).unwrap());
        let mut compared = 0;
        for (name, var) in params.vars() {
            match (fast.get(var), slow.get(var)) {
                (Some(a), Some(b)) => {
                    assert!(furthest(b, a) < 1e-3, "node {node}, {name}: {}", furthest(b, a));
                    compared += 1;
                }
                (None, None) => {}
                (a, b) => panic!("node {node}, {name}: {} {}", a.is_some(), b.is_some()),
            }
        }
        // Alpha and, per proxy, kernel, norm weight and norm bias: nothing outside the cell.
        assert_eq!(compared, 1 + 3 * plan.cells[node - 1].proxies().count());
    }
}

#[test]
fn end_to_end_matching_reaches_earlier_cells() {
    let (plan, params) = student("cifar-resnet20-b", 16, false);
    let net = Net { plan: &plan, params: &params };
    let forward = net.forward(&images(4, 16), Pass::Train).unwrap();
    let target = forward.nodes[9].as_ref().unwrap().zeros_like().unwrap();
    let grads = ops::backward(&ops::mse(forward.nodes[9].as_ref().unwrap(), &target).unwrap()).unwrap();
    let (_, early) = params.vars().find(|(name, _)| *name == "proxy1.0.conv.weight").unwrap();
    assert!(grads.get(early).is_some());
}

#[test]
fn every_norm_reports_its_statistics_once() {
    let (plan, params) = student("wrn16-1", 32, false);
    let forward = Net { plan: &plan, params: &params }.forward(&images(4, 32), Pass::Train).unwrap();
    let mut names: Vec<_> = forward.stats.iter().map(|s| s.norm.clone()).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
    let norms = plan.tensors().iter().filter(|t| t.name.ends_with(".scale")).count();
    assert_eq!(all, norms);
}

/// A student with hard-concrete gates whose logits are the same in every cell: the block's, then the
/// proxies'.
fn hard_concrete(block: f32, proxy: f32) -> (Plan, Params) {
    let arch = arch("cifar-resnet20-b");
    let backbone = arch.plan(32, 32, 5).unwrap();
    let plan = backbone.with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap();
    let numbers = random_backbone(&backbone, 3);
    let mut params = Params::student(&plan, &numbers, true, Gating::HardConcrete, 11, &Device::Cpu).unwrap();
    for (i, cell) in plan.cells.iter().enumerate() {
        let logits: Vec<f32> =
            cell.gates.iter().map(|g| if g.role == Role::Block { block } else { proxy }).collect();
        let logits = Tensor::from_vec(logits, cell.gates.len(), &Device::Cpu).unwrap();
        params.set(&Plan::alpha_name(i + 1), &logits).unwrap();
    }
    (plan, params)
}

fn first_cell(all: &[Option<Tensor>]) -> Vec<f32> {
    all[0].as_ref().unwrap().to_vec1().unwrap()
}

#[test]
fn hard_concrete_gates_open_and_close_for_good() {
    // sigmoid(0) = 0.5 stays 0.5 when 0..1 is stretched to -0.1..1.1; beyond +-ln(11) the ends are reached.
    for (logit, want) in [(0.0, 0.5), (2.0, 0.956_957), (2.5, 1.0), (-2.3, 0.009_4), (-2.5, 0.0), (-9.0, 0.0)]
    {
        let (plan, params) = hard_concrete(logit, logit);
        let gates = first_cell(&alphas(&plan, &params).unwrap());
        assert!(gates.iter().all(|alpha| (alpha - want).abs() < 1e-4), "{logit}: {gates:?}");
        assert!(want != 0.0 || gates.iter().all(|&alpha| alpha == 0.0), "not small: zero");
    }
}

#[test]
fn drawn_gates_are_open_as_often_as_the_probability_says() {
    for logit in [-2.0, -0.5, 1.0] {
        let (plan, params) = hard_concrete(logit, logit);
        let draws: Vec<Sampled> = (0..200).map(|seed| sampled(&plan, &params, seed).unwrap()).collect();
        let values: Vec<f32> = draws
            .iter()
            .flat_map(|draw| draw.alphas.iter().flatten())
            .flat_map(|alpha| alpha.to_vec1::<f32>().unwrap())
            .collect();
        let open = values.iter().filter(|&&alpha| alpha > 0.0).count() as f32 / values.len() as f32;
        // sigmoid(logit - 2/3 ln(0.1 / 1.1)), eq. 12 of Louizos et al.
        let want = 1.0 / (1.0 + (-(logit + 1.598_597)).exp());
        let told = first_cell(&draws[0].open)[0];
        assert!((told - want).abs() < 1e-5, "{told} {want}");
        // Over 6,000 draws: four standard deviations.
        assert!(
            (open - want).abs() < 4.0 * (want * (1.0 - want) / values.len() as f32).sqrt(),
            "{open} {want}"
        );
        assert!(values.iter().any(|&alpha| alpha > 0.0 && alpha < 1.0) && values.contains(&1.0));
        assert_eq!(first_cell(&draws[3].alphas), first_cell(&sampled(&plan, &params, 3).unwrap().alphas));
    }
}

#[test]
fn softmax_gates_are_never_drawn() {
    let (plan, params) = student("cifar-resnet20-b", 32, false);
    let drawn = sampled(&plan, &params, 5).unwrap();
    let fixed = first_cell(&alphas(&plan, &params).unwrap());
    assert_eq!((first_cell(&drawn.alphas), first_cell(&drawn.open)), (fixed.clone(), fixed));
}

#[test]
fn closed_gates_can_be_cut_without_any_change() {
    let (plan, mut params) = hard_concrete(3.0, 0.5);
    // Blocks 2 and 5, and every other proxy, are closed.
    for (i, cell) in plan.cells.iter().enumerate() {
        let logits: Vec<f32> = (0..cell.gates.len())
            .map(|g| match g {
                0 if i == 1 || i == 4 => -4.0,
                0 => 3.0,
                g if g % 2 == 0 => -4.0,
                _ => 0.5,
            })
            .collect();
        let logits = Tensor::from_vec(logits, cell.gates.len(), &Device::Cpu).unwrap();
        params.set(&Plan::alpha_name(i + 1), &logits).unwrap();
    }
    let gates: Vec<Vec<f32>> =
        alphas(&plan, &params).unwrap().iter().map(|a| a.as_ref().unwrap().to_vec1().unwrap()).collect();
    let cut = plan.pruned(&gates, 2, f32::MIN_POSITIVE).unwrap();
    assert_eq!(cut.blocks(), plan.blocks() - 2);
    assert!(cut.proxies() < plan.proxies());
    let kept: Vec<Vec<usize>> = plan
        .cells
        .iter()
        .zip(&cut.cells)
        .map(|(a, b)| (0..a.gates.len()).filter(|&g| b.gates.contains(&a.gates[g])).collect())
        .collect();
    let lean = params.pruned(&cut, &kept).unwrap();
    let x = images(2, 32);
    let scores = |plan, params| Net { plan, params }.forward(&x, Pass::Infer).unwrap().logits;
    assert!(furthest(&scores(&plan, &params), &scores(&cut, &lean)) < 1e-6);
}

#[test]
fn only_what_exceeds_an_allowance_is_charged() {
    let (plan, params) = student("cifar-resnet20-b", 32, true);
    let backbone = arch("cifar-resnet20-b").plan(32, 32, 5).unwrap();
    let complexity = complexity(&plan, &backbone, Formula::Product);
    let expected = complexity.expected(&alphas(&plan, &params).unwrap()).unwrap().to_scalar::<f32>().unwrap();
    let batch = crate::data::Batch {
        images: images(4, 32),
        labels: Tensor::from_vec(vec![0u32, 1, 2, 3], 4, &Device::Cpu).unwrap(),
        indices: vec![0, 1, 2, 3],
    };
    let step = |allowance: f64| {
        let objective = crate::train::Objective {
            teacher: None,
            complexity: Some(&complexity),
            gamma1: 10.0,
            allowance,
            seed: 1,
            gamma2: 0.0,
            distill: 0.0,
            local: false,
            label_smoothing: 0.0,
        };
        let loss = crate::train::student_loss(&plan, &params, &batch, &objective).unwrap();
        let charged = (&loss.total - &loss.terms.classification).unwrap().to_scalar::<f32>().unwrap();
        // The reported loss is the full one.
        let told = loss.terms.complexity.unwrap().to_scalar::<f32>().unwrap();
        assert!((told - expected).abs() < 1e-6);
        charged
    };
    assert!((step(0.0) - 10.0 * expected).abs() < 1e-4);
    assert!((step(0.25) - 10.0 * (expected - 0.25)).abs() < 1e-4);
    assert_eq!(step(f64::from(expected) + 0.01), 0.0);
}

#[test]
fn distillation_pulls_towards_the_teachers_answers_alone() {
    let plan = arch("cifar-resnet20-b").plan(32, 32, 5).unwrap();
    let params = |seed| Params::from_scratch(&plan, seed, &Device::Cpu).unwrap();
    let (student, other) = (params(1), params(2));
    let batch = crate::data::Batch {
        images: images(4, 32),
        labels: Tensor::from_vec(vec![0u32, 1, 2, 3], 4, &Device::Cpu).unwrap(),
        indices: vec![0, 1, 2, 3],
    };
    let step = |distill: f64| {
        let objective = crate::train::Objective {
            teacher: Some(Net { plan: &plan, params: &other }),
            complexity: None,
            gamma1: 0.0,
            allowance: 0.0,
            seed: 1,
            gamma2: 0.0,
            distill,
            local: false,
            label_smoothing: 0.0,
        };
        crate::train::student_loss(&plan, &student, &batch, &objective).unwrap()
    };
    let number = |x: &Tensor| x.to_scalar::<f32>().unwrap();
    let loss = step(3.0);
    let divergence = number(loss.terms.distillation.as_ref().unwrap());
    assert!(divergence > 0.01 && loss.terms.matching.is_none());
    let total = number(&loss.terms.classification) + 3.0 * divergence;
    assert!((number(&loss.total) - total).abs() < 1e-5, "{} {total}", number(&loss.total));
    // The divergence is 16 (sum p log p - sum p log q), where the teacher's p uses its running statistics.
    let answers = Net { plan: &plan, params: &other }.forward(&batch.images, Pass::Infer).unwrap().logits;
    let (p, q): (Vec<Vec<f32>>, Vec<Vec<f32>>) = (answers.to_vec2().unwrap(), loss.logits.to_vec2().unwrap());
    let softened = |row: &[f32]| -> Vec<f64> {
        let powers: Vec<f64> = row.iter().map(|&x| (f64::from(x) / 4.0).exp()).collect();
        powers.iter().map(|x| x / powers.iter().sum::<f64>()).collect()
    };
    let kl = |(p, q): (&Vec<f32>, &Vec<f32>)| -> f64 {
        softened(p).iter().zip(softened(q)).map(|(p, q)| p * (p / q).ln()).sum()
    };
    let want = 16.0 * p.iter().zip(&q).map(kl).sum::<f64>() / 4.0;
    assert!((f64::from(divergence) - want).abs() < 1e-4 * want.max(1.0), "{divergence} {want}");
    let without = step(0.0);
    assert!(without.terms.distillation.is_none());
    assert_eq!(number(&without.total), number(&without.terms.classification));
}
