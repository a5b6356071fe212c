//! What does it cost to have many tasks? `cargo bench -p edge-runtime --bench switch [-- ARCH...]`
//!
//! For each architecture (default: ResNet-20 and -56 at 32 px, ResNet-18 at 224 px), over bundles of random
//! numbers in files: a plain frame, a warm switch, a cold switch, and a cold switch with its first frame,
//! streamed and not; memory with fifty resident tasks; growth over ten thousand random switches. One JSON
//! line each.

use bundles::container::{Bundle, Kind, Preprocess, Resize, Writer};
use bundles::plan::{Arch, Owner, Plan, Role, Skips};
use edge_runtime::{Backbone, Options, Runtime, TaskId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEFAULT: [&str; 3] = ["cifar-resnet20-a", "cifar-resnet56-a", "resnet18"];
const TASKS: usize = 50;
const ROUNDS: usize = 25;

fn main() {
    let named: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let named = if named.is_empty() { DEFAULT.map(String::from).to_vec() } else { named };
    for arch in named {
        measure(&arch);
    }
}

fn measure(arch: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let paths = pack(arch, directory.path());
    let start = Instant::now();
    let backbone =
        Backbone::open(directory.path().join("net.backbone"), &Options::default()).expect("a backbone");
    let opened = start.elapsed();
    let mut runtime = Runtime::new(Arc::clone(&backbone), 1);

    let id = runtime.load(&paths[0]).expect("a task");
    let other = runtime.load(&paths[1]).expect("a task");
    runtime.switch(id).expect("a resident task");
    let input = vec![0.25; runtime.current().expect("a current task").1.input().len()];
    let (mut frames, mut cold, mut plain_first, mut streamed_first) = (vec![], vec![], vec![], vec![]);
    // Interleaved, so that all four see the same noise.
    for round in 0..ROUNDS {
        runtime.switch(id).expect("a resident task");
        frames.push(time(|| frame(&mut runtime, &input)));
        let path = &paths[2 + round % 2];
        cold.push(time(|| switch_to(&mut runtime, path, false)));
        runtime.switch(id).expect("a resident task");
        plain_first.push(time(|| {
            switch_to(&mut runtime, path, false);
            frame(&mut runtime, &input);
        }));
        runtime.switch(id).expect("a resident task");
        streamed_first.push(time(|| {
            switch_to(&mut runtime, path, true);
            frame(&mut runtime, &input);
        }));
        runtime.settle().expect("a complete task");
    }
    const SWITCHES: u32 = 100_000;
    let warm = time(|| {
        for _ in 0..SWITCHES / 2 {
            runtime.switch(other).expect("a resident task");
            runtime.switch(id).expect("a resident task");
        }
    }) / SWITCHES;
    let task_file = std::fs::metadata(&paths[0]).expect("a bundle").len();
    drop(runtime);

    // Fifty tasks: the same few bundles under fifty names would be one slot each, so each has its own file.
    let before = resident();
    let mut runtime = Runtime::new(Arc::clone(&backbone), 1);
    let ids: Vec<TaskId> = paths.iter().map(|path| runtime.load(path).expect("a task")).collect();
    runtime.switch(ids[0]).expect("a resident task");
    frame(&mut runtime, &input);
    let (after, of_tasks) = (resident(), runtime.resident_bytes() as u64);
    let mut seed = 1u64;
    for round in 0..10_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        runtime.switch(ids[(seed >> 33) as usize % ids.len()]).expect("a resident task");
        if round % 2_000 == 0 {
            frame(&mut runtime, &input);
        }
    }
    let grown = resident().saturating_sub(after);
    println!(
        "{{\"net\":\"{arch}\",\"isa\":\"{}\",\"open_ms\":{:.2},\"task_file_bytes\":{task_file},\"frame_ms\":{:.3},\
         \"warm_switch_ns\":{},\"cold_switch_ms\":{:.3},\"cold_then_frame_ms\":{:.3},\"streamed_with_frame_ms\":{:.3},\
         \"streamed_over_frame\":{:.2},\"tasks\":{},\"task_bytes\":{of_tasks},\"rss_of_tasks\":{},\"rss\":{after},\
         \"backbone_bytes\":{},\"repacked_bytes\":{},\"rss_growth_10k_switches\":{grown}}}",
        backbone.isa(),
        millis(opened),
        millis(median(&mut frames)),
        warm.as_nanos(),
        millis(median(&mut cold)),
        millis(median(&mut plain_first)),
        millis(median(&mut streamed_first)),
        median(&mut streamed_first).as_secs_f64() / median(&mut frames).as_secs_f64(),
        ids.len(),
        after.saturating_sub(before),
        backbone.file_bytes(),
        backbone.repacked().bytes,
    );
}

/// Writes a backbone and fifty tasks, each with a third of the blocks pruned.
fn pack(arch: &str, directory: &Path) -> Vec<PathBuf> {
    let parsed: Arch = arch.parse().expect("an architecture");
    let size = parsed.native_size();
    let source = parsed.plan(size, size, 100).expect("a plan");
    let mut seed = 7;
    let backbone = write(Kind::Backbone, "net", &source, None, &mut seed);
    let id = Bundle::parse(&backbone).expect("a bundle").manifest().backbone.id;
    std::fs::write(directory.join("net.backbone"), backbone).expect("room for a file");
    let student = source.with_proxies(Skips::Nearest(3), parsed.proxy_form()).expect("a student");
    // Every third block goes, and all proxies but the one from the node before and that over the gap.
    let alphas: Vec<Vec<f32>> = (1..=student.cells.len())
        .zip(&student.cells)
        .map(|(node, cell)| {
            let alpha = |role, source| match role {
                Role::Block => {
                    if node % 3 == 2 {
                        0.1
                    } else {
                        0.9
                    }
                }
                Role::Proxy => {
                    if source + 1 == node && node % 3 != 0 {
                        0.5
                    } else {
                        0.0
                    }
                }
            };
            cell.gates.iter().map(|gate| alpha(gate.role, gate.source)).collect()
        })
        .collect();
    let plan = student.pruned(&alphas, student.cells.len() / 3, 0.05).expect("a pruned plan").folded();
    // Ten different files are enough to read; fifty names to keep.
    (0..TASKS)
        .map(|i| {
            let name = format!("task{i}");
            let path = directory.join(&name).with_extension("task");
            let bytes = write(Kind::Task, &name, &plan, Some(id), &mut seed);
            std::fs::write(&path, bytes).expect("room for a file");
            path
        })
        .collect()
}

fn write(kind: Kind, name: &str, plan: &Plan, id: Option<[u8; 32]>, seed: &mut u64) -> Vec<u8> {
    let input = plan.input;
    let preprocess = Preprocess::new(input.c, input.w, input.h, Resize::Bilinear, [0.5; 3], [0.25; 3]);
    let mut writer = Writer::new(kind, name, plan.clone(), preprocess);
    let owner = if kind == Kind::Task { Owner::Task } else { Owner::Backbone };
    if let Some(id) = id {
        writer.backbone(id, "").labels((0..plan.classes()).map(|class| class.to_string()));
    }
    for spec in plan.tensors().into_iter().filter(|spec| spec.owner == owner) {
        let fan_in: usize = spec.shape.iter().skip(1).product();
        let size = 1.0 / (fan_in.max(1) as f32).sqrt();
        let values: Vec<f32> = (0..spec.len())
            .map(|_| {
                *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                size * ((*seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
            })
            .collect();
        writer.tensor_f32(&spec.name, owner, &spec.shape, &values).expect("a tensor");
    }
    writer.finish(&[]).expect("a bundle")
}

fn switch_to(runtime: &mut Runtime, path: &Path, streamed: bool) {
    let id = if streamed { runtime.stream(path) } else { runtime.load(path) };
    runtime.switch(id.expect("a task")).expect("a resident task");
}

fn frame(runtime: &mut Runtime, input: &[f32]) {
    runtime.tensor(input).expect("scores");
}

fn time(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// VmRSS in bytes, zero where there is no /proc.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
