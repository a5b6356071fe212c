//! `run`: classifies frames from files or standard input, switching tasks between them.

use super::args::{Args, spec};
use super::image::{Frames, Image, Raw};
use super::{Command, complain, json, store, usage};
use edge_runtime::pool::MOST_THREADS;
use edge_runtime::{Error, Result, Runtime, Scores, TaskId};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub const COMMAND: Command = Command {
    name: "run",
    about: "Classifies images or raw frames, switching tasks between frames",
    options: &[
        store::STORE,
        store::BACKBONE,
        store::TASK,
        store::ISA,
        store::THREADS,
        store::TRUST,
        spec("--alternate", None, "switch to the next task before every frame"),
        spec("--script", Some("A,B,..."), "tasks to cycle through, one per frame; names as for --task"),
        spec("--each", None, "give every frame to every task"),
        spec("--stream", None, "start each task's first frame while its bundle is still being decoded"),
        spec("--budget-mib", Some("N"), "memory for resident tasks; least recently used ones are evicted"),
        spec("--raw", Some("WxHxC"), "frames are raw bytes, height x width x channels"),
        spec("--deadline-ms", Some("N"), "mark and count frames that take longer (fractions allowed)"),
        spec("--metrics", Some("FILE"), "write Prometheus text there every second; `stdout`: at the end"),
        spec("--json", None, "one JSON object per frame: file, task, label, score, us, late"),
    ],
    files: Some(" FILE..."),
    help: "Files are PNG, PPM or PGM; `-` reads one PNG image, or a stream of PPM and PGM, from standard input.\n\
           The first task answers, unless --alternate, --script or --each is given.\n\n\
           Lines of frames that missed --deadline-ms end in `late`; the metrics count them as\n\
           edge_runtime_missed_deadlines_total.\n\n\
           Examples:\n  \
           edge-runtime run --store store/ --alternate --json frame1.png frame2.png\n  \
           camera | edge-runtime run --backbone b.backbone --task signs.task --raw 640x480x3 -\n  \
           edge-runtime run --store store/ --deadline-ms 5 --metrics metrics.prom frames/*.ppm\n",
    run,
};

/// Which task answers which frame.
struct Order {
    /// With their files, in case a task has been evicted.
    tasks: Vec<(TaskId, PathBuf)>,
    /// Whether to decode a task while its first frame runs.
    stream: bool,
    /// Whether to advance to the next task after every frame.
    step: bool,
    /// Whether to give every frame to all tasks.
    each: bool,
    /// Whether there may be tasks whose turn never comes; of others, each switch says what is wrong.
    polls: bool,
}

fn run(args: &Args) -> Result<()> {
    let files = store::Files::find(args)?;
    if args.value("--metrics") != Some("stdout") {
        files.check_output(args, "--metrics")?;
    }
    let raw = args.value("--raw").map(Raw::parse).transpose()?;
    let deadline = args.value("--deadline-ms").map(milliseconds).transpose()?;
    if args.files.is_empty() {
        return Err(usage("no frames".into(), "image files, or `-` for standard input"));
    }
    let threads = args.number("--threads", MOST_THREADS)?.unwrap_or(1);
    let mut runtime = Runtime::new(files.open(args.isa()?)?, threads);
    if let Some(mib) = args.number("--budget-mib", usize::MAX >> 20)? {
        runtime.set_budget(mib << 20);
    }
    runtime.set_deadline(deadline);
    let mut loaded = Vec::new();
    for path in files.some_tasks()? {
        // A damaged file does not affect the others.
        match load(&mut runtime, path, args.flag("--stream")) {
            Ok(id) => loaded.push((id, path.clone())),
            Err(error) => complain(&error),
        }
    }
    store::check_distinct(&loaded)?;
    let mut metrics = Metrics::new(args.value("--metrics"));
    if !loaded.is_empty() {
        let order = order(args, &runtime, loaded)?;
        let switched = switch(&mut runtime, &order, 0);
        let done = switched.and_then(|()| frames(args, &mut runtime, &order, raw, &mut metrics));
        done.unwrap_or_else(|error| complain(&error));
        // Bundles whose turn never came may be damaged, too.
        while let Err(error) = runtime.settle() {
            complain(&error);
        }
    }
    metrics.write(&runtime);
    Ok(())
}

/// Where metrics are written while frames run, so that collectors need not wait for the end, which may be a
/// signal.
struct Metrics {
    /// A file, not a link to it; `stdout` under whatever name.
    place: Option<String>,
    /// Whether it is a regular file, or will be: it is replaced. Others (standard output, a device, a pipe, a link
    /// to what is not there yet) are written once, at the end.
    is_file: bool,
    written: Option<Instant>,
    /// Whether a write error has been reported.
    failed: bool,
}

impl Metrics {
    fn new(place: Option<&str>) -> Metrics {
        let mut metrics = Metrics { place: None, is_file: false, written: None, failed: false };
        let Some(place) = place else { return metrics };
        let there = std::fs::canonicalize(place).ok();
        // Where answers or errors go, whatever that is: replacing it would lose them.
        let is = |stream| place == stream || there.is_some() && there == std::fs::canonicalize(stream).ok();
        if place == "stdout" || is("/dev/stdout") {
            metrics.place = Some("stdout".into());
            return metrics;
        }
        metrics.is_file = match &there {
            Some(there) => there.is_file() && !is("/dev/stderr"),
            // Not so a link to what is not there yet.
            None => std::fs::symlink_metadata(place).is_err(),
        };
        let there = there.and_then(|there| there.into_os_string().into_string().ok());
        metrics.place = Some(there.unwrap_or(place.into()));
        metrics
    }

    /// Updates the file after a frame if a second has passed.
    fn renew(&mut self, runtime: &Runtime) {
        if self.is_file && self.written.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            self.write(runtime);
        }
    }

    /// Write errors do not stop frames. Only the first is reported, and at once: a stream may be endless.
    fn write(&mut self, runtime: &Runtime) {
        let Some(place) = &self.place else { return };
        self.written = Some(Instant::now());
        if let Err(error) = self.put(place, &runtime.metrics())
            && !std::mem::replace(&mut self.failed, true)
        {
            complain(&error);
        }
    }

    fn put(&self, place: &str, text: &str) -> Result<()> {
        if place == "stdout" {
            return json::print(text);
        }
        let write = if self.is_file {
            // So that nobody reads half a file.
            let beside = format!("{place}.part");
            std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, place))
        } else {
            std::fs::write(place, text)
        };
        write.map_err(Error::file(place, "write"))
    }
}

fn load(runtime: &mut Runtime, path: &Path, stream: bool) -> Result<TaskId> {
    if stream { runtime.stream(path) } else { runtime.load(path) }
}

/// Switches to the task whose turn it is, reloading it if it was evicted.
fn switch(runtime: &mut Runtime, order: &Order, turn: usize) -> Result<()> {
    let (id, path) = &order.tasks[turn % order.tasks.len()];
    match runtime.switch(*id) {
        Err(Error::NotResident { .. }) => {
            let again = load(runtime, path, order.stream)?;
            runtime.switch(again)
        }
        done => done,
    }
}

/// A positive number of milliseconds, with or without a fraction.
fn milliseconds(text: &str) -> Result<Duration> {
    // Parsed as whole nanoseconds: parsing floats would add 12 KiB to the program.
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction:0<6}");
    let plain = fraction.len() <= 6 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let time = digits.parse().ok().filter(|_| plain).map(Duration::from_nanos);
    time.filter(|time| !time.is_zero())
        .ok_or_else(|| usage(format!("--deadline-ms {text}"), "a positive number of milliseconds"))
}

fn order(args: &Args, runtime: &Runtime, loaded: Vec<(TaskId, PathBuf)>) -> Result<Order> {
    let stream = args.flag("--stream");
    let (step, each) = (args.flag("--alternate") || args.value("--script").is_some(), args.flag("--each"));
    let Some(script) = args.value("--script") else {
        return Ok(Order { tasks: loaded, stream, step, each, polls: !step && !each });
    };
    let known = || runtime.resident().map(|(_, task)| task.name()).collect::<Vec<_>>().join(", ");
    let named = script.split(',').map(|name| {
        let mut files = loaded.iter().filter(|(_, path)| store::is_named(path, name));
        let found = match (files.next(), files.next()) {
            (Some((_, one)), Some((_, other))) => return Err(store::ambiguous(name, one, other)),
            (None, _) => runtime.find(name).and_then(|id| loaded.iter().find(|(own, _)| *own == id)),
            (found, None) => found,
        };
        found.cloned().ok_or_else(|| usage(format!("task `{name}`"), &known()))
    });
    Ok(Order { tasks: named.collect::<Result<_>>()?, stream, step, each, polls: true })
}

fn frames(
    args: &Args,
    runtime: &mut Runtime,
    order: &Order,
    raw: Option<Raw>,
    metrics: &mut Metrics,
) -> Result<()> {
    let mut image = Image::default();
    let mut turn = 0;
    for name in &args.files {
        // Errors of a file, task or frame are reported and the next one is processed.
        let mut source = match Frames::open(name, raw) {
            Ok(source) => source,
            Err(error) => {
                complain(&error);
                continue;
            }
        };
        while !json::closed() && source.next(&mut image).unwrap_or_else(refused) {
            let repeats = if order.each { order.tasks.len() } else { 1 };
            for _ in 0..repeats {
                if order.step || order.each {
                    let switched = switch(runtime, order, turn);
                    turn += 1;
                    if !switched.map_or_else(refused, |()| true) {
                        continue;
                    }
                }
                let start = Instant::now();
                match runtime.frame(image.frame()) {
                    // Counted, but not an error.
                    Err(error @ Error::Deadline { .. }) => eprintln!("{name}: {error}"),
                    Err(error) => complain(&error),
                    Ok(scores) => json::print(&line(args.flag("--json"), name, &scores, start.elapsed()))?,
                }
                if order.polls {
                    while let Err(error) = runtime.poll() {
                        complain(&error);
                    }
                }
                metrics.renew(runtime);
            }
        }
    }
    Ok(())
}

/// Reports an error and returns false.
fn refused(error: Error) -> bool {
    complain(&error);
    false
}

fn line(as_json: bool, file: &str, scores: &Scores<'_>, time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    if as_json {
        let mut object = json::Object::new();
        object
            .text("label", scores.label)
            .number("score", f64::from(scores.score))
            .text("task", scores.task)
            .number("us", (us * 10.0).round() / 10.0)
            .text("file", file)
            .raw("late", if scores.late { "true" } else { "false" });
        return object.line();
    }
    let late = if scores.late { " late" } else { "" };
    format!("{file}\t{}\t{}\t{:.4}\t{us:.0} us{late}\n", scores.task, scores.label, scores.score)
}
