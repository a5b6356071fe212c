//! Profiling: the kernel calls of a task and the time each one takes.

use crate::engine::Observer;
use crate::engine::int8;
use crate::engine::step::{Step, Work};
use crate::{Result, Session, Task};
use bundles::plan::{Role, Shape};
use std::time::{Duration, Instant};

/// One kernel call of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// The tensors it reads and what is fused into it, e.g. `layer1.0.conv2 + layer1.0.bn2 + add + relu`.
    pub name: String,
    /// The node it contributes to: 0 is the stem, `l` is cell `l`, one more than the last cell is the head.
    pub node: usize,
    /// Inside a cell: the gates it belongs to (block or proxy, and the node that the gate reads) with the
    /// multiply-adds of each. Proxies of a node run as one call.
    pub gates: Vec<(Role, usize, u64)>,
    /// Shape of its input.
    pub input: Shape,
    /// Shape of its output.
    pub output: Shape,
    /// Multiply-adds of convolutions and linear layers; zero for everything else.
    pub macs: u64,
}

impl Task {
    /// The kernel calls of a frame, in order.
    pub fn layers(&self) -> Vec<Layer> {
        let steps = self.program().steps.iter();
        steps
            .map(|step| {
                let (macs, gates) = macs(step);
                let Step { name, part, from, to, .. } = step;
                Layer { name: name.clone(), node: *part, gates, input: *from, output: *to, macs }
            })
            .collect()
    }
}

/// Multiply-adds of a step, in total and per gate.
fn macs(step: &Step) -> (u64, Vec<(Role, usize, u64)>) {
    let all = match &step.work {
        Work::Conv { shape, .. } => shape.macs(),
        Work::Int8(int8::Work::Conv { shape, .. }) => shape.macs(),
        Work::Linear { .. } => step.from.c * step.to.c,
        work if !work.terms().is_empty() => {
            let each = |c_in: usize| (c_in * step.to.len()) as u64;
            let gates: Vec<_> = work.terms().iter().map(|t| (Role::Proxy, t.source, each(t.c_in))).collect();
            return (gates.iter().map(|gate| gate.2).sum(), gates);
        }
        _ => 0,
    } as u64;
    (all, step.gate.map(|(role, source)| (role, source, all)).into_iter().collect())
}

impl Session {
    /// Median time of every layer of `task` over `frames` frames of `input`, in the order of
    /// [`Task::layers`].
    ///
    /// # Errors
    /// As for [`Session::run`].
    pub fn time_layers(&mut self, task: &Task, input: &[f32], frames: usize) -> Result<Vec<Duration>> {
        let frames = frames.max(1);
        // The first frames warm up caches and clocks.
        for _ in 0..frames.min(5) {
            self.run(task, input)?;
        }
        let mut watch =
            Watch { started: Instant::now(), times: vec![Vec::new(); task.program().steps.len()] };
        for _ in 0..frames {
            self.run_observed(task, input, &mut watch)?;
        }
        let times = watch.times.into_iter();
        Ok(times
            .map(|mut times| {
                times.sort_unstable();
                times.get(times.len() / 2).copied().unwrap_or_default()
            })
            .collect())
    }
}

struct Watch {
    started: Instant,
    times: Vec<Vec<Duration>>,
}

impl Observer for Watch {
    fn before(&mut self, _index: usize) {
        self.started = Instant::now();
    }

    fn after(&mut self, index: usize) {
        let time = self.started.elapsed();
        if let Some(times) = self.times.get_mut(index) {
            times.push(time);
        }
    }
}
