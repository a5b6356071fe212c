//! Loading, switching, streaming and evicting, and the handling of bad bundles.

use super::naive;
use super::store::{self, NAMES, Packed};
use bundles::container::{SigningKey, TrustedKey, golden_input, sign};
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Error, Frame, Options, Packing, Runtime, Task, pack_backbone};
use std::sync::Arc;

pub(super) const ARCH: &str = "cifar-resnet20-b";
pub(super) const SIZE: usize = 12;

pub(super) fn backbone(packed: &Packed) -> Arc<Backbone> {
    Backbone::from_bytes("net.backbone", packed.backbone.clone(), &Options::default()).unwrap()
}

fn image() -> Vec<f32> {
    let mut input = vec![0.0; 3 * SIZE * SIZE];
    golden_input(99, &mut input);
    input
}

/// Scores of every task, computed by the naive interpreter.
pub(super) fn expected(packed: &Packed) -> Vec<Vec<f64>> {
    packed.tasks.iter().map(|(_, _, plan, all)| naive::scores(plan, all, &image())).collect()
}

pub(super) fn assert_scores(runtime: &mut Runtime, name: &str, want: &[f64]) {
    let scores = runtime.tensor(&image()).unwrap();
    assert_eq!(scores.task, name);
    let size = want.iter().fold(1e-2f64, |size, x| size.max(x.abs()));
    for (got, want) in scores.logits.iter().zip(want) {
        assert!((f64::from(*got) - want).abs() <= 1e-4 * size, "{name}: {got} {want}");
    }
    assert_eq!(scores.logits.len(), want.len());
    let best = want.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
    assert_eq!((scores.class, scores.label), (best, format!("{name} {best}").as_str()));
    let total: f64 = want.iter().map(|x| (x - want[best]).exp()).sum();
    assert!((f64::from(scores.score) - 1.0 / total).abs() < 1e-3);
}

/// One frame, whatever the result.
pub(super) fn frame(runtime: &mut Runtime) -> edge_runtime::Result<()> {
    runtime.tensor(&image()).map(drop)
}

#[test]
fn tasks_answer_each_with_their_own_scores_however_they_were_loaded() {
    let packed = store::packed(ARCH, SIZE, 1);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    for isa in Isa::available() {
        let options = Options { isa: Some(isa), ..Options::default() };
        let backbone = Backbone::open(directory.path().join("net.backbone"), &options).unwrap();
        assert!(backbone.repacked().kernels > 0);
        for how in ["load", "stream", "prefetch"] {
            let mut runtime = Runtime::new(Arc::clone(&backbone), 2);
            runtime.set_stream_from(0);
            let mut ids = Vec::new();
            for name in NAMES {
                let path = directory.path().join(name).with_extension("task");
                ids.push(match how {
                    "load" => runtime.load(path).unwrap(),
                    "stream" => runtime.stream(path).unwrap(),
                    _ => runtime.prefetch(path).unwrap(),
                });
            }
            if how == "prefetch" {
                runtime.settle().unwrap();
            }
            for round in 0..6 {
                let i = (round * 2) % 3;
                runtime.switch(ids[i]).unwrap();
                assert_scores(&mut runtime, NAMES[i], &want[i]);
            }
            runtime.settle().unwrap();
            assert_eq!(runtime.stats().loads, 3, "{how}");
            assert_eq!(runtime.stats().frames, 6);
            assert_eq!(runtime.resident().count(), 3);
        }
        // After all tasks in all ways, the kernels were packed once.
        assert!(backbone.repacked().kernels <= 22, "{:?}", backbone.repacked());
    }
}

#[test]
fn golden_vectors_hold() {
    let packed = store::packed("cifar-resnet20-a", SIZE, 2);
    let backbone = backbone(&packed);
    let mut session = edge_runtime::Session::new(1);
    for (_, bytes, ..) in &packed.tasks {
        let task = Task::from_bytes(&backbone, "t", bytes).unwrap();
        let golden = &task.golden()[0];
        let mut input = vec![0.0; task.input().len()];
        golden_input(golden.seed, &mut input);
        let distance = golden.distance(session.run(&task, &input).unwrap());
        assert!(distance <= golden.tolerance, "{distance}");
    }
}

#[test]
fn a_failed_load_leaves_the_running_task() {
    let packed = store::packed(ARCH, SIZE, 3);
    let other = store::packed(ARCH, SIZE, 4);
    let want = expected(&packed);
    let mut runtime = Runtime::new(backbone(&packed), 1);
    let id = runtime.load_bytes("digits.task", &packed.tasks[0].1).unwrap();
    runtime.switch(id).unwrap();

    let damaged = store::damaged(&packed.tasks[1].1);
    let truncated = &damaged[..damaged.len() - 3];
    // bytes, exit code, words of the message
    let cases: [(&[u8], u8, &str); 5] = [
        (&damaged, 3, "fc.bias"),
        (truncated, 3, "bytes"),
        (&other.tasks[1].1, 4, "backbone"),
        (&packed.backbone, 2, "is a backbone"),
        (b"", 3, ""),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (i, (bytes, code, words)) in cases.into_iter().enumerate() {
        let error = runtime.load_bytes("x.task", bytes).unwrap_err();
        assert_eq!(error.exit_code(), code, "case {i}: {error}");
        assert!(error.to_string().contains(words), "case {i}: {error}");
        assert_scores(&mut runtime, "digits", &want[0]);

        // The same on the loader thread.
        let path = directory.path().join(format!("{i}.task"));
        std::fs::write(&path, bytes).unwrap();
        let id = runtime.prefetch(&path).unwrap();
        let error = runtime.settle().unwrap_err();
        assert_eq!(error.exit_code(), code, "case {i}: {error}");
        assert!(matches!(runtime.switch(id), Err(Error::NotResident { .. })));
        assert_scores(&mut runtime, "digits", &want[0]);
    }
    assert!(runtime.stats().failed_loads >= 10);

    // When streamed, the damage in the last section shows when the frame gets there: the old task returns.
    runtime.set_stream_from(0);
    let path = directory.path().join("damaged.task");
    std::fs::write(&path, &damaged).unwrap();
    let id = runtime.stream(&path).unwrap();
    // Either the loader finds it before the switch, or the frame does.
    let error = runtime.switch(id).and_then(|()| runtime.tensor(&image()).map(drop)).unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    assert_scores(&mut runtime, "digits", &want[0]);
    assert!(runtime.stream(directory.path().join("absent.task")).is_err());
    assert_scores(&mut runtime, "digits", &want[0]);
}

#[test]
fn frames_of_any_size_are_answered_and_hostile_ones_refused() {
    let packed = store::packed(ARCH, SIZE, 7);
    let mut runtime = Runtime::new(backbone(&packed), 1);
    assert!(matches!(runtime.tensor(&image()), Err(Error::NotResident { .. })));
    for (name, bytes, ..) in &packed.tasks {
        let id = runtime.load_bytes(name, bytes).unwrap();
        runtime.switch(id).unwrap();
        for (width, height, channels) in [(SIZE, SIZE, 3), (1, 1, 1), (200, 3, 3), (31, 47, 1)] {
            let pixels: Vec<u8> = (0..width * height * channels).map(|i| (i * 31) as u8).collect();
            let scores = runtime.frame(Frame { width, height, channels, pixels: &pixels }).unwrap();
            assert_eq!(scores.task, name);
            assert!(scores.logits.iter().all(|x| x.is_finite()));
        }
        let frame = Frame { width: usize::MAX, height: 3, channels: 3, pixels: &[] };
        assert!(matches!(runtime.frame(frame), Err(Error::Input { .. })));
    }
}

#[test]
fn damage_anywhere_is_an_error() {
    let packed = store::packed("cifar-resnet20-a", 8, 9);
    let backbone = backbone(&packed);
    let good = &packed.tasks[2].1;
    let step = (good.len() / 400).max(1);
    for at in (0..good.len()).step_by(step) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        // Unused signature slots may hold anything only if the format says so; it does not.
        assert!(Task::from_bytes(&backbone, "t", &bytes).is_err(), "byte {at} of {}", good.len());
        assert!(Task::from_bytes(&backbone, "t", &good[..at]).is_err(), "cut at {at}");
    }
    let step = (packed.backbone.len() / 60).max(1);
    for at in (0..packed.backbone.len()).step_by(step) {
        let mut bytes = packed.backbone.clone();
        bytes[at] ^= 0x10;
        assert!(Backbone::from_bytes("b", bytes, &Options::default()).is_err(), "byte {at}");
    }
}

#[test]
fn only_trusted_signatures_pass_when_keys_are_given() {
    let packed = store::packed("cifar-resnet20-a", 8, 10);
    let key = SigningKey::from_seed([5; 32]);
    let trusted = vec![TrustedKey { name: "fleet".into(), key: key.public() }];
    let options = Options { trusted, ..Options::default() };
    let error = Backbone::from_bytes("b", packed.backbone.clone(), &options).unwrap_err();
    assert!(matches!(error, Error::Untrusted { .. }));
    assert_eq!(error.exit_code(), 3);
    let signed = sign(&packed.backbone, &key).unwrap();
    let backbone = Backbone::from_bytes("b", signed, &options).unwrap();
    let task = &packed.tasks[0].1;
    assert!(matches!(Task::from_bytes(&backbone, "t", task), Err(Error::Untrusted { .. })));
    let task = Task::from_bytes(&backbone, "t", &sign(task, &key).unwrap()).unwrap();
    assert!(task.trust().to_string().contains("fleet"));
    // A known bundle does not make a file with another signature trusted.
    let task = &packed.tasks[0].1;
    assert!(matches!(Task::from_bytes(&backbone, "t", task), Err(Error::Untrusted { .. })));
}

#[test]
fn a_backbone_packed_for_this_machine_is_read_in_place() {
    let packed = store::packed(ARCH, SIZE, 12);
    let want = expected(&packed);
    for isa in Isa::available() {
        let bytes = pack_backbone("b", &packed.backbone, Packing::For(isa), &[]).unwrap();
        let options = Options { isa: Some(isa), ..Options::default() };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("packed.backbone");
        std::fs::write(&path, bytes).unwrap();
        let backbone = Backbone::open(&path, &options).unwrap();
        assert_eq!(backbone.repacked().kernels, 0, "{isa}");
        assert_eq!(backbone.reference().unwrap().variant, format!("f32-{isa}"));
        let mut runtime = Runtime::new(backbone, 1);
        for ((name, bytes, ..), want) in packed.tasks.iter().zip(&want) {
            let id = runtime.load_bytes(name, bytes).unwrap();
            runtime.switch(id).unwrap();
            assert_scores(&mut runtime, name, want);
        }
        // Also where there is a faster set, unless that is asked for.
        assert_eq!(Backbone::open(&path, &Options::default()).unwrap().isa(), isa);
        // Another machine's file is refused by name, not misread.
        for other in Isa::available().into_iter().filter(|other| *other != isa) {
            let options = Options { isa: Some(other), ..Options::default() };
            let error = Backbone::open(&path, &options).unwrap_err();
            assert!(matches!(error, Error::Incompatible { .. }), "{error}");
            assert!(error.to_string().contains("conv1.weight"), "{error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn an_endless_device_is_refused() {
    let packed = store::packed(ARCH, SIZE, 56);
    let mut runtime = Runtime::new(backbone(&packed), 1);
    let error = runtime.load("/dev/zero").unwrap_err();
    assert!(error.to_string().starts_with("/dev/zero: cannot load it: unsupported"), "{error}");
    runtime.prefetch("/dev/zero").unwrap();
    assert_eq!(runtime.settle(), Err(error));
}
