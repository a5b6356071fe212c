//! What every run on one task starts from: a backbone with its statistics, and images divided into splits.

use super::begun::about;
use super::{Recipe, Tailoring, Work};
use crate::Result;
use crate::data::{Dataset, Loader, Split, hold_out, spread};
use crate::progress::Progress;
use crate::source::Source;
use candle_core::Device;

/// Images a folded backbone's norms are calibrated on.
const CALIBRATION: usize = 256;

/// A backbone and one task's images, ready to be trained on.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The backbone, its norms calibrated.
    pub source: Source,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Images to train on.
    pub train: Split,
    /// Images to select by.
    pub val: Split,
    /// Images to report on, where there are any.
    pub test: Option<Split>,
    /// Backbone, image size, classes and images, in words and digests: what belongs to a run's identity beside its recipe.
    pub identity: String,
}

impl Ground {
    /// Holds validation images out where the data has none of its own, and calibrates a folded backbone.
    ///
    /// # Errors
    /// Splits that cannot be made, images that do not fit the backbone.
    pub fn prepare(mut source: Source, dataset: Dataset, recipe: &Recipe, device: &Device) -> Result<Ground> {
        let Dataset { classes, train, val, test } = dataset;
        let (train, val) = match val {
            Some(val) => (train, val),
            None => hold_out(train, recipe.validation, recipe.seed)?,
        };
        if source.folded {
            let sample = Loader::new(&train, source.mean, source.std, CALIBRATION, device)?;
            if let Some(batch) = sample.of(spread(train.len(), CALIBRATION)).next() {
                source.calibrate(&batch?.images)?;
            }
        }
        let size = train.images.size();
        let about = about(&source, size, &classes);
        let identity = format!("{about} {} images {} {}", train.len(), train.digest(), val.digest());
        Ok(Ground { source, classes, train, val, test, identity })
    }

    /// The stages of a run on it.
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
            progress,
        }
    }
}
