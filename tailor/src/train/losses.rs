//! The loss of one step: the teacher's cross-entropy, or the student's three terms (NetTailor eq. 11-12).

use crate::Result;
use crate::data::Batch;
use crate::net::{Complexity, Forward, Net, Params, Pass, Sampled, Stats, alphas, sampled};
use crate::ops;
use bundles::plan::Plan;
use candle_core::Tensor;

/// Loss terms of one step, each a scalar tensor.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Cross-entropy on the labels.
    pub classification: Tensor,
    /// Expected relative complexity, before gamma1.
    pub complexity: Option<Tensor>,
    /// Distance to the teacher, before gamma2.
    pub matching: Option<Tensor>,
    /// Kullback-Leibler divergence from another network's class probabilities, before its weight.
    pub distillation: Option<Tensor>,
}

impl Terms {
    /// Cross-entropy alone.
    pub fn of(classification: Tensor) -> Terms {
        Terms { classification, complexity: None, matching: None, distillation: None }
    }
}

/// Temperature of the distillation from the teacher's class probabilities.
const TEMPERATURE: f64 = 4.0;

/// The result of one forward pass, ready for the backward pass.
#[derive(Debug)]
pub struct StepLoss {
    /// The weighted sum, a scalar for [`ops::backward`].
    pub total: Tensor,
    /// Its terms.
    pub terms: Terms,
    /// Class scores, `(n, classes)`.
    pub logits: Tensor,
    /// Batch statistics to fold into the running ones.
    pub stats: Vec<Stats>,
}

/// The student's loss terms besides the labels.
#[derive(Debug, Clone)]
pub struct Objective<'a> {
    /// The fine-tuned network to stay close to, if any.
    pub teacher: Option<Net<'a>>,
    /// Expected complexity; `None` while retraining.
    pub complexity: Option<&'a Complexity>,
    /// Weight of the complexity term.
    pub gamma1: f64,
    /// Expected relative complexity that is free of charge: only the excess is penalised. 0 penalises all of
    /// it.
    pub allowance: f64,
    /// Seed for sampled gates while complexity is penalised.
    pub seed: u64,
    /// Weight of the teacher term.
    pub gamma2: f64,
    /// Weight of distillation.
    pub distill: f64,
    /// Whether a cell's matching gradient stops at its inputs; otherwise it flows back to the stem.
    pub local: bool,
    /// Share of the target spread evenly over all classes.
    pub label_smoothing: f64,
}

/// Plain classification: `cross_entropy(labels)`.
///
/// # Errors
/// If batch and plan do not fit.
pub fn teacher_loss(plan: &Plan, params: &Params, batch: &Batch, label_smoothing: f64) -> Result<StepLoss> {
    label_loss(plan, params, batch, Pass::Train, label_smoothing)
}

/// Like [`teacher_loss`], with norms in the mode of `pass`. With running statistics, for example, those are
/// not updated.
///
/// # Errors
/// If batch and plan do not fit.
pub fn label_loss(
    plan: &Plan,
    params: &Params,
    batch: &Batch,
    pass: Pass,
    label_smoothing: f64,
) -> Result<StepLoss> {
    let Forward { logits, stats, .. } = Net { plan, params }.forward(&batch.images, pass)?;
    let classification = ops::cross_entropy(&logits, &batch.labels, label_smoothing)?;
    let terms = Terms::of(classification.clone());
    Ok(StepLoss { total: classification, terms, logits, stats })
}

/// `cross_entropy + gamma1 max(E - allowance, 0) + gamma2 Omega + distill T^2 KL`, with `Omega = (sum_l
/// mean((x_l - x_l^t)^2) + mean((logits - logits^t)^2)) / L` over live nodes, and the Kullback-Leibler
/// divergence from the teacher's class probabilities, both softened by the temperature T = 4.
///
/// # Errors
/// If batch, plan and teacher do not fit.
pub fn student_loss(
    plan: &Plan,
    params: &Params,
    batch: &Batch,
    objective: &Objective<'_>,
) -> Result<StepLoss> {
    let student = Net { plan, params };
    let pass = if objective.teacher.is_some() && objective.local { Pass::Trace } else { Pass::Train };
    let gates = match objective.complexity {
        Some(_) => sampled(plan, params, draw(objective.seed, batch))?,
        None => {
            let alphas = alphas(plan, params)?;
            Sampled { open: Vec::new(), alphas }
        }
    };
    let forward = student.forward_gated(&batch.images, pass, gates.alphas)?;
    let classification = ops::cross_entropy(&forward.logits, &batch.labels, objective.label_smoothing)?;
    let mut total = classification.clone();
    let complexity = match objective.complexity {
        Some(complexity) => {
            let expected = complexity.expected(&gates.open)?;
            let charged = match objective.allowance {
                0.0 => expected.clone(),
                allowance => (&expected - allowance)?.relu()?,
            };
            total = (total + (charged * objective.gamma1)?)?;
            Some(expected)
        }
        None => None,
    };
    let mut terms = Terms { complexity, ..Terms::of(classification) };
    if let Some(teacher) = objective.teacher {
        let target = teacher.forward(&batch.images, Pass::Infer)?;
        if objective.gamma2 > 0.0 {
            let distance = matching(&student, &forward, &target, objective.local)?;
            total = (total + (&distance * objective.gamma2)?)?;
            terms.matching = Some(distance);
        }
        if objective.distill > 0.0 {
            let divergence = divergence(&forward.logits, &target.logits)?;
            total = (total + (&divergence * objective.distill)?)?;
            terms.distillation = Some(divergence);
        }
    }
    Ok(StepLoss { total, terms, logits: forward.logits, stats: forward.stats })
}

/// Seed of this batch's sampled gates: a function of the run's seed, the batch's images and their order, so that
/// a resumed run samples the same.
fn draw(seed: u64, batch: &Batch) -> u64 {
    let mix = |hash: u64, index: &usize| (hash ^ *index as u64).wrapping_mul(0x0000_0100_0000_01b3);
    batch.indices.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix)
}

/// `T^2 KL(teacher || student)`; the factor keeps the gradient's scale, comparable to cross-entropy's,
/// independent of the temperature.
fn divergence(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    let least = ops::soft_cross_entropy(&target.detach(), target, TEMPERATURE)?;
    let divergence = (ops::soft_cross_entropy(logits, target, TEMPERATURE)? - least)?;
    Ok((divergence * TEMPERATURE.powi(2))?)
}

/// Omega: squared distance to the teacher's node activations and logits.
fn matching(student: &Net<'_>, forward: &Forward, target: &Forward, local: bool) -> Result<Tensor> {
    let mut sum = ops::mse(&forward.logits, &target.logits.detach())?;
    for node in 1..forward.nodes.len() {
        let (Some(x), Some(t)) = (&forward.nodes[node], &target.nodes[node]) else { continue };
        let t = t.detach();
        let distance = if local { student.match_locally(forward, node, &t)? } else { ops::mse(x, &t)? };
        sum = (sum + distance)?;
    }
    Ok((sum / student.plan.cells.len() as f64)?)
}
