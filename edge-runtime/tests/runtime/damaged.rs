//! The `edge-runtime` command over a store in which bundles or images are damaged.

use super::command::{edge_runtime, text};
use super::store;
use edge_runtime::kernels::Isa;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn one_bad_bundle_does_not_hide_the_others() {
    let packed = store::packed("cifar-resnet20-b", 12, 26);
    let directory = store::directory(&packed);
    let at = directory.path().to_str().unwrap();
    std::fs::write(directory.path().join("cut.task"), b"TAILOR").unwrap();
    let output = edge_runtime(&["tasks", "--store", at], b"");
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(store::NAMES.iter().all(|name| out.contains(name)) && err.contains("cut.task"), "{out}{err}");
    let output = edge_runtime(&["self-test", "--store", at], b"");
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(store::NAMES.iter().all(|name| out.contains(name)) && err.contains("cut.task"), "{out}{err}");

    // Nor does one with a valid header and damaged tensors.
    let cut = directory.path().join("cut.task");
    std::fs::write(&cut, store::damaged(&packed.tasks[0].1)).unwrap();
    let output = edge_runtime(&["tasks", "--store", at], b"");
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(out.lines().count() == 4 && err.contains("cut.task: "), "{out}{err}");
    std::fs::remove_file(&cut).unwrap();

    // Nor does one whose golden vectors are wrong or missing, which does not count as passed.
    let wrong = store::changed(&packed.tasks[0].1, |manifest| {
        manifest.name = "amiss".into();
        manifest.golden[0].scores[0] += 1.0;
    });
    for (name, bundle) in
        [("amiss", wrong), ("untold", store::constant(&packed, "untold", &packed.tasks[0].2))]
    {
        let place = directory.path().join("amiss.task");
        std::fs::write(&place, bundle).unwrap();
        let output = edge_runtime(&["self-test", "--store", at], b"");
        let (out, err) = text(&output);
        assert_eq!(output.status.code(), Some(6), "{err}");
        let failed = out.lines().filter(|line| line.starts_with("amiss\t") && line.ends_with("\tFAILED"));
        assert_eq!(failed.count(), if name == "amiss" { Isa::available().len() } else { 0 }, "{out}");
        let passed = |name: &&str| out.lines().any(|line| line.starts_with(*name) && line.ends_with("\tok"));
        assert!(store::NAMES.iter().all(passed) && err.contains(&format!("`{name}`")), "{out}{err}");
        std::fs::remove_file(place).unwrap();
    }
    std::fs::write(&cut, b"TAILOR").unwrap();

    // Nor does a bad image among others; frames go on, and the first error sets the exit code.
    let image = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = image("good.ppm", &[b"P6 2 2 255\n".as_slice(), &[90; 12]].concat());
    let short = image("short.ppm", b"P6 2 2 255\n???");
    let missing = directory.path().join("missing.ppm");
    let files = [&*good, &*short, missing.to_str().unwrap(), &*good];
    let words = ["run", "--store", at, "--each", "--json", "--metrics", "stdout"];
    let output = edge_runtime(&[&words[..], &files].concat(), b"");
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert_eq!(out.matches("\"label\"").count(), 6, "{out}");
    assert!(["cut.task", "short.ppm", "missing.ppm"].iter().all(|name| err.contains(name)), "{err}");
    assert!(out.contains("edge_runtime_frames_total 6") && out.contains("failed_loads_total 1"), "{out}");
    // Only bad ones.
    let cut = directory.path().join("cut.task");
    let backbone = directory.path().join("net.backbone");
    let output = edge_runtime(
        &["run", "--backbone", backbone.to_str().unwrap(), "--task", cut.to_str().unwrap(), &good],
        b"",
    );
    assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0));
}

#[test]
fn a_damaged_bundle_is_reported_even_if_its_turn_never_comes() {
    let packed = store::packed("cifar-resnet56-b", 8, 30);
    let directory = store::directory(&packed);
    let damaged = store::damaged(&packed.tasks[2].1);
    assert!(damaged.len() >= 256 * 1024, "{} bytes are not streamed", damaged.len());
    std::fs::write(directory.path().join("signs.task"), damaged).unwrap();
    let at = directory.path().to_str().unwrap();
    let run = ["run", "--store", at, "--stream", "--metrics", "stdout", "-"];
    let output = edge_runtime(&run, b"P6 1 1 255\nabc");
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(3), "{err}");
    assert!(out.starts_with("-\tdigits\t") && out.contains("edge_runtime_failed_loads_total 1\n"), "{out}");
    assert_eq!(err.matches("signs.task").count(), 1, "{err}");
    // While the frames have not ended, too.
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
    let words = ["run", "--store", at, "--stream", "--script", "digits,fashion", "-"];
    command.args(words).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut camera = child.stdin.take().unwrap();
    let errors = BufReader::new(child.stderr.take().unwrap());
    let reader =
        std::thread::spawn(move || errors.lines().find(|line| line.as_ref().unwrap().contains("signs.task")));
    // Loading takes milliseconds; without an end, a failure would be a test that never ends.
    let start = Instant::now();
    while !reader.is_finished() && start.elapsed() < Duration::from_secs(60) {
        camera.write_all(b"P6 1 1 255\nabc").unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let (has_ended, is_said) = (child.try_wait().unwrap().is_some(), reader.is_finished());
    if !is_said {
        child.kill().unwrap();
    }
    assert!(!has_ended && is_said, "ended: {has_ended}, said: {is_said}");
    assert!(reader.join().unwrap().is_some());
    drop(camera);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    // A task that runs is reported once, by its frames.
    let words = ["run", "--store", at, "--task", "signs", "--stream", "-"];
    let (out, err) = text(&edge_runtime(&words, b"P6 1 1 255\nabc"));
    assert!(out.is_empty() && err.matches("signs.task").count() == 1, "{out}{err}");
}
