//! Options shared by training commands: sampling and augmentation, safeguards for small data sets, memory, and
//! candidates retrained side by side.

use crate::data::{self, Augment, Jitter, Padding, Policy};
use crate::fit::{Recipe, Search};
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
    /// Augmentation policy: none, randaugment:N,M (N operations, all of magnitude M up to 30: shears, shifts,
    /// rotations by M degrees either way, colours; 2,9 is common), or trivial (TrivialAugment: one operation of
    /// random strength, rotations up to 135 degrees). Neither flips.
    #[arg(long, value_name = "POLICY", default_value_t)]
    augment: Policy,
    /// Colour jitter: random changes of brightness, contrast and saturation by up to this fraction, or by
    /// three, comma-separated; 0.3 is common [default: 0; each task's own in `protocol decathlon`].
    #[arg(long, value_name = "FRACTION")]
    jitter: Option<Jitter>,
    /// Random erasing: probability that a rectangle of a training image is replaced by noise; 0.25 is common.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    erase: f32,
    /// Class-balanced sampling: every class is drawn equally often, however many images it has.
    #[arg(long)]
    pub(super) balance: bool,
}

impl Images {
    /// These options over a recipe's `default`, whose flips stay.
    pub(super) fn augment(&self, default: Augment) -> Augment {
        Augment {
            crop_pad: self.crop.unwrap_or(default.crop_pad),
            padding: self.padding.unwrap_or(default.padding),
            flip: self.flip || default.flip,
            policy: self.augment,
            jitter: self.jitter.unwrap_or(default.jitter),
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

/// How much memory images may take.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Memory {
    /// Most memory, in GiB, for the decoded images of one data set: three bytes for each pixel at the size that
    /// the network sees. Training itself takes more besides.
    #[arg(
        long,
        value_name = "GIB",
        default_value_t = data::Memory::DEFAULT,
        value_parser = gib
    )]
    memory: u16,
}

fn gib(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|gib| *gib > 0).ok_or_else(|| "a whole number of GiB, at least 1".into())
}

impl Memory {
    pub(super) fn allowed(self) -> data::Memory {
        data::Memory::option(self.memory)
    }
}

/// How many candidates are retrained at the same time.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Jobs {
    /// Sweep candidates to retrain in parallel [default: one per core; one on a GPU].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
}

impl Jobs {
    /// Rejects the option for searches that retrain one candidate at a time.
    pub(super) fn check(self, recipe: &Recipe) -> Result<()> {
        match self.jobs.filter(|_| recipe.search != Search::Sweep) {
            None => Ok(()),
            Some(jobs) => {
                let want = "has no effect unless --search sweep retrains several candidates at a time";
                Err(Error::config(format!("--jobs {jobs}"), want))
            }
        }
    }

    /// Their number, if it was given.
    pub(super) fn count(self) -> Option<usize> {
        self.jobs.map(usize::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        images: Images,
    }

    #[test]
    fn no_jitter_is_more_than_none_given() {
        let signs = Augment { jitter: Jitter::all(0.5), ..Augment::default() };
        let of = |more: &[&str]| {
            let line = Line::try_parse_from([&["tailor"], more].concat()).unwrap();
            line.images.augment(signs).jitter
        };
        assert_eq!(of(&[]), signs.jitter);
        assert_eq!(of(&["--jitter", "0"]), Jitter::NONE);
        assert_eq!(of(&["--jitter", "0.3"]), Jitter::all(0.3));
    }
}
