//! PackNet: tasks share one network, each in the weights that pruning of earlier tasks freed.
//!
//! Mallya & Lazebnik, "PackNet: Adding Multiple Tasks to a Single Network by Iterative Pruning" (CVPR 2018).
//! For each task in sequence, the free weights (all zero) are trained, while all earlier ones are used but
//! fixed; of the trained weights, the smallest 75 % of each layer are freed again; the remaining ones are
//! retrained. The last task is not pruned and keeps all that were free. Norms are fixed after the first task.
//!
//! Deviations are in [`PUBLISHED`]. The reason is that the backbone's source images are not available: its
//! own weights are pruned per layer and by magnitude, by 50 % (`packnet-50`) or 75 % (`packnet-75`), and what
//! that does to the norms' statistics is left to the first task of the sequence. A third of the teacher's
//! epochs is used for retraining, the rest for training; both follow the run's schedule.

use super::bench::{Bench, Trained};
use super::kernels::{convs, weight};
use super::size::{Owned, Parts, Size};
use crate::net::{Params, Pass, training_tensors};
use crate::{Error, Result};
use bundles::plan::{Conv, Op, Plan};
use candle_core::{Device, Tensor};
use std::collections::BTreeMap;

/// What users are told of it.
pub(super) const PUBLISHED: &str = "Mallya & Lazebnik, CVPR 2018. Here the backbone is pruned in one shot, \
                                    by half or three quarters, without retraining it, and norms are trained \
                                    with the first task (there with the source task). Pruned tasks are \
                                    retrained at the rate of their training (there a tenth of it); the last \
                                    data set's is not pruned, as there. A switch reads the task's mask and \
                                    classifier only: the weights of all tasks are in the one network.";

/// Fraction of a task's weights that its pruning frees.
const PRUNED: f64 = 0.75;
/// Stages of a task that others follow: before and after it is pruned.
const TRAINED: &str = "packnet";
const KEPT: &str = "packnet-kept";
/// The stage of the last task.
const LAST: &str = "packnet-last";
/// Owner of unused weights.
const FREE: f32 = 0.0;
/// Owner of the backbone's weights; tasks are numbered after it.
const BACKBONE: f32 = 1.0;

/// The shared network after some tasks: the weights of all of them, their owners, and the norms.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Kernels (zero where free) and norms, frozen.
    shared: Params,
    /// Owner of every weight, by kernel name: 0 for none, 1 for the backbone, then tasks in order.
    owners: BTreeMap<String, Vec<f32>>,
    /// Tasks so far, each as everything that shaped it.
    tasks: Vec<String>,
}

/// Epochs of training and of retraining after pruning, given the teacher's `epochs`. The last task, which is not
/// pruned, trains for all of them.
pub(super) fn stages(epochs: usize) -> [usize; 2] {
    let retrain = (epochs / 3).max(1);
    [epochs.saturating_sub(retrain).max(1), retrain]
}

pub(super) fn train(bench: &Bench<'_>, backbone_pruned: f64) -> Result<Trained> {
    let plan = bench.tailoring().backbone_plan()?;
    let before = match bench.packed {
        Some(packed) => packed.clone(),
        None => Packed::new(&plan, &bench.ground.source.params, backbone_pruned)?,
    };
    let first = before.tasks.is_empty();
    let pass = if first { Pass::Train } else { Pass::Infer };
    let [train, retrain] = stages(bench.epochs());
    let run = format!("pruned {backbone_pruned} {PRUNED} after {:?}", before.tasks);
    let mut params = before.open(&plan, bench)?;
    let fit =
        |stage, epochs, params: &mut Params| bench.fit((stage, &run), epochs, &plan, params, pass, &kernel);
    let (params, validation) = if bench.is_last {
        fit(LAST, bench.epochs(), &mut params)?
    } else {
        fit(TRAINED, train, &mut params)?;
        prune(&plan, &mut params)?;
        fit(KEPT, retrain, &mut params)?
    };
    // A task that was the last one, or is now, was trained otherwise.
    let others: &[&str] = if bench.is_last { &[TRAINED, KEPT] } else { &[LAST] };
    others.iter().try_for_each(|stage| bench.forget(stage))?;

    let packed = before.close(&plan, &params, &bench.ground.identity)?;
    let parts = Parts::of(&plan)?;
    let norms = if first { parts.norms } else { 0 };
    let numbers = packed.count(packed.newest()) + norms + parts.head;
    let mut size = Size::new(0, Owned { numbers, bits: parts.kernels }, parts.macs);
    // The task's weights take the place of pruned backbone weights.
    size.params = parts.all() + parts.kernels.div_ceil(32);
    // The weights of all tasks and the shared norms are already on the device; a switch only transfers which
    // weights to use.
    size.swap_bytes = Size::new(0, Owned { numbers: parts.head, bits: parts.kernels }, 0).swap_bytes;
    Ok(Trained { plan, params, validation, size, packed: Some(packed) })
}

impl Packed {
    /// The backbone, pruned in one shot.
    pub(super) fn new(plan: &Plan, backbone: &Params, pruned: f64) -> Result<Packed> {
        let mut shared = Params::default();
        for name in plan.ops().filter(|op| !matches!(op, Op::Linear(_))).flat_map(training_tensors) {
            shared.freeze(name.clone(), backbone.get(&name)?.clone());
        }
        let mut owners = BTreeMap::new();
        for conv in convs(plan) {
            let (name, mut values) = (weight(conv), backbone.values(&weight(conv))?);
            let mut owner = vec![BACKBONE; values.len()];
            release(&values, &mut owner, BACKBONE, pruned);
            zero_unless(&mut values, &owner, |owner| owner == BACKBONE);
            set(&mut shared, &name, values)?;
            owners.insert(name, owner);
        }
        Ok(Packed { shared, owners, tasks: Vec::new() })
    }

    /// Tasks so far, each as everything that shaped it.
    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// Owner number of the newest task.
    fn newest(&self) -> f32 {
        BACKBONE + self.tasks.len() as f32
    }

    /// Number of weights owned by `owner`.
    pub(super) fn count(&self, owner: f32) -> u64 {
        self.owners.values().flatten().filter(|&&o| o == owner).count() as u64
    }

    /// Training parameters for a new task: it owns all free weights, initialised to zero.
    pub(super) fn open(&self, plan: &Plan, bench: &Bench<'_>) -> Result<Params> {
        let mut params = Params::teacher(plan, &self.shared, bench.recipe.seed, bench.device)?;
        if !self.tasks.is_empty() {
            for name in plan.ops().filter(|op| matches!(op, Op::Affine(_))).flat_map(training_tensors) {
                params.freeze(name.clone(), self.shared.get(&name)?.clone());
            }
        }
        for conv in convs(plan) {
            let old = self.shared.get(&weight(conv))?;
            params.freeze(weight(conv), old.clone());
            params.free(new(conv), &old.zeros_like()?)?;
            let free = self.owners[&weight(conv)].iter().map(|&o| f32::from(u8::from(o == FREE))).collect();
            params.freeze(room(conv), Tensor::from_vec::<_, f32>(free, old.shape(), bench.device)?);
        }
        Ok(params)
    }

    /// Adds the trained task `params` to the network.
    pub(super) fn close(&self, plan: &Plan, params: &Params, task: &str) -> Result<Packed> {
        let mut next = self.clone();
        next.tasks.push(task.into());
        let mine = next.newest();
        for conv in convs(plan) {
            let name = weight(conv);
            let room = params.values(&room(conv))?;
            // Adding to exact zeros leaves all other weights bit-identical.
            set(&mut next.shared, &name, params.values(&name)?)?;
            let owners = next.owners.get_mut(&name).ok_or_else(|| Error::MissingTensor { name })?;
            owners.iter_mut().zip(room).filter(|(_, room)| *room > 0.0).for_each(|(owner, _)| *owner = mine);
        }
        for name in plan.ops().filter(|op| matches!(op, Op::Affine(_))).flat_map(training_tensors) {
            next.shared.freeze(name.clone(), params.get(&name)?.clone());
        }
        Ok(next)
    }

    /// The network as task `task` (from 1) uses it: weights of the backbone and of tasks up to it, without a
    /// classifier.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such task.
    pub fn of_task(&self, task: usize) -> Result<Params> {
        if task == 0 || task > self.tasks.len() {
            let want = format!("from 1 to {}", self.tasks.len());
            return Err(Error::config(format!("task {task}"), want));
        }
        let mut params = self.shared.clone();
        for (name, owners) in &self.owners {
            let mut values = self.shared.values(name)?;
            zero_unless(&mut values, owners, |owner| owner != FREE && owner <= BACKBONE + task as f32);
            set(&mut params, name, values)?;
        }
        Ok(params)
    }
}

/// Frozen weights of earlier tasks, plus this task's weights in the free positions.
pub(super) fn kernel(conv: &Conv, params: &Params) -> Result<Option<Tensor>> {
    let (old, new) = (params.get(&weight(conv))?, params.get(&new(conv))?);
    Ok(Some((old + (new * params.get(&room(conv))?)?)?))
}

/// Frees the smallest of this task's weights, per layer.
pub(super) fn prune(plan: &Plan, params: &mut Params) -> Result<()> {
    for conv in convs(plan) {
        let mut values = params.values(&new(conv))?;
        let mut owner = params.values(&room(conv))?;
        release(&values, &mut owner, 1.0, PRUNED);
        zero_unless(&mut values, &owner, |owner| owner == 1.0);
        set(params, &new(conv), values)?;
        set(params, &room(conv), owner)?;
    }
    Ok(())
}

/// Frees the fraction `pruned` of `mine`'s weights, smallest first.
fn release(values: &[f32], owner: &mut [f32], mine: f32, pruned: f64) {
    let mut order: Vec<usize> = (0..values.len()).filter(|&i| owner[i] == mine).collect();
    order.sort_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs()).then(a.cmp(&b)));
    let count = (order.len() as f64 * pruned).round() as usize;
    order[..count].iter().for_each(|&i| owner[i] = FREE);
}

fn zero_unless(values: &mut [f32], owners: &[f32], keep: impl Fn(f32) -> bool) {
    for (value, &owner) in values.iter_mut().zip(owners) {
        if !keep(owner) {
            *value = 0.0;
        }
    }
}

fn set(params: &mut Params, name: &str, values: Vec<f32>) -> Result<()> {
    let shape = params.get(name)?.shape().clone();
    let device: Device = params.device();
    params.set(name, &Tensor::from_vec(values, shape, &device)?)
}

/// Name of this task's weights of a kernel.
fn new(conv: &Conv) -> String {
    format!("{}.new", conv.name)
}

/// Name of the mask: 1 where this task owns the weight, 0 elsewhere.
fn room(conv: &Conv) -> String {
    format!("{}.room", conv.name)
}
