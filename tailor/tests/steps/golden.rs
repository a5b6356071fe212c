//! Three whole steps beside PyTorch's: loss terms, every gradient, parameters and running statistics after
//! them.
//!
//! PyTorch computed in `f64`, we in `f32`: sums of a few thousand products, divided by the standard
//! deviations of small batches, agree to a few parts in a million in a loss, and to a few in a hundred
//! thousand of a tensor's largest element in gradients and in what three steps added to a parameter. The
//! seeds are such that no ReLU and no max-pool is so near a tie that `f32` could take its other branch.

use crate::cases::{Case, Kind, RATES};
use crate::device::device;
use crate::networks::{self, Way};
use candle_core::Tensor;
use std::collections::{BTreeSet, HashMap};
use tailor::net::Formula;

/// Largest accepted difference over the largest element of a gradient, or of a parameter's change.
const TOLERANCE: f32 = 2e-4;
/// Likewise of losses and scores.
const LOSS_TOLERANCE: f32 = 1e-5;
/// Accepted besides in a gradient: a gate's is a difference of sums that may be a thousand times as large.
const CANCELLED: f32 = 1e-6;

type Figures = HashMap<String, Tensor>;

const TEACHER: Kind = Kind::Teacher;

const fn student(free_norms: bool, local: bool, formula: Formula) -> Kind {
    Kind::Student { free_norms, local, formula, cut: &[] }
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Fails when `got` is further from `want` than `tolerance` of its largest magnitude, and `rounding`.
#[track_caller]
fn close(what: &str, got: &[f32], want: &[f32], tolerance: f32, rounding: f32) -> f32 {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let scale = want.iter().fold(1e-6f32, |a, b| a.max(b.abs()));
    let far = got.iter().zip(want).fold(0f32, |a, (g, w)| a.max((g - w).abs()));
    let part = (far - rounding).max(0.0) / scale;
    assert!(part <= tolerance, "{what}: {far:e} off PyTorch's, whose largest is {scale}");
    part
}

/// Runs the case's three steps and compares everything the fixture holds, and that it holds everything.
fn check(name: &str, case: Case) {
    let path = format!("{}/fixtures/steps/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
    let figures: Figures = candle_core::safetensors::load(path, device()).unwrap();
    let seed = figures["seed"].to_vec1::<u32>().unwrap()[0];
    let mut training = case.start();
    let before: HashMap<String, Vec<f32>> =
        training.params.iter().map(|(name, t)| (name.to_string(), values(t))).collect();
    let mut worst = [0f32; 3];

    for (step, &rate) in RATES.iter().enumerate() {
        let loss = training.loss(&networks::batch(seed, step, case.size));
        let terms = [
            ("classification", Some(&loss.terms.classification)),
            ("complexity", loss.terms.complexity.as_ref()),
            ("matching", loss.terms.matching.as_ref()),
            ("total", Some(&loss.total)),
        ];
        for (term, got) in terms {
            let want = figures.get(&format!("loss/{term}")).map(values);
            assert_eq!(got.is_some(), want.is_some(), "{name}: {term}");
            if let (Some(got), Some(want)) = (got, want) {
                let what = format!("{name}, step {step}: {term}");
                worst[0] = worst[0].max(close(&what, &values(got), &want[step..=step], LOSS_TOLERANCE, 0.0));
            }
        }
        let grads = tailor::ops::backward(&loss.total).unwrap();
        if step == 0 {
            close(
                &format!("{name}: scores"),
                &values(&loss.logits),
                &values(&figures["logits"]),
                LOSS_TOLERANCE,
                0.0,
            );
            for (tensor, var) in training.params.vars() {
                let (got, want) = (grads.get(var), figures.get(&format!("grad/{tensor}")));
                assert_eq!(got.is_some(), want.is_some(), "{name}: a gradient of {tensor} on one side only");
                if let (Some(got), Some(want)) = (got, want) {
                    assert_eq!(got.dims(), want.dims(), "{name}: {tensor}");
                    let what = format!("{name}: gradient of {tensor}");
                    worst[1] = worst[1].max(close(&what, &values(got), &values(want), TOLERANCE, CANCELLED));
                }
            }
        }
        training.update(loss, &grads, rate);
    }

    for (tensor, after) in training.params.iter() {
        let (after, before) = (values(after), &before[tensor]);
        let Some(want) = figures.get(&format!("after/{tensor}")).map(values) else {
            assert!(&after == before, "{name}: {tensor} is frozen and has moved");
            continue;
        };
        let change = |v: &[f32]| -> Vec<f32> { v.iter().zip(before).map(|(v, b)| v - b).collect() };
        let what = format!("{name}: change of {tensor}");
        // Half a unit in the last place for each step, and one for the fixture.
        let rounding = 2.0 * f32::EPSILON * want.iter().fold(0f32, |a, b| a.max(b.abs()));
        worst[2] = worst[2].max(close(&what, &change(&after), &change(&want), TOLERANCE, rounding));
    }
    let ours: BTreeSet<&str> = training.params.iter().map(|(name, _)| name).collect();
    let theirs = figures.keys().filter_map(|key| key.split_once('/')).filter(|(kind, _)| *kind != "loss");
    for (kind, tensor) in theirs {
        assert!(ours.contains(tensor), "{name}: {kind} of {tensor} is in the fixture alone");
    }
    if let Kind::Student { .. } = case.kind {
        for kernel in networks::kernels(&training.plan) {
            assert!(!figures.contains_key(&format!("after/{kernel}")), "{name}: {kernel} is universal");
        }
    }
    println!("{name}: losses {:.1e}, gradients {:.1e}, changes {:.1e}", worst[0], worst[1], worst[2]);
}

const PROJECT: Case = Case {
    arch: "cifar-resnet14-b",
    width: (5, 16),
    size: 16,
    smoothing: 0.0,
    kind: student(false, true, Formula::Product),
};
const FULL: Case = Case { arch: "cifar-resnet8-b", width: (1, 1), size: 12, ..PROJECT };
const PAD: Case = Case { arch: "cifar-resnet14-a", width: (3, 16), ..PROJECT };
const IMAGENET: Case = Case { arch: "resnet18-s2", width: (6, 64), size: 32, ..PROJECT };
const BOTTLENECK: Case = Case { arch: "resnet50-s2", width: (1, 16), ..IMAGENET };
const WIDE: Case = Case { arch: "wrn16-1", width: (3, 16), ..PROJECT };
const DECATHLON: Case = Case { arch: "wrn26-decathlon", width: (1, 16), ..IMAGENET };

#[test]
fn a_student_of_projection_shortcuts() {
    check("student-project", PROJECT);
    let free = student(true, false, Formula::Product);
    check("student-project-free", Case { smoothing: 0.1, kind: free, ..PROJECT });
}

#[test]
fn a_student_of_zero_padded_shortcuts() {
    check("student-pad", Case { kind: student(false, true, Formula::Paper), ..PAD });
    check("student-pad-free", Case { kind: student(true, true, Formula::Product), ..PAD });
}

/// Node 2 is dead, node 3 lives on proxies alone, node 4 has lost its block and node 5 a proxy; what the
/// exclusion rules take with node 2 is not named here.
#[test]
fn a_pruned_student() {
    use Way::{Block, Proxy};
    let cut = &[(2, Block), (2, Proxy(1)), (2, Proxy(0)), (4, Block), (5, Proxy(4))];
    let kind = Kind::Student { free_norms: false, local: true, formula: Formula::Product, cut };
    check("student-pruned", Case { kind, ..PROJECT });
}

/// Wide enough for every convolution that has a fast way on wide layers to take it; maps of 12, 6 and 3
/// pixels.
#[test]
fn a_student_of_full_width() {
    check("student-full-width", FULL);
}

#[test]
fn a_student_with_a_pooled_stem() {
    check("student-imagenet", IMAGENET);
}

#[test]
fn a_student_of_bottlenecks() {
    check("student-bottleneck", Case { kind: student(false, true, Formula::Paper), ..BOTTLENECK });
}

#[test]
fn a_student_of_pre_activation_blocks() {
    check("student-wide-free", Case { kind: student(true, true, Formula::Product), ..WIDE });
}

#[test]
fn a_student_of_average_pooled_shortcuts() {
    check("student-decathlon", Case { kind: student(false, false, Formula::Product), ..DECATHLON });
}

#[test]
fn teachers() {
    let teachers = [
        ("teacher-project", Case { width: (1, 2), smoothing: 0.1, ..FULL }),
        ("teacher-pad", PAD),
        ("teacher-imagenet", IMAGENET),
        ("teacher-bottleneck", BOTTLENECK),
        ("teacher-wide", WIDE),
        ("teacher-decathlon", Case { width: (1, 32), ..DECATHLON }),
    ];
    for (name, case) in teachers {
        check(name, Case { kind: TEACHER, ..case });
    }
}
