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

/// One tailored network, ready to run or still loading (its parts arrive in execution order).
#[derive(Debug)]
pub struct Task {
    pub(crate) outline: Arc<Outline>,
    file_bytes: usize,
    backbone: Arc<Backbone>,
    /// Parameters of stem, cells and head; the inner `None` means that they will never arrive.
    parts: Vec<OnceLock<Option<Floats>>>,
    /// Memory for the parts that no thread has started on. Reserved by the thread that begins the task: the
    /// allocator gives each thread an arena of its own, and memory of evicted tasks would otherwise linger in
    /// all of them.
    memory: Mutex<Vec<Option<Memory>>>,
    /// Number of parts that some thread has started on.
    begun: AtomicUsize,
    /// The part to make first if none is needed before all are there: the largest one, so that the thread
    /// working on it is not the last to finish.
    first: Option<usize>,
    /// Set once all parts have been seen to be there.
    is_whole: AtomicBool,
    /// The source of the parameters while they are arriving.
    source: Mutex<Option<Arc<Source>>>,
    failure: OnceLock<Error>,
}

impl Task {
    /// Loads the task bundle at `path` onto `backbone`. All of the task's memory is allocated here.
    ///
    /// If the bundle was recently loaded onto this backbone and nothing in the file before its tensors has
    /// changed, it is not parsed and compiled again, nor are its signatures verified again. The tensors
    /// always are.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Container`] for a damaged bundle; [`Error::WrongBackbone`];
    /// [`Error::Incompatible`]; [`Error::Tensor`]; [`Error::TooLarge`]; [`Error::OutOfMemory`];
    /// [`Error::Untrusted`].
    pub fn load(backbone: &Arc<Backbone>, path: impl AsRef<Path>) -> Result<Task> {
        let path = path.as_ref();
        Task::from_stored(backbone, &path.display().to_string(), backbone.kept.open(path)?, usize::MAX)
    }

    /// Like [`load`](Task::load), from bytes in memory; `file` stands in for the path in messages.
    ///
    /// # Errors
    /// As for [`load`](Task::load).
    pub fn from_bytes(backbone: &Arc<Backbone>, file: &str, bytes: &[u8]) -> Result<Task> {
        Task::from_stored(backbone, file, bytes.into(), usize::MAX)
    }

    /// Like [`load`](Task::load), from bytes of any origin, for a task of at most `most` bytes in memory.
    ///
    /// # Errors
    /// As for [`load`](Task::load).
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
        // No other thread knows of this task yet, so this fills all of it.
        task.fill_from(file, &bundle, || false)?;
        if let Some(bytes) = bundle.into_bytes() {
            backbone.kept.keep_file(bytes);
        }
        Ok(task)
    }

    /// Creates a task of at most `most` bytes in memory without its parameters, which come from the returned
    /// [`Source`]: in execution order, or, if the task must be `whole` before it is used, in the order that
    /// two threads finish fastest.
    ///
    /// # Errors
    /// As for [`load`](Task::load), except for invalid tensors.
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

    /// Creates a task from a plan and its task-owned tensors, without labels or preprocessing.
    ///
    /// # Errors
    /// If the plan is invalid; [`Error::Tensor`] for missing task or backbone tensors; [`Error::TooLarge`].
    pub fn from_tensors(
        backbone: &Arc<Backbone>,
        name: &str,
        plan: &Plan,
        tensors: &dyn Tensors,
    ) -> Result<Task> {
        Task::of_plan(backbone, name, plan, tensors, None)
    }

    /// Like [`from_tensors`](Task::from_tensors), in int8, with the quantisation parameters `grids` in the
    /// order of [`Plan::maps`]. f32 kernels are quantised here.
    ///
    /// # Errors
    /// As for [`from_tensors`](Task::from_tensors); [`Error::Tensor`] if the number of grids is wrong.
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

    /// Class names, in the order of the scores. Empty for a task that was not loaded from a bundle.
    pub fn labels(&self) -> &[String] {
        self.outline.manifest().map_or(&[], |manifest| &manifest.labels)
    }

    /// The bundle's golden vectors.
    pub fn golden(&self) -> &[Golden] {
        self.outline.manifest().map_or(&[], |manifest| &manifest.golden)
    }

    /// The result of verifying the bundle's signatures.
    pub fn trust(&self) -> &Trust {
        &self.outline.trust
    }

    /// The hash that identifies the bundle's contents, as printed by `tailor inspect`: it differs between
    /// versions of a task, and signing does not change it. `None` for a task that was not loaded from a
    /// bundle.
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.outline.header.as_ref().map(|header| header.digest())
    }

    /// Number of scores.
    pub fn classes(&self) -> usize {
        self.program().classes
    }

    /// Number of universal blocks that remain, and of cells in the backbone.
    pub fn blocks(&self) -> (usize, usize) {
        self.outline.blocks
    }

    /// Shape of the preprocessed image.
    pub fn input(&self) -> Shape {
        self.program().input
    }

    /// Size of the bundle in bytes.
    pub fn file_bytes(&self) -> usize {
        self.file_bytes
    }

    /// Memory this task uses, in bytes, excluding the backbone and the arena that all tasks share.
    pub fn resident_bytes(&self) -> usize {
        self.outline.resident_bytes()
    }

    /// Bytes of activations and scratch that a frame needs on `threads` threads.
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
