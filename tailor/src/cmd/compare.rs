//! `tailor compare`: NetTailor and the methods it is compared with, on the same backbone and images.

mod table;

use crate::baselines::{Comparison, Gap, Method, Outcome};
use crate::cmd::choices::Choices;
use crate::cmd::{On, read_images, task_names, training, warn_of_uncertain_gap};
use crate::data::{self, Found, Size};
use crate::fit::{BackboneSize, Claim};
use crate::interrupt::Interrupt;
use crate::output::{note, out, text};
use crate::progress::Progress;
use crate::source::Source;
use crate::train::Schedule;
use crate::{Error, Result};
use anyhow::Context;
use bundles::plan::Plan;
use std::path::{Path, PathBuf};

/// Trains NetTailor and the published methods it is compared with on the same images, and prints a table.
///
/// All methods but tailor train for the teacher's number of epochs (the first of --epochs); features trains
/// ten times as long when images are not augmented, since they then pass through the backbone only once. The
/// test images are used once per method, after training. An interrupted run resumes; finished methods are
/// read from their result.json. See --methods for the methods and what differs from their papers.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples: tailor compare --backbone net.backbone --data photos.zip --work run/compare\n          \
                        tailor compare --backbone net.backbone --data signs.zip digits.zip --work run/both \\\n          \
                        \x20       --methods fine-tune,piggyback,tailor --crop 4"
)]
pub struct Compare {
    /// Backbone file made by `tailor import` or `tailor pretrain`.
    #[arg(long, value_name = "FILE")]
    backbone: PathBuf,
    /// Images, as for `fit`; one or more data sets. Methods that share one network between tasks learn them
    /// in this order, and the last one keeps all that is left of it.
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    pub(super) data: Vec<PathBuf>,
    /// Folder for METHOD/result.json, checkpoints and metrics (DATA/METHOD/ with several data sets).
    #[arg(long, value_name = "DIR")]
    pub(super) work: PathBuf,
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', help = METHODS, long_help = all_methods())]
    methods: Vec<Method>,
    /// Learning-rate schedule of one method, METHOD=SCHEDULE; may be repeated. (fine-tune and tailor use
    /// --teach-rate and so on; the warm-up of lwf's classifier keeps its own.)
    #[arg(long = "rate", value_name = "METHOD=SCHEDULE", value_parser = rate)]
    rates: Vec<(Method, Schedule)>,
    /// Skip the test images, for experiments on validation.
    #[arg(long)]
    without_test: bool,
    /// Image height and width [default: the backbone's].
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    #[command(flatten)]
    memory: training::Memory,
    #[command(flatten)]
    on: On,
    /// Print one line of JSON on stdout instead of tables.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    choices: Choices,
}

/// Help of `--methods`.
const METHODS: &str = "Methods to run, comma-separated [default: all].";

/// Long help of `--methods`, with every method and what differs from its paper.
fn all_methods() -> String {
    format!("{METHODS}\n\n{}", Method::described(&Method::ALL).join("\n"))
}

/// Results of every method on every task.
pub(super) struct Compared {
    /// The backbone's plan with its source classifier.
    pub(super) plan: Plan,
    /// Size of the backbone, for comparison.
    pub(super) backbone: BackboneSize,
    /// In table order.
    pub(super) methods: Vec<Method>,
    /// By task, then method.
    pub(super) outcomes: Vec<Outcome>,
}

impl Compare {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let compared = self.compare(|data, outcomes, backbone| {
            self.warn(data, outcomes);
            if self.json || outcomes.is_empty() {
                return;
            }
            // Show finished results while the next data set trains.
            text(&table::of_task(data, outcomes, backbone));
            if self.data.len() == 1 {
                text(&table::notes(&outcomes.iter().map(|outcome| outcome.method).collect::<Vec<_>>()));
            }
        })?;
        let Compared { backbone, methods, outcomes, .. } = compared;
        if self.json {
            out!("{}", json(&backbone, &outcomes));
        } else if self.data.len() > 1 {
            text(&table::average(&methods, &outcomes, &backbone));
            text(&table::notes(&methods));
        }
        Ok(())
    }

    /// Trains everything and passes each task's results to `finished` as they come; if a method fails, those
    /// before it.
    pub(super) fn compare(
        &self,
        finished: impl Fn(&str, &[Outcome], &BackboneSize),
    ) -> anyhow::Result<Compared> {
        let recipe = self.choices.recipe()?;
        let device = self.on.open()?;
        let source = Source::open(&self.backbone, &device)?;
        let methods = self.methods(&source)?;
        let size = self.size.unwrap_or(source.size());
        source.arch.plan(size, size, 2).with_context(|| format!("--size {size}"))?;
        recipe.augment.check(size)?;
        self.choices.check_augment(&recipe)?;
        let names = task_names("--data", &self.data)?;
        let find = |path: &PathBuf| Ok(data::find(path)?.within(self.memory.allowed()));
        let found: Vec<Found> = self.data.iter().map(find).collect::<Result<_>>()?;
        for found in &found {
            self.choices.check_data(&recipe, found.counts())?;
            recipe.check_cost(source.arch, size, found.classes().len())?;
            let recipe = self.choices.recipe_for(found.counts())?;
            for (method, rate) in &self.rates {
                let option = format!("--rate {method}=");
                method.stages(&recipe).into_iter().try_for_each(|epochs| rate.check(epochs, &option))?;
            }
        }
        let shape = Size { height: size, width: size };
        let backbone = BackboneSize::of(&source, shape)?;
        let folder = |data: &str| if self.data.len() > 1 { self.work.join(data) } else { self.work.clone() };
        let _claim = Claim::alone(&self.work)?;
        self.refuse_other_layout()?;
        let progress = Progress::visible().stopped_by(Interrupt::by_signal()?);
        let plan = source.plan.clone();
        let mut comparison = Comparison::new(source, recipe, &self.rates, device, progress);
        for (data, found) in names.iter().zip(&found) {
            comparison.recipe = self.choices.recipe_for(found.counts())?;
            comparison.refuse_others(&methods, shape, found.classes(), &folder(data))?;
        }
        let mut outcomes: Vec<Outcome> = Vec::new();
        for (n, (data, found)) in names.iter().zip(found).enumerate() {
            comparison.recipe = self.choices.recipe_for(found.counts())?;
            comparison.is_last = n + 1 == names.len();
            let mut dataset = read_images(found, size, &comparison.progress)?;
            if self.without_test {
                dataset.test = None;
            }
            let mut of_data = Vec::new();
            let done = comparison.on(&methods, data, dataset, &folder(data), &mut of_data);
            finished(data, &of_data, &backbone);
            done?;
            outcomes.extend(of_data);
        }
        Ok(Compared { plan, backbone, methods, outcomes })
    }

    /// Refuses a work folder whose networks lie elsewhere than this run would look for them and leave its own:
    /// directly in it with one data set, in folders named after the data with several.
    fn refuse_other_layout(&self) -> Result<()> {
        let one_in = |folder: &Path| {
            let results = Method::ALL.iter().map(|method| folder.join(method.name()).join("result.json"));
            results.into_iter().find_map(|result| Outcome::read(&result).ok()?)
        };
        let there = if self.data.len() > 1 {
            one_in(&self.work).map(|_| "networks for one data set, without a folder for it")
        } else {
            let inner = self.work.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
            let mut of_data = inner.filter_map(|folder| Some(folder.ends_with(one_in(&folder)?.data)));
            of_data.any(|is| is).then_some("networks for several data sets, in a folder for each")
        };
        match there {
            None => Ok(()),
            Some(there) => {
                let want = "choose another work folder";
                Err(Error::training(self.work.display(), format!("holds {there}"), want))
            }
        }
    }

    /// Warns if tailoring selected by too few images.
    pub(super) fn warn(&self, data: &str, outcomes: &[Outcome]) {
        for outcome in outcomes {
            if let Some(Gap { error, judge }) = outcome.gap {
                warn_of_uncertain_gap(data, outcome.val.n, error, judge, self.choices.tolerance());
            }
        }
    }

    /// The methods to train, in table order.
    fn methods(&self, source: &Source) -> Result<Vec<Method>> {
        let mut methods: Vec<Method> = Method::ALL.to_vec();
        if self.methods.is_empty() {
            if !source.classifier {
                note!("tailor: skipping lwf, because the backbone has no source classifier to preserve");
                methods.retain(|&method| method != Method::Lwf);
            }
        } else {
            methods.retain(|method| self.methods.contains(method));
        }
        if methods.contains(&Method::Lwf) && !source.classifier {
            let want = "lwf preserves the responses of the source classifier, which this backbone lacks: \
                        import one that has it, or omit lwf";
            return Err(Error::config("--methods lwf", want));
        }
        if let Some(option) = self.choices.of_tailoring().filter(|_| !methods.contains(&Method::Tailor)) {
            return Err(Error::config(option, "has no effect: tailor is not in --methods"));
        }
        for (method, schedule) in &self.rates {
            let option = format!("--rate {method}={schedule}");
            if method.peak().is_none() {
                return Err(Error::config(
                    option,
                    "fine-tune and tailor take --teach-rate and so on instead",
                ));
            }
            if !methods.contains(method) {
                return Err(Error::config(option, format!("has no effect: {method} is not in --methods")));
            }
        }
        Ok(methods)
    }
}

/// All results in one document.
fn json(backbone: &BackboneSize, outcomes: &[Outcome]) -> serde_json::Value {
    let results: Vec<_> = outcomes.iter().map(Outcome::json).collect();
    serde_json::json!({ "backbone": backbone.json(), "results": results })
}

/// `METHOD=SCHEDULE`.
fn rate(text: &str) -> Result<(Method, Schedule), String> {
    let (method, schedule) =
        text.split_once('=').ok_or("METHOD=SCHEDULE is needed, for example dan=one-cycle:0.02")?;
    let parsed = || Ok::<_, Error>((method.parse()?, schedule.parse()?));
    parsed().map_err(|error| error.to_string())
}
