//! Dividing a line of operations into groups that one step computes.

use bundles::plan::{Affine, Conv, Op};

/// Operations fused into one step.
#[derive(Clone, Copy)]
pub(super) enum Group<'p> {
    Conv { conv: &'p Conv, affine: Option<&'p Affine>, relu: bool },
    Affine { affine: &'p Affine, relu: bool },
    Single(&'p Op),
}

pub(super) fn groups(ops: &[Op]) -> Vec<Group<'_>> {
    let mut out = Vec::with_capacity(ops.len());
    let mut rest = ops;
    while let Some((op, after)) = rest.split_first() {
        let (group, after) = match (op, after) {
            (Op::Conv(conv), [Op::Affine(affine), Op::Relu, after @ ..]) => {
                (Group::Conv { conv, affine: Some(affine), relu: true }, after)
            }
            (Op::Conv(conv), [Op::Affine(affine), after @ ..]) => {
                (Group::Conv { conv, affine: Some(affine), relu: false }, after)
            }
            (Op::Conv(conv), [Op::Relu, after @ ..]) => {
                (Group::Conv { conv, affine: None, relu: true }, after)
            }
            (Op::Conv(conv), after) => (Group::Conv { conv, affine: None, relu: false }, after),
            (Op::Affine(affine), [Op::Relu, after @ ..]) => (Group::Affine { affine, relu: true }, after),
            (Op::Affine(affine), after) => (Group::Affine { affine, relu: false }, after),
            (single, after) => (Group::Single(single), after),
        };
        out.push(group);
        rest = after;
    }
    out
}
