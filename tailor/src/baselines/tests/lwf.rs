//! How Learning without Forgetting is composed: its loss from two classifiers and a frozen source, and the
//! starting point of its training.

use super::values;
use crate::baselines::lwf::{HEAD_SCHEDULE, Old};
use crate::baselines::{Bench, Method, features};
use crate::data::Batch;
use crate::fit::testing::{CLASSES, ground};
use crate::fit::{Ground, Recipe, Stage, Work};
use crate::net::{Net, Params, Pass};
use crate::ops;
use crate::progress::Progress;
use crate::train::Schedule;
use candle_core::{Device, Tensor};

const FC: [&str; 2] = ["fc.weight", "fc.bias"];

fn plan_of(ground: &Ground) -> bundles::plan::Plan {
    ground.source.arch.plan(12, 12, CLASSES).unwrap()
}

/// A network in mid-training: every parameter differs from the source's.
fn trained(ground: &Ground) -> Params {
    let mut params = Params::teacher(&plan_of(ground), &ground.source.params, 7, &Device::Cpu).unwrap();
    for name in FC {
        params.free(format!("source.{name}"), ground.source.params.get(name).unwrap()).unwrap();
    }
    let free: Vec<(String, Tensor)> = params
        .iter()
        .filter(|(name, _)| params.is_free(name))
        .map(|(name, tensor)| (name.to_string(), ((tensor * 1.3).unwrap() + 0.01).unwrap()))
        .collect();
    for (name, tensor) in free {
        params.free(name, &tensor).unwrap();
    }
    params
}

#[test]
fn the_loss_is_the_labels_and_the_frozen_sources_answers_in_equal_parts() {
    let ground = ground(1, true);
    let (plan, source) = (plan_of(&ground), &ground.source);
    let params = trained(&ground);
    let images = (0..4 * 432).map(|i| (i % 23) as f32 / 8.0 - 1.0).collect();
    let images = Tensor::from_vec(images, (4, 3, 12, 12), &Device::Cpu).unwrap();
    let labels = Tensor::new(&[0u32, 2, 1, 2], &Device::Cpu).unwrap();
    let batch = Batch { images: images.clone(), labels: labels.clone(), indices: vec![0, 1, 2, 3] };
    let old = Old::new(&plan, source.plan.classes(), &source.params).unwrap();
    let got = old.loss(&params, &batch).unwrap();

    // Each network separately: the new classifier, the old one on the same features, and the original source.
    let new = Net { plan: &plan, params: &params }.forward(&images, Pass::Train).unwrap().logits;
    let kept = FC.map(|name| (name.to_string(), params.get(&format!("source.{name}")).unwrap().clone()));
    let kept = params.with_derived(kept);
    let present = Net { plan: &source.plan, params: &kept }.forward(&images, Pass::Train).unwrap().logits;
    let source = Net { plan: &source.plan, params: &source.params };
    let recorded = source.forward(&images, Pass::Infer).unwrap().logits;
    let labelled = ops::cross_entropy(&new, &labels, 0.0).unwrap();
    let remembered = ops::soft_cross_entropy(&present, &recorded, 2.0).unwrap();
    let want = (&labelled + &remembered).unwrap();
    for (what, got, want) in [
        ("answers", &got.logits, &new),
        ("old answers' loss", got.terms.distillation.as_ref().unwrap(), &remembered),
        ("loss", &got.total, &want),
    ] {
        let (got, want) = (values(got), values(want));
        assert_eq!(got.len(), want.len(), "{what}");
        let far = got.iter().zip(&want).fold(0f32, |far, (got, want)| far.max((got - want).abs()));
        assert!(far < 1e-5, "{what}: {got:?}, not {want:?}");
    }
    assert!(values(&remembered)[0] > 0.1, "a term that would be missed");
}

#[test]
fn training_starts_from_the_warmed_up_classifier_and_the_sources_own() {
    let ground = ground(1, true);
    let mut recipe = Recipe::small();
    (recipe.teach.epochs, recipe.teach.batch) = (6, 8);
    let progress = Progress::hidden();
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let works = folders.each_ref().map(|folder| Work::open(folder.path()).unwrap());
    let bench = |work| Bench {
        ground: &ground,
        recipe: &recipe,
        // So low that nothing changes after the warm-up.
        schedule: Schedule::OneCycle { peak: 1e-20 },
        work,
        packed: None,
        is_last: true,
        device: &Device::Cpu,
        progress: &progress,
    };
    let got = Method::Lwf.train(&bench(&works[0])).unwrap().params;
    let warming = bench(&works[1]);
    let head = Stage { schedule: HEAD_SCHEDULE, ..warming.stage(2) };
    let (warm, _) = features::classifier(&warming, &plan_of(&ground), "lwf-head", &head).unwrap();
    let cold = Params::teacher(&plan_of(&ground), &ground.source.params, recipe.seed, &Device::Cpu).unwrap();
    let far = |a: &Tensor, b: &Tensor| {
        let pairs = values(a).into_iter().zip(values(b));
        pairs.fold(0f32, |far, (a, b)| far.max((a - b).abs()))
    };
    for name in FC {
        let found = got.get(name).unwrap();
        assert!(far(found, warm.get(name).unwrap()) < 1e-12, "{name} is not the warmed-up one");
        assert!(far(found, cold.get(name).unwrap()) > 1e-4, "{name}: the warm-up changed nothing");
        let kept = got.get(&format!("source.{name}")).unwrap();
        assert!(far(kept, ground.source.params.get(name).unwrap()) < 1e-12, "{name} of the source has moved");
    }
}
