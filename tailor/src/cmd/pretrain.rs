//! `tailor pretrain`: trains a backbone on labelled images of the source domain.

use crate::cmd::{On, channels, read, task_name, training};
use crate::data;
use crate::destination;
use crate::fit::{Claim, Work, count};
use crate::interrupt::Interrupt;
use crate::output::out;
use crate::pretrain::{Job, Recipe, Report, refuse_others};
use crate::progress::Progress;
use crate::train::{Schedule, Score};
use anyhow::Context;
use bundles::container::hex;
use bundles::plan::Arch;
use std::path::{Path, PathBuf};

/// Trains a backbone from scratch on images of your own source domain, for `tailor fit` to build on.
///
/// An interrupted run resumes. Validation accuracy (on val/, or on a fraction of train/) is only reported:
/// the weights of the last epoch are written, or with --patience those of the best one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples: tailor pretrain --data parts.zip --work run/parts --flip\n          \
                  tailor pretrain --data /usr/share/datasets/fashion-mnist --arch cifar-resnet20-b --size 28 --flip \\\n          \
                  \x20       --work run/fashion --rate one-cycle:0.1 --epochs 15 --crop 2\n          \
                  tailor fit --backbone run/parts/parts.backbone --data bolts/ --work run/bolts")]
pub struct Pretrain {
    /// Images: a folder with train/CLASS/… (optional val/, test/), a .zip of one, or a folder of IDX files
    /// (train-images-idx3-ubyte and so on, or .gz; classes.txt may name the classes). A test/ with images but no
    /// class folders, as in a challenge's archive, is ignored.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Folder for the checkpoint, metrics and backbone.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Where to write the backbone [default: WORK/NAME.backbone, named after the data].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Architecture: cifar-resnet20-b (or -a; depth 6n+2), resnet18, resnet34, resnet50 (with -s1 to -s3 for
    /// their first stages), wrn16-1 (depth 6n+4), wrn26-decathlon.
    #[arg(long, default_value = "cifar-resnet20-b")]
    arch: Arch,
    /// Image height and width [default: the architecture's].
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    #[command(flatten)]
    memory: training::Memory,
    #[command(flatten)]
    on: On,
    /// Print the report as JSON instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    choices: Choices,
}

/// Choices of the recipe.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Recipe")]
struct Choices {
    /// Epochs [default: 15].
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Images per step [default: 128; all images when there are fewer].
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Learning-rate schedule: one-cycle:PEAK, cosine:RATE or step:RATE,EPOCHS,FACTOR; the last two accept
    /// `,warm-up=EPOCHS` [default: one-cycle:0.1].
    #[arg(long, value_name = "SCHEDULE")]
    rate: Option<Schedule>,
    /// Momentum [default: 0.9].
    #[arg(long)]
    momentum: Option<f64>,
    /// Weight decay [default: 0.0005].
    #[arg(long)]
    decay: Option<f64>,
    /// Label smoothing [default: 0.1].
    #[arg(long, value_name = "FRACTION")]
    label_smoothing: Option<f64>,
    /// Fraction of train/ held out when there is no val/; 0 trains on everything [default: 0.1].
    #[arg(long, value_name = "FRACTION")]
    validation: Option<f64>,
    #[command(flatten)]
    images: training::Images,
    #[command(flatten)]
    care: training::Care,
    /// Mean of each channel of pixels scaled to 0..1 [default: measured on the training images].
    #[arg(long, value_name = "R,G,B", value_parser = channels)]
    mean: Option<[f32; 3]>,
    /// Standard deviation of each channel [default: measured on the training images].
    #[arg(long, value_name = "R,G,B", value_parser = channels)]
    std: Option<[f32; 3]>,
    /// Random seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Pretrain {
    fn recipe(&self) -> anyhow::Result<Recipe> {
        let choices = &self.choices;
        let size = self.size.unwrap_or(self.arch.native_size());
        self.arch.plan(size, size, 2).with_context(|| match self.size {
            Some(size) => format!("--size {size}"),
            None => format!("--arch {}", self.arch),
        })?;
        let mut recipe = Recipe::new(self.arch, size);
        recipe.epochs = choices.epochs.unwrap_or(recipe.epochs);
        recipe.batch = choices.batch.unwrap_or(recipe.batch);
        recipe.schedule = choices.rate.unwrap_or(recipe.schedule);
        recipe.momentum = choices.momentum.unwrap_or(recipe.momentum);
        recipe.decay = choices.decay.unwrap_or(recipe.decay);
        recipe.label_smoothing = choices.label_smoothing.unwrap_or(recipe.label_smoothing);
        recipe.validation = choices.validation.unwrap_or(recipe.validation);
        choices.care.check()?;
        recipe.augment = choices.images.augment(recipe.augment);
        choices.images.check(recipe.augment)?;
        recipe.balance = choices.images.balance;
        recipe.patience = choices.care.patience;
        recipe.clip = choices.care.clip;
        (recipe.mean, recipe.std, recipe.seed) = (choices.mean, choices.std, choices.seed);
        recipe.check()?;
        Ok(recipe)
    }

    pub(super) fn run(self) -> anyhow::Result<()> {
        let recipe = self.recipe()?;
        let device = self.on.open()?;
        let found = data::find_skipping_unlabelled(&self.data)?.within(self.memory.allowed());
        let counts = found.counts();
        if let Some(fraction) = self.choices.validation.filter(|_| counts.val > 0) {
            let want = "the data has a val/ of its own: remove either that folder or the option";
            return Err(crate::Error::config(format!("--validation {fraction}"), want).into());
        }
        if let Some(batch) = self.choices.batch {
            counts.check_batch(batch, recipe.validation)?;
        }
        counts.check_division(recipe.validation)?;
        let name = task_name("--data", &self.data)?;
        if let Some(out) = &self.out {
            destination::check("--out", out, &[&self.data])?;
        }
        let (_claim, work) = (Claim::alone(&self.work)?, Work::open(&self.work)?);
        refuse_others(&work, found.classes(), &recipe)?;
        let out = self.out.clone().unwrap_or_else(|| work.backbone(&name));
        let progress = Progress::visible().stopped_by(Interrupt::by_signal()?);
        let dataset = read(found, recipe.validation > 0.0, recipe.size, &progress)?;
        let job = Job {
            recipe: &recipe,
            dataset,
            data_name: &name,
            work: &work,
            out: &out,
            device: &device,
            progress: &progress,
        };
        let report = job.run()?;
        if self.json {
            let mut line = report.json();
            line["file"] = out.display().to_string().into();
            line["arch"] = recipe.arch.to_string().into();
            line["size"] = recipe.size.into();
            line["epochs"] = recipe.epochs.into();
            out!("{line}");
            return Ok(());
        }
        print(&report, &recipe, &out);
        Ok(())
    }
}

fn print(report: &Report, recipe: &Recipe, out: &Path) {
    let row = |what: &str, value: String| out!("{what:<16} {value}");
    let percent = |score: Option<Score>| match score {
        Some(score) => format!("{} of {} images", score.percent(2), score.n),
        None => "-".into(),
    };
    row("backbone", format!("{} ({:.1} KiB)", out.display(), report.bytes as f64 / 1024.0));
    row("id", hex(&report.id[..8]));
    row("network", format!("{}, {} px, {} classes", recipe.arch, recipe.size, report.classes));
    row("parameters", format!("{}, without the classifier", count(report.params)));
    row("multiply-adds", count(report.macs));
    row("normalisation", format!("mean {:?}, deviation {:?}", report.mean, report.std));
    row("validation", percent(report.validation));
    row("test", percent(report.test));
}
