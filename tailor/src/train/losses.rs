//! The losses of one step: a teacher's cross-entropy, and a student's three terms (NetTailor eq. 11-12).

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
}

/// Everything one step hands to the optimiser.
#[derive(Debug)]
pub struct StepLoss {
    /// The weighted sum, a scalar to call `backward` on.
    pub total: Tensor,
    /// Its terms.
    pub terms: Terms,
    /// Class scores, `(n, classes)`.
    pub logits: Tensor,
    /// Batch statistics to fold into the running ones.
    pub stats: Vec<Stats>,
}

/// What a student is trained for, beside the labels.
#[derive(Debug, Clone)]
pub struct Objective<'a> {
    /// Fine-tuned network to stay close to, or none.
    pub teacher: Option<Net<'a>>,
    /// Expected complexity, or none while retraining.
    pub complexity: Option<&'a Complexity>,
    /// Weight of the complexity term.
    pub gamma1: f64,
    /// Expected relative complexity that is free of charge; only what exceeds it is weighed. 0 charges all of it.
    pub allowance: f64,
    /// Seed of gates that are random while complexity is charged.
    pub seed: u64,
    /// Weight of the teacher term.
    pub gamma2: f64,
    /// True: a cell's matching gradient stops at its inputs. False: it flows to the stem.
    pub local: bool,
    /// Share of the target spread evenly over all classes.
    pub label_smoothing: f64,
}

/// Plain classification: `cross_entropy(labels)`.
///
/// # Errors
/// When batch and plan do not fit.
pub fn teacher_loss(plan: &Plan, params: &Params, batch: &Batch, label_smoothing: f64) -> Result<StepLoss> {
    label_loss(plan, params, batch, Pass::Train, label_smoothing)
}

/// The same with norms as `pass` says: on running statistics, say, which then do not move.
///
/// # Errors
/// When batch and plan do not fit.
pub fn label_loss(
    plan: &Plan,
    params: &Params,
    batch: &Batch,
    pass: Pass,
    label_smoothing: f64,
) -> Result<StepLoss> {
    let Forward { logits, stats, .. } = Net { plan, params }.forward(&batch.images, pass)?;
    let classification = ops::cross_entropy(&logits, &batch.labels, label_smoothing)?;
    let terms = Terms { classification: classification.clone(), complexity: None, matching: None };
    Ok(StepLoss { total: classification, terms, logits, stats })
}

/// `cross_entropy + gamma1 max(E - allowance, 0) + gamma2 Omega`, with
/// `Omega = (sum_l mean((x_l - x_l^t)^2) + mean((logits - logits^t)^2)) / L` over live nodes.
///
/// # Errors
/// When batch, plan and teacher do not fit together.
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
    let matching = match objective.teacher {
        Some(teacher) => {
            let distance = matching(&student, &forward, &teacher, batch, objective.local)?;
            total = (total + (&distance * objective.gamma2)?)?;
            Some(distance)
        }
        None => None,
    };
    let terms = Terms { classification, complexity, matching };
    Ok(StepLoss { total, terms, logits: forward.logits, stats: forward.stats })
}

/// Seed of this batch's random gates: a function of the run's seed and of which images these are in which order, so that
/// a resumed run draws the same.
fn draw(seed: u64, batch: &Batch) -> u64 {
    let mix = |hash: u64, index: &usize| (hash ^ *index as u64).wrapping_mul(0x0000_0100_0000_01b3);
    batch.indices.iter().fold(seed ^ 0xcbf2_9ce4_8422_2325, mix)
}

/// Omega: squared distance to the teacher's nodes and logits.
fn matching(
    student: &Net<'_>,
    forward: &Forward,
    teacher: &Net<'_>,
    batch: &Batch,
    local: bool,
) -> Result<Tensor> {
    let target = teacher.forward(&batch.images, Pass::Infer)?;
    let mut sum = ops::mse(&forward.logits, &target.logits.detach())?;
    for node in 1..forward.nodes.len() {
        let (Some(x), Some(t)) = (&forward.nodes[node], &target.nodes[node]) else { continue };
        let t = t.detach();
        let distance = if local { student.match_locally(forward, node, &t)? } else { ops::mse(x, &t)? };
        sum = (sum + distance)?;
    }
    Ok((sum / student.plan.cells.len() as f64)?)
}
