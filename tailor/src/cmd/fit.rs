//! `tailor fit`: turns labelled images into a task bundle.

use crate::Error;
use crate::cmd::choices::Choices;
use crate::cmd::{
    On, check_name, keys, prune, read_images, stem, task_name, training, warn_of_uncertain_gap,
};
use crate::data::{self, Dataset, Found, Part, Size};
use crate::fit::{BackboneSize, Claim, Job, Measure, Recipe, Report, Work, refuse_others};
use crate::interrupt::Interrupt;
use crate::output::{note, out};
use crate::progress::Progress;
use crate::source::Source;
use crate::train::Score;
use anyhow::Context;
use bundles::container::SigningKey;
use candle_core::Device;
use clap::ValueEnum;
use std::path::{Path, PathBuf};

/// Trains a teacher and a student, prunes the student and packs one task; an interrupted run resumes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tailor fit --backbone net.backbone --data photos.zip --work run/photos")]
pub struct Fit {
    /// Backbone file made by `tailor import` or `tailor pretrain`.
    #[arg(long, value_name = "FILE")]
    backbone: PathBuf,
    /// Images: a folder with train/CLASS/… (optional val/, test/), a .zip of one, or a folder of IDX files.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Folder for checkpoints, metrics, the architecture drawing and the bundle.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Name of the task [default: the name of the data].
    #[arg(long)]
    name: Option<String>,
    /// Image height and width [default: the backbone's].
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Secret key to sign the bundle with [default: the development key].
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    jobs: training::Jobs,
    #[command(flatten)]
    memory: training::Memory,
    /// Stop after this stage.
    #[arg(long, value_enum, default_value = "pack")]
    until: Until,
    #[command(flatten)]
    on: On,
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    choices: Choices,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Until {
    Teach,
    Train,
    Pack,
}

impl Fit {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let begun = self.begin(Claim::alone)?;
        if self.until != Until::Pack {
            let stage = if self.until == Until::Train { "train" } else { "teach" };
            let (teacher, student) = begun.job().begin(self.until == Until::Train)?;
            let score = student.unwrap_or(teacher);
            if self.json {
                let (val, n) = (score.accuracy(), score.n);
                out!("{}", serde_json::json!({ "stage": stage, "val": val, "val_n": n }));
            } else {
                out!("{stage}: validation {:.1} % of {} images", 100.0 * score.accuracy(), score.n);
            }
            return Ok(());
        }
        let report = begun.job().run()?;
        let Report { val, behind, judge, .. } = &report;
        warn_of_uncertain_gap(&begun.data_name, val.n, behind.error, *judge, self.choices.tolerance());
        warn_of_guessing(&begun.dataset, report.teacher_val);
        let backbone = BackboneSize::of(&begun.source, begun.dataset.train.images.size())?;
        if self.json {
            let [file, drawing] =
                [begun.work.bundle(&begun.name), begun.work.drawing()].map(|path| path.display().to_string());
            out!(
                "{}",
                serde_json::json!({
                    "backbone": backbone.json(), "task": report.json(), "file": file, "drawing": drawing,
                })
            );
            return Ok(());
        }
        for (what, value) in report.rows(&backbone) {
            out!("{what:<22} {value}");
        }
        out!("{:<22} {}", "survivors", report.strip);
        out!("{:<22} {}", "bundle file", begun.work.bundle(&begun.name).display());
        out!("{:<22} {}", "drawing", begun.work.drawing().display());
        if !report.within_tolerance {
            let what = match (begun.recipe.budget, begun.recipe.finish) {
                (Some(_), _) => "network within the budget",
                (None, 0) => "pruned network",
                (None, _) => "finished network",
            };
            let tolerance = self.choices.tolerance();
            let short = match behind.answers_fall_short(val.n, tolerance / 100.0) {
                true => format!(
                    " (only the teacher answers {} images correctly, only it {}: more than chance)",
                    behind.lost, behind.won
                ),
                false => String::new(),
            };
            note!(
                "tailor: no {what} is within {tolerance} points of the teacher on validation; the most accurate one{short} was \
                 packed. More epochs (--epochs) or images, or a larger --tolerance, may help"
            );
        }
        Ok(())
    }

    /// Switches the search to a sweep, as `what` requires.
    pub(super) fn sweeping(mut self, what: &str) -> Result<Fit, Error> {
        if self.until != Until::Pack {
            let want = format!("only applies to `tailor fit`; {what} runs every stage it needs");
            return Err(Error::config("--until", want));
        }
        self.choices.sweep(what)?;
        Ok(self)
    }

    /// Retrains one candidate of the sweep, for `tailor prune --drop`.
    pub(super) fn run_candidate(self, dropped: usize) -> anyhow::Result<()> {
        let mut begun = self.begin(Claim::shared)?;
        let blocks = begun.source.plan.cells.len();
        if dropped > blocks {
            let want = format!("at most {blocks}, the blocks of {}", begun.source.arch);
            return Err(Error::config(format!("--drop {dropped}"), want).into());
        }
        let _mine = Claim::candidate(&self.work, dropped)?;
        if !begun.work.has_student()? {
            // The student that all candidates start from is trained by one of them.
            begun.claim = begun.claim.take_alone()?;
            begun.job().begin(true)?;
            begun.claim = begun.claim.share()?;
        }
        let attempt = begun.job().candidate(dropped)?;
        match self.json {
            true => out!("{}", attempt.json(begun.recipe.cost.unit())),
            false => out!("{}", prune::say(&attempt)),
        }
        Ok(())
    }

    /// Task name, work folder and number of blocks, for a sweep script. The device is that of its jobs, which
    /// this machine need not have.
    pub(super) fn about_sweep(&self) -> anyhow::Result<(String, String, usize)> {
        self.signers()?;
        let source = Source::open(&self.backbone, &Device::Cpu)?;
        let (found, size) = self.check(&source)?;
        found.check_memory(&[Part::Train, Part::Val, Part::Test], Size { height: size, width: size })?;
        Ok((self.name()?, self.work.display().to_string(), source.plan.cells.len()))
    }

    fn signers(&self) -> anyhow::Result<Vec<SigningKey>> {
        self.key.iter().map(|path| keys::read_key(path)).collect()
    }

    fn name(&self) -> Result<String, Error> {
        let Some(name) = &self.name else { return task_name("--data", &self.data) };
        check_name(name).map_err(|want| Error::config(format!("--name {name:?}"), want))?;
        Ok(name.clone())
    }

    /// The recipe, once all options suit one another.
    pub(super) fn recipe(&self) -> Result<Recipe, Error> {
        let recipe = self.choices.recipe()?;
        self.jobs.check(&recipe)?;
        Ok(recipe)
    }

    /// Checks every option against the backbone and the data before any image is read. Returns the images
    /// found and the size to read them at.
    fn check(&self, source: &Source) -> anyhow::Result<(Found, usize)> {
        let recipe = self.recipe()?;
        let size = self.size.unwrap_or(source.size());
        source.arch.plan(size, size, 2).with_context(|| format!("--size {size}"))?;
        recipe.augment.check(size)?;
        self.choices.check_augment(&recipe)?;
        let found = data::find(&self.data)?.within(self.memory.allowed());
        recipe.check_cost(source.arch, size, found.classes().len())?;
        self.choices.check_data(&recipe, found.counts())?;
        Ok((found, size))
    }

    /// Checks every option, claims the work folder with `claim`, then reads the images.
    fn begin(&self, claim: fn(&Path) -> crate::Result<Claim>) -> anyhow::Result<Begun> {
        let signers = self.signers()?;
        let device = self.on.open()?;
        let source = Source::open(&self.backbone, &device)?;
        let name = self.name()?;
        let (found, size) = self.check(&source)?;
        let recipe = self.choices.recipe_for(found.counts())?;
        if let Measure::Latency(table) = &recipe.cost
            && let Some(about) = table.about()
        {
            note!("tailor: {about}; a device that computes otherwise needs a table of its own");
        }
        let data_name = stem(&self.data);
        let work = || Ok::<_, Error>((claim(&self.work)?, Work::open(&self.work)?));
        let begun = self.work.exists().then(work).transpose()?;
        if let Some((_, work)) = &begun {
            let shape = Size { height: size, width: size };
            refuse_others(work, &source, shape, found.classes(), &recipe)?;
        }
        let progress = Progress::visible().stopped_by(Interrupt::by_signal()?);
        let dataset = read_images(found, size, &progress)?;
        // The folder is created only once there is something to put into it.
        let (claim, work) = begun.map_or_else(work, Ok)?;
        let jobs = self.jobs.count();
        Ok(Begun { name, data_name, source, dataset, recipe, work, claim, signers, device, jobs, progress })
    }
}

/// Warns if the teacher is no better than always answering the most frequent class: a pruned network within
/// tolerance of such a teacher has learned nothing either.
fn warn_of_guessing(dataset: &Dataset, teacher: Score) {
    let labels = &dataset.val.as_ref().unwrap_or(&dataset.train).labels;
    let mut counts = vec![0usize; dataset.classes.len()];
    labels.iter().for_each(|&label| counts[label as usize] += 1);
    let Some((class, &most)) = counts.iter().enumerate().max_by_key(|(_, count)| **count) else { return };
    let share = most as f64 / labels.len().max(1) as f64;
    if teacher.interval()[0] <= share {
        note!(
            "tailor: the teacher is correct on {} of validation; always answering `{}` would be on {:.1} %: it may have learned nothing. More images, of classes that can be told apart at this \
             size, may help; so may --balance if one class is much more frequent than the others",
            teacher.percent(1),
            dataset.classes[class],
            100.0 * share
        );
    }
}

/// Everything a job needs.
struct Begun {
    name: String,
    data_name: String,
    source: Source,
    dataset: Dataset,
    recipe: Recipe,
    work: Work,
    claim: Claim,
    signers: Vec<SigningKey>,
    device: Device,
    jobs: Option<usize>,
    progress: Progress,
}

impl Begun {
    fn job(&self) -> Job<'_> {
        Job {
            name: &self.name,
            source: self.source.clone(),
            data_name: &self.data_name,
            dataset: self.dataset.clone(),
            recipe: &self.recipe,
            work: &self.work,
            signers: &self.signers,
            device: &self.device,
            jobs: self.jobs,
            progress: &self.progress,
        }
    }
}
