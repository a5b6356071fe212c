//! `tailor compare`: the methods NetTailor is compared with, and itself, on the same backbone and images.

mod table;

use crate::baselines::{Bench, Method, Outcome, Packed, Size, borrow_teacher};
use crate::cmd::choices::Choices;
use crate::cmd::{On, read_images, stem};
use crate::data::{self, Dataset, Found};
use crate::fit::{BackboneSize, Ground, Job, Recipe, Work};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::source::Source;
use crate::train::Schedule;
use crate::{Error, Result};
use anyhow::Context;
use candle_core::Device;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// Trains published methods of adapting a backbone, and NetTailor, on the same images, and prints what each comes to.
///
/// Methods: fine-tune, features, packnet-50 and packnet-75 (half or three quarters of the backbone pruned), piggyback,
/// lwf, dan, adapters-series, adapters-parallel, tailor. All but tailor train for the teacher's number of epochs (the
/// first of --epochs). The test images are looked at once for each method, after training. Run again after an
/// interruption it goes on where it was; finished methods are read from their result.json.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples: tailor compare --backbone net.backbone --data photos.zip --work run/compare\n          \
                        tailor compare --backbone net.backbone --data signs.zip digits.zip --work run/compare \\\n          \
                        \x20       --methods fine-tune,piggyback,tailor --crop 4"
)]
pub struct Compare {
    /// Backbone file made by `tailor import` or `tailor pretrain`.
    #[arg(long, value_name = "FILE")]
    backbone: PathBuf,
    /// Images, as for `fit`; of several, methods that share one network between tasks learn them in this order.
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    data: Vec<PathBuf>,
    /// Folder for METHOD/result.json, checkpoints and metrics (DATA/METHOD/ with several data).
    #[arg(long, value_name = "DIR")]
    work: PathBuf,
    /// Methods, with commas between them; all when left out.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    methods: Vec<Method>,
    /// Learning-rate schedule of one method, METHOD=SCHEDULE; may be repeated. (fine-tune and tailor have --teach-rate
    /// and its like.)
    #[arg(long = "rate", value_name = "METHOD=SCHEDULE", value_parser = rate)]
    rates: Vec<(Method, Schedule)>,
    /// Leaves the test images alone, for trying things out on validation.
    #[arg(long)]
    without_test: bool,
    /// Image height and width; the backbone's own when left out.
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    #[command(flatten)]
    on: On,
    /// JSON on stdout, in one line, instead of tables.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    choices: Choices,
}

impl Compare {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let recipe = self.choices.recipe()?;
        let device = self.on.open()?;
        let source = Source::open(&self.backbone, &device)?;
        let methods = self.methods(&source, &recipe)?;
        let size = self.size.unwrap_or(source.size());
        source.arch.plan(size, size, 2).with_context(|| format!("--size {size}"))?;
        recipe.augment.check(size)?;
        recipe.check_cost(source.arch, size)?;
        let mut names = HashSet::new();
        if let Some(twice) = self.data.iter().find(|path| !names.insert(stem(path))) {
            let want = "every data needs a name of its own, under which results are kept";
            return Err(Error::config(format!("--data {}", twice.display()), want).into());
        }
        let found: Vec<Found> = self.data.iter().map(|path| data::find(path)).collect::<Result<_>>()?;
        for found in &found {
            self.choices.check_data(&recipe, found.counts())?;
        }
        let backbone = BackboneSize::of(&source.plan, source.bytes)?;
        let progress = Progress::visible().stopped_by(Interrupt::by_signal()?);
        let mut run = Run {
            source,
            recipe,
            rates: self.rates.iter().copied().collect(),
            device,
            progress,
            packed: HashMap::new(),
        };
        let mut outcomes: Vec<Outcome> = Vec::new();
        for (path, found) in self.data.iter().zip(found) {
            let data = stem(path);
            run.recipe = self.choices.recipe_for(found.counts())?;
            let folder = if self.data.len() > 1 { self.work.join(&data) } else { self.work.clone() };
            let mut dataset = read_images(found, size, &run.progress)?;
            if self.without_test {
                dataset.test = None;
            }
            let of_data = run.on(&methods, &data, dataset, &folder)?;
            if !self.json {
                // What is finished can be read while the next data set trains.
                print!("{}", table::of_task(&data, &of_data, &backbone));
            }
            outcomes.extend(of_data);
        }
        if self.json {
            let results: Vec<_> = outcomes.iter().map(Outcome::json).collect();
            println!("{}", serde_json::json!({ "backbone": backbone.json(), "results": results }));
        } else if self.data.len() > 1 {
            print!("{}", table::average(&methods, &outcomes, &backbone));
        }
        Ok(())
    }

    /// What is to be trained, in the table's order.
    fn methods(&self, source: &Source, recipe: &Recipe) -> Result<Vec<Method>> {
        let mut methods: Vec<Method> = Method::ALL.to_vec();
        if self.methods.is_empty() {
            if !source.classifier {
                eprintln!("tailor: lwf is left out, because the backbone has no source classifier to keep");
                methods.retain(|&method| method != Method::Lwf);
            }
        } else {
            methods.retain(|method| self.methods.contains(method));
        }
        if methods.contains(&Method::Lwf) && !source.classifier {
            let want = "the backbone came without its source classifier, whose responses lwf keeps: import one that \
                        has it, or leave lwf out";
            return Err(Error::config("--methods lwf", want));
        }
        for (method, schedule) in &self.rates {
            let option = format!("--rate {method}={schedule}");
            if method.peak().is_none() {
                return Err(Error::config(
                    option,
                    "fine-tune and tailor are set by --teach-rate and its like",
                ));
            }
            if !methods.contains(method) {
                return Err(Error::config(option, format!("without effect: {method} is not in --methods")));
            }
            schedule.check(recipe.teach.epochs, &format!("--rate {method}="))?;
        }
        Ok(methods)
    }
}

/// `METHOD=SCHEDULE`.
fn rate(text: &str) -> Result<(Method, Schedule), String> {
    let (method, schedule) =
        text.split_once('=').ok_or("METHOD=SCHEDULE is needed, for example dan=one-cycle:0.02")?;
    let parsed = || Ok::<_, Error>((method.parse()?, schedule.parse()?));
    parsed().map_err(|error| error.to_string())
}

/// What all methods and tasks share.
struct Run {
    source: Source,
    recipe: Recipe,
    rates: HashMap<Method, Schedule>,
    device: Device,
    progress: Progress,
    /// What sequential methods have packed so far.
    packed: HashMap<Method, Packed>,
}

impl Run {
    /// Every method on one task.
    fn on(
        &mut self,
        methods: &[Method],
        data: &str,
        dataset: Dataset,
        folder: &std::path::Path,
    ) -> Result<Vec<Outcome>> {
        let source = self.source.clone();
        let ground = Ground::prepare(source, dataset.clone(), data, &self.recipe, &self.device)?;
        let mut outcomes = Vec::new();
        for &method in methods {
            let work = Work::open(folder.join(method.name()))?;
            let result = work.folder().join("result.json");
            let run = self.identity(method, &ground);
            let known = Outcome::read(&result)?;
            if let Some(known) = &known
                && known.run != run
            {
                let want = "repeat its options, remove its folder, or choose another work folder";
                return Err(Error::training(result.display(), "made with other options", want));
            }
            // A test that was left out may be asked for later.
            let known = known.filter(|known| known.test.is_some() || ground.test.is_none());
            let outcome = match known {
                Some(known) if !method.is_sequential() => known,
                known => {
                    let trained = match method {
                        Method::Tailor => {
                            borrow_teacher(&folder.join(Method::FineTune.name()), &work)?;
                            self.tailor(data, dataset.clone(), &work)?
                        }
                        _ => self.baseline(method, data, &ground, &work, known.is_none())?,
                    };
                    let (val, test, size) = trained;
                    let seconds = work.log().seconds()?;
                    let (data, arch) = (data.to_string(), self.source.arch.to_string());
                    let seed = self.recipe.seed;
                    let made = Outcome { method, data, arch, seed, val, test, size, seconds, run };
                    match known {
                        Some(known) => known,
                        None => {
                            made.write(&result)?;
                            made
                        }
                    }
                }
            };
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    fn schedule(&self, method: Method) -> Schedule {
        match (self.rates.get(&method), method.peak()) {
            (Some(&schedule), _) => schedule,
            (None, Some(peak)) => Schedule::OneCycle { peak },
            (None, None) => self.recipe.teach.schedule,
        }
    }

    /// Everything that shapes a result, written out.
    fn identity(&self, method: Method, ground: &Ground) -> String {
        let how = match method {
            Method::Tailor => format!("{:?}", self.recipe),
            _ => format!("{} {}", self.schedule(method), self.recipe.teacher_fingerprint()),
        };
        let after =
            self.packed.get(&method).map_or(String::new(), |packed| format!(" after {:?}", packed.tasks()));
        format!("{method} on {}{after} | {how}", ground.identity)
    }

    fn baseline(
        &mut self,
        method: Method,
        data: &str,
        ground: &Ground,
        work: &Work,
        is_tested: bool,
    ) -> Result<Figures> {
        let progress = self.progress.for_task(&format!("{data} {method}:"));
        let bench = Bench {
            ground,
            recipe: &self.recipe,
            schedule: self.schedule(method),
            work,
            packed: self.packed.get(&method),
            device: &self.device,
            progress: &progress,
        };
        let trained = method.train(&bench)?;
        let test = if is_tested { bench.test(&trained)? } else { None };
        if let Some(packed) = trained.packed {
            self.packed.insert(method, packed);
        }
        Ok((trained.validation, test, trained.size))
    }

    fn tailor(&self, data: &str, dataset: Dataset, work: &Work) -> Result<Figures> {
        let job = Job {
            name: data,
            source: self.source.clone(),
            data_name: data,
            dataset,
            recipe: &self.recipe,
            work,
            signers: &[],
            device: &self.device,
            jobs: None,
            progress: &self.progress.for_task(&format!("{data} tailor:")),
        };
        let report = job.run()?;
        Ok((report.val, report.test, Size::tailored(&report)))
    }
}

/// Validation, test, costs.
type Figures = (crate::train::Score, Option<crate::train::Score>, Size);
