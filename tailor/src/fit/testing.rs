//! A small backbone and a few training images, for tests.

use super::Ground;
use crate::data::{Images, Size, Split};
use crate::net::Params;
use crate::random::Random;
use crate::source::Source;
use bundles::plan::{Arch, Plan};
use candle_core::Device;

/// Number of classes.
pub(crate) const CLASSES: usize = 3;

/// Noise whose brightness grows with the label.
fn split(seed: u64, n: usize) -> Split {
    let mut random = Random::new(&[seed]);
    let labels: Vec<u32> = (0..n).map(|i| (i % CLASSES) as u32).collect();
    let pixel = |label: u32, random: &mut Random| (60 * label as usize + random.below(80)) as u8;
    let pixels =
        labels.iter().flat_map(|&l| (0..12 * 12 * 3).map(|_| pixel(l, &mut random)).collect::<Vec<_>>());
    let images = Images::new(pixels.collect(), Size { height: 12, width: 12 }).unwrap();
    Split { images, labels, files: (0..n).map(|i| format!("{i}.png")).collect() }
}

/// A different task for each number.
pub(crate) fn ground(task: u64, classifier: bool) -> Ground {
    let (plan, params) = backbone(5);
    let source = Source {
        arch: plan.arch.parse().unwrap(),
        plan,
        params,
        mean: [0.5; 3],
        std: [0.25; 3],
        id: [0; 32],
        folded: false,
        classifier,
        labels: Vec::new(),
        bytes: 0,
    };
    let classes = (0..CLASSES).map(|i| i.to_string()).collect();
    let (train, val) = (split(10 * task, 24), split(10 * task + 1, 9));
    Ground { source, classes, train, val, test: None, is_grey: false, identity: format!("task {task}") }
}

/// A small network and its parameters, as a backbone.
pub(crate) fn backbone(classes: usize) -> (Plan, Params) {
    let plan = "cifar-resnet8-b".parse::<Arch>().unwrap().plan(12, 12, classes).unwrap();
    let untrained = Params::from_scratch(&plan, 3, &Device::Cpu).unwrap();
    let mut params = Params::default();
    for (name, tensor) in untrained.iter() {
        params.freeze(name, tensor.clone());
    }
    (plan, params)
}
