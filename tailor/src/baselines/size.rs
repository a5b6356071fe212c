//! Costs of a method's network: parameters, multiply-adds, and the bytes a device exchanges to switch tasks.
//!
//! All methods are counted alike, without compression. A number takes four bytes. A norm has two numbers per
//! channel, as deployed. A mask bit is an eighth of a byte and 1/32 of a parameter. Zeros in a kernel are
//! computed like any other number.

use super::kernels::convs;
use crate::Result;
use bundles::plan::{Conv, Counter, Op, Plan, Shape};

/// Costs of one task's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Parameters the network reads, shared and task-owned.
    pub params: u64,
    /// Task-owned parameters.
    pub task_params: u64,
    /// Multiply-adds of one image, `true` counter.
    pub macs: u64,
    /// Bytes that change when a device switches to the task from another task of the same backbone.
    pub swap_bytes: u64,
}

/// What a task owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owned {
    /// Numbers.
    pub numbers: u64,
    /// Mask bits.
    pub bits: u64,
}

impl Size {
    /// Costs of a network that reads `shared` numbers in addition to what the task owns.
    pub fn new(shared: u64, owned: Owned, macs: u64) -> Size {
        let task_params = owned.numbers + owned.bits.div_ceil(32);
        let swap_bytes = 4 * owned.numbers + owned.bits.div_ceil(8);
        Size { params: shared + task_params, task_params, macs, swap_bytes }
    }
}

/// Parameter counts of a plain backbone's plan, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// All kernels.
    pub kernels: u64,
    /// Two per norm channel.
    pub norms: u64,
    /// The classifier.
    pub head: u64,
    /// Multiply-adds of one image.
    pub macs: u64,
}

impl Parts {
    /// Counts the parts of `plan`.
    ///
    /// # Errors
    /// Any error of [`Plan::check`].
    pub fn of(plan: &Plan) -> Result<Parts> {
        let head = plan.head.iter().filter(|op| matches!(op, Op::Linear(_))).flat_map(Op::tensors);
        let head: u64 = head.map(|t| t.len() as u64).sum();
        Ok(Parts {
            kernels: plan.backbone_params(),
            norms: plan.task_params() - head,
            head,
            macs: plan.costs(Counter::True)?.total().macs,
        })
    }

    /// All parameters.
    pub fn all(&self) -> u64 {
        self.kernels + self.norms + self.head
    }
}

/// The plan's convolutions with the number of pixels of their outputs, in the order of [`convs`].
///
/// # Errors
/// Any error of [`Plan::check`].
pub fn outputs(plan: &Plan) -> Result<Vec<(&Conv, u64)>> {
    let nodes = plan.check()?;
    let mut found: Vec<(&Conv, u64)> = Vec::new();
    let mut line = |ops, x| walk(ops, x, &mut found);
    line(&plan.stem, plan.input);
    for gate in plan.cells.iter().flat_map(|cell| &cell.gates) {
        let source = nodes[gate.source].unwrap_or(plan.input);
        gate.paths.iter().for_each(|path| line(&path.ops, source));
    }
    let pixels = |conv: &Conv| found.iter().find(|(other, _)| other.name == conv.name).map_or(0, |f| f.1);
    Ok(convs(plan).map(|conv| (conv, pixels(conv))).collect())
}

fn walk<'a>(ops: &'a [Op], mut x: Shape, found: &mut Vec<(&'a Conv, u64)>) {
    for op in ops {
        // The plan has passed its checks.
        x = op.output(x).unwrap_or(x);
        if let Op::Conv(conv) = op {
            found.push((conv, (x.h * x.w) as u64));
        }
    }
}
