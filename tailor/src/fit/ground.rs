//! What every run on a task starts from: a calibrated backbone and the data splits.

use super::begun::about;
use super::{Losses, Recipe, Tailoring, Work};
use crate::Result;
use crate::data::{Dataset, Loader, Split, divide, spread};
use crate::progress::Progress;
use crate::source::Source;
use candle_core::Device;

/// Number of images used to calibrate the norms of a folded backbone.
const CALIBRATION: usize = 256;

/// A task's data splits plus the calibrated backbone, ready for training.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The backbone, with calibrated norms.
    pub source: Source,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Images to train on.
    pub train: Split,
    /// Images for model selection.
    pub val: Split,
    /// Images for the final report, if there are any.
    pub test: Option<Split>,
    /// Whether no image to train on or to select by has any colour; then those of the test are in grey, too.
    pub is_grey: bool,
    /// Backbone, image size, classes and images as text and digests: with the recipe, these identify a run.
    pub identity: String,
}

impl Ground {
    /// Splits off validation images if the data has none, and calibrates a folded backbone. Says on stderr if
    /// images held out also occur among the others.
    ///
    /// # Errors
    /// If the splits cannot be made or the images do not fit the backbone.
    pub fn prepare(mut source: Source, dataset: Dataset, recipe: &Recipe, device: &Device) -> Result<Ground> {
        let Dataset { place, classes, train, val, test } = dataset;
        let (train, val) = match val {
            Some(val) => (train, val),
            None => divide(&place, train, recipe.validation, recipe.seed)?,
        };
        if source.folded {
            let sample = Loader::new(&train, source.mean, source.std, CALIBRATION, device)?;
            if let Some(batch) = sample.of(spread(train.len(), CALIBRATION)).next() {
                source.calibrate(&batch?.images)?;
            }
        }
        // A device shows frames in grey to a network that has seen no colour.
        let is_grey = train.images.is_grey() && val.images.is_grey();
        let test = if is_grey { test.map(|test| test.in_grey()) } else { test };
        let size = train.images.size();
        let about = about(&source, size, &classes);
        let identity = format!("{about} {} images {} {}", train.len(), train.digest(), val.digest());
        Ok(Ground { source, classes, train, val, test, is_grey, identity })
    }

    /// The stages of a run on this task.
    pub fn tailoring<'a>(
        &'a self,
        recipe: &'a Recipe,
        work: &'a Work,
        device: &'a Device,
        progress: &'a Progress,
    ) -> Tailoring<'a> {
        Tailoring {
            arch: self.source.arch,
            backbone: &self.source.params,
            mean: self.source.mean,
            std: self.source.std,
            classes: self.classes.len(),
            train: &self.train,
            val: &self.val,
            recipe,
            work,
            identity: &self.identity,
            device,
            jobs: if device.is_cpu() { rayon::current_num_threads() } else { 1 },
            losses: Losses::of(work),
            progress,
        }
    }
}
