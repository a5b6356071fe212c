//! Frame and switch times of the demo's bundles on the edge runtime, on this machine.

use bundles::container::golden_input;
use edge_runtime::{Backbone, Options, Runtime, Task, TaskId};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Frames per median.
const FRAMES: usize = 200;
/// Loads per median.
const LOADS: usize = 15;
/// Warm switches timed together, because one takes less time than reading the clock.
const SWITCHES: u32 = 10_000;

/// Medians of one task, on one thread.
pub(super) struct Timing {
    pub(super) warm_switch_us: f64,
    pub(super) cold_switch_ms: f64,
    pub(super) frame_ms: f64,
}

/// Opens the backbone once, loads every bundle, and times frames and switches between them.
pub(super) fn measure(backbone: &Path, bundles: &[PathBuf]) -> edge_runtime::Result<Vec<Timing>> {
    let backbone = Backbone::open(backbone, &Options::default())?;
    let mut runtime = Runtime::new(backbone.clone(), 1);
    let ids: Vec<TaskId> = bundles.iter().map(|path| runtime.load(path)).collect::<Result<_, _>>()?;
    let mut timings = Vec::new();
    for (&id, path) in ids.iter().zip(bundles) {
        runtime.switch(id)?;
        let mut input = vec![0.0; runtime.current().map_or(0, |(_, task)| task.input().len())];
        golden_input(1, &mut input);
        let frame_ms = median(FRAMES, || runtime.tensor(&input).map(|_| ()))?;
        let clock = Instant::now();
        for i in 0..SWITCHES {
            runtime.switch(ids[i as usize % ids.len()])?;
        }
        let warm_switch_us = clock.elapsed().as_secs_f64() * 1e6 / f64::from(SWITCHES);
        let cold_switch_ms = median(LOADS, || Task::load(&backbone, path).map(|_| ()))?;
        timings.push(Timing { warm_switch_us, cold_switch_ms, frame_ms });
    }
    Ok(timings)
}

/// Median milliseconds of `times` calls.
fn median(times: usize, mut call: impl FnMut() -> edge_runtime::Result<()>) -> edge_runtime::Result<f64> {
    let mut all: Vec<Duration> = Vec::with_capacity(times);
    for _ in 0..times {
        let clock = Instant::now();
        call()?;
        all.push(clock.elapsed());
    }
    all.sort_unstable();
    Ok(all[all.len() / 2].as_secs_f64() * 1e3)
}
