//! Feature extraction: a linear classifier on the pooled features of the frozen backbone.
//!
//! Donahue et al., "DeCAF" (ICML 2014), with the deviations in [`PUBLISHED`]. Norms keep the backbone's
//! running statistics, so that only the classifier belongs to the task. Without augmentation, the features of
//! each image are computed once, and the classifier then sees them [`TO_CONVERGENCE`] times as often as the
//! teacher sees its images: that is nearly free and gains a point or two.

use super::bench::{Bench, Trained};
use super::size::{Owned, Parts, Size};
use crate::Result;
use crate::data::{Augment, Batch, Split};
use crate::fit::{EVAL_BATCH, Recipe, Stage};
use crate::net::{Net, Params, Pass, without_classifier};
use crate::train::{Score, label_loss, right};
use bundles::plan::{Op, Plan};
use candle_core::Tensor;
use std::cell::OnceCell;

/// What users are told of it.
pub(super) const PUBLISHED: &str = "Donahue et al. (DeCAF), ICML 2014. Here the classifier is softmax \
                                    regression by SGD (there a support vector machine), on features after \
                                    the last pooling.";

/// Peak learning rate: there are no weights below the classifier to disturb.
pub(super) const PEAK: f64 = 0.5;

/// Epochs over cached features per epoch of the teacher.
const TO_CONVERGENCE: usize = 10;

pub(super) fn train(bench: &Bench<'_>) -> Result<Trained> {
    let plan = bench.tailoring().backbone_plan()?;
    let stage = bench.stage(epochs(bench.recipe));
    let (params, validation) = classifier(bench, &plan, "features", &stage)?;
    let parts = Parts::of(&plan)?;
    let size = Size::new(parts.kernels + parts.norms, Owned { numbers: parts.head, bits: 0 }, parts.macs);
    Ok(Trained { plan, params, validation, size, packed: None })
}

/// Epochs of the classifier.
pub(super) fn epochs(recipe: &Recipe) -> usize {
    let passes = if is_cacheable(recipe) { TO_CONVERGENCE } else { 1 };
    passes * recipe.teach.epochs
}

/// Whether an image has the same features in every epoch.
fn is_cacheable(recipe: &Recipe) -> bool {
    recipe.augment == Augment::default()
}

/// The completely frozen backbone, with a classifier trained on its features.
pub(super) fn classifier(
    bench: &Bench<'_>,
    plan: &Plan,
    stage: &str,
    how: &Stage,
) -> Result<(Params, Score)> {
    let tailoring = bench.tailoring();
    let (body, head) = cut(plan);
    let frozen = frozen(plan, &bench.ground.source.params)?;
    let features = |images: &Tensor| features(&body, &frozen, images);
    let all = |split: &Split| -> Result<(Tensor, Tensor)> {
        let batches = tailoring.loader(split, EVAL_BATCH)?.eval();
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        for batch in bench.progress.interrupt().watch(batches) {
            let batch = batch?;
            rows.push(features(&batch.images)?);
            labels.push(batch.labels);
        }
        Ok((Tensor::cat(&rows, 0)?, Tensor::cat(&labels, 0)?))
    };
    // Computed at first use: a training that has ended needs none.
    let (train, val) = (OnceCell::new(), OnceCell::new());
    let mut params = Params::default();
    let fresh = Params::teacher(plan, &bench.ground.source.params, bench.recipe.seed, bench.device)?;
    for name in head.head.iter().flat_map(Op::tensors).map(|t| t.name) {
        params.free(name.clone(), fresh.get(&name)?)?;
    }
    let validation = tailoring.course(
        stage,
        &bench.fingerprint(&format!("{stage} {how:?}")),
        how,
        &mut params,
        &|params, batch| {
            let x = if is_cacheable(bench.recipe) {
                let (rows, _) = once(&train, || all(&bench.ground.train))?;
                let index: Vec<u32> = batch.indices.iter().map(|&i| i as u32).collect();
                rows.index_select(&Tensor::from_vec(index, batch.indices.len(), bench.device)?, 0)?
            } else {
                features(&batch.images)?
            };
            let batch = Batch { images: x, ..batch.clone() };
            label_loss(&head, params, &batch, Pass::Train, 0.0)
        },
        &|params| {
            let (x, labels) = once(&val, || all(&bench.ground.val))?;
            let logits = Net { plan: &head, params }.forward(x, Pass::Infer)?.logits;
            Ok(Score { right: right(&logits, labels)?, n: labels.dim(0)? })
        },
    )?;
    let mut whole = frozen;
    whole.extend(&params);
    Ok((whole, validation))
}

/// The value of `cell`, which `make` computes at first use.
fn once<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(value) => Ok(value),
        None => {
            let value = make()?;
            Ok(cell.get_or_init(|| value))
        }
    }
}

/// Kernels and norms of the backbone, all frozen, without a classifier.
fn frozen(plan: &Plan, backbone: &Params) -> Result<Params> {
    let mut frozen = Params::default();
    let ops = plan.ops().filter(|op| !matches!(op, Op::Linear(_)));
    for name in ops.flat_map(crate::net::training_tensors) {
        frozen.freeze(name.clone(), backbone.get(&name)?.clone());
    }
    Ok(frozen)
}

/// The plan without its classifier, and the classifier alone as a plan that reads features `(n, c)`.
fn cut(plan: &Plan) -> (Plan, Plan) {
    let (body, mut head) = (without_classifier(plan), plan.clone());
    (head.stem, head.cells) = (Vec::new(), Vec::new());
    head.head.drain(..body.head.len());
    (body, head)
}

/// Pooled features `(n, c)` of `images`, with running statistics.
fn features(body: &Plan, frozen: &Params, images: &Tensor) -> Result<Tensor> {
    Ok(Net { plan: body, params: frozen }.forward(images, Pass::Infer)?.logits.flatten_from(1)?)
}
