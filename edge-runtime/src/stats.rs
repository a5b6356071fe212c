//! Counters of a runtime, and their Prometheus exposition.

use std::fmt::Write;
use std::time::Duration;

/// Upper bounds of the frame time histogram, in microseconds.
const BOUNDS: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

/// Counters since the runtime was created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that returned scores.
    pub frames: u64,
    /// Frames that ended in an error, including invalid images.
    pub failed_frames: u64,
    /// Frames answered after their deadline, or aborted at it.
    pub missed_deadlines: u64,
    /// Switches from one task to another.
    pub switches: u64,
    /// Tasks that became resident.
    pub loads: u64,
    /// Loads that failed.
    pub failed_loads: u64,
    /// Loads cancelled by an eviction before they finished.
    pub cancelled_loads: u64,
    /// Switches requested by a [`Switcher`](crate::Switcher) to tasks that were not resident.
    pub failed_switches: u64,
    /// Tasks evicted.
    pub evictions: u64,
    /// Total time of all answered frames.
    pub busy: Duration,
    /// Frames per histogram bucket; the last one counts all slower frames.
    buckets: [u64; BOUNDS.len() + 1],
}

/// What a runtime holds when its metrics are written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gauges {
    pub tasks: usize,
    pub task_bytes: usize,
    pub workspace_bytes: usize,
    pub backbone_bytes: usize,
}

/// A resident task, as shown in metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resident {
    pub name: String,
    /// Hexadecimal; empty for a task that was not loaded from a bundle.
    pub digest: String,
    pub is_running: bool,
}

impl Stats {
    /// Counts a frame; returns whether it missed its deadline.
    pub(crate) fn frame(&mut self, time: Duration, deadline: Option<Duration>, answered: bool) -> bool {
        let late = deadline.is_some_and(|deadline| time > deadline);
        self.missed_deadlines += u64::from(late);
        if !answered {
            self.failed_frames += 1;
            return late;
        }
        self.frames += 1;
        self.busy += time;
        let bucket = BOUNDS.partition_point(|&bound| u128::from(bound) < time.as_micros());
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        late
    }

    /// Prometheus text exposition.
    pub(crate) fn prometheus(&self, gauges: Gauges, tasks: impl Iterator<Item = Resident>) -> String {
        let rows = [
            ("frames_total", "Frames answered.", self.frames),
            ("failed_frames_total", "Frames that ended in an error.", self.failed_frames),
            ("missed_deadlines_total", "Frames that missed their deadline.", self.missed_deadlines),
            ("switches_total", "Switches from one task to another.", self.switches),
            ("loads_total", "Tasks that became resident.", self.loads),
            ("failed_loads_total", "Loads that failed.", self.failed_loads),
            ("cancelled_loads_total", "Loads cancelled before they finished.", self.cancelled_loads),
            ("failed_switches_total", "Switches requested to tasks not resident.", self.failed_switches),
            ("evictions_total", "Tasks evicted from memory.", self.evictions),
            ("resident_tasks", "Tasks in memory.", gauges.tasks as u64),
            ("resident_task_bytes", "Memory held by resident tasks.", gauges.task_bytes as u64),
            ("workspace_bytes", "Arena and scratch shared by all tasks.", gauges.workspace_bytes as u64),
            ("backbone_bytes", "Backbone file and kernels repacked from it.", gauges.backbone_bytes as u64),
        ];
        let mut text = String::new();
        for (name, help, value) in rows {
            // By Prometheus's convention, this end is the counters'.
            let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "# HELP edge_runtime_{name} {help}\n# TYPE edge_runtime_{name} {kind}\nedge_runtime_{name} {value}\n"
            );
        }
        let name = "edge_runtime_task_running";
        let _ = write!(text, "# HELP {name} Resident tasks: 1 for the running one.\n# TYPE {name} gauge\n");
        // A predecessor may stay until its successor is complete; each set of labels may appear only once.
        let mut told: Vec<Resident> = Vec::new();
        for task in tasks {
            match told.iter_mut().find(|known| (&known.name, &known.digest) == (&task.name, &task.digest)) {
                Some(known) => known.is_running |= task.is_running,
                None => told.push(task),
            }
        }
        for Resident { name: task, digest, is_running } in told {
            let _ = write!(text, "{name}{{task=\"");
            for character in task.chars() {
                let _ = match character {
                    '\\' | '"' => write!(text, "\\{character}"),
                    '\n' => write!(text, "\\n"),
                    _ => write!(text, "{character}"),
                };
            }
            let _ = writeln!(text, "\",digest=\"{digest}\"}} {}", u8::from(is_running));
        }
        let name = "edge_runtime_frame_seconds";
        let _ = write!(text, "# HELP {name} Time of a frame.\n# TYPE {name} histogram\n");
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(&self.buckets) {
            below += count;
            let _ = writeln!(text, "{name}_bucket{{le=\"{}\"}} {below}", *bound as f64 / 1e6);
        }
        let _ = write!(
            text,
            "{name}_bucket{{le=\"+Inf\"}} {}\n{name}_sum {}\n{name}_count {}\n",
            self.frames,
            self.busy.as_secs_f64(),
            self.frames
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_fall_into_their_buckets_and_misses_are_counted() {
        let mut stats = Stats::default();
        let deadline = Some(Duration::from_micros(300));
        for (micros, late) in [(100, false), (101, false), (300, false), (301, true), (2_000_000, true)] {
            assert_eq!(stats.frame(Duration::from_micros(micros), deadline, true), late, "{micros}");
        }
        assert!(stats.frame(Duration::from_millis(1), deadline, false));
        let gauges = Gauges { tasks: 3, task_bytes: 77, workspace_bytes: 5, backbone_bytes: 9 };
        let task = |name: &str, digest: &str, is_running| Resident {
            name: name.into(),
            digest: digest.into(),
            is_running,
        };
        let tasks = [task("digits", "0a", false), task("a \"b\\\nc", "", false), task("digits", "0a", true)];
        let text = stats.prometheus(gauges, tasks.into_iter());
        for line in [
            "edge_runtime_frames_total 5",
            "edge_runtime_failed_frames_total 1",
            "edge_runtime_missed_deadlines_total 3",
            "edge_runtime_frame_seconds_bucket{le=\"0.0001\"} 1",
            "edge_runtime_frame_seconds_bucket{le=\"0.00025\"} 2",
            "edge_runtime_frame_seconds_bucket{le=\"0.0005\"} 4",
            "edge_runtime_frame_seconds_bucket{le=\"1\"} 4",
            "edge_runtime_frame_seconds_bucket{le=\"+Inf\"} 5",
            "edge_runtime_frame_seconds_count 5",
            "edge_runtime_resident_tasks 3",
            "edge_runtime_resident_task_bytes 77",
            "# TYPE edge_runtime_workspace_bytes gauge",
            "# TYPE edge_runtime_evictions_total counter",
            "edge_runtime_backbone_bytes 9",
            "edge_runtime_task_running{task=\"digits\",digest=\"0a\"} 1",
            "edge_runtime_task_running{task=\"a \\\"b\\\\\\nc\",digest=\"\"} 0",
        ] {
            assert_eq!(text.lines().filter(|l| *l == line).count(), 1, "{line}\n{text}");
        }
    }
}
