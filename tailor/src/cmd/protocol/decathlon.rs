//! `tailor protocol decathlon`: the visual decathlon on one backbone.

use super::{Setting, progress};
use crate::cmd::{read_images, with_bar};
use crate::data::{self, Found, Images, Options, Part};
use crate::progress::Progress;
use crate::protocols::decathlon::{
    self, EVENTS, Entry, Event, SIZE, SourceTask, Tests, Tree, check_source, findings,
};
use crate::protocols::{Lab, Task};
use crate::source::Source;
use crate::{Error, Result};
use std::path::PathBuf;

/// Runs the Visual Decathlon (the paper's Table 3): ten tasks on one backbone, and their score.
///
/// Tasks: imagenet12, aircraft, cifar100, daimlerpedcls, dtd, gtsrb, vgg-flowers, omniglot, svhn, ucf101.
/// ROOT is laid out as the challenge's archives unpack: ROOT/TASK/train/CLASS, ROOT/TASK/val/CLASS and
/// ROOT/TASK/test (or all of that below ROOT/data). Answers for unlabelled test images go to
/// WORK/TASK/answers.json and, if the development kit's annotations are present, to WORK/results.json, the
/// file that the challenge's server accepts. Images are resized to 72 pixels; each task uses the
/// normalisation of its own images and suitable augmentation.
///
/// The backbone's own source task is not tailored: its classifier is evaluated as it is.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tailor protocol decathlon --backbone wrn26.backbone --root decathlon-1.0 \\\n          \
                  \x20       --tasks imagenet12,gtsrb,svhn --work run/decathlon"
)]
pub struct Decathlon {
    /// Backbone file made by `tailor import` or `tailor pretrain --arch wrn26-decathlon --size 72`.
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
    /// Task the backbone was trained on, or `none`.
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
}

impl Decathlon {
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let size = *self.setting.size.get_or_insert(SIZE);
        let (setting, from) = (&self.setting, self.source_task()?);
        let recipe = setting.choices.recipe()?;
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
            let task = self.find(&tree, event)?;
            if from == Some(event) {
                check_source(&source, event, task.found.classes())?;
            } else {
                setting.choices.check_data(&recipe, task.found.counts())?;
                setting.check_cost(&recipe, &source, &task.found)?;
            }
            tasks.push(task);
        }
        let progress = progress()?;
        let lab = setting.lab(&device, &progress)?;
        let mut entries = Vec::new();
        for task in tasks {
            let hidden = task.hidden(size, &progress)?;
            let entry = match from {
                Some(from) if from == task.event => of_source(&lab, &source, task, size, hidden)?,
                _ => {
                    let event = task.event;
                    let mut recipe = setting.choices.recipe_for(task.found.counts())?;
                    recipe.augment = setting.choices.augment(event.augment(size));
                    recipe.augment.check(size)?;
                    let dataset = read_images(task.found, size, &progress)?;
                    let task = Task { name: event.name.into(), dataset, recipe };
                    decathlon::tailored(&lab, &source, event, &task, hidden)?
                }
            };
            entries.push(entry);
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
        let found = if tests == Tests::Labelled { data::find(&folder)? } else { labelled };
        Ok(Ready { event, folder, found, tests })
    }
}

impl Ready {
    /// Reads the unlabelled test images.
    fn hidden(&self, size: usize, progress: &Progress) -> Result<Option<(Vec<String>, Images)>> {
        let Tests::Hidden(files) = &self.tests else { return Ok(None) };
        let progress = progress.for_task(self.event.name);
        let images = with_bar(&progress, "without labels", |done| {
            data::read_images(&self.folder, files, &Options::new(size, size), done)
        })?;
        Ok(Some((files.clone(), images)))
    }
}

/// Measures the backbone on its source task, without reading the training images.
fn of_source(
    lab: &Lab<'_>,
    source: &Source,
    task: Ready,
    size: usize,
    hidden: Option<(Vec<String>, Images)>,
) -> Result<Entry> {
    let Ready { event, folder, found, .. } = task;
    let classes = found.classes().to_vec();
    let progress = lab.progress.for_task(event.name);
    let splits = with_bar(&progress, "", |done| {
        found.read_parts([Part::Val, Part::Test], &Options::new(size, size), done)
    })?;
    let [Some(val), test] = splits else {
        let want =
            "the challenge's archives have one; or tailor to it like any other task with --source-task none";
        return Err(Error::data(folder.display(), "no `val` folder", want));
    };
    decathlon::of_source(lab, source, event, SourceTask { classes, val, test }, hidden)
}
