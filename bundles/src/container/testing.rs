//! Random plans and small bundles for this crate's tests.

use super::writer::{seal, seal_stored};
use super::{Kind, Manifest, Preprocess, Resize, SigningKey, Writer};
use crate::plan::{
    Affine, Arch, Cell, Conv, Gate, GateId, Linear, Op, Owner, Path, Plan, ProxyForm, Role, Shape, Skips,
};
use std::collections::BTreeSet;

/// SplitMix64.
pub(crate) struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn flip(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// Weight-like values: bell-shaped, standard deviation near 0.05.
    pub fn weights(&mut self, n: usize) -> Vec<f32> {
        let uniform = |rng: &mut Rng| (rng.next() >> 40) as f32 / (1 << 24) as f32 - 0.5;
        (0..n).map(|_| (0..4).map(|_| uniform(self)).sum::<f32>() * 0.0866).collect()
    }
}

/// Well-formed as data, with every kind of operation; shapes need not match.
pub(crate) fn random_plan(rng: &mut Rng) -> Plan {
    let stem = random_line(rng, "stem");
    let cells = (0..rng.below(4))
        .map(|l| Cell {
            relu: rng.flip(),
            gates: (0..rng.below(4)).map(|g| random_gate(rng, &format!("cell{l}.gate{g}"))).collect(),
        })
        .collect();
    let mut head = random_line(rng, "head");
    head.push(Op::Linear(Linear { name: "fc".into(), c_in: 8, c_out: 1 + rng.below(5) }));
    let input = Shape::new([1, 3][rng.below(2)], 1 + rng.below(300), 1 + rng.below(300));
    Plan { arch: format!("net {}", rng.below(1000)), input, stem, cells, head }
}

fn random_gate(rng: &mut Rng, name: &str) -> Gate {
    Gate {
        role: if rng.flip() { Role::Block } else { Role::Proxy },
        source: rng.below(200),
        scaled: rng.flip(),
        paths: (0..rng.below(3)).map(|p| Path { ops: random_line(rng, &format!("{name}.{p}")) }).collect(),
    }
}

fn random_line(rng: &mut Rng, name: &str) -> Vec<Op> {
    (0..rng.below(5))
        .map(|i| {
            let name = format!("{name}.{i}");
            match rng.below(9) {
                0 => Op::Conv(Conv {
                    name,
                    owner: if rng.flip() { Owner::Backbone } else { Owner::Task },
                    c_in: rng.below(3000),
                    c_out: rng.below(70_000),
                    kernel: rng.below(12),
                    stride: rng.below(5),
                    pad: rng.below(4),
                    bias: rng.flip(),
                }),
                1 => Op::Affine(Affine { name, channels: rng.below(3000) }),
                2 => Op::Relu,
                3 => Op::MaxPool { kernel: rng.below(5), stride: rng.below(5), pad: rng.below(3) },
                4 => Op::AvgPool { kernel: rng.below(5), stride: rng.below(5) },
                5 => Op::Subsample { stride: rng.below(5) },
                6 => Op::PadChannels { front: rng.below(300), back: rng.below(300) },
                7 => Op::GlobalAvgPool,
                _ => Op::Linear(Linear { name, c_in: rng.below(3000), c_out: rng.below(3000) }),
            }
        })
        .collect()
}

/// A deployed plan that passes all checks: a small network with proxies, randomly pruned.
pub(crate) fn random_network(rng: &mut Rng) -> Plan {
    let arch: Arch = ["cifar-resnet8-a", "cifar-resnet8-b", "wrn10-1"][rng.below(3)].parse().unwrap();
    let backbone = arch.plan(8 + rng.below(9), 8 + rng.below(9), 1 + rng.below(5)).unwrap();
    let student = backbone.with_proxies(Skips::Nearest(1 + rng.below(3)), ProxyForm::Single).unwrap();
    loop {
        let mut cut = BTreeSet::new();
        for (i, cell) in student.cells.iter().enumerate() {
            let gates = (0..cell.gates.len()).map(|gate| GateId { node: i + 1, gate });
            cut.extend(gates.filter(|_| rng.below(3) == 0));
        }
        if let Ok(pruned) = student.without(&cut) {
            return pruned.folded();
        }
    }
}

/// `conv1 -> relu -> global average -> fc` on a 6x5 image, two classes.
pub(crate) fn tiny_plan() -> Plan {
    let conv = Conv {
        name: "conv1".into(),
        owner: Owner::Backbone,
        c_in: 3,
        c_out: 4,
        kernel: 3,
        stride: 1,
        pad: 1,
        bias: false,
    };
    Plan {
        arch: "tiny".into(),
        input: Shape::new(3, 6, 5),
        stem: vec![Op::Conv(conv), Op::Affine(Affine { name: "bn1".into(), channels: 4 }), Op::Relu],
        cells: vec![],
        head: vec![Op::GlobalAvgPool, Op::Linear(Linear { name: "fc".into(), c_in: 4, c_out: 2 })],
    }
}

pub(crate) fn tiny_preprocess() -> Preprocess {
    Preprocess::new(3, 5, 6, Resize::Bilinear, [0.5, 0.25, 0.75], [0.5, 1.0, 2.0])
}

/// A backbone of the tiny plan: one kernel, and the source task's affine.
pub(crate) fn tiny_backbone() -> Writer {
    let mut w = Writer::new(Kind::Backbone, "tiny backbone", tiny_plan(), tiny_preprocess());
    let kernel: Vec<f32> = (0..108).map(|i| (i as f32 - 50.0) / 64.0).collect();
    w.tensor_f32("conv1.weight", Owner::Backbone, &[4, 3, 3, 3], &kernel).unwrap();
    w.tensor_f32("bn1.scale", Owner::Task, &[4], &[1.0, 0.5, 2.0, 1.0]).unwrap();
    w.tensor_f32("bn1.shift", Owner::Task, &[4], &[0.0, 0.25, -1.0, 0.0]).unwrap();
    w.fact("licence", "CC0-1.0");
    w
}

/// A task of the tiny plan whose four-byte and two-byte tensors share a block.
pub(crate) fn tiny_task() -> Writer {
    let mut w = Writer::new(Kind::Task, "tiny task", tiny_plan(), tiny_preprocess());
    w.labels(["warm", "cöld"]).backbone([9; 32], "").security_counter(300);
    w.golden(super::Golden { seed: 1, scores: vec![0.5, -1.5], tolerance: 1e-4 });
    w.fact("arch", "tiny").fact("source-accuracy", "");
    w.tensor_f32("bn1.scale", Owner::Task, &[4], &[1.0, 0.5, 2.0, 1.0]).unwrap();
    w.tensor_f32("bn1.shift", Owner::Task, &[4], &[0.0, 0.25, -1.0, 0.0]).unwrap();
    let smooth: Vec<f32> = (0..256).map(|i| i as f32 / 7.0).collect();
    w.tensor_f32("fc.weight#shuffled", Owner::Task, &[16, 16], &smooth).unwrap();
    w.tensor_f32("fc.weight#repeated", Owner::Task, &[64], &[0.1; 64]).unwrap();
    w.tensor_f16("fc.weight#half", Owner::Task, &[3], &[1.0, -0.5, 0.25]).unwrap();
    w.tensor_f32("fc.weight", Owner::Task, &[2, 4], &[1.0, 0.0, -1.0, 2.0, 0.5, 0.25, 0.0, 3.0]).unwrap();
    w.tensor_f32("fc.bias", Owner::Task, &[2], &[0.1, -0.1]).unwrap();
    w
}

/// A sealed, correctly signed file with any manifest, valid or not, and `group` as its section group.
pub(crate) fn forge(manifest: &Manifest, group: &[u8]) -> Vec<u8> {
    forge_bytes(manifest.kind, &manifest.to_bytes().unwrap(), group)
}

/// As [`forge`], for any manifest bytes.
pub(crate) fn forge_bytes(kind: Kind, manifest: &[u8], group: &[u8]) -> Vec<u8> {
    let sections = std::iter::once((0, group));
    seal(kind, manifest, group.len() as u64, sections, &[SigningKey::development()]).unwrap()
}

/// As [`forge_bytes`], for a manifest as stored in the file and its claimed decompressed length.
pub(crate) fn forge_stored(kind: Kind, stored: &[u8], claimed: usize) -> Vec<u8> {
    seal_stored(kind, stored, claimed, 0, std::iter::empty(), &[SigningKey::development()]).unwrap()
}
