//! The engine's scores compared with the naive interpreter's.

use super::naive::{self, Tensors};
use super::random::{self, Rng};
use bundles::plan::{Arch, Owner, Plan, Role, Skips};
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Session, Task};

/// Maximum difference, relative to the largest score.
const TOLERANCE: f64 = 1e-4;

/// Splits tensors by owner, as files would.
fn split(plan: &Plan, all: &Tensors) -> (Tensors, Tensors) {
    let of = |owner| {
        let specs = plan.tensors().into_iter().filter(move |spec| spec.owner == owner);
        specs.map(|spec| (spec.name.clone(), all[&spec.name].clone())).collect()
    };
    (of(Owner::Backbone), of(Owner::Task))
}

fn assert_agreement(plan: &Plan, seed: u64) {
    let rng = &mut Rng::new(seed);
    let all = random::tensors(plan, rng);
    let input: Vec<f32> = (0..plan.input.len()).map(|_| rng.float()).collect();
    let want = naive::scores(plan, &all, &input);
    let size = want.iter().fold(1e-2f64, |size, score| size.max(score.abs()));
    let (backbone, task) = split(plan, &all);
    for isa in Isa::available() {
        let backbone = Backbone::from_tensors(isa, backbone.clone());
        let task = Task::from_tensors(&backbone, "random", plan, &task).unwrap();
        for threads in [1, 2] {
            let mut session = Session::new(threads);
            // Twice: the second frame finds the first one's leftovers in the arena.
            for frame in 0..2 {
                let got = session.run(&task, &input).unwrap();
                assert_eq!(got.len(), want.len());
                for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                    let error = (f64::from(*got) - want).abs() / size;
                    assert!(
                        error <= TOLERANCE,
                        "seed {seed}, {isa}, {threads} threads, frame {frame}, score {i}: {got} against {want}\n{plan:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn random_plans_agree() {
    for seed in 1..=150 {
        assert_agreement(&random::plan(&mut Rng::new(seed)), seed);
    }
}

#[test]
fn every_architecture_agrees_at_each_stage() {
    // arch, image size
    let cases = [
        ("cifar-resnet20-a", 16),
        ("cifar-resnet20-b", 17),
        ("resnet18-s3", 33),
        ("resnet50-s1", 32),
        ("wrn16-1", 16),
        ("wrn26-decathlon", 16),
    ];
    for (name, size) in cases {
        let arch: Arch = name.parse().unwrap();
        let backbone = arch.plan(size, size, 7).unwrap();
        let student = backbone.with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap();
        let weak: Vec<Vec<f32>> = student
            .cells
            .iter()
            .map(|cell| cell.gates.iter().map(|g| if g.role == Role::Block { 0.1 } else { 0.5 }).collect())
            .collect();
        let pruned = student.pruned(&weak, 2, 0.05).unwrap();
        let dense = backbone.with_proxies(Skips::Dense, arch.proxy_form()).unwrap();
        for plan in [backbone, student.folded(), dense.folded(), pruned.folded(), pruned] {
            assert_agreement(&plan, 7);
        }
    }
}

#[test]
fn proxies_of_a_node_run_as_one_call() {
    let arch: Arch = "resnet18".parse().unwrap();
    let backbone = arch.plan(64, 64, 7).unwrap();
    for (skips, most) in [(Skips::Nearest(3), 3), (Skips::Dense, 8)] {
        let student = backbone.with_proxies(skips, arch.proxy_form()).unwrap().folded();
        let (backbone, task) = split(&student, &random::tensors(&student, &mut Rng::new(4)));
        let backbone = Backbone::from_tensors(Isa::detect(), backbone);
        let task = Task::from_tensors(&backbone, "t", &student, &task).unwrap();
        for (cell, node) in student.cells.iter().zip(1..) {
            let layers = task.layers();
            let calls: Vec<_> = layers
                .iter()
                .filter(|l| l.node == node && l.macs > 0 && l.gates.iter().all(|g| g.0 == Role::Proxy))
                .collect();
            assert_eq!(calls.len(), 1, "node {node}: {calls:?}");
            assert_eq!(calls[0].gates.len(), cell.proxies().count().min(most));
            let shares: u64 = calls[0].gates.iter().map(|gate| gate.2).sum();
            assert_eq!(shares, calls[0].macs);
        }
    }
}

#[test]
fn an_image_of_another_size_is_an_error_and_changes_nothing() {
    let arch: Arch = "cifar-resnet20-a".parse().unwrap();
    let plan = arch.plan(8, 8, 4).unwrap();
    let rng = &mut Rng::new(3);
    let (backbone, task) = split(&plan, &random::tensors(&plan, rng));
    let backbone = Backbone::from_tensors(Isa::detect(), backbone);
    let task = Task::from_tensors(&backbone, "t", &plan, &task).unwrap();
    let mut session = Session::new(1);
    let input = vec![0.5; plan.input.len()];
    let before = session.run(&task, &input).unwrap().to_vec();
    for len in [0, 1, input.len() - 1, input.len() + 1] {
        assert!(session.run(&task, &vec![0.0; len]).is_err());
    }
    assert_eq!(session.run(&task, &input).unwrap(), before);
}

#[test]
fn a_missing_tensor_is_named() {
    let arch: Arch = "cifar-resnet20-b".parse().unwrap();
    let plan = arch.plan(8, 8, 4).unwrap();
    let (backbone, task) = split(&plan, &random::tensors(&plan, &mut Rng::new(5)));
    for name in ["layer2.0.conv1.weight", "layer2.0.bn1.shift", "fc.bias"] {
        let (mut backbone, mut task) = (backbone.clone(), task.clone());
        assert!(backbone.remove(name).or(task.remove(name)).is_some());
        let backbone = Backbone::from_tensors(Isa::detect(), backbone);
        let error = Task::from_tensors(&backbone, "t", &plan, &task).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn layers_count_the_networks_multiply_adds_and_know_their_gate() {
    let arch: Arch = "cifar-resnet20-b".parse().unwrap();
    let plan =
        arch.plan(32, 32, 10).unwrap().with_proxies(Skips::Nearest(1), arch.proxy_form()).unwrap().folded();
    let (backbone, task) = split(&plan, &random::tensors(&plan, &mut Rng::new(9)));
    let backbone = Backbone::from_tensors(Isa::detect(), backbone);
    let task = Task::from_tensors(&backbone, "t", &plan, &task).unwrap();
    let layers = task.layers();
    let convs: usize = plan.ops().filter(|op| matches!(op, bundles::plan::Op::Conv(_))).count();
    assert_eq!(layers.iter().filter(|layer| layer.output.h > 1 && layer.macs > 0).count(), convs);
    let macs: u64 = layers.iter().map(|layer| layer.macs).sum();
    assert!((41_000_000..46_000_000).contains(&macs), "{macs}");
    assert!(layers.iter().any(|l| l.node == 4 && matches!(l.gates[..], [(Role::Proxy, 3, _)])), "{layers:?}");
    let times = Session::new(1).time_layers(&task, &vec![0.1; plan.input.len()], 3).unwrap();
    assert_eq!(times.len(), layers.len());
    assert!(times.iter().all(|time| !time.is_zero()));
}
