//! An interrupted run, when resumed, ends where an uninterrupted one does; a different run is not resumed.

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

/// How a run is disturbed.
#[derive(Clone, Copy)]
enum Trouble {
    None,
    /// It aborts at the start of that epoch, as in a power cut.
    Cut(usize),
    /// Ctrl-C is pressed during that step of this run (from 1).
    Stop(usize),
    /// Ctrl-C is pressed during that validation of this run (from 1).
    StopValidation(usize),
    /// That step of this run (from 1) leaves a parameter infinite.
    Spoil(usize),
}

/// All parameters of a network, by name.
type Numbers = Vec<(String, Vec<f32>)>;

/// Trains a small network.
fn run(folder: &Path, fingerprint: &str, trouble: Trouble) -> Result<Numbers> {
    run_scripted(folder, fingerprint, trouble, None, &mut Vec::new()).map(|(numbers, _)| numbers)
}

/// Like [`run`]; with `scripted`, the schedule and the validation result of each epoch are given, and
/// training has a patience of two epochs. The parameters after every epoch are appended to `ends`.
fn run_scripted(
    folder: &Path,
    fingerprint: &str,
    trouble: Trouble,
    scripted: Option<(Schedule, &[usize])>,
    ends: &mut Vec<Numbers>,
) -> Result<(Numbers, Score)> {
    let ends = std::cell::RefCell::new(ends);
    let under_way = std::cell::Cell::new(0);
    let progress = Progress::hidden();
    let (steps, validations) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    let arch: Arch = "cifar-resnet8-a".parse().unwrap();
    let plan: Plan = arch.plan(8, 8, 2).unwrap();
    let loader = Loader::new(&split(), [0.5; 3], [0.25; 3], 8, &Device::Cpu)?;
    let mut params = start(&plan)?;
    let train = Train {
        steps: loader.steps(),
        batches: &|epoch| {
            if matches!(trouble, Trouble::Cut(at) if at == epoch) {
                return Err(Error::training("here", "interrupted", "go on"));
            }
            under_way.set(epoch);
            loader.train(3, epoch as u64, Augment { crop_pad: 1, flip: true, ..Augment::default() })
        },
        loss: &|params, batch| {
            steps.set(steps.get() + 1);
            if matches!(trouble, Trouble::Stop(at) if at == steps.get()) {
                progress.interrupt().request();
            }
            let loss = teacher_loss(&plan, params, batch, 0.0)?;
            if matches!(trouble, Trouble::Spoil(at) if at == steps.get()) {
                let (_, var) = params.vars().next().unwrap();
                var.set(&(var.as_tensor() + f64::INFINITY)?)?;
            }
            Ok(loss)
        },
        validate: &|params| {
            validations.set(validations.get() + 1);
            if matches!(trouble, Trouble::StopValidation(at) if at == validations.get()) {
                progress.interrupt().request();
            }
            let score = evaluate(&Net { plan: &plan, params }, progress.interrupt().watch(loader.eval()))?;
            ends.borrow_mut().push(numbers(params)?);
            Ok(scripted.map_or(score, |(_, script)| Score { right: script[under_way.get()], n: 24 }))
        },
    };
    let log = Log::new(folder.join("metrics.csv"));
    let course = Course {
        stage: "teach",
        fingerprint,
        epochs: scripted.map_or(EPOCHS, |(_, script)| script.len()),
        schedule: scripted.map_or(Schedule::OneCycle { peak: 0.05 }, |(schedule, _)| schedule),
        momentum: 0.9,
        decay: 5e-4,
        clip: Some(1.0),
        patience: scripted.map(|_| 2),
        checkpoint: Some(&folder.join("teach.safetensors")),
        log: Some(&log),
        progress: &progress,
    };
    let score = course.run(&mut params, &train)?;
    Ok((numbers(&params)?, score))
}

fn numbers(params: &Params) -> Result<Numbers> {
    params.iter().map(|(name, t)| Ok((name.to_string(), t.flatten_all()?.to_vec1()?))).collect()
}

/// The initial network, the same every time.
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

/// All recorded metrics but the speed.
fn records(folder: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("metrics.csv")).unwrap();
    text.lines().map(|line| line.rsplit_once(',').unwrap().0.to_string()).collect()
}

#[track_caller]
fn assert_same(want: &[(String, Vec<f32>)], got: &[(String, Vec<f32>)]) {
    assert_eq!(want.len(), got.len());
    for (want, got) in want.iter().zip(got) {
        let same = want.1.iter().zip(&got.1).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(want.0 == got.0 && same, "{}", want.0);
    }
}

#[test]
fn a_step_that_spoils_the_network_is_an_error_even_if_it_is_the_last() {
    let folder = tempfile::tempdir().unwrap();
    // The ninth step is the last of three epochs; its own loss is from before.
    let error = run(folder.path(), "a", Trouble::Spoil(9)).map(drop).unwrap_err().to_string();
    assert!(error.contains("the network is no longer finite"), "{error}");
    assert!(error.contains("lower the learning rate"), "{error}");
    // What is kept is from before.
    let kept = Checkpoint::peek(&folder.path().join("teach.safetensors")).unwrap().unwrap();
    assert_eq!(kept.epoch, 2);
}

#[test]
fn an_interrupted_run_ends_bit_for_bit_where_an_uninterrupted_one_does() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let want = run(whole.path(), "a", Trouble::None).unwrap();
    for epoch in 1..EPOCHS {
        assert!(run(cut.path(), "a", Trouble::Cut(epoch)).is_err());
    }
    let got = run(cut.path(), "a", Trouble::None).unwrap();
    assert_same(&want, &got);
    assert_eq!(records(whole.path()), records(cut.path()));
    assert_eq!(records(whole.path()).len(), 1 + EPOCHS);
}

#[test]
fn a_run_stopped_at_any_step_goes_on_from_there() {
    let whole = tempfile::tempdir().unwrap();
    let want = run(whole.path(), "a", Trouble::None).unwrap();
    // 24 images in batches of 8: three steps an epoch.
    for step in 1..=3 * EPOCHS {
        let stopped = tempfile::tempdir().unwrap();
        let error = run(stopped.path(), "a", Trouble::Stop(step)).unwrap_err();
        assert_eq!(error.exit_code(), 130);
        let place = match step % 3 {
            0 => format!("teach, epoch {}, step 3 of 3", step / 3),
            rest => format!("teach, epoch {}, step {rest} of 3", step / 3 + 1),
        };
        let message = error.to_string();
        assert!(message.starts_with(&place) && message.contains("teach.safetensors"), "{message}");
        let got = run(stopped.path(), "a", Trouble::None).unwrap();
        assert_same(&want, &got);
        assert_eq!(records(whole.path()), records(stopped.path()), "stopped at step {step}");
    }
    for validation in 1..=EPOCHS {
        let stopped = tempfile::tempdir().unwrap();
        let error = run(stopped.path(), "a", Trouble::StopValidation(validation)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("teach, epoch {validation}, step 3 of 3")), "{error}");
        assert_eq!(std::fs::exists(stopped.path().join("metrics.csv")).unwrap(), validation > 1);
        let got = run(stopped.path(), "a", Trouble::None).unwrap();
        assert_same(&want, &got);
        assert_eq!(records(whole.path()), records(stopped.path()), "stopped in validation {validation}");
    }
    // Interrupted at every step, each run still makes one step.
    let stopped = tempfile::tempdir().unwrap();
    for _ in 0..3 * EPOCHS {
        assert!(run(stopped.path(), "a", Trouble::Stop(1)).is_err());
    }
    let got = run(stopped.path(), "a", Trouble::None).unwrap();
    assert_same(&want, &got);
    assert_eq!(records(whole.path()), records(stopped.path()));
}

#[test]
fn early_stopping_keeps_the_best_epoch_however_often_it_is_interrupted() {
    // (validation after each epoch, epochs run, the epoch kept)
    let cases: [(&[usize], usize, usize); 5] = [
        (&[3, 7, 5, 6, 9, 9], 4, 2),
        (&[3, 7, 7, 6, 9, 9], 4, 3),
        (&[5, 4, 6, 5, 7, 6], 6, 5),
        (&[9, 9, 9, 9], 3, 3),
        (&[1, 2, 3], 3, 3),
    ];
    let low = Schedule::Step { rate: 0.05, every: 1, factor: 0.1, warm_up: 0 };
    for (script, epochs, best) in cases {
        let whole = tempfile::tempdir().unwrap();
        let mut ends = Vec::new();
        let (got, score) =
            run_scripted(whole.path(), "a", Trouble::None, Some((low, script)), &mut ends).unwrap();
        assert_eq!((ends.len(), score), (epochs, Score { right: script[best - 1], n: 24 }), "{script:?}");
        assert_same(&ends[best - 1], &got);
        assert_eq!(records(whole.path()).len(), 1 + epochs);
        // The finished run, started again: nothing is trained, and the result is the same.
        let mut none = Vec::new();
        let (again, same) =
            run_scripted(whole.path(), "a", Trouble::None, Some((low, script)), &mut none).unwrap();
        assert_same(&got, &again);
        assert_eq!((none.len(), same), (0, score));
        for step in 1..=3 * epochs {
            let stopped = tempfile::tempdir().unwrap();
            run_scripted(stopped.path(), "a", Trouble::Stop(step), Some((low, script)), &mut none)
                .unwrap_err();
            let (resumed, same) =
                run_scripted(stopped.path(), "a", Trouble::None, Some((low, script)), &mut none).unwrap();
            assert_same(&got, &resumed);
            assert_eq!(
                (records(whole.path()), score),
                (records(stopped.path()), same),
                "stopped at step {step}"
            );
        }
    }
}

#[test]
fn patience_waits_until_the_rate_has_come_down() {
    let flat = [6; 24];
    let mut peak_early = flat;
    peak_early[4] = 9;
    let mut late = flat;
    late[21] = 7;
    // One-cycle is low from the 21st of 24 epochs on. (validation after each epoch, epochs run, the epoch
    // kept)
    for (script, epochs, best) in [(flat, 22, 22), (peak_early, 22, 5), (late, 24, 22)] {
        let folder = tempfile::tempdir().unwrap();
        let mut ends = Vec::new();
        let scripted = Some((Schedule::OneCycle { peak: 0.05 }, &script[..]));
        let (got, score) = run_scripted(folder.path(), "a", Trouble::None, scripted, &mut ends).unwrap();
        assert_eq!((ends.len(), score), (epochs, Score { right: script[best - 1], n: 24 }), "{script:?}");
        assert_same(&ends[best - 1], &got);
    }
}

#[test]
fn a_checkpoint_of_other_options_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), "a", Trouble::None).unwrap();
    let error = run(folder.path(), "b", Trouble::None).unwrap_err().to_string();
    assert!(error.contains("other options"), "{error}");
    std::fs::write(folder.path().join("teach.safetensors"), b"half a file").unwrap();
    let error = run(folder.path(), "a", Trouble::None).unwrap_err().to_string();
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
        clip: None,
        patience: None,
        checkpoint: None,
        log: None,
        progress: &Progress::hidden(),
    };
    let error = course.run(&mut diverging, &train).unwrap_err().to_string();
    assert!(error.contains("teach, epoch 1, step 1") && error.contains("learning rate"), "{error}");
}
