//! A task in memory: its outline and its parameters.

mod arriving;

pub(crate) use arriving::{Arriving, Source};

use crate::backbone::Backbone;
use crate::engine::{Program, Tensors};
use crate::kept::Memory;
use crate::kernels::Floats;
use crate::kernels::int8::Grid;
use crate::outline::Outline;
use crate::{Error, Result};
use bundles::container::{Golden, Stored, Trust};
use bundles::plan::{Plan, Shape};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};

/// One tailored network, ready to run (or becoming so: parts arrive in execution order).
#[derive(Debug)]
pub struct Task {
    pub(crate) outline: Arc<Outline>,
    file_bytes: usize,
    backbone: Arc<Backbone>,
    /// Parameters of stem, cells and head; `None` inside when they will never come.
    parts: Vec<OnceLock<Option<Floats>>>,
    /// Memory for those that nobody has begun to make. Taken by the thread that begins the task: the allocator gives each
    /// thread an arena of its own, and would keep in all of them what evicted tasks leave.
    memory: Mutex<Vec<Option<Memory>>>,
    /// Parts that some thread has begun to make.
    begun: AtomicUsize,
    /// Which of them is made before the others, where none of them is wanted before all are there: the largest, so that the
    /// thread that has it is not the last.
    first: Option<usize>,
    /// That every part was seen to have come.
    is_whole: AtomicBool,
    /// Where they come from, while they are arriving.
    source: Mutex<Option<Arc<Source>>>,
    failure: OnceLock<Error>,
}

impl Task {
    /// Loads the task bundle at `path` onto `backbone`. All of the task's memory is allocated here.
    ///
    /// A bundle that was loaded onto this backbone not long ago, and whose file has not changed in front of its tensors, is
    /// neither parsed nor compiled again, nor are its signatures verified again. Tensors always are.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Container`] for a damaged bundle; [`Error::WrongBackbone`];
    /// [`Error::Incompatible`]; [`Error::Tensor`]; [`Error::TooLarge`]; [`Error::OutOfMemory`];
    /// [`Error::Untrusted`].
    pub fn load(backbone: &Arc<Backbone>, path: impl AsRef<Path>) -> Result<Task> {
        let path = path.as_ref();
        Task::from_stored(backbone, &path.display().to_string(), backbone.kept.open(path)?, usize::MAX)
    }

    /// As [`load`](Task::load), from bytes in memory; `file` stands for the path in messages.
    ///
    /// # Errors
    /// As [`load`](Task::load).
    pub fn from_bytes(backbone: &Arc<Backbone>, file: &str, bytes: &[u8]) -> Result<Task> {
        Task::from_stored(backbone, file, bytes.into(), usize::MAX)
    }

    /// As [`load`](Task::load), from bytes wherever they are, for at most `most` bytes of memory.
    ///
    /// # Errors
    /// As [`load`](Task::load).
    pub(crate) fn from_stored(
        backbone: &Arc<Backbone>,
        file: &str,
        stored: Stored<'_>,
        most: usize,
    ) -> Result<Task> {
        let file_bytes = stored.len();
        let (outline, bundle) = Outline::open(backbone, file, stored)?;
        outline.check_budget(most)?;
        let task = Task::new(backbone, outline, file_bytes);
        // No other thread knows of it: this makes all of it.
        task.fill_from(file, &bundle, || false)?;
        if let Some(bytes) = bundle.into_bytes() {
            backbone.kept.keep_file(bytes);
        }
        Ok(task)
    }

    /// Everything but the parameters, for at most `most` bytes of memory; they come from the [`Source`] that is returned beside it, in execution order, or if it is to be
    /// `whole` before it is used in whichever takes two threads the least time.
    ///
    /// # Errors
    /// As [`load`](Task::load), but for what is wrong with tensors.
    pub(crate) fn begin(
        backbone: &Arc<Backbone>,
        file: String,
        stored: Stored<'static>,
        most: usize,
        whole: bool,
    ) -> Result<(Arc<Task>, Arc<Source>)> {
        let file_bytes = stored.len();
        let (outline, bundle) = Outline::open(backbone, &file, stored)?;
        outline.check_budget(most)?;
        let parts = outline.program.parts.iter().enumerate();
        let largest = parts.max_by_key(|(_, part)| part.len).map(|(p, _)| p);
        let mut task = Task::new(backbone, outline, file_bytes);
        task.first = largest.filter(|_| whole);
        let source = Arc::new(Source { file, bundle });
        task.expect(&source);
        Ok((Arc::new(task), source))
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
        Task::of_plan(backbone, name, plan, tensors, None)
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
        Task::of_plan(backbone, name, plan, tensors, Some(grids))
    }

    fn of_plan(
        backbone: &Arc<Backbone>,
        name: &str,
        plan: &Plan,
        tensors: &dyn Tensors,
        grids: Option<&[Grid]>,
    ) -> Result<Task> {
        let outline = Outline::of_plan(backbone, name, plan, grids)?;
        let task = Task::new(backbone, Arc::new(outline), 0);
        task.fill(tensors, &mut Vec::new(), || false)?;
        Ok(task)
    }

    fn new(backbone: &Arc<Backbone>, outline: Arc<Outline>, file_bytes: usize) -> Task {
        let memory = outline.program.parts.iter().map(|part| backbone.kept.memory(part.len));
        Task {
            memory: Mutex::new(memory.collect()),
            parts: outline.program.parts.iter().map(|_| OnceLock::new()).collect(),
            outline,
            file_bytes,
            backbone: Arc::clone(backbone),
            begun: AtomicUsize::new(0),
            first: None,
            is_whole: AtomicBool::new(false),
            source: Mutex::default(),
            failure: OnceLock::new(),
        }
    }

    pub(crate) fn program(&self) -> &Program {
        &self.outline.program
    }

    /// The task's name.
    pub fn name(&self) -> &str {
        self.outline.name()
    }

    /// Class names, in the order of the scores. Empty for a task that never was a bundle.
    pub fn labels(&self) -> &[String] {
        self.outline.manifest().map_or(&[], |manifest| &manifest.labels)
    }

    /// The bundle's golden vectors.
    pub fn golden(&self) -> &[Golden] {
        self.outline.manifest().map_or(&[], |manifest| &manifest.golden)
    }

    /// What the bundle's signatures amount to.
    pub fn trust(&self) -> &Trust {
        &self.outline.trust
    }

    /// The hash that names the bundle's contents, as `tailor inspect` prints it: two versions of a task differ in it, signing changes
    /// nothing. None for a task that never was a bundle.
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.outline.header.as_ref().map(|header| header.digest())
    }

    /// Number of scores.
    pub fn classes(&self) -> usize {
        self.program().classes
    }

    /// Universal blocks that are left, and cells of the backbone.
    pub fn blocks(&self) -> (usize, usize) {
        self.outline.blocks
    }

    /// Shape of the preprocessed image.
    pub fn input(&self) -> Shape {
        self.program().input
    }

    /// Bytes of the bundle.
    pub fn file_bytes(&self) -> usize {
        self.file_bytes
    }

    /// Bytes this task holds in memory, without the backbone and the arena that all tasks share.
    pub fn resident_bytes(&self) -> usize {
        self.outline.resident_bytes()
    }

    /// Bytes of activations and scratch a frame needs on `threads` threads.
    pub fn workspace_bytes(&self, threads: usize) -> usize {
        4 * (self.program().arena_len + self.program().scratch_len(threads))
    }

    /// The backbone it runs on.
    pub fn backbone(&self) -> &Arc<Backbone> {
        &self.backbone
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let parts: Vec<Floats> = self.parts.iter_mut().filter_map(|slot| slot.take().flatten()).collect();
        if !parts.is_empty() {
            self.backbone.kept.keep_floats(parts);
        }
    }
}
