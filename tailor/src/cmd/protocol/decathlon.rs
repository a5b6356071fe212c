//! `tailor protocol decathlon`: the visual decathlon on one backbone.

use super::{Setting, progress};
use crate::cmd::{read_images, with_bar};
use crate::data::{self, Found, Part, Size};
use crate::fit::Recipe;
use crate::protocols::decathlon::{
    self, EVENTS, Entry, Event, Hidden, SIZE, SourceTask, Tests, Tree, check_source, findings,
};
use crate::protocols::{Lab, Task};
use crate::source::Source;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// Runs the Visual Decathlon (the paper's Table 3): ten tasks on one backbone, and their score.
///
/// Tasks: imagenet12, aircraft, cifar100, daimlerpedcls, dtd, gtsrb, vgg-flowers, omniglot, svhn, ucf101.
/// ROOT is laid out as the challenge's archives unpack: ROOT/TASK/train/CLASS, ROOT/TASK/val/CLASS and
/// ROOT/TASK/test (or all of that below ROOT/data). Answers for unlabelled test images go to
/// WORK/TASK/answers.json and, if the development kit's annotations are present, to WORK/results.json. The
/// challenge's server accepts that file once it has answers for all ten tasks; runs on some of them (--tasks)
/// add to it if backbone and --size are the same. Images are resized to 72 pixels; each task uses the
/// normalisation of its own images and suitable augmentation.
///
/// The backbone's own source task is not tailored: its classifier is evaluated as it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples: tailor pretrain --data decathlon-1.0/data/imagenet12 --arch wrn26-decathlon --size 72 \\\n          \
                  \x20       --memory 19 --flip --work run/imagenet12\n          \
                  tailor protocol decathlon --backbone run/imagenet12/imagenet12.backbone --root decathlon-1.0 \\\n          \
                  \x20       --tasks imagenet12,gtsrb,svhn --work run/decathlon"
)]
pub struct Decathlon {
    /// Backbone file made by `tailor import`, or by `tailor pretrain --arch wrn26-decathlon --size 72`, which takes
    /// --memory 19 for the challenge's imagenet12.
    #[arg(long, value_name = "FILE")]
    backbone: PathBuf,
    /// The challenge's folder.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Folder of TASK_val.json and TASK_test_stripped.json [default: ROOT/annotations, or annotations/ beside
    /// ROOT].
    #[arg(long, value_name = "DIR")]
    annotations: Option<PathBuf>,
    /// Tasks to run, comma-separated [default: all ten].
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = Event::named)]
    tasks: Vec<&'static Event>,
    /// Task the backbone was trained on, or `none` to tailor to all (--memory 19 for imagenet12).
    #[arg(long, value_name = "NAME", default_value = "imagenet12")]
    source_task: String,
    #[command(flatten)]
    setting: Setting,
}

/// A task and the images found for it.
struct Ready {
    event: &'static Event,
    folder: PathBuf,
    found: Found,
    tests: Tests,
    /// How to tailor to it; `None` for the task that the backbone was trained on.
    recipe: Option<Recipe>,
}

impl Decathlon {
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let size = *self.setting.size.get_or_insert(SIZE);
        let (setting, from) = (&self.setting, self.source_task()?);
        let recipe = setting.recipe()?;
        if recipe.augment.flip {
            let want = "set per task here: digits, letters and signs must not be mirrored";
            return Err(Error::config("--flip", want).into());
        }
        let device = setting.on.open()?;
        let source = setting.source(&self.backbone, &recipe, &device)?;
        let tree = Tree::open(&self.root, self.annotations.as_deref())?;
        // Check everything before hours are spent on any of it.
        let mut tasks = Vec::new();
        for event in EVENTS.iter().filter(|event| self.tasks.is_empty() || self.tasks.contains(event)) {
            let mut task = self.find(&tree, event)?;
            if from == Some(event) {
                check_source(&source, event, task.found.classes())?;
            } else {
                task.recipe = Some(self.recipe(&source, event, &task.found, size)?);
            }
            task.check(size, setting.memory.allowed())?;
            tasks.push(task);
        }
        self.check_augment(&tasks)?;
        let progress = progress()?;
        let lab = setting.lab(&device, &progress)?;
        let mut entries = Vec::new();
        for task in tasks {
            entries.push(task.entry(&lab, &source, size, setting.memory.allowed())?);
        }
        Ok(setting.end(&findings(&setting.work, &tree, &source, size, &entries)?)?)
    }

    fn source_task(&self) -> Result<Option<&'static Event>> {
        match self.source_task.as_str() {
            "none" => Ok(None),
            name => Event::named(name).map(Some).map_err(|error| {
                Error::config(
                    format!("--source-task {name}"),
                    format!("must be `none` or a task's name: {error}"),
                )
            }),
        }
    }

    fn find(&self, tree: &Tree, event: &'static Event) -> Result<Ready> {
        let folder = tree.folder(event)?;
        let labelled = data::find_labelled(&folder)?;
        let tests = tree.tests(event, labelled.classes())?;
        // The challenge's image ids are needed at the end.
        if let Tests::Hidden(files) = &tests
            && let Some(annotations) = tree.annotations(event, labelled.classes())?
        {
            annotations.check(event, files)?;
        }
        let found = match &tests {
            Tests::Labelled => data::find(&folder)?,
            Tests::Hidden(files) => labelled.beside(files.len()),
            Tests::None => labelled,
        };
        let found = found.within(self.setting.memory.allowed());
        Ok(Ready { event, folder, found, tests, recipe: None })
    }

    /// The recipe of a task: the options given, over its own augmentation.
    fn recipe(&self, source: &Source, event: &Event, found: &Found, size: usize) -> Result<Recipe> {
        let Setting { choices, .. } = &self.setting;
        let mut recipe = choices.recipe_for(found.counts())?;
        choices.check_data(&recipe, found.counts())?;
        self.setting.check_cost(&recipe, source, found)?;
        recipe.augment = choices.augment(event.augment(size));
        recipe.augment.check(size)?;
        Ok(recipe)
    }

    /// Rejects options of augmentation that would change none of the tasks. (Some tasks are never shifted, so that
    /// a border concerns only the others.)
    fn check_augment(&self, tasks: &[Ready]) -> Result<()> {
        let mut checked = Ok(());
        for recipe in tasks.iter().filter_map(|task| task.recipe.as_ref()) {
            checked = self.setting.choices.check_augment(recipe);
            if checked.is_ok() {
                break;
            }
        }
        checked
    }
}

impl Ready {
    /// Rejects images that take too much memory or are missing, before any is decoded.
    fn check(&self, size: usize, memory: data::Memory) -> Result<()> {
        let size = Size { height: size, width: size };
        if self.recipe.is_some() {
            self.found.check_memory(&[Part::Train, Part::Val, Part::Test], size)?;
        } else if self.found.counts().val == 0 {
            return Err(no_val(&self.folder));
        } else {
            self.found.check_memory(&[Part::Val, Part::Test], size)?;
        }
        match &self.tests {
            Tests::Hidden(files) => {
                let place = self.folder.join("test").display().to_string();
                memory.check(&place, files.len(), size)
            }
            _ => Ok(()),
        }
    }

    /// Tailors to the task or, if the backbone was trained on it, measures the backbone on it without reading the
    /// training images.
    fn entry(self, lab: &Lab<'_>, source: &Source, size: usize, memory: data::Memory) -> Result<Entry> {
        let Ready { event, folder, found, tests, recipe } = self;
        let shape = Size { height: size, width: size };
        let progress = lab.progress.for_task(event.name);
        let files: &[String] = if let Tests::Hidden(files) = &tests { files } else { &[] };
        let read = || {
            with_bar(&progress, "without labels", |done| {
                data::read_images(&folder, files, shape, memory, done)
            })
        };
        let hidden = match files {
            [] => None,
            _ => {
                let digest = data::digest_of_files(&folder, files.iter().map(String::as_str))?;
                Some(Hidden { files, digest, read: &read })
            }
        };
        if let Some(recipe) = recipe {
            let dataset = read_images(found, size, lab.progress)?;
            let task = Task { name: event.name.into(), dataset, recipe };
            return decathlon::tailored(lab, source, event, task, hidden);
        }
        let classes = found.classes().to_vec();
        let digest = found.digest_of(&[Part::Val, Part::Test])?;
        let read = || {
            let splits =
                with_bar(&progress, "", |done| found.read_parts([Part::Val, Part::Test], shape, done))?;
            let [Some(val), test] = splits else { return Err(no_val(&folder)) };
            Ok((val, test))
        };
        let task = SourceTask { classes, size: shape, digest, read: Box::new(read) };
        decathlon::of_source(lab, source, event, task, hidden)
    }
}

/// The error for a source task without validation images.
fn no_val(folder: &Path) -> Error {
    let want = "the challenge's archives have one; or tailor to it like any other task with --source-task none, \
                which reads all of its images (see --memory)";
    Error::data(folder.display(), "no `val` folder", want)
}
