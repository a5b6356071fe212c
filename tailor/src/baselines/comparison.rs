//! Runs several methods on one task after another, each in its own folder; finished results are read back
//! from there.

use super::{Bench, Gap, Method, Outcome, Packed, Size};
use crate::Result;
use crate::data::{Dataset, Split};
use crate::fit::{Ground, Job, Recipe, Work, made_otherwise};
use crate::progress::Progress;
use crate::source::Source;
use crate::train::{Schedule, Score};
use bundles::container::hex;
use candle_core::Device;
use std::collections::HashMap;
use std::path::Path;

/// What all methods and tasks share.
pub struct Comparison {
    /// The backbone.
    pub source: Source,
    /// Optimiser, schedules, augmentation and seed of the current task.
    pub recipe: Recipe,
    /// Learning rates of methods that override their own.
    pub rates: HashMap<Method, Schedule>,
    /// The device to compute on.
    pub device: Device,
    /// Progress shown to the user.
    pub progress: Progress,
    /// The networks of sequential methods so far.
    packed: HashMap<Method, Packed>,
}

impl Comparison {
    /// A comparison of `methods` on `source` before the first task.
    pub fn new(
        source: Source,
        recipe: Recipe,
        rates: &[(Method, Schedule)],
        device: Device,
        progress: Progress,
    ) -> Comparison {
        let rates = rates.iter().copied().collect();
        Comparison { source, recipe, rates, device, progress, packed: HashMap::new() }
    }

    /// Runs every method on one task, each in the folder `METHOD` of `folder`.
    ///
    /// # Errors
    /// [`crate::Error::Training`] if a folder holds a result of other options; any error of training.
    pub fn on(
        &mut self,
        methods: &[Method],
        data: &str,
        dataset: Dataset,
        folder: &Path,
    ) -> Result<Vec<Outcome>> {
        let source = self.source.clone();
        let ground = Ground::prepare(source, dataset.clone(), &self.recipe, &self.device)?;
        let shape = ground.train.images.size();
        let mut outcomes = Vec::new();
        for &method in methods {
            let work = Work::open(folder.join(method.name()))?;
            let result = work.folder().join("result.json");
            let run = self.identity(method, &ground);
            let known = Outcome::read(&result)?;
            if let Some(known) = &known
                && known.run != run
            {
                return Err(made_otherwise(&result, &known.run, &run));
            }
            // A test that was left out may be requested later, and with other images.
            let tested = ground.test.as_ref().map(Split::digest);
            let known = known.filter(|known| tested.is_none() || known.test_images == tested);
            let known = known.map(|known| renamed(known, data, &result)).transpose()?;
            // Nor is a test reported that was left out this time.
            let known = known.map(|known| match tested {
                None => Outcome { test: None, test_images: None, ..known },
                Some(_) => known,
            });
            let outcome = match known {
                Some(known) if !method.is_sequential() => known,
                known => {
                    let (trained, gap) = match method {
                        Method::Tailor => {
                            let finetuned = folder.join(Method::FineTune.name());
                            let (trained, gap) = self.tailor(data, dataset.clone(), &work, &finetuned)?;
                            (trained, Some(gap))
                        }
                        _ => (self.baseline(method, data, &ground, &work, known.is_none())?, None),
                    };
                    let (val, test, size) = trained;
                    let seconds = work.log().seconds()?;
                    let made = Outcome {
                        method,
                        data: data.to_string(),
                        arch: self.source.arch.to_string(),
                        backbone: hex(&self.source.id),
                        pixels: [shape.height, shape.width],
                        seed: self.recipe.seed,
                        val,
                        gap,
                        test,
                        test_images: tested,
                        size,
                        seconds,
                        run,
                    };
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

    /// Everything that shapes a result, as text.
    fn identity(&self, method: Method, ground: &Ground) -> String {
        let how = match method {
            Method::Tailor => self.recipe.identity(),
            _ => format!("schedule {} {}", self.schedule(method), self.recipe.teacher_fingerprint()),
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

    fn tailor(&self, data: &str, dataset: Dataset, work: &Work, finetuned: &Path) -> Result<(Figures, Gap)> {
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
        let report = job.run_after(finetuned)?;
        let gap = Gap { judge: report.judge, error: report.behind.error };
        Ok(((report.val, report.test, Size::tailored(&report)), gap))
    }
}

/// A known result under the new name of its data, which is also written to its file.
fn renamed(known: Outcome, data: &str, path: &Path) -> Result<Outcome> {
    if known.data == data {
        return Ok(known);
    }
    let known = Outcome { data: data.into(), ..known };
    known.write(path)?;
    Ok(known)
}

/// Validation score, test score, costs.
type Figures = (Score, Option<Score>, Size);
