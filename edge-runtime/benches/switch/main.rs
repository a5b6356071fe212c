//! Measures the cost of having many tasks: `cargo bench -p edge-runtime --bench switch [-- ARCH...]`
//!
//! For each architecture (default: ResNet-20 and -56 at 32 px, ResNet-18 at 224 px), on files of random
//! numbers in `tailor`'s formats, in the page cache: a plain frame, a warm switch, a cold switch (to an
//! evicted task, and to one that this process has never, or not recently, loaded), and a cold switch with its
//! first frame, loaded and streamed; the first frame of a fresh process; memory with fifty resident tasks, on
//! a plain and on a packed backbone, and shared by several processes; memory growth over ten thousand random
//! switches. Prints one JSON line each, times in milliseconds, memory in bytes.
//!
//! `--serve DIR --net ARCH [--threads N]` is for a peer's script: it writes the store and the first task's
//! network to DIR, then answers every line `frame N`, `warm N`, `cold N`, `new N`, `loaded N` or `streamed N`
//! on stdin with the median of N rounds in milliseconds.

#[path = "../peer/mod.rs"]
mod peer;
mod processes;
mod store;

use edge_runtime::{Backbone, Options, Runtime, TaskId};
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const DEFAULT: [&str; 3] = ["cifar-resnet20-a", "cifar-resnet56-a", "resnet18"];
const ROUNDS: usize = 25;

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let (mut named, mut serve, mut threads) = (Vec::new(), None, 1);
    while let Some(word) = words.next() {
        let mut value = || PathBuf::from(words.next().expect("a value"));
        match word.as_str() {
            "--hold" => return processes::hold(&value()),
            "--memory-packed" => return processes::memory(&value(), true),
            "--memory-plain" => return processes::memory(&value(), false),
            "--serve" => serve = Some(value()),
            "--threads" => threads = value().to_str().and_then(|n| n.parse().ok()).expect("a number"),
            "--net" => named.push(words.next().expect("an architecture")),
            _ => named.push(word),
        }
    }
    if let Some(directory) = serve {
        return answer(&named[0], &directory, threads);
    }
    let named = if named.is_empty() { DEFAULT.map(String::from).to_vec() } else { named };
    for arch in named {
        measure(&arch);
    }
}

/// Two resident tasks and the files of others, on the packed backbone.
struct Bench {
    runtime: Runtime,
    tasks: [TaskId; 2],
    cold: [PathBuf; 2],
    /// More files than outlines are cached: each is forgotten by the time it is loaded again.
    new: Vec<PathBuf>,
    input: Vec<f32>,
    round: usize,
    /// Number of loads from `new`.
    fresh: usize,
}

impl Bench {
    fn new(backbone: &Arc<Backbone>, directory: &Path, threads: usize) -> Bench {
        let mut runtime = Runtime::new(Arc::clone(backbone), threads);
        let tasks = [0, 1].map(|i| runtime.load(store::task(directory, i)).expect("a task"));
        runtime.switch(tasks[0]).expect("a resident task");
        let input = vec![0.25; runtime.current().expect("a current task").1.input().len()];
        let cold = [2, 3].map(|i| store::task(directory, i));
        let new = (4..store::TASKS).map(|i| store::task(directory, i)).collect();
        let mut bench = Bench { runtime, tasks, cold, new, input, round: 0, fresh: 0 };
        // Warm-up: the first request to the loader thread is not measured.
        for what in ["frame", "loaded", "streamed"] {
            bench.time(what);
        }
        bench
    }

    /// One measurement of `what`, starting with the first task running and the other files not loaded.
    fn time(&mut self, what: &str) -> Duration {
        const SWITCHES: u32 = 10_000;
        self.round += 1;
        let [first, second] = self.tasks;
        self.runtime.switch(first).expect("a resident task");
        let path = match what {
            "new" => {
                self.fresh += 1;
                &self.new[self.fresh % self.new.len()]
            }
            _ => &self.cold[self.round % 2],
        };
        let start = Instant::now();
        let time = match what {
            "warm" => {
                for _ in 0..SWITCHES / 2 {
                    self.runtime.switch(second).expect("a resident task");
                    self.runtime.switch(first).expect("a resident task");
                }
                return start.elapsed() / SWITCHES;
            }
            "frame" => {
                frame(&mut self.runtime, &self.input);
                start.elapsed()
            }
            "cold" | "new" | "loaded" => {
                let id = self.runtime.load(path).expect("a task");
                self.runtime.switch(id).expect("a resident task");
                if what == "loaded" {
                    frame(&mut self.runtime, &self.input);
                }
                start.elapsed()
            }
            "streamed" => {
                let id = self.runtime.stream(path).expect("a task");
                self.runtime.switch(id).expect("a resident task");
                frame(&mut self.runtime, &self.input);
                start.elapsed()
            }
            _ => panic!("`{what}`: frame, warm, cold, new, loaded or streamed"),
        };
        self.runtime.settle().expect("a complete task");
        self.runtime.switch(first).expect("a resident task");
        let others: Vec<_> =
            self.runtime.resident().map(|(id, _)| id).filter(|id| !self.tasks.contains(id)).collect();
        others.into_iter().for_each(|id| self.runtime.evict(id).expect("not the running task"));
        time
    }

    fn median(&mut self, what: &str, rounds: usize) -> Duration {
        let mut times: Vec<Duration> = (0..rounds.max(1)).map(|_| self.time(what)).collect();
        median(&mut times)
    }
}

fn answer(arch: &str, directory: &Path, threads: usize) {
    store::write(arch, directory);
    let backbone = Backbone::open(&store::backbones(directory)[1], &Options::default()).expect("a backbone");
    let mut bench = Bench::new(&backbone, directory, threads);
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        let (what, rounds) = line.trim().split_once(' ').expect("what and how often");
        println!("{:.6}", millis(bench.median(what, rounds.parse().expect("a number"))));
    }
}

fn measure(arch: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = directory.path();
    store::write(arch, at);
    let plain = processes::apart("--memory-plain", at);
    let packed = processes::apart("--memory-packed", at);
    let sharing = processes::sharing(at);
    let [process_plain, process_packed] = processes::first_frame(at, ROUNDS);

    let opened = |path: &Path| {
        let start = Instant::now();
        let backbone = Backbone::open(path, &Options::default()).expect("a backbone");
        (start.elapsed(), backbone)
    };
    let [(open_plain, _), (open_packed, backbone)] = store::backbones(at).map(|path| opened(&path));
    let mut bench = Bench::new(&backbone, at, 1);
    // Interleaved, so that all see the same noise.
    let names = ["frame", "cold", "new", "loaded", "streamed"];
    let mut times = names.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (name, times) in names.iter().zip(&mut times) {
            times.push(bench.time(name));
        }
    }
    let warm = bench.median("warm", 9);
    let [frame, cold, new, loaded, streamed] = times.map(|mut times| median(&mut times));
    let mean = |pick: fn(&(u64, u64)) -> u64| sharing.iter().map(pick).sum::<u64>() / sharing.len() as u64;
    println!(
        "{{\"net\":\"{arch}\",\"isa\":\"{}\",\"task_file_bytes\":{},\"open_plain_ms\":{:.2},\"open_packed_ms\":{:.2},\
         \"frame_ms\":{:.3},\"warm_switch_ns\":{},\"cold_switch_ms\":{:.3},\"new_task_ms\":{:.3},\"loaded_with_frame_ms\":{:.3},\
         \"streamed_with_frame_ms\":{:.3},\"streamed_over_frame\":{:.2},\"first_frame_of_process_ms\":{{\"plain\":{:.2},\
         \"packed\":{:.2}}},\"memory_plain\":{plain},\"memory_packed\":{packed},\"processes\":{},\"rss_each\":{},\
         \"pss_each\":{}}}",
        backbone.isa(),
        std::fs::metadata(store::task(at, 0)).expect("a bundle").len(),
        millis(open_plain),
        millis(open_packed),
        millis(frame),
        warm.as_nanos(),
        millis(cold),
        millis(new),
        millis(loaded),
        millis(streamed),
        streamed.as_secs_f64() / frame.as_secs_f64(),
        process_plain,
        process_packed,
        sharing.len(),
        mean(|figures| figures.0),
        mean(|figures| figures.1),
    );
}

fn frame(runtime: &mut Runtime, input: &[f32]) {
    runtime.tensor(input).expect("scores");
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// VmRSS in bytes; zero if there is no /proc.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
