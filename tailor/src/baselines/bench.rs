//! Runs one method on one task: its inputs, its result, and the training step shared by most methods.

use super::Size;
use super::kernels::{Kernel, derived, settled};
use super::packnet::Packed;
use crate::fit::{Ground, Recipe, Stage, Tailoring, Work};
use crate::net::{Params, Pass};
use crate::progress::Progress;
use crate::train::{Schedule, Score, label_loss};
use crate::{Error, Result};
use bundles::plan::Plan;
use candle_core::Device;

/// The inputs of a method.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// Backbone and images.
    pub ground: &'a Ground,
    /// Optimiser, augmentation and seed; the teacher's stage gives the number of epochs and the batch size.
    pub recipe: &'a Recipe,
    /// Learning rate of the method.
    pub schedule: Schedule,
    /// Folder for its checkpoints and metrics.
    pub work: &'a Work,
    /// The network as earlier tasks left it, for a sequential method.
    pub packed: Option<&'a Packed>,
    /// Whether no task follows, for which a sequential method would have to leave room.
    pub is_last: bool,
    /// The device to compute on.
    pub device: &'a Device,
    /// Progress shown to the user.
    pub progress: &'a Progress,
}

/// A method's network on one task.
#[derive(Debug)]
pub struct Trained {
    /// The network.
    pub plan: Plan,
    /// Its parameters for inference.
    pub params: Params,
    /// Accuracy on validation.
    pub validation: Score,
    /// Its costs.
    pub size: Size,
    /// The network for the next task, from a sequential method.
    pub packed: Option<Packed>,
}

impl<'a> Bench<'a> {
    pub(super) fn tailoring(&self) -> Tailoring<'a> {
        self.ground.tailoring(self.recipe, self.work, self.device, self.progress)
    }

    /// Total number of epochs, the same as the teacher's.
    pub(super) fn epochs(&self) -> usize {
        self.recipe.teach.epochs
    }

    /// A stage of `epochs` epochs.
    pub(super) fn stage(&self, epochs: usize) -> Stage {
        Stage { epochs, batch: self.recipe.teach.batch, schedule: self.schedule }
    }

    /// Everything that shapes the method's run, as text; `more` is specific to the method.
    pub(super) fn fingerprint(&self, more: &str) -> String {
        format!("{} {} | {}", self.schedule, more, self.recipe.teacher_fingerprint())
    }

    /// Trains `params` on the labels, with kernels computed by `kernel` and norms in the mode of `pass`;
    /// returns the parameters for inference.
    pub(super) fn fit(
        &self,
        (stage, fingerprint): (&str, &str),
        epochs: usize,
        plan: &Plan,
        params: &mut Params,
        pass: Pass,
        kernel: Kernel<'_>,
    ) -> Result<(Params, Score)> {
        let tailoring = self.tailoring();
        let validation = tailoring.course(
            stage,
            &self.fingerprint(fingerprint),
            &self.stage(epochs),
            params,
            &|params, batch| label_loss(plan, &derived(plan, params, kernel)?, batch, pass, 0.0),
            &|params| tailoring.score(plan, &settled(plan, params, kernel)?, &self.ground.val),
        )?;
        Ok((settled(plan, params, kernel)?, validation))
    }

    /// Removes the checkpoint of a stage that is no longer part of the method's run, and what was recorded of it.
    pub(super) fn forget(&self, stage: &str) -> Result<()> {
        let path = self.work.checkpoint(stage);
        if !path.exists() {
            return Ok(());
        }
        self.work.log().rewind(stage, 0)?;
        std::fs::remove_file(&path).map_err(Error::io(&path))
    }

    /// Accuracy on the test images, if there are any.
    ///
    /// # Errors
    /// If the images do not fit the network.
    pub fn test(&self, trained: &Trained) -> Result<Option<Score>> {
        let test = self.ground.test.as_ref();
        test.map(|test| self.tailoring().score(&trained.plan, &trained.params, test)).transpose()
    }
}
