//! An interrupted run, continued, ends where an uninterrupted one does; another run is not continued.

use super::*;
use crate::data::{Augment, Images, Loader, Split};
use crate::net::{Net, Params, Pass};
use crate::progress::Progress;
use crate::random::Random;
use crate::{Error, Result};
use bundles::plan::{Arch, Plan};
use bundles::preprocess::Size;
use candle_core::Device;
use std::path::Path;

const EPOCHS: usize = 3;

fn split() -> Split {
    let mut random = Random::new(&[5]);
    let size = Size { height: 8, width: 8 };
    let pixels = (0..24 * 3 * size.area()).map(|_| random.below(256) as u8).collect();
    Split {
        images: Images::new(pixels, size).unwrap(),
        labels: (0..24).map(|i| i % 2).collect(),
        files: (0..24).map(|i| format!("train/x/{i}.png")).collect(),
    }
}

/// Trains a small network; `fail_at` breaks off at the start of that epoch, as a power cut would.
fn run(folder: &Path, fingerprint: &str, fail_at: Option<usize>) -> Result<Vec<(String, Vec<f32>)>> {
    let arch: Arch = "cifar-resnet8-a".parse().unwrap();
    let plan: Plan = arch.plan(8, 8, 2).unwrap();
    let loader = Loader::new(&split(), [0.5; 3], [0.25; 3], 8, &Device::Cpu)?;
    let mut params = start(&plan)?;
    let train = Train {
        steps: loader.steps(),
        batches: &|epoch| {
            if fail_at == Some(epoch) {
                return Err(Error::training("here", "interrupted", "go on"));
            }
            loader.train(3, epoch as u64, Augment { crop_pad: 1, flip: true })
        },
        loss: &|params, batch| teacher_loss(&plan, params, batch, 0.0),
        validate: &|params| evaluate(&Net { plan: &plan, params }, loader.eval()),
    };
    let log = Log::new(folder.join("metrics.csv"));
    let course = Course {
        stage: "teach",
        fingerprint,
        epochs: EPOCHS,
        schedule: Schedule::OneCycle { peak: 0.05 },
        momentum: 0.9,
        decay: 5e-4,
        checkpoint: Some(&folder.join("teach.safetensors")),
        log: Some(&log),
        progress: &Progress::hidden(),
    };
    course.run(&mut params, &train)?;
    params.iter().map(|(name, t)| Ok((name.to_string(), t.flatten_all()?.to_vec1()?))).collect()
}

/// The network before training, the same every time.
fn start(plan: &Plan) -> Result<Params> {
    let mut random = Random::new(&[9]);
    let mut backbone = Params::default();
    for name in plan.ops().flat_map(crate::net::training_tensors) {
        let spec = plan.tensors().into_iter().find(|t| t.name == name);
        let shape = spec.map(|t| t.shape).unwrap_or_else(|| {
            let norm = name.rsplit_once('.').map_or("", |(norm, _)| norm);
            plan.tensors().into_iter().find(|t| t.name == format!("{norm}.scale")).unwrap().shape
        });
        let n: usize = shape.iter().product();
        let values: Vec<f32> = match name.rsplit_once('.').map_or("", |(_, part)| part) {
            "running_var" => vec![1.0; n],
            _ => (0..n).map(|_| 0.1 * random.normal() as f32).collect(),
        };
        backbone.freeze(name, candle_core::Tensor::from_vec(values, shape, &Device::Cpu)?);
    }
    Params::teacher(plan, &backbone, 1, &Device::Cpu)
}

#[test]
fn an_interrupted_run_ends_bit_for_bit_where_an_uninterrupted_one_does() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let want = run(whole.path(), "a", None).unwrap();
    for epoch in 1..EPOCHS {
        assert!(run(cut.path(), "a", Some(epoch)).is_err());
    }
    let got = run(cut.path(), "a", None).unwrap();
    assert_eq!(want.len(), got.len());
    for (want, got) in want.iter().zip(&got) {
        assert!(
            want.0 == got.0 && want.1.iter().zip(&got.1).all(|(a, b)| a.to_bits() == b.to_bits()),
            "{}",
            want.0
        );
    }
    let lines = |folder: &Path| std::fs::read_to_string(folder.join("metrics.csv")).unwrap().lines().count();
    assert_eq!((lines(whole.path()), lines(cut.path())), (1 + EPOCHS, 1 + EPOCHS));
}

#[test]
fn a_checkpoint_of_other_options_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "a", None).unwrap();
    let error = run(folder.path(), "b", None).unwrap_err().to_string();
    assert!(error.contains("other options"), "{error}");
    std::fs::write(folder.path().join("teach.safetensors"), b"half a file").unwrap();
    let error = run(folder.path(), "a", None).unwrap_err().to_string();
    assert!(error.contains("not a checkpoint"), "{error}");
}

#[test]
fn a_diverging_run_stops_and_says_so() {
    let arch: Arch = "cifar-resnet8-a".parse().unwrap();
    let plan = arch.plan(8, 8, 2).unwrap();
    let params = start(&plan).unwrap();
    let loader = Loader::new(&split(), [0.5; 3], [0.25; 3], 8, &Device::Cpu).unwrap();
    let batch = loader.eval().next().unwrap().unwrap();
    let forward = Net { plan: &plan, params: &params }.forward(&batch.images, Pass::Train).unwrap();
    assert_eq!(forward.logits.dims(), [8, 2]);
    let mut diverging = params.clone();
    let train = Train {
        steps: loader.steps(),
        batches: &|epoch| loader.train(3, epoch as u64, Augment::default()),
        loss: &|params, batch| {
            let mut loss = teacher_loss(&plan, params, batch, 0.0)?;
            loss.total = (loss.total * f64::NAN)?;
            Ok(loss)
        },
        validate: &|_| Ok(Score::default()),
    };
    let course = Course {
        stage: "teach",
        fingerprint: "",
        epochs: 1,
        schedule: Schedule::Cosine { rate: 0.1, warm_up: 0 },
        momentum: 0.9,
        decay: 0.0,
        checkpoint: None,
        log: None,
        progress: &Progress::hidden(),
    };
    let error = course.run(&mut diverging, &train).unwrap_err().to_string();
    assert!(error.contains("teach, epoch 1, step 1") && error.contains("learning rate"), "{error}");
}
