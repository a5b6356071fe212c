//! `run`: classifies frames from files or standard input, and switches tasks between them.

use super::args::{Args, spec};
use super::image::{Frames, Image, Raw};
use super::{Command, complain, json, store};
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
        spec("--script", Some("A,B,..."), "names of tasks to use, one per frame, again and again"),
        spec("--each", None, "give every frame to every task"),
        spec("--stream", None, "start each task's first frame while its bundle is still being decoded"),
        spec("--budget-mib", Some("N"), "memory for resident tasks; least recently used ones are evicted"),
        spec("--raw", Some("WxHxC"), "frames are plain bytes, height x width x channels"),
        spec("--deadline-ms", Some("N"), "count frames that take longer (0.5 and the like will do)"),
        spec(
            "--metrics",
            Some("FILE"),
            "keep Prometheus text there, renewed every second; `stdout`: at the end",
        ),
        spec("--json", None, "one JSON object per frame: file, task, label, score, us, late"),
    ],
    files: Some(" FILE..."),
    help: "Files are PNG, PPM or PGM; `-` reads one PNG image, or a stream of PPM and PGM, from standard input. The first task\n\
           answers, unless --alternate, --script or --each is given.\n\nExamples:\n  \
           edge-runtime run --store store/ --alternate --json frame1.png frame2.png\n  \
           camera | edge-runtime run --backbone b.backbone --task signs.task --raw 640x480x3 -\n  \
           edge-runtime run --store store/ --deadline-ms 5 --metrics metrics.prom frames/*.ppm\n",
    run,
};

/// Which task answers which frame.
struct Order {
    /// With their files, in case they were evicted meanwhile.
    tasks: Vec<(TaskId, PathBuf)>,
    /// True to decode a task while its first frame runs.
    stream: bool,
    /// True to step on after every frame.
    step: bool,
    /// True to give every frame to all of them.
    each: bool,
}

fn run(args: &Args) -> Result<()> {
    let files = store::Files::find(args)?;
    let raw = args.value("--raw").map(Raw::parse).transpose()?;
    let deadline = args.value("--deadline-ms").map(milliseconds).transpose()?;
    if args.files.is_empty() {
        return Err(Error::Usage {
            got: "no frames".into(),
            want: "image files, or `-` for standard input".into(),
        });
    }
    let threads = args.number("--threads", MOST_THREADS)?.unwrap_or(1);
    let mut runtime = Runtime::new(files.open(args.isa()?)?, threads);
    if let Some(mib) = args.number("--budget-mib", usize::MAX >> 20)? {
        runtime.set_budget(mib << 20);
    }
    runtime.set_deadline(deadline);
    let mut loaded = Vec::new();
    for path in files.some_tasks()? {
        // One damaged file does not keep the others from their work.
        match load(&mut runtime, path, args.flag("--stream")) {
            Ok(id) => loaded.push((id, path.clone())),
            Err(error) => complain(&error),
        }
    }
    store::check_distinct(&loaded)?;
    let mut metrics = Metrics::new(args.value("--metrics"));
    let mut outcome = Ok(());
    if !loaded.is_empty() {
        let order = order(args, &runtime, loaded)?;
        switch(&mut runtime, &order, 0)?;
        outcome = frames(args, &mut runtime, &order, raw, &mut metrics);
    }
    metrics.write(&runtime);
    outcome
}

/// Where counters go while frames run, so that whoever collects them need not wait for the end, which may be a signal.
struct Metrics<'a> {
    place: Option<&'a str>,
    /// A file, which is replaced; standard output, a device or a pipe takes them once, at the end.
    is_file: bool,
    written: Option<Instant>,
    /// That it cannot be written was said.
    failed: bool,
}

impl<'a> Metrics<'a> {
    fn new(place: Option<&'a str>) -> Metrics<'a> {
        let is_file =
            |place| place != "stdout" && std::fs::metadata(place).map_or(true, |there| there.is_file());
        Metrics { place, is_file: place.is_some_and(is_file), written: None, failed: false }
    }

    /// After a frame: renews the file where a second has passed.
    fn renew(&mut self, runtime: &Runtime) {
        if self.is_file && self.written.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            self.write(runtime);
        }
    }

    /// Frames go on when that fails. It is said the first time: an endless stream has no end to say it at.
    fn write(&mut self, runtime: &Runtime) {
        let Some(place) = self.place else { return };
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
            // Nobody reads half of it.
            let beside = format!("{place}.part");
            std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, place))
        } else {
            std::fs::write(place, text)
        };
        write.map_err(|error| Error::File { path: place.into(), action: "write", kind: error.kind() })
    }
}

fn load(runtime: &mut Runtime, path: &Path, stream: bool) -> Result<TaskId> {
    if stream { runtime.stream(path) } else { runtime.load(path) }
}

/// Switches to the task whose turn it is; one that the budget left no room for is loaded again.
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
    // In whole nanoseconds: parsing floats would cost 12 KiB of program.
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction:0<6}");
    let plain = fraction.len() <= 6 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let time = digits.parse().ok().filter(|_| plain).map(Duration::from_nanos);
    time.filter(|time| !time.is_zero()).ok_or_else(|| Error::Usage {
        got: format!("--deadline-ms {text}"),
        want: "a positive number of milliseconds".into(),
    })
}

fn order(args: &Args, runtime: &Runtime, loaded: Vec<(TaskId, PathBuf)>) -> Result<Order> {
    let stream = args.flag("--stream");
    let (step, each) = (args.flag("--alternate") || args.value("--script").is_some(), args.flag("--each"));
    let Some(script) = args.value("--script") else { return Ok(Order { tasks: loaded, stream, step, each }) };
    let known = || runtime.resident().map(|(_, task)| task.name()).collect::<Vec<_>>().join(", ");
    let named = script.split(',').map(|name| {
        let found = runtime.find(name).and_then(|id| loaded.iter().find(|(own, _)| *own == id));
        found.cloned().ok_or_else(|| Error::Usage { got: format!("task `{name}`"), want: known() })
    });
    Ok(Order { tasks: named.collect::<Result<_>>()?, stream, step, each })
}

fn frames(
    args: &Args,
    runtime: &mut Runtime,
    order: &Order,
    raw: Option<Raw>,
    metrics: &mut Metrics<'_>,
) -> Result<()> {
    let mut image = Image::default();
    let mut turn = 0;
    for name in &args.files {
        // What is wrong with a file, a task or a frame is said, and the next one goes on.
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
                    // Counted, and no error.
                    Err(error @ Error::Deadline { .. }) => eprintln!("{name}: {error}"),
                    Err(error) => complain(&error),
                    Ok(scores) => json::print(&line(args.flag("--json"), name, &scores, start.elapsed()))?,
                }
                metrics.renew(runtime);
            }
        }
    }
    Ok(())
}

/// Says what is wrong, and that there is nothing to go on with.
fn refused(error: Error) -> bool {
    complain(&error);
    false
}

fn line(as_json: bool, file: &str, scores: &Scores<'_>, time: Duration) -> String {
    let us = time.as_secs_f64() * 1e6;
    if as_json {
        let object = json::Object::new()
            .text("label", scores.label)
            .number("score", f64::from(scores.score))
            .text("task", scores.task)
            .number("us", (us * 10.0).round() / 10.0)
            .text("file", file)
            .raw("late", if scores.late { "true" } else { "false" });
        return object.line();
    }
    format!("{file}\t{}\t{}\t{:.4}\t{us:.0} us\n", scores.task, scores.label, scores.score)
}
