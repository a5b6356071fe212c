//! All options of training a backbone from scratch.

use crate::data::Augment;
use crate::fit::MOST_EPOCHS;
use crate::train::Schedule;
use crate::{Error, Result};
use bundles::plan::Arch;

/// Options of one training from scratch.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Architecture of the backbone.
    pub arch: Arch,
    /// Image height and width in pixels.
    pub size: usize,
    /// Passes over the training split.
    pub epochs: usize,
    /// Images per step.
    pub batch: usize,
    /// Learning rate.
    pub schedule: Schedule,
    /// Optimiser momentum.
    pub momentum: f64,
    /// Weight decay of all parameters.
    pub decay: f64,
    /// Share of the target distribution spread evenly over all classes.
    pub label_smoothing: f64,
    /// Share of the training split held out for validation if the data has no `val`; 0 trains on everything
    /// without validation.
    pub validation: f64,
    /// Augmentation of training images.
    pub augment: Augment,
    /// Whether every class is sampled equally often.
    pub balance: bool,
    /// Early stopping: epochs at a low learning rate without better validation accuracy after which training
    /// stops.
    pub patience: Option<usize>,
    /// Maximum gradient norm.
    pub clip: Option<f64>,
    /// Per-channel mean of pixels scaled to 0..1; measured on the training images if `None`.
    pub mean: Option<[f32; 3]>,
    /// Per-channel standard deviation; measured too if `None`.
    pub std: Option<[f32; 3]>,
    /// Seed of all random choices.
    pub seed: u64,
}

impl Recipe {
    /// Defaults for `arch` at `size` pixels: 15 epochs, a one-cycle schedule, shifts by up to an eighth of
    /// the image.
    pub fn new(arch: Arch, size: usize) -> Recipe {
        Recipe {
            arch,
            size,
            epochs: 15,
            batch: 128,
            schedule: Schedule::OneCycle { peak: 0.1 },
            momentum: 0.9,
            decay: 5e-4,
            label_smoothing: 0.1,
            validation: 0.1,
            augment: Augment { crop_pad: size / 8, ..Augment::default() },
            balance: false,
            patience: None,
            clip: None,
            mean: None,
            std: None,
            seed: 1,
        }
    }

    /// Refuses invalid options and combinations before anything is read.
    ///
    /// # Errors
    /// [`Error::Config`] naming the option; [`Error::Bundle`] if the images are too small for the network.
    pub fn check(&self) -> Result<()> {
        let bad =
            |option: &str, got: String, want: &str| Err(Error::config(format!("--{option} {got}"), want));
        self.arch.plan(self.size, self.size, 2)?;
        if !(1..=MOST_EPOCHS).contains(&self.epochs) {
            return bad("epochs", self.epochs.to_string(), "from 1 to a million");
        }
        if self.batch < 2 {
            return bad(
                "batch",
                self.batch.to_string(),
                "at least 2 (batch statistics need more than one image)",
            );
        }
        if !(0.0..=0.5).contains(&self.validation) {
            return bad("validation", self.validation.to_string(), "a fraction from 0 to 0.5");
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            return bad(
                "label-smoothing",
                self.label_smoothing.to_string(),
                "a fraction of at least 0 and below 1",
            );
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return bad("momentum", self.momentum.to_string(), "a number of at least 0 and below 1");
        }
        if let Some(patience) = self.patience.filter(|_| self.validation == 0.0) {
            let want =
                "needs validation images, which --validation 0 leaves out: drop one of the two options";
            return Err(Error::config(format!("--patience {patience}"), want));
        }
        if !self.decay.is_finite() || self.decay < 0.0 {
            return bad("decay", self.decay.to_string(), "a number of at least 0");
        }
        if self.mean.is_some() != self.std.is_some() {
            let (given, other) = if self.mean.is_some() { ("mean", "std") } else { ("std", "mean") };
            return Err(Error::config(
                format!("--{given}"),
                format!("needs --{other} too: give both or neither"),
            ));
        }
        if let Some(std) = self.std.filter(|std| std.iter().any(|s| !s.is_finite() || *s <= 0.0)) {
            return bad("std", format!("{std:?}"), "positive numbers, for pixels scaled to 0..1");
        }
        if let Some(mean) = self.mean.filter(|mean| mean.iter().any(|m| !m.is_finite())) {
            return bad("mean", format!("{mean:?}"), "finite numbers, for pixels scaled to 0..1");
        }
        self.schedule.check(self.epochs, "--rate")?;
        self.augment.check(self.size)
    }

    /// Everything that shapes the run, as text.
    pub(crate) fn fingerprint(&self) -> String {
        let off = || "off".to_owned();
        let channels = |values: Option<[f32; 3]>| values.map_or_else(off, |[r, g, b]| format!("{r},{g},{b}"));
        format!(
            "{} size {} epochs {} batch {} rate {} momentum {} decay {} smoothing {} validation {} {} balance {} \
             patience {} clip {} mean {} std {} seed {}",
            self.arch,
            self.size,
            self.epochs,
            self.batch,
            self.schedule,
            self.momentum,
            self.decay,
            self.label_smoothing,
            self.validation,
            self.augment,
            self.balance,
            self.patience.map_or_else(off, |epochs| epochs.to_string()),
            self.clip.map_or_else(off, |norm| norm.to_string()),
            channels(self.mean),
            channels(self.std),
            self.seed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused_by_the_option_at_fault() {
        let good = || Recipe::new("cifar-resnet20-b".parse().unwrap(), 32);
        good().check().unwrap();
        type Spoil = fn(&mut Recipe);
        let cases: [(&str, Spoil); 11] = [
            ("--epochs 0", |r| r.epochs = 0),
            ("--batch 1", |r| r.batch = 1),
            ("--validation 0.7", |r| r.validation = 0.7),
            ("--label-smoothing 1", |r| r.label_smoothing = 1.0),
            ("--momentum 1", |r| r.momentum = 1.0),
            ("--patience 3", |r| (r.patience, r.validation) = (Some(3), 0.0)),
            ("--decay -1", |r| r.decay = -1.0),
            ("--mean", |r| r.mean = Some([0.5; 3])),
            ("--std [0.5, 0.0, 0.5]", |r| (r.mean, r.std) = (Some([0.5; 3]), Some([0.5, 0.0, 0.5]))),
            ("--crop 17", |r| r.augment.crop_pad = 17),
            ("--rate step:0.1,15,0.1", |r| r.schedule = "step:0.1,15,0.1".parse().unwrap()),
        ];
        for (option, spoil) in cases {
            let mut recipe = good();
            spoil(&mut recipe);
            let error = recipe.check().unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
            assert!(error.to_string().starts_with(option), "{error}");
        }
    }
}
