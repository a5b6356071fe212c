//! Learning without Forgetting: all weights are trained, while the source classifier is kept to its original
//! responses.
//!
//! Li & Hoiem, "Learning without Forgetting" (ECCV 2016; TPAMI 2018). The source network's responses to the
//! new images are recorded; the new classifier is warmed up alone; then everything is trained on `L_new +
//! lambda L_old`, with lambda 1 and L_old the cross-entropy between recorded and current responses of the
//! source classifier at temperature 2.
//!
//! Deviations are in [`PUBLISHED`]. The warm-up is on frozen features. Tasks are independent in the visual
//! decathlon's tables too. The source classifier serves the source task and is not counted.

use super::bench::{Bench, Trained};
use super::features;
use super::size::{Owned, Parts, Size};
use crate::data::Batch;
use crate::fit::Stage;
use crate::net::{Forward, Net, Params, Pass};
use crate::train::{Schedule, StepLoss, Terms};
use crate::{Error, Result, ops};
use bundles::plan::{Op, Plan};
use candle_core::Tensor;

/// What users are told of it.
pub(super) const PUBLISHED: &str = "Li & Hoiem, ECCV 2016. Here each task starts from the backbone (there \
                                    from the task before), a third of the epochs warms up the new classifier \
                                    (there until convergence), and the source network responds to each \
                                    augmented image as it comes (there once per image).";

/// Temperature for both distributions.
pub(super) const TEMPERATURE: f64 = 2.0;
/// Weight of the old responses.
const LAMBDA: f64 = 1.0;
/// Learning rate of the warm-up, as for a classifier on frozen features.
pub(super) const HEAD_SCHEDULE: Schedule = Schedule::OneCycle { peak: features::PEAK };
/// Prefix of the source classifier's tensors.
const OLD: &str = "source.";

/// Epochs of the warm-up, which has its own learning rate, and of the joint training, given the teacher's
/// `epochs`.
pub(super) fn stages(epochs: usize) -> [usize; 2] {
    let warm_up = (epochs / 3).max(1);
    [warm_up, epochs.saturating_sub(warm_up).max(1)]
}

pub(super) fn train(bench: &Bench<'_>) -> Result<Trained> {
    let source = &bench.ground.source;
    if !source.classifier {
        return Err(Error::config(
            "--methods lwf",
            "the backbone has no source classifier, whose responses this method preserves: import one that has \
             it, or leave the method out",
        ));
    }
    let tailoring = bench.tailoring();
    let plan = tailoring.backbone_plan()?;
    let [warm_up, joint] = stages(bench.epochs());
    let head = Stage { schedule: HEAD_SCHEDULE, ..bench.stage(warm_up) };
    let (warm, _) = features::classifier(bench, &plan, "lwf-head", &head)?;
    let mut params = Params::teacher(&plan, &source.params, bench.recipe.seed, bench.device)?;
    let old = Old::new(&plan, source.plan.classes(), &source.params)?;
    for (new, kept) in &old.names {
        params.free(new.clone(), warm.get(new)?)?;
        params.free(kept.clone(), source.params.get(new)?)?;
    }
    let validation = tailoring.course(
        "lwf",
        &bench.fingerprint(&format!("lwf temperature {TEMPERATURE} lambda {LAMBDA} warm-up {warm_up}")),
        &bench.stage(joint),
        &mut params,
        &|params, batch| old.loss(params, batch),
        &|params| tailoring.score(&plan, params, &bench.ground.val),
    )?;
    let parts = Parts::of(&plan)?;
    let size = Size::new(0, Owned { numbers: parts.all(), bits: 0 }, parts.macs);
    Ok(Trained { plan, params, validation, size, packed: None })
}

/// The source network, and a plan whose classifier has the task's classes followed by the source's.
pub(super) struct Old<'a> {
    source: Plan,
    both: Plan,
    classes: usize,
    backbone: &'a Params,
    /// The classifier's tensors: the task's name and the source's.
    names: Vec<(String, String)>,
}

impl<'a> Old<'a> {
    pub(super) fn new(plan: &Plan, source_classes: usize, backbone: &'a Params) -> Result<Old<'a>> {
        let classes = plan.classes();
        let widened = |classes: usize| -> Result<Plan> {
            let mut wide = plan.clone();
            for op in &mut wide.head {
                if let Op::Linear(linear) = op {
                    linear.c_out = classes;
                }
            }
            wide.check()?;
            Ok(wide)
        };
        let (source, both) = (widened(source_classes)?, widened(classes + source_classes)?);
        let linear = plan.head.iter().filter(|op| matches!(op, Op::Linear(_)));
        let names = linear.flat_map(Op::tensors).map(|t| (t.name.clone(), format!("{OLD}{}", t.name)));
        Ok(Old { source, both, classes, backbone, names: names.collect() })
    }

    /// `L_new + lambda L_old` on one batch.
    pub(super) fn loss(&self, params: &Params, batch: &Batch) -> Result<StepLoss> {
        let (source, images) = (Net { plan: &self.source, params: self.backbone }, &batch.images);
        let recorded = source.forward(images, Pass::Infer)?.logits.detach();
        let mut joined = Vec::new();
        for (new, old) in &self.names {
            joined.push((new.clone(), Tensor::cat(&[params.get(new)?, params.get(old)?], 0)?));
        }
        let params = params.with_derived(joined);
        let Forward { logits, stats, .. } =
            Net { plan: &self.both, params: &params }.forward(images, Pass::Train)?;
        let new = logits.narrow(1, 0, self.classes)?.contiguous()?;
        let old = logits.narrow(1, self.classes, logits.dim(1)? - self.classes)?.contiguous()?;
        let classification = ops::cross_entropy(&new, &batch.labels, 0.0)?;
        // LwF eq. 2-4.
        let distillation = ops::soft_cross_entropy(&old, &recorded, TEMPERATURE)?;
        let total = (&classification + (&distillation * LAMBDA)?)?;
        let terms = Terms { distillation: Some(distillation), ..Terms::of(classification) };
        Ok(StepLoss { total, terms, logits: new, stats })
    }
}
