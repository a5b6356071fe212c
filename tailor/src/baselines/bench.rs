//! One method on one task: what it is given, what it hands back, and the training step most methods share.

use super::Size;
use super::kernels::{Kernel, derived, settled};
use super::packnet::Packed;
use crate::Result;
use crate::fit::{Ground, Recipe, Stage, Tailoring, Work};
use crate::net::{Params, Pass};
use crate::progress::Progress;
use crate::train::{Schedule, Score, label_loss};
use bundles::plan::Plan;
use candle_core::Device;

/// What a method is given.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// Backbone and images.
    pub ground: &'a Ground,
    /// Optimiser, augmentation, seed; the teacher's stage says how many epochs and images per step.
    pub recipe: &'a Recipe,
    /// Learning rate of the method.
    pub schedule: Schedule,
    /// Where its checkpoints and metrics go.
    pub work: &'a Work,
    /// What earlier tasks left in the network, for a sequential method.
    pub packed: Option<&'a Packed>,
    /// Where numbers are computed.
    pub device: &'a Device,
    /// What a person sees.
    pub progress: &'a Progress,
}

/// A method's network on one task.
#[derive(Debug)]
pub struct Trained {
    /// The network.
    pub plan: Plan,
    /// Its numbers as inference reads them.
    pub params: Params,
    /// Accuracy on validation.
    pub validation: Score,
    /// What it costs.
    pub size: Size,
    /// What later tasks start from, of a sequential method.
    pub packed: Option<Packed>,
}

impl<'a> Bench<'a> {
    pub(super) fn tailoring(&self) -> Tailoring<'a> {
        self.ground.tailoring(self.recipe, self.work, self.device, self.progress)
    }

    /// Passes over the images in all, as many as the teacher has.
    pub(super) fn epochs(&self) -> usize {
        self.recipe.teach.epochs
    }

    /// A stage of `epochs` of them.
    pub(super) fn stage(&self, epochs: usize) -> Stage {
        Stage { epochs, batch: self.recipe.teach.batch, schedule: self.schedule }
    }

    /// Everything that shapes the method's run, written out; `more` is the method's own.
    pub(super) fn fingerprint(&self, more: &str) -> String {
        format!("{} {} | {}", self.schedule, more, self.recipe.teacher_fingerprint())
    }

    /// Trains `params` on the labels, through kernels made by `kernel`, with norms as `pass` says; then the numbers as
    /// inference reads them.
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

    /// Accuracy on the test images, where there are any.
    ///
    /// # Errors
    /// When the images do not fit the network.
    pub fn test(&self, trained: &Trained) -> Result<Option<Score>> {
        let test = self.ground.test.as_ref();
        test.map(|test| self.tailoring().score(&trained.plan, &trained.params, test)).transpose()
    }
}
