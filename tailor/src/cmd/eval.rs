//! `tailor eval`: accuracy of a backbone's source classifier, or of a packed task, on a set of images.

use crate::cmd::{On, check_classes, with_bar};
use crate::data::{self, Loader, Part};
use crate::output::out;
use crate::pack::PackedTask;
use crate::progress::Progress;
use crate::source::Source;
use crate::train::right;
use anyhow::{Context, bail};
use bundles::container::Bundle;
use std::path::PathBuf;

/// Measures accuracy on a split of labelled images.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor eval --backbone resnet20.backbone --data cifar10.zip --json")]
pub struct Eval {
    /// Backbone file. Alone, its source classifier is measured.
    #[arg(long, value_name = "FILE")]
    backbone: PathBuf,
    /// Task bundle made for this backbone; then the task is measured.
    #[arg(long, value_name = "FILE")]
    task: Option<PathBuf>,
    /// Images: a folder with train/CLASS/… (optional val/, test/), or a .zip of one.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Which part of the images.
    #[arg(long, value_enum, default_value = "test")]
    split: Part,
    /// Image height and width; the backbone's own (or the task's) when left out.
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    #[command(flatten)]
    on: On,
    /// JSON on stdout instead of text.
    #[arg(long)]
    json: bool,
}

/// Images per batch.
const BATCH: usize = 100;

impl Eval {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let device = self.on.open()?;
        let source = Source::open(&self.backbone, &device)?;
        let task = match &self.task {
            Some(path) => {
                let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
                let bundle = Bundle::parse(&bytes).with_context(|| path.display().to_string())?;
                Some(PackedTask::read(&bundle, &source).with_context(|| path.display().to_string())?)
            }
            None if source.classifier => None,
            None => bail!(
                "{} has no source classifier to measure; give a --task made for it",
                self.backbone.display()
            ),
        };
        let (native, mean, std) = match &task {
            Some(PackedTask { preprocess, .. }) => (preprocess.height, preprocess.mean, preprocess.std),
            None => (source.size(), source.mean, source.std),
        };
        let (classes, labels) = match &task {
            Some(task) => (task.plan.classes(), &task.labels),
            None => (source.plan.classes(), &source.labels),
        };
        let size = self.size.unwrap_or(native);
        source.arch.plan(size, size, classes).with_context(|| format!("--size {size}"))?;
        let found = data::find(&self.data)?;
        check_classes(&self.data, found.classes(), classes, labels)?;
        let options = data::Options::new(size, size);
        let read = |done: &dyn Fn(usize, usize)| found.read_parts([self.split], &options, done);
        let [Some(split)] = with_bar(&Progress::visible(), "", read)? else {
            bail!("{}: it has no such split; --split train is always there", self.data.display());
        };
        let mut score = crate::train::Score::default();
        for batch in Loader::new(&split, mean, std, BATCH, &device)?.eval() {
            let batch = batch?;
            let logits = match &task {
                Some(task) => task.classify(&batch.images)?,
                None => source.classify(&batch.images)?,
            };
            score.right += right(&logits, &batch.labels)?;
            score.n += batch.labels.dim(0)?;
        }
        if self.json {
            out!("{}", serde_json::json!({ "accuracy": score.accuracy(), "n": score.n }));
        } else {
            out!(
                "{:.2} % of {} images (± {:.2} at 95 % confidence)",
                100.0 * score.accuracy(),
                score.n,
                100.0 * score.margin()
            );
        }
        Ok(())
    }
}
