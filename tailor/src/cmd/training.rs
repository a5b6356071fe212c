//! Options shared by all training commands: sampling and augmentation, and safeguards for small data sets.

use crate::data::{Augment, Jitter, Padding, Policy};
use crate::{Error, Result};

/// Sampling and augmentation of training images. Every choice is a function of seed, epoch and image.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Images {
    /// Random shifts of training images by up to this many pixels [default: none; an eighth of the image for
    /// `pretrain`; each task's own in `protocol decathlon`].
    #[arg(long, value_name = "PIXELS")]
    crop: Option<usize>,
    /// What fills the border of shifted images: black, or the mirrored image (reflect) [default: black;
    /// reflect in `protocol decathlon`].
    #[arg(long, value_enum)]
    padding: Option<Padding>,
    /// Random horizontal flips of training images (not for digits, letters or signs).
    #[arg(long)]
    flip: bool,
    /// Augmentation policy: none, randaugment:N,M (N operations of magnitude M up to 30: shears, shifts,
    /// rotations by up to M degrees, colours; 2,9 is common), or trivial (TrivialAugment: one operation of
    /// random strength, rotations up to 135 degrees). Neither flips.
    #[arg(long, value_name = "POLICY", default_value_t)]
    augment: Policy,
    /// Colour jitter: random changes of brightness, contrast and saturation by up to this fraction, or by
    /// three, comma-separated; 0.3 is common.
    #[arg(long, value_name = "FRACTION", default_value_t)]
    jitter: Jitter,
    /// Random erasing: probability that a rectangle of a training image is replaced by noise; 0.25 is common.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    erase: f32,
    /// Class-balanced sampling: every class is drawn equally often, however many images it has.
    #[arg(long)]
    pub(super) balance: bool,
}

impl Images {
    /// These options over a recipe's `default`, whose flips stay, and whose jitter stays unless one is given.
    pub(super) fn augment(&self, default: Augment) -> Augment {
        Augment {
            crop_pad: self.crop.unwrap_or(default.crop_pad),
            padding: self.padding.unwrap_or(default.padding),
            flip: self.flip || default.flip,
            policy: self.augment,
            jitter: if self.jitter == Jitter::NONE { default.jitter } else { self.jitter },
            erase: self.erase,
        }
    }

    /// Rejects a border for shifts that `augment`, which these options made, does not have.
    pub(super) fn check(&self, augment: Augment) -> Result<()> {
        match self.padding {
            Some(padding) if augment.crop_pad == 0 => {
                let option = format!("--padding {}", padding.name());
                Err(Error::config(option, "has no effect without --crop, which shifts images"))
            }
            _ => Ok(()),
        }
    }
}

/// Safeguards for training on few images.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Care {
    /// Early stopping: stop when validation has not improved for this many epochs, and keep the best epoch (the
    /// last of equals).
    /// Only epochs in which the learning rate has dropped to a tenth of its peak (the last seventh of
    /// one-cycle, the last fifth of cosine), or as far as it ever drops, count. In `fit` this applies to the
    /// teacher and to retraining; the student's gates need their whole schedule.
    #[arg(long, value_name = "EPOCHS")]
    pub(super) patience: Option<usize>,
    /// Gradient clipping by global norm [default: off]. 5 stabilises the student on few images.
    #[arg(long, value_name = "NORM")]
    pub(super) clip: Option<f64>,
}

impl Care {
    /// Rejects out-of-range values.
    ///
    /// # Errors
    /// [`crate::Error::Config`].
    pub(super) fn check(&self) -> Result<()> {
        if self.patience == Some(0) {
            return Err(Error::config("--patience 0", "at least 1 epoch"));
        }
        if let Some(norm) = self.clip.filter(|norm| !norm.is_finite() || *norm <= 0.0) {
            return Err(Error::config(format!("--clip {norm}"), "a number above 0"));
        }
        Ok(())
    }
}
