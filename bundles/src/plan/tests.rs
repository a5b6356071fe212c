//! The paper's figures, the checks, the exclusion rules and folding, as tables.

use super::*;
use crate::Error;
use std::collections::BTreeSet;

fn plan(arch: &str, classes: usize) -> Plan {
    let arch: Arch = arch.parse().unwrap();
    let size = arch.native_size();
    arch.plan(size, size, classes).unwrap()
}

fn student(arch: &str, skips: Skips) -> Plan {
    let parsed: Arch = arch.parse().unwrap();
    plan(arch, 10).with_proxies(skips, parsed.proxy_form()).unwrap()
}

fn millions(n: u64) -> f64 {
    n as f64 / 1e6
}

fn norm_channels(plan: &Plan) -> usize {
    plan.tensors().iter().filter(|t| t.name.ends_with(".scale")).map(|t| t.len()).sum()
}

#[test]
fn published_sizes_are_reproduced() {
    // arch, blocks, params (10 classes, M), paper GFLOPs, true GFLOPs, norm channels
    let cases = [
        ("resnet18", 8, 11.18, None, Some(1.82), 4_800),
        ("resnet34", 16, 21.29, Some(3.58), Some(3.67), 8_512),
        ("resnet50", 16, 23.53, None, Some(4.10), 26_560),
        ("cifar-resnet20-a", 9, 0.27, None, Some(0.041), 688),
        ("cifar-resnet56-a", 27, 0.85, None, Some(0.126), 2_032),
        ("wrn26-decathlon", 12, 5.82, None, Some(0.85), 32 + 2 * 4 * (64 + 128 + 256) + 256),
        ("wrn16-1", 6, 0.175, None, Some(0.027), 464),
    ];
    for (arch, blocks, params, paper, real, channels) in cases {
        let plan = plan(arch, 10);
        assert_eq!(plan.blocks(), blocks, "{arch}");
        let close = |got: f64, want: f64, unit: f64| (got - want).abs() <= unit / 2.0;
        let total = plan.costs(Counter::True).unwrap().total();
        let unit = 0.01;
        assert!(close(millions(total.params), params, unit), "{arch}: {} params", total.params);
        if let Some(want) = real {
            let unit = if want < 0.2 { 0.001 } else { 0.01 };
            assert!(close(total.macs as f64 / 1e9, want, unit * 1.001), "{arch}: {} MACs", total.macs);
        }
        if let Some(want) = paper {
            let macs = plan.costs(Counter::Paper).unwrap().total().macs;
            assert!(close(macs as f64 / 1e9, want, 0.01), "{arch}: {macs} paper MACs");
        }
        assert_eq!(norm_channels(&plan), channels, "{arch}");
    }
}

#[test]
fn residual_adapters_on_the_decathlon_network_match_the_published_table() {
    // A 1x1 adapter beside every 3x3 block kernel: 6.44 M parameters and 0.96 GFLOPs (table 3).
    let plan = plan("wrn26-decathlon", 10);
    let blocks: Cost = plan.costs(Counter::Paper).unwrap().gates.iter().flatten().copied().sum();
    let kernels: usize = plan
        .ops()
        .map(|op| if let Op::Conv(c) = op { c.c_in * c.c_out * c.kernel * c.kernel } else { 0 })
        .sum();
    assert!((millions(kernels as u64) * 10.0 / 9.0 - 6.44).abs() < 0.02, "{kernels}");
    assert!((blocks.macs as f64 * 10.0 / 9.0 / 1e9 - 0.96).abs() < 0.02, "{}", blocks.macs);
}

#[test]
fn proxies_of_each_skip_setting() {
    // arch, skips, proxies, proxy params (conv and norm) in millions
    let cases = [
        ("resnet34", Skips::Nearest(1), 16, None),
        ("resnet34", Skips::Nearest(3), 45, Some(2.75)),
        ("resnet34", Skips::Nearest(5), 70, None),
        ("resnet34", Skips::Dense, 136, None),
        ("cifar-resnet20-b", Skips::Nearest(3), 24, None),
        ("resnet50", Skips::Nearest(3), 45, None),
    ];
    for (arch, skips, count, params) in cases {
        let plan = student(arch, skips);
        assert_eq!(plan.proxies(), count, "{arch} {skips}");
        let costs = plan.costs(Counter::True).unwrap();
        let of_proxies: Cost = plan
            .cells
            .iter()
            .zip(&costs.gates)
            .flat_map(|(cell, costs)| cell.gates.iter().zip(costs))
            .filter(|(gate, _)| gate.role == Role::Proxy)
            .map(|(_, cost)| *cost)
            .sum();
        if let Some(want) = params {
            assert!((millions(of_proxies.params) - want).abs() < 0.005, "{arch}: {of_proxies:?}");
        }
    }
}

#[test]
fn a_bottleneck_proxy_weighs_about_a_twentieth_of_its_block() {
    let costs = student("resnet50", Skips::Nearest(1)).costs(Counter::True).unwrap();
    let (blocks, proxies): (u64, u64) =
        costs.gates.iter().fold((0, 0), |(b, p), gates| (b + gates[0].params, p + gates[1].params));
    let ratio = blocks as f64 / proxies as f64;
    assert!((15.0..25.0).contains(&ratio), "{ratio}");
}

#[test]
fn names_of_architectures_survive_a_round_trip() {
    for name in
        ["cifar-resnet20-a", "cifar-resnet110-b", "resnet18-s3", "resnet50", "wrn28-10", "wrn26-decathlon"]
    {
        assert_eq!(name.parse::<Arch>().unwrap().to_string(), name);
    }
    for name in [
        "",
        "resnet",
        "resnet19",
        "resnet18-s0",
        "resnet18-s5",
        "cifar-resnet21-a",
        "cifar-resnet20-c",
        "wrn16",
    ] {
        let error = name.parse::<Arch>().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn too_small_an_image_is_refused_with_the_place() {
    let error = Arch::DecathlonWrn.plan(3, 3, 10).unwrap_err();
    assert!(matches!(&error, Error::ShapeMismatch { place, .. } if place.contains("cell")), "{error}");
}

#[test]
fn broken_plans_are_refused() {
    type Break = fn(&mut Plan);
    type Refused = fn(&Error) -> bool;
    let cases: [(&str, Break, Refused); 8] = [
        (
            "proxy from a later node",
            |p| p.cells[2].gates[1].source = 5,
            |e| matches!(e, Error::BadSource { cell: 3, source: 5 }),
        ),
        (
            "two proxies from one node",
            |p| p.cells[2].gates[2].source = p.cells[2].gates[1].source,
            |e| matches!(e, Error::BadSource { cell: 3, .. }),
        ),
        (
            "source died",
            |p| p.cells[1].gates.clear(),
            |e| matches!(e, Error::BadSource { cell: 3, source: 2 }),
        ),
        ("last node dead", |p| p.cells[8].gates.clear(), |e| matches!(e, Error::Disconnected { .. })),
        (
            "no classifier",
            |p| {
                p.head.pop();
            },
            |e| matches!(e, Error::ShapeMismatch { .. }),
        ),
        (
            "shared name, other shape",
            |p| rename(p, "layer2.0.conv1", "layer1.0.conv1"),
            |e| matches!(e, Error::NameClash { .. }),
        ),
        (
            "wrong channels",
            |p| {
                p.stem.pop();
                p.stem.push(Op::PadChannels { front: 1, back: 0 });
            },
            |e| matches!(e, Error::ShapeMismatch { .. }),
        ),
        (
            "channels beyond any memory",
            |p| p.stem.push(Op::PadChannels { front: usize::MAX, back: 1 }),
            |e| matches!(e, Error::ShapeMismatch { .. }),
        ),
    ];
    for (name, break_it, expected) in cases {
        let mut plan = student("cifar-resnet20-b", Skips::Nearest(3));
        break_it(&mut plan);
        let error = plan.check().expect_err(name);
        assert!(expected(&error), "{name}: {error:?}");
    }
}

fn rename(plan: &mut Plan, from: &str, to: &str) {
    for op in
        plan.cells.iter_mut().flat_map(|c| &mut c.gates).flat_map(|g| &mut g.paths).flat_map(|p| &mut p.ops)
    {
        if let Op::Conv(conv) = op
            && conv.name == from
        {
            conv.name = to.into();
        }
    }
}

fn alphas(plan: &Plan, value: impl Fn(usize, Role) -> f32) -> Vec<Vec<f32>> {
    plan.cells
        .iter()
        .enumerate()
        .map(|(i, cell)| cell.gates.iter().map(|g| value(i + 1, g.role)).collect())
        .collect()
}

#[test]
fn the_lowest_blocks_and_weak_proxies_are_removed() {
    let plan = student("cifar-resnet20-a", Skips::Nearest(3));
    let trained = alphas(&plan, |node, role| match role {
        Role::Block => node as f32 / 10.0,
        Role::Proxy if node % 2 == 0 => 0.2,
        Role::Proxy => 0.01,
    });
    let pruned = plan.pruned(&trained, 2, 0.05).unwrap();
    // Node 1 loses block and proxies and dies; node 2 loses its block but keeps the proxy from node 0 alone.
    assert!(pruned.cells[0].is_dead());
    assert!(pruned.cells[1].block().is_none());
    assert_eq!(pruned.cells[1].proxies().map(|g| g.source).collect::<Vec<_>>(), [0]);
    // Node 4 read node 1 through a proxy: the input rule removes it.
    assert_eq!(pruned.cells[3].proxies().map(|g| g.source).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(pruned.blocks(), 7);
    assert_eq!(pruned.check().unwrap()[1], None);
}

#[test]
fn dead_ends_are_removed_to_a_fixpoint() {
    // Only nodes 7 and 8 still read each other; cutting node 9 off from them must remove both.
    let plan = student("cifar-resnet20-a", Skips::Nearest(3));
    let mut cut = BTreeSet::new();
    for (gate, g) in plan.cells[8].gates.iter().enumerate() {
        if g.source != 6 {
            cut.insert(GateId { node: 9, gate });
        }
    }
    let pruned = plan.without(&cut).unwrap();
    assert!(pruned.cells[7].is_dead() && pruned.cells[6].is_dead());
    assert!(!pruned.cells[5].is_dead());
    assert_eq!(pruned.cells[8].gates.len(), 1);
}

#[test]
fn a_cut_network_is_refused_with_its_reason() {
    let plan = student("cifar-resnet20-a", Skips::Nearest(3));
    let trained = alphas(&plan, |node, _| if (4..=6).contains(&node) { 0.001 } else { 0.9 });
    let error = plan.pruned(&trained, 3, 0.05).unwrap_err();
    match &error {
        Error::Disconnected { dead, why } => {
            assert_eq!(dead, &[4, 5, 6]);
            assert!(why.starts_with("3 dead nodes in a row"), "{why}");
        }
        other => panic!("{other}"),
    }
    assert!(matches!(plan.pruned(&trained, 10, 0.05), Err(Error::BadRequest { .. })));
    assert!(matches!(plan.pruned(&trained[1..], 1, 0.05), Err(Error::BadRequest { .. })));
}

#[test]
fn folding_moves_norm_and_alpha_into_the_proxy() {
    for (arch, convs) in [("cifar-resnet20-b", 1), ("resnet50", 2)] {
        let plan = student(arch, Skips::Nearest(3));
        let folded = plan.folded();
        folded.check().unwrap();
        for gate in folded.cells.iter().flat_map(|c| &c.gates) {
            assert_eq!(gate.scaled, gate.role == Role::Block);
            if gate.role == Role::Proxy {
                let kinds: Vec<_> = gate.paths[0].ops.iter().map(Op::kind).collect();
                assert_eq!(kinds.iter().filter(|k| **k == "conv").count(), convs);
                assert!(!kinds.contains(&"affine"), "{kinds:?}");
            }
        }
        // One parameter less per output channel of each folded norm, and one alpha less per proxy.
        let norms: u64 = (norm_channels(&plan) - norm_channels(&folded)) as u64;
        assert_eq!(plan.task_params() - folded.task_params(), norms + plan.proxies() as u64);
        assert_eq!(plan.backbone_params(), folded.backbone_params());
    }
}

#[test]
fn a_shared_norm_counts_once() {
    // WRN-16-1 enters stages 2 and 3 through a norm that body and projection share.
    let plan = plan("wrn16-1", 10);
    let names: Vec<_> = plan.tensors().into_iter().map(|t| t.name).collect();
    assert_eq!(names.iter().filter(|n| *n == "layer2.0.bn1.scale").count(), 1);
}

#[test]
fn a_norm_that_body_and_projection_share_is_counted_once() {
    let mut plan = plan("wrn16-1", 10);
    let gate = |plan: &Plan| plan.costs(Counter::Paper).unwrap().gates[2][0].macs;
    let shared = gate(&plan);
    // The projecting block of the second stage reads 16 channels of 32 x 32; renamed, its norm is no longer
    // shared.
    let Some(Op::Affine(norm)) = plan.cells[2].gates[0].paths[1].ops.first_mut() else { panic!("no norm") };
    norm.name = "layer2.0.other".into();
    assert_eq!(gate(&plan) - shared, 2 * 16 * 32 * 32);
}
