//! The feature maps that an int8 network quantises, in an order that files rely on.

use super::{Cell, Op, Plan};
use std::ops::Range;

/// Where a map is produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The preprocessed image.
    Input,
    /// After operation `op` of the stem.
    Stem {
        /// Index into [`Plan::stem`].
        op: usize,
    },
    /// After operation `op` of a path.
    Path {
        /// Node of the cell, from 1.
        node: usize,
        /// Index into [`Cell::gates`].
        gate: usize,
        /// Index into [`Gate::paths`](super::Gate::paths).
        path: usize,
        /// Index into [`Path::ops`](super::Path::ops).
        op: usize,
    },
    /// Node `x_l`: the sum of a live cell, ReLU included.
    Node {
        /// `l`, from 1.
        node: usize,
    },
    /// After operation `op` of the head, before its global average pool.
    Head {
        /// Index into [`Plan::head`].
        op: usize,
    },
}

/// A map with its own scale and zero point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSpec {
    /// Where it is produced.
    pub place: Place,
    /// Whether it ends in a ReLU, which makes its zero point 0.
    pub relu: bool,
}

/// Groups of operations computed together: a convolution with the affine and ReLU that follow it, an affine
/// with the ReLU that follows it, or a single operation.
pub fn fused(ops: &[Op]) -> Vec<Range<usize>> {
    let mut groups = Vec::new();
    let mut start = 0;
    while start < ops.len() {
        let len = match &ops[start..] {
            [Op::Conv(_), Op::Affine(_), Op::Relu, ..] => 3,
            [Op::Conv(_), Op::Affine(_) | Op::Relu, ..] | [Op::Affine(_), Op::Relu, ..] => 2,
            _ => 1,
        };
        groups.push(start..start + len);
        start += len;
    }
    groups
}

/// Whether a path ending in this group contributes exact sums: it ends in a convolution without a ReLU.
pub fn is_term(group: &[Op]) -> bool {
    matches!(group, [Op::Conv(_)] | [Op::Conv(_), Op::Affine(_)])
}

impl Op {
    /// Whether it only moves or selects values (or averages a few), so that its output keeps its input's
    /// scale and zero point.
    pub fn keeps_scale(&self) -> bool {
        match self {
            Op::MaxPool { .. } | Op::AvgPool { .. } | Op::Subsample { .. } | Op::PadChannels { .. } => true,
            Op::Conv(_) | Op::Affine(_) | Op::Relu | Op::GlobalAvgPool | Op::Linear(_) => false,
        }
    }
}

impl Plan {
    /// The maps with their own scale in an int8 form of this network, in execution order.
    ///
    /// They are the image; in stem, paths and head the output of each [`fused`] group, except groups that
    /// keep the scale ([`Op::keeps_scale`]), the end of a path that enters its sum exactly ([`is_term`]), and
    /// everything from the head's global average pool (or linear layer) on; and every live node.
    pub fn maps(&self) -> Vec<MapSpec> {
        let mut maps = vec![MapSpec { place: Place::Input, relu: false }];
        line(&self.stem, false, &|op| Place::Stem { op }, &mut maps);
        for (i, cell) in self.cells.iter().enumerate().filter(|(_, cell)| !Cell::is_dead(cell)) {
            let node = i + 1;
            for (g, gate) in cell.gates.iter().enumerate() {
                for (p, path) in gate.paths.iter().enumerate() {
                    line(&path.ops, true, &|op| Place::Path { node, gate: g, path: p, op }, &mut maps);
                }
            }
            maps.push(MapSpec { place: Place::Node { node }, relu: cell.relu });
        }
        let end = self.head.iter().position(|op| matches!(op, Op::GlobalAvgPool | Op::Linear(_)));
        let front = self.head.get(..end.unwrap_or(self.head.len())).unwrap_or_default();
        line(front, false, &|op| Place::Head { op }, &mut maps);
        maps
    }

    /// Name of the tensor that holds an int8 task's map scales: a companion of the classifier, shape `(maps,
    /// 2)`, where each row is scale and zero point.
    pub fn maps_name(&self) -> Option<String> {
        self.head.iter().rev().find_map(|op| match op {
            Op::Linear(linear) => Some(format!("{}.weight#maps", linear.name)),
            _ => None,
        })
    }
}

fn line(ops: &[Op], path: bool, place: &dyn Fn(usize) -> Place, maps: &mut Vec<MapSpec>) {
    for range in fused(ops) {
        let last = path && range.end == ops.len();
        let group = ops.get(range.clone()).unwrap_or_default();
        let keeps = group.first().is_some_and(Op::keeps_scale);
        if !(keeps || last && is_term(group)) {
            let relu = matches!(group.last(), Some(Op::Relu));
            maps.push(MapSpec { place: place(range.end - 1), relu });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Arch, Skips};

    #[test]
    fn a_residual_network_quantises_one_map_per_block_and_every_node() {
        let arch: Arch = "cifar-resnet20-b".parse().unwrap();
        let plan = arch.plan(32, 32, 10).unwrap();
        let maps = plan.maps();
        // Image, stem, and for each of nine blocks the map between its convolutions and the node.
        assert_eq!(maps.len(), 2 + 9 * 2);
        assert_eq!(maps[0], MapSpec { place: Place::Input, relu: false });
        assert!(maps[1..].iter().all(|map| map.relu));
        assert_eq!(maps[2].place, Place::Path { node: 1, gate: 0, path: 0, op: 2 });
        assert_eq!(maps[3].place, Place::Node { node: 1 });
        assert_eq!(plan.maps_name().unwrap(), "fc.weight#maps");

        // Proxies are terms: pooled maps keep their source's scale.
        let student = plan.with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap().folded();
        assert_eq!(student.maps(), maps);
    }

    #[test]
    fn norms_in_front_are_maps_and_pooled_features_are_not() {
        let arch: Arch = "wrn16-1".parse().unwrap();
        let plan = arch.plan(32, 32, 10).unwrap();
        let places: Vec<Place> = plan.maps().iter().map(|map| map.place).collect();
        assert!(places.contains(&Place::Head { op: 1 }), "the tail norm with its ReLU: {places:?}");
        assert!(!places.iter().any(|place| matches!(place, Place::Head { op } if *op > 1)));
        let nodes = plan.maps().into_iter().filter(|map| matches!(map.place, Place::Node { .. }));
        assert!(nodes.map(|map| map.relu).eq([false; 6]), "sums of a pre-activation network are signed");
    }
}
