//! Random plans that pass every check, and random tensors for any plan.

use super::naive::Tensors;
use bundles::plan::{Affine, Cell, Conv, Gate, Linear, Op, Owner, Path, Plan, Role, Shape};

/// xorshift64*: small, seeded, good enough for choosing shapes.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// From 0 to `n - 1`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    /// Uniform in -1..1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Values for every tensor of `plan`, scaled so that maps stay near one.
pub fn tensors(plan: &Plan, rng: &mut Rng) -> Tensors {
    let specs = plan.tensors().into_iter();
    specs
        .map(|spec| {
            let fan_in: usize = spec.shape.iter().skip(1).product();
            let size = (3.0 / fan_in.max(1) as f32).sqrt();
            let offset = if spec.name.ends_with(".scale") { 0.5 } else { 0.0 };
            (spec.name.clone(), (0..spec.len()).map(|_| offset + size * rng.float() * 0.7).collect())
        })
        .collect()
}

struct Names(usize);

impl Names {
    fn next(&mut self, kind: &str) -> String {
        self.0 += 1;
        format!("{kind}{}", self.0)
    }
}

/// A plan with every primitive in unusual places: cells with several gates and paths, norms and ReLUs
/// anywhere, dead cells, gates with and without alpha.
pub fn plan(rng: &mut Rng) -> Plan {
    let names = &mut Names(0);
    let input = Shape::new(1 + rng.below(20), 6 + rng.below(9), 6 + rng.below(9));
    let mut plan =
        Plan { arch: "random".into(), input, stem: Vec::new(), cells: Vec::new(), head: Vec::new() };
    let mut nodes = vec![Some((0u32, input))];
    if !rng.one_in(6) {
        let to = Shape { c: 1 + rng.below(40), ..input };
        plan.stem = line(rng, names, input, to, 1);
        nodes[0] = Some((0, to));
    }
    for node in 1..=1 + rng.below(6) {
        let alive: Vec<usize> = (0..node).filter(|&p| nodes[p].is_some()).collect();
        let (mut level, from) = nodes[alive[alive.len() - 1]].unwrap();
        if node > 1 && alive.contains(&(node - 1)) && rng.one_in(8) {
            // Dead, unless it is the last: then the loop below gives it a successor.
            plan.cells.push(Cell { gates: Vec::new(), relu: true });
            nodes.push(None);
            continue;
        }
        let mut to = from;
        if rng.one_in(3) {
            level += 1;
            to = Shape::new(1 + rng.below(40), from.h.div_ceil(2), from.w.div_ceil(2));
        }
        let mut gates = Vec::new();
        for &source in alive.iter().rev().take(1 + rng.below(4)) {
            let block = source == node - 1 && !rng.one_in(4);
            let (from_level, from) = nodes[source].unwrap();
            let count = if block { 1 + rng.below(3) } else { 1 };
            let stride = 1 << (level - from_level);
            let paths = (0..count).map(|_| Path { ops: line(rng, names, from, to, stride) }).collect();
            let role = if block { Role::Block } else { Role::Proxy };
            gates.push(Gate { role, source, scaled: !rng.one_in(3), paths });
        }
        plan.cells.push(Cell { gates, relu: !rng.one_in(3) });
        nodes.push(Some((level, to)));
    }
    if plan.cells.last().is_some_and(Cell::is_dead) {
        plan.cells.pop();
        nodes.pop();
    }
    let mut features = nodes.last().unwrap().unwrap().1.c;
    if rng.one_in(2) {
        plan.head.push(Op::Affine(Affine { name: names.next("norm"), channels: features }));
    }
    if rng.one_in(2) {
        plan.head.push(Op::Relu);
    }
    plan.head.push(Op::GlobalAvgPool);
    if rng.one_in(3) {
        let c_out = 1 + rng.below(30);
        plan.head.push(Op::Linear(Linear { name: names.next("hidden"), c_in: features, c_out }));
        plan.head.push(Op::Relu);
        features = c_out;
    }
    plan.head.push(Op::Linear(Linear { name: "fc".into(), c_in: features, c_out: 1 + rng.below(12) }));
    plan.check().unwrap_or_else(|error| panic!("{error}: {plan:?}"));
    plan
}

/// Operations from shape `from` to `to`, which is `stride` times smaller (rounded up).
fn line(rng: &mut Rng, names: &mut Names, from: Shape, to: Shape, stride: usize) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut x = from;
    dress(rng, names, x.c, &mut ops);
    if stride > 1 {
        let even = x.h.is_multiple_of(stride) && x.w.is_multiple_of(stride);
        match rng.below(4) {
            0 => ops.push(Op::MaxPool { kernel: stride + 1, stride, pad: stride / 2 }),
            1 => ops.push(Op::Subsample { stride }),
            2 if even => ops.push(Op::AvgPool { kernel: stride, stride }),
            _ => {
                let c_out = 1 + rng.below(40);
                ops.push(conv(rng, names, x.c, c_out, stride));
                x.c = c_out;
            }
        }
        dress(rng, names, x.c, &mut ops);
    }
    if x.c < to.c && rng.one_in(2) {
        let front = rng.below(to.c - x.c + 1);
        ops.push(Op::PadChannels { front, back: to.c - x.c - front });
    } else if x.c != to.c || rng.one_in(2) {
        if rng.one_in(3) {
            let c_mid = 1 + rng.below(20);
            ops.push(conv(rng, names, x.c, c_mid, 1));
            x.c = c_mid;
            dress(rng, names, x.c, &mut ops);
        }
        ops.push(conv(rng, names, x.c, to.c, 1));
    }
    dress(rng, names, to.c, &mut ops);
    ops
}

/// Sometimes a norm, sometimes a ReLU, sometimes a pool that keeps the size.
fn dress(rng: &mut Rng, names: &mut Names, channels: usize, ops: &mut Vec<Op>) {
    if rng.one_in(3) {
        ops.push(Op::Affine(Affine { name: names.next("norm"), channels }));
    }
    match rng.below(8) {
        0..3 => ops.push(Op::Relu),
        3 => ops.push(Op::MaxPool { kernel: 3, stride: 1, pad: 1 }),
        _ => {}
    }
}

fn conv(rng: &mut Rng, names: &mut Names, c_in: usize, c_out: usize, stride: usize) -> Op {
    let kernel = [1, 3, 5][rng.below(3)];
    let owner = if rng.one_in(2) { Owner::Task } else { Owner::Backbone };
    let bias = rng.one_in(3);
    Op::Conv(Conv { name: names.next("conv"), owner, c_in, c_out, kernel, stride, pad: kernel / 2, bias })
}
