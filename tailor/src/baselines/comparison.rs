//! Runs several methods on one task after another, each in its own folder; finished results are read back
//! from there.

use super::{Bench, Gap, Method, Outcome, Packed, Size};
use crate::data::{self, Dataset, Split};
use crate::fit::{Claim, Ground, Job, Recipe, Work, about, refuse_others};
use crate::progress::Progress;
use crate::source::Source;
use crate::train::{Schedule, Score, images_of};
use crate::{Error, Result};
use bundles::container::hex;
use candle_core::Device;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What all methods and tasks share.
pub struct Comparison {
    /// The backbone.
    pub source: Source,
    /// Optimiser, schedules, augmentation and seed of the current task.
    pub recipe: Recipe,
    /// Whether the current task is the last one.
    pub is_last: bool,
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
        Comparison { source, recipe, is_last: true, rates, device, progress, packed: HashMap::new() }
    }

    /// Refuses what an earlier comparison left in `folder`: any result on another backbone; with other classes or
    /// options, the results of `methods`, and the checkpoints that fine-tuning and tailoring would continue.
    /// No image is read; whether the images match is checked by [`on`](Self::on).
    ///
    /// # Errors
    /// [`crate::Error::Training`] naming the file.
    pub fn refuse_others(
        &self,
        methods: &[Method],
        size: data::Size,
        classes: &[String],
        folder: &Path,
    ) -> Result<()> {
        let about = about(&self.source, size, classes);
        let id = hex(&self.source.id);
        for method in Method::ALL {
            let folder = folder.join(method.name());
            let result = result_in(&folder);
            let known = Outcome::read(&result)?;
            // A table has one backbone. Results of earlier versions do not name theirs.
            if let Some(Outcome { backbone, .. }) = &known
                && *backbone != id
                && !backbone.is_empty()
            {
                let found = format!("made on backbone {}, not on {}", short(backbone), short(&id));
                return Err(Error::training(result.display(), found, "choose another work folder"));
            }
            if !methods.contains(&method) {
                continue;
            }
            if let Some(known) = known {
                // This run's images have not been read: those of the result stand for them.
                let images = images_of(&known.run, &format!("{method} on {about}"));
                known.check(&result, &self.identity(method, &format!("{about}{images}"), false))?;
            } else if matches!(method, Method::FineTune | Method::Tailor) && folder.is_dir() {
                refuse_others(&Work::open(folder)?, &self.source, size, classes, &self.recipe)?;
            }
        }
        Ok(())
    }

    /// Runs every method on one task, each in the folder `METHOD` of `folder`. Results are added to
    /// `finished` as they come: an error leaves those before it there.
    ///
    /// # Errors
    /// [`crate::Error::Training`], before anything is trained, if a folder holds a result of other options or
    /// images; any error of training.
    pub fn on(
        &mut self,
        methods: &[Method],
        data: &str,
        dataset: Dataset,
        folder: &Path,
        finished: &mut Vec<Outcome>,
    ) -> Result<()> {
        let source = self.source.clone();
        let ground = Ground::prepare(source, dataset.clone(), &self.recipe, &self.device)?;
        let shape = ground.train.images.size();
        let mut runs = Vec::new();
        for &method in methods {
            let identity = |is_last| self.identity(method, &ground.identity, is_last);
            let (folder, run) = (folder.join(method.name()), identity(self.is_last));
            // A task that was the last one, or is now, is trained again.
            let known = Outcome::read(&result_in(&folder))?;
            let known = known.filter(|known| known.run == run || known.run != identity(!self.is_last));
            known.iter().try_for_each(|known| known.check(&result_in(&folder), &run))?;
            runs.push((method, folder, run, known));
        }
        for (method, own, run, known) in runs {
            let _mine = Claim::alone(&own)?;
            let (result, work) = (result_in(&own), Work::open(own)?);
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
            finished.push(outcome);
        }
        Ok(())
    }

    fn schedule(&self, method: Method) -> Schedule {
        match (self.rates.get(&method), method.peak()) {
            (Some(&schedule), _) => schedule,
            (None, Some(peak)) => Schedule::OneCycle { peak },
            (None, None) => self.recipe.teach.schedule,
        }
    }

    /// Everything that shapes a result, as text; of the task, [`Ground::identity`]. Only a sequential method's
    /// depends on whether the task is the last one.
    fn identity(&self, method: Method, task: &str, is_last: bool) -> String {
        let how = match method {
            Method::Tailor => self.recipe.identity(),
            _ => format!("schedule {} {}", self.schedule(method), self.recipe.teacher_fingerprint()),
        };
        let after =
            self.packed.get(&method).map_or(String::new(), |packed| format!(" after {:?}", packed.tasks()));
        let last = if is_last && method.is_sequential() { " last" } else { "" };
        format!("{method} on {task}{after}{last} | {how}")
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
            is_last: self.is_last,
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

/// The beginning of a backbone's id, for messages.
fn short(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}

/// The file of a method's result in its folder.
fn result_in(folder: &Path) -> PathBuf {
    folder.join("result.json")
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
