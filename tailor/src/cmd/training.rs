//! Options that every command that trains has: what is changed in training images, and what keeps few of them safe.

use crate::Result;
use crate::data::{Augment, Policy};

/// How training images are drawn and changed. Every choice is a function of seed, epoch and image.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Images {
    /// Shift training images by up to this many pixels; `fit` does not, `pretrain` by an eighth of the image when left
    /// out.
    #[arg(long, value_name = "PIXELS")]
    crop: Option<usize>,
    /// Mirror training images (not for digits, letters or signs).
    #[arg(long)]
    flip: bool,
    /// Operations on training images: none, randaugment:N,M (N operations of magnitude M up to 30; shears, shifts,
    /// rotations by up to M degrees, colours; 2,9 is common), or trivial (one of them as strong as it comes, rotations
    /// by up to 135 degrees among them). Neither mirrors.
    #[arg(long, value_name = "POLICY", default_value_t)]
    augment: Policy,
    /// Change brightness, contrast and saturation of training images by up to this share; 0.3 is common.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    jitter: f32,
    /// Put noise in the place of a rectangle of so many training images; 0.25 is common.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    erase: f32,
    /// Draw every class equally often, however many images it has.
    #[arg(long)]
    pub(super) balance: bool,
}

impl Images {
    /// As typed, over a recipe's `default`. What the default has of mirroring and jitter stays unless there is more.
    pub(super) fn augment(&self, default: Augment) -> Augment {
        Augment {
            crop_pad: self.crop.unwrap_or(default.crop_pad),
            flip: self.flip || default.flip,
            policy: self.augment,
            jitter: if self.jitter > 0.0 { self.jitter } else { default.jitter },
            erase: self.erase,
        }
    }
}

/// What keeps a run of few images from going astray.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Care {
    /// Stop when validation has not improved for this many epochs, and keep the best epoch's numbers (the last of
    /// equals). Only epochs count whose learning rate has come down to a tenth of its peak (the last seventh of one-cycle, the
    /// last fifth of cosine) or as far as it ever does. `fit` stops the teacher and retraining so: the student's gates need
    /// their whole schedule.
    #[arg(long, value_name = "EPOCHS")]
    pub(super) patience: Option<usize>,
    /// Longest gradient: a longer one is shortened to it; never when left out. 5 steadies the student on a few images.
    #[arg(long, value_name = "NORM")]
    pub(super) clip: Option<f64>,
}

impl Care {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`crate::Error::Config`].
    pub(super) fn check(&self) -> Result<()> {
        if self.patience == Some(0) {
            return Err(crate::Error::config("--patience 0", "at least 1 epoch"));
        }
        if let Some(norm) = self.clip.filter(|norm| !norm.is_finite() || *norm <= 0.0) {
            return Err(crate::Error::config(format!("--clip {norm}"), "a number above 0"));
        }
        Ok(())
    }
}
