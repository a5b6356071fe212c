//! A task in memory: its compiled network and its parameters.

use crate::backbone::Backbone;
use crate::bundle::{self, BundleTensors};
use crate::engine::{Parts, Program, Tensors, params};
use crate::input::Preparation;
use crate::kernels::Floats;
use crate::kernels::int8::Grid;
use crate::{Error, Result};
use bundles::container::{Bundle, Golden, Kind, Trust};
use bundles::plan::{Plan, Shape};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// One tailored network, ready to run (or becoming so: parts arrive in execution order).
#[derive(Debug)]
pub struct Task {
    name: String,
    labels: Vec<String>,
    golden: Vec<Golden>,
    trust: Trust,
    file_bytes: usize,
    blocks: (usize, usize),
    backbone: Arc<Backbone>,
    pub(crate) preparation: Option<Preparation>,
    pub(crate) program: Program,
    /// Parameters of stem, cells and head; `None` inside when they will never come.
    parts: Vec<OnceLock<Option<Floats>>>,
    failure: OnceLock<Error>,
}

impl Task {
    /// Loads the task bundle at `path` onto `backbone`. All of the task's memory is allocated here.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Container`] for a damaged bundle; [`Error::WrongBackbone`];
    /// [`Error::Incompatible`]; [`Error::Tensor`]; [`Error::TooLarge`]; [`Error::Untrusted`].
    pub fn load(backbone: &Arc<Backbone>, path: impl AsRef<Path>) -> Result<Task> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(Error::file(path, "read"))?;
        Task::from_bytes(backbone, &path.display().to_string(), &bytes)
    }

    /// As [`load`](Task::load), from bytes in memory; `file` stands for the path in messages.
    ///
    /// # Errors
    /// As [`load`](Task::load).
    pub fn from_bytes(backbone: &Arc<Backbone>, file: &str, bytes: &[u8]) -> Result<Task> {
        let bundle = Bundle::parse(bytes).map_err(Error::container(file))?;
        let task = Task::begin(backbone, file, &bundle, bytes.len())?;
        task.fill_from(file, &bundle, || false)?;
        Ok(task)
    }

    /// [`fill`](Task::fill) from its bundle, with the backbone's decoder.
    pub(crate) fn fill_from(
        &self,
        file: &str,
        bundle: &Bundle<'_>,
        cancelled: impl Fn() -> bool,
    ) -> Result<()> {
        let tensors = BundleTensors::new(file, bundle, self.backbone.decoder(file)?);
        let outcome = self.fill(&tensors, cancelled);
        self.backbone.keep(tensors.into_decoder());
        outcome
    }

    /// Everything but the parameters: checks the bundle and compiles its plan.
    pub(crate) fn begin(
        backbone: &Arc<Backbone>,
        file: &str,
        bundle: &Bundle<'_>,
        file_bytes: usize,
    ) -> Result<Task> {
        let manifest = bundle.manifest();
        let trust = backbone.trusting.check(file, bundle)?;
        bundle::check_kind(file, manifest, Kind::Task)?;
        if let Some(open) = backbone.reference() {
            let want = &manifest.backbone;
            if want.id != open.id {
                return Err(Error::WrongBackbone {
                    task: manifest.name.clone(),
                    want: hex(&want.id),
                    got: hex(&open.id),
                });
            }
            if !want.variant.is_empty() && want.variant != open.variant {
                return Err(Error::Incompatible {
                    file: file.into(),
                    want: format!("backbone packing `{}`", want.variant),
                    got: format!("packing `{}`", open.variant),
                });
            }
        }
        bundle::check_tensors(file, manifest)?;
        let grids = bundle::grids(file, bundle)?;
        if grids.is_none() && backbone.is_int8() {
            return Err(Error::Incompatible {
                file: file.into(),
                want: "a backbone of f32 or f16 kernels, for it holds no scales of int8 maps".into(),
                got: "packing `int8`".into(),
            });
        }
        let preparation = Preparation::new(file, &manifest.preprocess)?;
        let mut task = Task::compile(backbone, &manifest.name, &manifest.plan, grids.as_deref())?;
        task.preparation = Some(preparation);
        task.labels = manifest.labels.clone();
        task.golden = manifest.golden.clone();
        task.trust = trust;
        task.file_bytes = file_bytes;
        Ok(task)
    }

    /// A task from a plan and its task-owned tensors, without labels or preprocessing.
    ///
    /// # Errors
    /// What is wrong with the plan, [`Error::Tensor`] for tensors that are missing on either side,
    /// [`Error::TooLarge`].
    pub fn from_tensors(
        backbone: &Arc<Backbone>,
        name: &str,
        plan: &Plan,
        tensors: &dyn Tensors,
    ) -> Result<Task> {
        let task = Task::compile(backbone, name, plan, None)?;
        task.fill(tensors, || false)?;
        Ok(task)
    }

    /// As [`from_tensors`](Task::from_tensors), in int8: `grids` in the order of [`Plan::maps`]. Kernels in floats
    /// are rounded now.
    ///
    /// # Errors
    /// As [`from_tensors`](Task::from_tensors); [`Error::Tensor`] for another number of grids.
    pub fn from_tensors_int8(
        backbone: &Arc<Backbone>,
        name: &str,
        plan: &Plan,
        tensors: &dyn Tensors,
        grids: &[Grid],
    ) -> Result<Task> {
        let task = Task::compile(backbone, name, plan, Some(grids))?;
        task.fill(tensors, || false)?;
        Ok(task)
    }

    fn compile(backbone: &Arc<Backbone>, name: &str, plan: &Plan, grids: Option<&[Grid]>) -> Result<Task> {
        let program = match grids {
            None => {
                let kernel = |conv: &_, shape: &_| backbone.kernel(conv, shape);
                Program::compile(name, plan, backbone.isa, &kernel)?
            }
            Some(grids) => {
                let kernel = |conv: &_| backbone.kernel8(conv);
                Program::compile_int8(name, plan, backbone.isa, &kernel, grids)?
            }
        };
        Ok(Task {
            name: name.into(),
            labels: Vec::new(),
            golden: Vec::new(),
            trust: Trust::Unsigned,
            file_bytes: 0,
            blocks: (plan.blocks(), plan.cells.len()),
            backbone: Arc::clone(backbone),
            preparation: None,
            parts: program.parts.iter().map(|_| OnceLock::new()).collect(),
            program,
            failure: OnceLock::new(),
        })
    }

    /// Makes the parameters, part by part in execution order, until `cancelled`. A frame may already be running.
    pub(crate) fn fill(&self, tensors: &dyn Tensors, cancelled: impl Fn() -> bool) -> Result<()> {
        let backbone = |name: &str, len| self.backbone.tensor(name, len);
        let mut room = Vec::new();
        for (spec, slot) in self.program.parts.iter().zip(&self.parts) {
            if cancelled() {
                self.fail(Error::Cancelled { task: self.name.clone() });
                break;
            }
            match params::fill(self.program.isa, spec, tensors, &backbone, &mut room) {
                Ok(part) => {
                    // Refused only when the load was cancelled, which `fail` has noted.
                    let _ = slot.set(Some(part));
                }
                Err(error) => {
                    self.fail(error.clone());
                    return Err(error);
                }
            }
        }
        match self.failure.get() {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// Ends the wait of whoever waits for parameters: they will not come.
    pub(crate) fn fail(&self, error: Error) {
        let _ = self.failure.set(error);
        for slot in &self.parts {
            let _ = slot.set(None);
        }
    }

    /// True when every parameter is there.
    pub fn is_complete(&self) -> bool {
        self.parts.iter().all(|slot| matches!(slot.get(), Some(Some(_))))
    }

    /// True when its parameters will never be complete.
    pub(crate) fn has_failed(&self) -> bool {
        self.failure.get().is_some()
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Class names, in the order of the scores. Empty for a task that never was a bundle.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The bundle's golden vectors.
    pub fn golden(&self) -> &[Golden] {
        &self.golden
    }

    /// What the bundle's signatures amount to.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Number of scores.
    pub fn classes(&self) -> usize {
        self.program.classes
    }

    /// Universal blocks that are left, and cells of the backbone.
    pub fn blocks(&self) -> (usize, usize) {
        self.blocks
    }

    /// Shape of the preprocessed image.
    pub fn input(&self) -> Shape {
        self.program.input
    }

    /// Bytes of the bundle.
    pub fn file_bytes(&self) -> usize {
        self.file_bytes
    }

    /// Bytes this task holds in memory, without the backbone and the arena that all tasks share.
    pub fn resident_bytes(&self) -> usize {
        let parts: usize = self.program.parts.iter().map(|part| 4 * part.len).sum();
        let labels: usize = self.labels.iter().map(|label| label.len() + size_of::<String>()).sum();
        parts + self.program.bytes() + labels
    }

    /// Bytes of activations and scratch a frame needs on `threads` threads.
    pub fn workspace_bytes(&self, threads: usize) -> usize {
        4 * (self.program.arena_len + self.program.scratch_len(threads))
    }

    /// The backbone it runs on.
    pub fn backbone(&self) -> &Arc<Backbone> {
        &self.backbone
    }
}

/// A task's parameters for one frame, which waits for those still on their way until `until`, if that is set.
pub(crate) struct Arriving<'a> {
    pub task: &'a Task,
    pub until: Option<Instant>,
}

/// Pause between two looks at parameters that are on their way, when a deadline forbids to wait for good.
const PAUSE: Duration = Duration::from_micros(50);

impl Parts for Arriving<'_> {
    fn part(&self, p: usize) -> Result<&[f32]> {
        let task = self.task;
        let slot = task.parts.get(p).ok_or_else(|| Error::Internal { what: format!("no part {p}") })?;
        if let Some(until) = self.until {
            while slot.get().is_none() {
                if Instant::now() >= until {
                    return Err(Error::Deadline { task: task.name.clone() });
                }
                std::thread::sleep(PAUSE);
            }
        }
        match slot.wait() {
            Some(part) => Ok(part),
            None => Err(task.failure.get().cloned().unwrap_or(Error::Cancelled { task: task.name.clone() })),
        }
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
