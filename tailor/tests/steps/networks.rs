//! Small networks, their numbers and their images, made by the formulas of `fixtures/steps.py`.

use crate::device::device;
use bundles::container::golden_input;
use bundles::plan::{Affine, Conv, GateId, Linear, Op, Owner, Plan, Role};
use candle_core::Tensor;
use std::collections::BTreeSet;
use tailor::data::Batch;
use tailor::net::Params;

/// Images of a batch.
const IMAGES: usize = 6;
/// Classes of the task.
pub const CLASSES: usize = 5;

/// `n` numbers in [-1, 1): SplitMix64 started at the FNV-1a hash of `key`.
fn splitmix(key: &str, n: usize) -> Vec<f32> {
    let mix = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let mut values = vec![0.0; n];
    golden_input(key.bytes().fold(0xcbf2_9ce4_8422_2325, mix), &mut values);
    values
}

/// What tensor `name` of the student or teacher holds before the first step.
pub fn start(role: &str, name: &str, shape: &[usize]) -> Tensor {
    let (centre, spread) = match name.rsplit('.').next().unwrap_or(name) {
        "running_var" => (1.0, 0.4),
        "running_mean" => (0.0, 0.2),
        "alpha" => (0.0, 1.0),
        _ if shape.len() > 1 => (0.0, (3.0 / shape[1..].iter().product::<usize>() as f64).sqrt()),
        "bias" => (0.0, 0.3),
        _ => (1.0, 0.4),
    };
    let numbers = splitmix(&format!("{role}/{name}"), shape.iter().product());
    let values: Vec<f32> = numbers.into_iter().map(|u| (centre + spread * f64::from(u)) as f32).collect();
    Tensor::from_vec(values, shape, device()).unwrap()
}

/// Every number that `plan` needs in training, frozen, as a backbone.
pub fn backbone(role: &str, plan: &Plan) -> Params {
    let mut params = Params::default();
    for op in plan.ops() {
        let tensors: Vec<(String, Vec<usize>)> = match op {
            Op::Affine(norm) => ["weight", "bias", "running_mean", "running_var"]
                .iter()
                .map(|part| (format!("{}.{part}", norm.name), vec![norm.channels]))
                .collect(),
            _ => op.tensors().into_iter().map(|t| (t.name, t.shape)).collect(),
        };
        for (name, shape) in tensors {
            let tensor = start(role, &name, &shape);
            params.freeze(name, tensor);
        }
    }
    params
}

/// Replaces every number by the formula's; what is free stays free.
pub fn restart(role: &str, params: &mut Params) {
    let names: Vec<_> = params.iter().map(|(name, t)| (name.to_string(), t.dims().to_vec())).collect();
    for (name, shape) in names {
        params.set(&name, &start(role, &name, &shape)).unwrap();
    }
}

/// Batch `step` of the images that `seed` names, `size` pixels high and wide.
pub fn batch(seed: u32, step: usize, size: usize) -> Batch {
    let numbers = splitmix(&format!("images/{seed}/{step}"), IMAGES * 3 * size * size);
    let values = numbers.into_iter().map(|u| 2.0 * u).collect();
    let labels = (0..IMAGES).map(|i| ((3 * i + step) % CLASSES) as u32).collect();
    Batch {
        images: Tensor::from_vec(values, (IMAGES, 3, size, size), device()).unwrap(),
        labels: Tensor::from_vec(labels, IMAGES, device()).unwrap(),
        indices: (0..IMAGES).collect(),
    }
}

/// The same network with `num / den` of its channels.
pub fn slim(plan: &Plan, num: usize, den: usize) -> Plan {
    let scale = |c: usize| if c == 3 { c } else { c * num / den };
    let line = |ops: &[Op]| -> Vec<Op> {
        ops.iter()
            .map(|op| match op.clone() {
                Op::Conv(c) => Op::Conv(Conv { c_in: scale(c.c_in), c_out: scale(c.c_out), ..c }),
                Op::Affine(norm) => Op::Affine(Affine { channels: scale(norm.channels), ..norm }),
                Op::Linear(fc) => Op::Linear(Linear { c_in: scale(fc.c_in), ..fc }),
                Op::PadChannels { front, back } => {
                    let zeros = scale(front + back);
                    let front = if front > 0 { zeros / 2 } else { 0 };
                    Op::PadChannels { front, back: zeros - front }
                }
                other => other,
            })
            .collect()
    };
    let mut slim = plan.clone();
    (slim.stem, slim.head) = (line(&plan.stem), line(&plan.head));
    for path in slim.cells.iter_mut().flat_map(|c| &mut c.gates).flat_map(|g| &mut g.paths) {
        path.ops = line(&path.ops);
    }
    slim
}

/// A path into a node: the universal block, or the proxy from that node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Block,
    Proxy(usize),
}

/// Takes away paths `(node, way)` and whatever the exclusion rules take with them.
pub fn prune(plan: &Plan, params: &Params, cut: &[(usize, Way)]) -> (Plan, Params) {
    let is = |way, role, source| match way {
        Way::Block => role == Role::Block,
        Way::Proxy(from) => role == Role::Proxy && source == from,
    };
    let ids = |&(node, way): &(usize, Way)| {
        let gate = plan.cells[node - 1].gates.iter().position(|g| is(way, g.role, g.source)).unwrap();
        GateId { node, gate }
    };
    let pruned = plan.without(&cut.iter().map(ids).collect::<BTreeSet<_>>()).unwrap();
    let kept: Vec<Vec<usize>> = plan
        .cells
        .iter()
        .zip(&pruned.cells)
        .map(|(old, new)| (0..old.gates.len()).filter(|&g| new.gates.contains(&old.gates[g])).collect())
        .collect();
    let params = params.pruned(&pruned, &kept).unwrap();
    (pruned, params)
}

/// Names of the universal kernels, which no student may change.
pub fn kernels(plan: &Plan) -> Vec<String> {
    plan.tensors().into_iter().filter(|t| t.owner == Owner::Backbone).map(|t| t.name).collect()
}
