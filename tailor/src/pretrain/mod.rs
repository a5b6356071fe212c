//! Pre-training: a backbone from scratch, on the user's own source data.

mod recipe;

pub use recipe::Recipe;

use crate::data::{Dataset, Loader, Split, digest_of, divide, statistics};
use crate::fit::Work;
use crate::import::{Imported, NamedValues, write_backbone};
use crate::net::{Net, Params, training_tensors};
use crate::progress::Progress;
use crate::train::{Checkpoint, Course, Score, Train, evaluate, teacher_loss};
use crate::{Error, Result};
use bundles::container::hex;
use bundles::plan::{Counter, Plan};
use candle_core::Device;
use std::collections::BTreeMap;
use std::path::Path;

/// Images per batch outside training.
const EVAL_BATCH: usize = 100;

/// Name of the only stage, in progress, metrics and checkpoint.
pub(crate) const STAGE: &str = "pretrain";

/// The inputs of a pre-training run.
pub struct Job<'a> {
    /// All options.
    pub recipe: &'a Recipe,
    /// The images.
    pub dataset: Dataset,
    /// Where the images came from; part of the run's identity and the file's metadata.
    pub data_name: &'a str,
    /// The run's work folder.
    pub work: &'a Work,
    /// The backbone file to write.
    pub out: &'a Path,
    /// The device to compute on.
    pub device: &'a Device,
    /// Progress shown to the user.
    pub progress: &'a Progress,
}

/// The result of pre-training.
#[derive(Debug, Clone)]
pub struct Report {
    /// Hash of the universal kernels.
    pub id: [u8; 32],
    /// Number of classes.
    pub classes: usize,
    /// Accuracy on validation; `None` if nothing was held out.
    pub validation: Option<Score>,
    /// Accuracy on test, if there is a test split. It is not used for selection.
    pub test: Option<Score>,
    /// Per-channel mean used for normalisation.
    pub mean: [f32; 3],
    /// Per-channel standard deviation.
    pub std: [f32; 3],
    /// Parameters of stem and blocks.
    pub params: u64,
    /// Multiply-adds of stem and blocks per image.
    pub macs: u64,
    /// Size of the backbone file in bytes.
    pub bytes: u64,
}

impl Job<'_> {
    /// Runs or resumes the training and writes the backbone file.
    ///
    /// # Errors
    /// Any error of data, training or disk.
    pub fn run(self) -> Result<Report> {
        let recipe = self.recipe;
        let Dataset { place, classes, train, val, test } = self.dataset;
        let (train, val) = match val {
            Some(val) => (train, Some(val)),
            None if recipe.validation == 0.0 => (train, None),
            None => {
                let (train, val) = divide(&place, train, recipe.validation, recipe.seed)?;
                (train, Some(val))
            }
        };
        let (mean, std) = match (recipe.mean, recipe.std) {
            (Some(mean), Some(std)) => (mean, std),
            _ => statistics(&train.images),
        };
        let plan = recipe.arch.plan(recipe.size, recipe.size, classes.len())?;
        let mut params = Params::from_scratch(&plan, recipe.seed, self.device)?;
        let batch = recipe.batch.min(train.len());
        let loader = Loader::new(&train, mean, std, batch, self.device)?.balanced(recipe.balance);
        let score = |params: &Params, split: &Split| -> Result<Score> {
            let loader = Loader::new(split, mean, std, EVAL_BATCH, self.device)?;
            evaluate(&Net { plan: &plan, params }, self.progress.interrupt().watch(loader.eval()))
        };
        let stage = Train {
            steps: loader.steps(),
            batches: &|epoch| loader.train(recipe.seed, epoch as u64, recipe.augment),
            loss: &|params, batch| teacher_loss(&plan, params, batch, recipe.label_smoothing),
            validate: &|params| val.as_ref().map_or(Ok(Score::default()), |val| score(params, val)),
        };
        let about = about(&classes);
        let images = [Some(&train), val.as_ref()].into_iter().flatten().map(Split::digest);
        let images = images.collect::<Vec<_>>().join(" ");
        let fingerprint = format!("{about} {} images {images} | {}", train.len(), recipe.fingerprint());
        let course = Course {
            stage: STAGE,
            fingerprint: &fingerprint,
            epochs: recipe.epochs,
            schedule: recipe.schedule,
            momentum: recipe.momentum,
            decay: recipe.decay,
            clip: recipe.clip,
            patience: recipe.patience,
            checkpoint: Some(&self.work.checkpoint(STAGE)),
            log: Some(&self.work.log()),
            progress: self.progress,
        };
        let validation = Some(course.run(&mut params, &stage)?).filter(|_| val.is_some());
        let test = test.as_ref().map(|test| score(&params, test)).transpose()?;

        let mut facts = BTreeMap::from([
            ("data".to_string(), self.data_name.to_string()),
            ("epochs".to_string(), recipe.epochs.to_string()),
            ("seed".to_string(), recipe.seed.to_string()),
        ]);
        for (key, score) in [("validation", validation), ("test", test)] {
            if let Some(score) = score {
                facts.insert(key.into(), format!("{:.4}", score.accuracy()));
            }
        }
        let cost = plan.costs(Counter::True)?.without_head();
        let count = classes.len();
        let backbone = Imported {
            tensors: tensors(&plan, &params)?,
            plan,
            arch: recipe.arch,
            classifier: true,
            labels: classes,
            folded: false,
            mean,
            std,
            facts,
            notes: Vec::new(),
        };
        let id = write_backbone(&backbone, self.out)?;
        let bytes = std::fs::metadata(self.out).map_err(Error::io(self.out))?.len();
        Ok(Report {
            id,
            classes: count,
            validation,
            test,
            mean,
            std,
            params: cost.params,
            macs: cost.macs,
            bytes,
        })
    }
}

/// What identifies a run besides its recipe and the images themselves.
fn about(classes: &[String]) -> String {
    format!("{} classes {}", classes.len(), digest_of(classes))
}

/// Refuses a checkpoint in `work` that belongs to other classes or another recipe, before any image is read.
/// Whether the images match is checked later, by training itself.
///
/// # Errors
/// [`Error::Training`] naming the checkpoint.
pub fn refuse_others(work: &Work, classes: &[String], recipe: &Recipe) -> Result<()> {
    let path = work.checkpoint(STAGE);
    match Checkpoint::peek(&path)? {
        Some(found) => found.check(&path, &about(classes), &recipe.fingerprint()),
        None => Ok(()),
    }
}

/// Shape and values of all tensors of `plan`, by name.
fn tensors(plan: &Plan, params: &Params) -> Result<NamedValues> {
    let names = plan.ops().flat_map(training_tensors);
    names
        .map(|name| Ok((name.clone(), (params.get(&name)?.dims().to_vec(), params.values(&name)?))))
        .collect()
}

impl Report {
    /// As JSON, accuracies as fractions.
    pub fn json(&self) -> serde_json::Value {
        let fraction = |score: Option<Score>| score.map(|s| s.accuracy());
        serde_json::json!({
            "id": hex(&self.id),
            "classes": self.classes,
            "val": fraction(self.validation),
            "val_n": self.validation.map(|s| s.n),
            "test": fraction(self.test),
            "test_n": self.test.map(|s| s.n),
            "mean": self.mean,
            "std": self.std,
            "params": self.params,
            "macs": self.macs,
            "bytes": self.bytes,
        })
    }
}
