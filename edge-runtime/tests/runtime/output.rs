//! What the `edge-runtime` command writes: to a pipe that closes, and metrics while frames run.

use super::command::ok;
use super::store;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_closed_pipe_changes_neither_exit_codes_nor_metrics() {
    let directory = store::directory(&store::packed("cifar-resnet20-b", 12, 27));
    let at = directory.path().to_str().unwrap();
    let unread = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        child.wait().unwrap().code()
    };
    let image = directory.path().join("x.ppm");
    std::fs::write(&image, b"P6 1 1 255\nabc").unwrap();
    let metrics = directory.path().join("m.prom");
    let frames = ["run", "--store", at, "--metrics", metrics.to_str().unwrap(), image.to_str().unwrap()];
    assert_eq!(unread(&frames), Some(0));
    assert!(std::fs::read_to_string(metrics).unwrap().contains("edge_runtime_frames_total 1\n"));
    assert_eq!(unread(&["self-test", "--store", at]), Some(0));
    std::fs::write(directory.path().join("cut.task"), b"TAILOR").unwrap();
    assert_eq!(unread(&["self-test", "--store", at]), Some(3));
}

#[test]
fn metrics_are_written_while_frames_run() {
    let directory = store::directory(&store::packed("cifar-resnet20-b", 12, 29));
    // Through a link, which stays.
    let (place, link) = (directory.path().join("m.prom"), directory.path().join("link.prom"));
    std::fs::write(&place, "").unwrap();
    std::os::unix::fs::symlink(&place, &link).unwrap();
    let arguments =
        ["run", "--store", directory.path().to_str().unwrap(), "--metrics", link.to_str().unwrap(), "-"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut camera = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    let mut frames = 0;
    let mut see = || {
        camera.write_all(b"P6 1 1 255\nabc").unwrap();
        let mut answer = String::new();
        answers.read_line(&mut answer).unwrap();
        assert!(answer.contains("digits"), "{answer}");
        frames += 1;
    };
    let told = || {
        let text = std::fs::read_to_string(&place).unwrap();
        let total = text.lines().find_map(|line| line.strip_prefix("edge_runtime_frames_total "));
        total.unwrap().parse::<u64>().unwrap()
    };
    // When a frame is answered, the one before has been written if an update was due, as it was for the
    // first.
    see();
    see();
    let first = told();
    // A second later an update is due again, whatever was written meanwhile.
    let start = Instant::now();
    while start.elapsed() <= Duration::from_secs(1) {
        see();
    }
    see();
    see();
    let told = told();
    assert!(first < told && told <= frames, "{first} told at first, then {told}");
    assert!(child.try_wait().unwrap().is_none(), "it still runs, and {told} frames are told");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    // A device is written to, not replaced, and once, after the frames.
    let device = directory.path().join("device");
    std::os::unix::fs::symlink("/dev/stdout", &device).unwrap();
    let frames = b"P6 1 1 255\nabc".repeat(3);
    let out = ok(&["run", "--store", arguments[2], "--metrics", device.to_str().unwrap(), "-"], &frames);
    assert!(std::fs::symlink_metadata(&device).unwrap().is_symlink());
    assert_eq!(out.matches("\nedge_runtime_frames_total ").count(), 1, "{out}");
    // A link to what is not there yet stays, too.
    let later = directory.path().join("later.prom");
    std::fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink(&place, &later).unwrap();
    ok(&["run", "--store", arguments[2], "--metrics", later.to_str().unwrap(), "-"], &frames);
    assert!(std::fs::symlink_metadata(&later).unwrap().is_symlink());
    assert!(std::fs::read_to_string(&place).unwrap().contains("edge_runtime_frames_total 3\n"));
    // Nor is standard output, if that is a file: it gets both, answers and metrics.
    for name in ["/dev/stdout", "both"] {
        let both = directory.path().join("both");
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
        command.current_dir(directory.path()).args(["run", "--store", ".", "--metrics", name, "frames.ppm"]);
        std::fs::write(directory.path().join("frames.ppm"), &frames).unwrap();
        assert!(command.stdout(std::fs::File::create(&both).unwrap()).status().unwrap().success(), "{name}");
        let both = std::fs::read_to_string(both).unwrap();
        let answers = both.lines().filter(|line| line.starts_with("frames.ppm\tdigits\t")).count();
        assert!(answers == 3 && both.contains("edge_runtime_frames_total 3\n"), "{name}: {both}");
    }
    // An unwritable path does not stop frames, and is reported once, before the stream ends.
    let nowhere = directory.path().join("gone/m.prom");
    let images = directory.path().join("frames.ppm");
    std::fs::write(&images, frames).unwrap();
    let both = std::fs::File::create(directory.path().join("said")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
    command.args(["run", "--store", arguments[2], "--metrics"]).arg(nowhere).arg(images);
    let status = command.stdout(both.try_clone().unwrap()).stderr(both).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let said = std::fs::read_to_string(directory.path().join("said")).unwrap();
    let told: Vec<bool> = said.lines().map(|line| line.contains("gone/m.prom")).collect();
    assert_eq!(told[told.len() - 4..], [false, true, false, false], "{said}");
}
