//! Where a frame's time goes: the kernel calls of a task, and the time of each.

use crate::engine::Observer;
use crate::engine::int8;
use crate::engine::step::Work;
use crate::{Result, Session, Task};
use bundles::plan::{Role, Shape};
use std::time::{Duration, Instant};

/// One kernel call of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// The tensors it reads and what is fused into it, for example `layer1.0.conv2 + layer1.0.bn2 + add + relu`.
    pub name: String,
    /// The node it helps to compute: 0 the stem, `l` cell `l`, one more than the last cell the head.
    pub node: usize,
    /// Inside a cell: whether it belongs to the block or to a proxy, and the node that gate reads.
    pub gate: Option<(Role, usize)>,
    /// Shape of what it reads.
    pub input: Shape,
    /// Shape of what it writes.
    pub output: Shape,
    /// Multiply-adds of convolutions and linear layers; zero for everything else.
    pub macs: u64,
}

impl Task {
    /// The kernel calls of a frame, in order.
    pub fn layers(&self) -> Vec<Layer> {
        let steps = self.program.steps.iter();
        steps
            .map(|step| Layer {
                name: step.name.clone(),
                node: step.part,
                gate: step.gate,
                input: step.from,
                output: step.to,
                macs: match &step.work {
                    Work::Conv { shape, .. } => shape.macs() as u64,
                    Work::Int8(int8::Work::Conv { shape, .. }) => shape.macs() as u64,
                    Work::Linear { .. } => (step.from.c * step.to.c) as u64,
                    _ => 0,
                },
            })
            .collect()
    }
}

impl Session {
    /// Median time of every layer of `task` over `frames` frames of `input`, in the order of
    /// [`Task::layers`].
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn time_layers(&mut self, task: &Task, input: &[f32], frames: usize) -> Result<Vec<Duration>> {
        let frames = frames.max(1);
        let mut watch = Watch { started: Instant::now(), times: vec![Vec::new(); task.program.steps.len()] };
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
