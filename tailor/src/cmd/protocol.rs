//! `tailor protocol`: the paper's experiments as commands, each ending in the paper's kind of table and, where
//! the paper has one, figure.

mod datasets;
mod decathlon;
mod depth;
mod skips;
mod teacher;

use crate::Result;
use crate::cmd::choices::Choices;
use crate::cmd::{On, read_images, training};
use crate::data::{self, Found};
use crate::fit::{Claim, Recipe};
use crate::interrupt::Interrupt;
use crate::output::{out, text};
use crate::progress::Progress;
use crate::protocols::{Findings, Lab, Task};
use crate::source::Source;
use anyhow::Context;
use candle_core::Device;
use clap::Subcommand;
use std::path::{Path, PathBuf};

/// Runs one of the paper's experiments on your own backbone and images.
///
/// Networks are trained as by `fit`, so not with the published recipe unless asked for (`--schedule paper
/// --complexity paper`). Each experiment ends in the paper's kind of table and, where the paper has one, figure:
/// on stdout, in WORK/protocol.json and as SVG in WORK.
/// `tailor report WORK` turns them into a page. An interrupted run resumes; finished networks are reused.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tailor protocol skips --backbone net.backbone --data photos.zip --work run/skips --flip"
)]
pub struct Protocol {
    #[command(subcommand)]
    which: Which,
}

#[derive(Debug, Subcommand)]
enum Which {
    Skips(Box<skips::Skips>),
    Depth(Box<depth::Depth>),
    Teacher(Box<teacher::Teacher>),
    Datasets(Box<datasets::Datasets>),
    Decathlon(Box<decathlon::Decathlon>),
}

impl Protocol {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self.which {
            Which::Skips(cmd) => cmd.run(),
            Which::Depth(cmd) => cmd.run(),
            Which::Teacher(cmd) => cmd.run(),
            Which::Datasets(cmd) => cmd.run(),
            Which::Decathlon(cmd) => cmd.run(),
        }
    }
}

/// Options of every protocol that tailors.
#[derive(Debug, clap::Args)]
struct Setting {
    /// Folder for tables, figures, and a sub-folder for each network.
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Image height and width [default: the backbone's].
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    #[command(flatten)]
    jobs: training::Jobs,
    #[command(flatten)]
    memory: training::Memory,
    #[command(flatten)]
    on: On,
    /// Print one line of JSON on stdout instead of tables.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    choices: Choices,
}

impl Setting {
    /// The recipe, once all options suit one another.
    fn recipe(&self) -> Result<Recipe> {
        let recipe = self.choices.recipe()?;
        self.jobs.check(&recipe)?;
        Ok(recipe)
    }

    /// Opens a backbone and rejects options that do not suit it.
    fn source(&self, backbone: &Path, recipe: &Recipe, device: &Device) -> anyhow::Result<Source> {
        let source = Source::open(backbone, device)?;
        let size = self.size.unwrap_or(source.size());
        source.arch.plan(size, size, 2).with_context(|| format!("--size {size}"))?;
        recipe.augment.check(size)?;
        Ok(source)
    }

    /// Finds images and rejects options that do not suit them on any of these backbones.
    fn find(&self, path: &Path, recipe: &Recipe, sources: &[Source]) -> Result<Found> {
        let found = data::find(path)?.within(self.memory.allowed());
        for source in sources {
            self.check_cost(recipe, source, &found)?;
        }
        self.choices.check_augment(recipe)?;
        self.choices.check_data(recipe, found.counts())?;
        Ok(found)
    }

    /// Rejects a budget that no network can meet, and a latency table of another network.
    fn check_cost(&self, recipe: &Recipe, source: &Source, found: &Found) -> Result<()> {
        recipe.check_cost(source.arch, self.size.unwrap_or(source.size()), found.classes().len())
    }

    /// Reads the images found, at the size for this backbone.
    fn task(&self, name: &str, found: Found, source: &Source, progress: &Progress) -> Result<Task> {
        let recipe = self.choices.recipe_for(found.counts())?;
        let dataset = read_images(found, self.size.unwrap_or(source.size()), progress)?;
        Ok(Task { name: name.to_string(), dataset, recipe })
    }

    fn lab<'a>(&'a self, device: &'a Device, progress: &'a Progress) -> Result<Lab<'a>> {
        let claim = Claim::alone(&self.work)?;
        Ok(Lab { work: &self.work, device, jobs: self.jobs.count(), progress, claim })
    }

    fn end(&self, findings: &Findings) -> Result<()> {
        end(findings, &self.work, self.json)
    }
}

/// Writes and prints the findings.
fn end(findings: &Findings, work: &Path, json: bool) -> Result<()> {
    findings.leave(work)?;
    if json {
        out!("{}", findings.json());
    } else {
        text(&findings.text(work));
    }
    Ok(())
}

/// Progress bars for work that Ctrl-C interrupts.
fn progress() -> Result<Progress> {
    Ok(Progress::visible().stopped_by(Interrupt::by_signal()?))
}
