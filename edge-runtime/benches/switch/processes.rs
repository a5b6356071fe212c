//! Measurements that need separate processes: the first frame of a process, and memory that several share.

use crate::store::{TASKS, backbones, task};
use crate::{frame, median, millis, resident};
use edge_runtime::{Backbone, Options, Runtime};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Processes that share one backbone.
pub const SHARING: usize = 4;

/// Time from `exec` of the `edge-runtime` command to its first output, on the plain and the packed backbone.
pub fn first_frame(directory: &Path, rounds: usize) -> [f64; 2] {
    let image = directory.join("frame.ppm");
    std::fs::write(&image, [b"P6 320 240 255\n".as_slice(), &vec![90; 320 * 240 * 3]].concat())
        .expect("room for a file");
    backbones(directory).map(|backbone| {
        let mut times: Vec<Duration> = (0..rounds).map(|_| once(&backbone, directory, &image)).collect();
        millis(median(&mut times))
    })
}

fn once(backbone: &Path, directory: &Path, image: &Path) -> Duration {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-runtime"));
    command.arg("run").arg("--backbone").arg(backbone).arg("--task").arg(task(directory, 0)).arg(image);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().expect("a process");
    let mut first = [0];
    child.stdout.take().expect("a pipe").read_exact(&mut first).expect("an answer");
    let time = start.elapsed();
    child.wait().expect("an end");
    time
}

/// Resident and proportional bytes of each of several processes that have the packed backbone and all tasks
/// open.
pub fn sharing(directory: &Path) -> Vec<(u64, u64)> {
    let mut children: Vec<Child> = (0..SHARING)
        .map(|_| {
            let mut command = Command::new(std::env::current_exe().expect("this program"));
            command.arg("--hold").arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().expect("a process")
        })
        .collect();
    for child in &mut children {
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
    }
    let figures = children.iter().map(|child| {
        let rollup = format!("/proc/{}/smaps_rollup", child.id());
        (field(&rollup, "Rss:"), field(&rollup, "Pss:"))
    });
    let figures = figures.collect();
    for mut child in children {
        // Closing its stdin ends it.
        drop(child.stdin.take());
        child.wait().expect("an end");
    }
    figures
}

/// Body of each of these processes: open everything, run one frame, then wait.
pub fn hold(directory: &Path) {
    let mut runtime = open(directory, true);
    let input = vec![0.25; runtime.current().expect("a task").1.input().len()];
    frame(&mut runtime, &input);
    println!("holding");
    std::io::stdout().flush().expect("standard output");
    let _ = std::io::stdin().read(&mut [0]);
}

/// A runtime on the packed or the plain backbone, with every task resident and the first one running.
fn open(directory: &Path, packed: bool) -> Runtime {
    let [plain, ready] = backbones(directory);
    let path = if packed { ready } else { plain };
    let mut runtime = Runtime::new(Backbone::open(path, &Options::default()).expect("a backbone"), 1);
    let ids: Vec<_> = (0..TASKS).map(|i| runtime.load(task(directory, i)).expect("a task")).collect();
    runtime.switch(ids[0]).expect("a resident task");
    runtime
}

/// Memory of a process with every task resident, on the packed or the plain backbone, as a line of JSON.
pub fn memory(directory: &Path, packed: bool) {
    let mut runtime = open(directory, packed);
    let input = vec![0.25; runtime.current().expect("a task").1.input().len()];
    frame(&mut runtime, &input);
    // Reading `resident` allocates too, and faults in a new page the first time.
    resident();
    let rss = resident();
    let ids: Vec<_> = runtime.resident().map(|(id, _)| id).collect();
    let mut seed = 1u64;
    for round in 0..10_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        runtime.switch(ids[(seed >> 33) as usize % ids.len()]).expect("a resident task");
        if round % 2_000 == 0 {
            frame(&mut runtime, &input);
        }
    }
    let grown = resident().saturating_sub(rss);
    let backbone = runtime.backbone();
    let kernels = match backbone.repacked().bytes {
        0 => backbone.file_bytes(),
        repacked => repacked,
    };
    let tasks = runtime.resident_bytes();
    println!(
        "{{\"tasks\":{TASKS},\"rss\":{rss},\"backbone\":{kernels},\"task_bytes\":{tasks},\"workspace\":{},\"beyond\":{},\
         \"growth_10k_switches\":{grown}}}",
        runtime.workspace_bytes(),
        rss as i64 - (kernels + tasks) as i64
    );
}

/// Runs this program with `option` on `directory` in a separate process and returns its line of JSON.
pub fn apart(option: &str, directory: &Path) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let output = command.arg(option).arg(directory).stderr(Stdio::inherit()).output().expect("a process");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
