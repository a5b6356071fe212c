//! `bench`: frame, warm-switch and cold-switch times, and memory use.

use super::args::{Args, spec};
use super::{Command, blocks, json, memory, store};
use bundles::container::golden_input;
use edge_runtime::pool::MOST_THREADS;
use edge_runtime::{Result, Runtime, Session, Task, TaskId};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const COMMAND: Command = Command {
    name: "bench",
    about: "Measures frames, switches and memory",
    options: &[
        store::STORE,
        store::BACKBONE,
        store::TASK,
        store::ISA,
        store::THREADS,
        store::TRUST,
        spec("--frames", Some("N"), "frames per figure (default: 200)"),
        spec("--layers", None, "time and GFLOP/s per layer"),
        spec("--blocks", Some("FILE"), "write the per-block latency table (JSON) for tailor --cost latency"),
        spec("--skips", Some("K"), "with --blocks: how far back proxies reach (default: 3)"),
        spec("--json", None, "one JSON document; with --layers one object per line"),
    ],
    files: None,
    help: "Shows medians over all frames (cold switches: 15, --blocks: 101) and, for noisy machines, minima.\n\
           A cold switch loads an evicted task whose signatures were verified before.\n\n\
           --layers prints one line per kernel call: node, time, GFLOP/s, shapes, tensors.\n\
           --blocks measures the student (on an int8 backbone, in int8): {\"arch\", \"size\", \"isa\", \"precision\",\n\
           \"threads\", \"rows\": [{\"node\", \"source\", \"role\", \"us\"}]}. Roles are block, proxy, stem, head and what\n\
           paths share: pool (a source, for all nodes of one size), proxies (a node's call), sum (of a node).\n\n\
           Examples:\n  edge-runtime bench --store store/ --json\n  \
           edge-runtime bench --store store/ --task digits --layers\n  \
           edge-runtime bench --backbone net.backbone --blocks latency.json\n",
    run,
};

/// Warm switches timed together, because a single one is shorter than the clock's overhead.
const SWITCHES: u32 = 10_000;

/// Maximum value of `--frames`.
const MOST_FRAMES: usize = 1_000_000;

/// Cold switches per figure.
const COLD: usize = 15;

/// Measurements of one task.
struct Figures {
    name: String,
    frame: Spread,
    /// `None` if there is no other task to switch from.
    warm_switch: Option<Duration>,
    cold_switch: Spread,
    cold_first_frame: Spread,
    resident: usize,
    file: usize,
}

/// Median and minimum.
#[derive(Clone, Copy)]
struct Spread {
    median: Duration,
    least: Duration,
}

fn spread(mut times: Vec<Duration>) -> Spread {
    times.sort_unstable();
    let at = |i: usize| times.get(i).copied().unwrap_or_default();
    Spread { median: at(times.len() / 2), least: at(0) }
}

fn run(args: &Args) -> Result<()> {
    let files = store::Files::find(args)?;
    files.check_output(args, "--blocks")?;
    let frames = args.number("--frames", MOST_FRAMES)?.unwrap_or(200);
    let threads = args.number("--threads", MOST_THREADS)?.unwrap_or(1);
    let start = Instant::now();
    let backbone = files.open(args.isa()?)?;
    let opened = start.elapsed();
    if let Some(place) = args.value("--blocks") {
        blocks::write(args, &backbone, &mut Session::new(threads), place)?;
        if files.tasks.is_empty() {
            return Ok(());
        }
    }
    if args.flag("--layers") {
        for path in files.some_tasks()? {
            let task = Task::load(&backbone, path)?;
            layers(&task, threads, frames, args.flag("--json"))?;
        }
        return Ok(());
    }

    let mut runtime = Runtime::new(Arc::clone(&backbone), threads);
    let mut ids = Vec::new();
    for path in files.some_tasks()? {
        ids.push(runtime.load(path)?);
    }
    let loaded: Vec<_> = ids.iter().copied().zip(files.tasks.iter().cloned()).collect();
    store::check_distinct(&loaded)?;
    let mut figures = Vec::new();
    for &id in &ids {
        figures.push(one(&mut runtime, id, &ids, frames)?);
    }
    // Memory first: cold switches leave freed memory with the allocator.
    let (rss, pss) = (memory::resident().unwrap_or(0), memory::proportional().unwrap_or(0));
    for (path, figures) in files.tasks.iter().zip(&mut figures) {
        cold(&backbone, threads, path, figures)?;
    }
    let text = if args.flag("--json") {
        let tasks: Vec<String> = figures.iter().map(Figures::json).collect();
        let cost = backbone.repacked();
        let mut of_backbone = json::Object::new();
        of_backbone
            .number("bytes", backbone.file_bytes() as f64)
            .number("open_ms", millis(opened))
            .number("repacked_bytes", cost.bytes as f64)
            .number("repack_ms", millis(cost.time));
        let mut object = json::Object::new();
        object
            .text("isa", backbone.isa().name())
            .number("threads", threads as f64)
            .raw("backbone", &of_backbone.end())
            .number("workspace_bytes", runtime.workspace_bytes() as f64)
            .number("rss_bytes", rss as f64)
            .number("pss_bytes", pss as f64)
            .raw("tasks", &json::array(&tasks));
        object.line()
    } else {
        let mut text =
            "task\tframe\tleast\twarm switch\tcold switch\tcold switch + first frame\tresident\n".to_owned();
        for f in &figures {
            text += &format!(
                "{}\t{:.3} ms\t{:.3} ms\t{}\t{:.2} ms\t{:.2} ms\t{} KiB\n",
                f.name,
                millis(f.frame.median),
                millis(f.frame.least),
                f.warm_switch.map_or("-".into(), |time| format!("{:.0} ns", time.as_secs_f64() * 1e9)),
                millis(f.cold_switch.median),
                millis(f.cold_first_frame.median),
                f.resident / 1024
            );
        }
        let kib = |bytes: u64| bytes / 1024;
        text + &format!(
            "process\tRSS {} KiB, PSS {} KiB; backbone {} KiB, opened in {:.2} ms, {} on {threads} thread(s)\n",
            kib(rss),
            kib(pss),
            backbone.file_bytes() / 1024,
            millis(opened),
            backbone.isa()
        )
    };
    json::print(&text)
}

/// Frame latency, and the warm switch to and from this task.
fn one(runtime: &mut Runtime, id: TaskId, all: &[TaskId], frames: usize) -> Result<Figures> {
    runtime.switch(id)?;
    let Some((_, task)) = runtime.current() else {
        return Err(edge_runtime::Error::Internal { what: "no current task after a switch".into() });
    };
    let (name, resident, file) = (task.name().to_owned(), task.resident_bytes(), task.file_bytes());
    let mut input = vec![0.0; task.input().len()];
    golden_input(1, &mut input);
    let mut times = Vec::with_capacity(frames);
    for frame in 0..frames + frames.min(5) {
        let start = Instant::now();
        runtime.tensor(&input)?;
        // The first frames warm up caches and clocks.
        if frame >= frames.min(5) {
            times.push(start.elapsed());
        }
    }
    let mut warm_switch = None;
    if let Some(&other) = all.iter().find(|other| **other != id) {
        let start = Instant::now();
        for _ in 0..SWITCHES / 2 {
            runtime.switch(other)?;
            runtime.switch(id)?;
        }
        warm_switch = Some(start.elapsed() / SWITCHES);
    }
    let zero = spread(Vec::new());
    Ok(Figures {
        name,
        frame: spread(times),
        warm_switch,
        cold_switch: zero,
        cold_first_frame: zero,
        resident,
        file,
    })
}

/// From a bundle file in the page cache to a task that is ready or, when streamed, to its first scores.
fn cold(
    backbone: &Arc<edge_runtime::Backbone>,
    threads: usize,
    path: &Path,
    figures: &mut Figures,
) -> Result<()> {
    let mut runtime = Runtime::new(Arc::clone(backbone), threads);
    let (mut ready, mut first) = (Vec::new(), Vec::new());
    for _ in 0..COLD {
        let start = Instant::now();
        let id = runtime.load(path)?;
        runtime.switch(id)?;
        ready.push(start.elapsed());
    }
    let Some((_, task)) = runtime.current() else {
        return Err(edge_runtime::Error::Internal { what: "no current task after a switch".into() });
    };
    let mut input = vec![0.0; task.input().len()];
    golden_input(1, &mut input);
    for _ in 0..COLD {
        let start = Instant::now();
        let id = runtime.stream(path)?;
        runtime.switch(id)?;
        runtime.tensor(&input)?;
        first.push(start.elapsed());
        runtime.settle()?;
    }
    figures.cold_switch = spread(ready);
    figures.cold_first_frame = spread(first);
    Ok(())
}

fn layers(task: &Task, threads: usize, frames: usize, as_json: bool) -> Result<()> {
    let mut session = Session::new(threads);
    let mut input = vec![0.0; task.input().len()];
    golden_input(1, &mut input);
    let times = session.time_layers(task, &input, frames)?;
    let mut text = String::new();
    if !as_json {
        text += &format!("{}\nnode\tus\tGFLOP/s\tinput\toutput\tlayer\n", task.name());
    }
    let mut total = Duration::ZERO;
    for (layer, time) in task.layers().iter().zip(times) {
        total += time;
        let us = time.as_secs_f64() * 1e6;
        // A multiply-add counts as two operations.
        let rate = 2.0 * layer.macs as f64 / time.as_nanos().max(1) as f64;
        let (node, name) = (layer.node, &layer.name);
        if as_json {
            let mut object = json::Object::new();
            object
                .text("task", task.name())
                .number("node", node as f64)
                .text("layer", name)
                .number("us", (us * 100.0).round() / 100.0)
                .number("gflops", (rate * 10.0).round() / 10.0)
                .number("macs", layer.macs as f64);
            text += &object.line();
        } else {
            let (from, to) = (layer.input, layer.output);
            text += &format!("{node}\t{us:.1}\t{rate:.1}\t{from}\t{to}\t{name}\n");
        }
    }
    if !as_json {
        text += &format!("total\t{:.1}\n", total.as_secs_f64() * 1e6);
    }
    json::print(&text)
}

impl Figures {
    fn json(&self) -> String {
        json::Object::new()
            .text("name", &self.name)
            .number("frame_ms", millis(self.frame.median))
            .number("frame_min_ms", millis(self.frame.least))
            .number("warm_switch_us", self.warm_switch.map_or(f64::NAN, |time| time.as_secs_f64() * 1e6))
            .number("cold_switch_ms", millis(self.cold_switch.median))
            .number("cold_first_frame_ms", millis(self.cold_first_frame.median))
            .number("resident_bytes", self.resident as f64)
            .number("bundle_bytes", self.file as f64)
            .end()
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
