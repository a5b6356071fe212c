//! Random augmentation of training images, on 8-bit pixels before normalisation.
//!
//! Every change is drawn from a key (seed, epoch, image, earlier occurrences of the image in this epoch), so
//! a resumed run sees the same images as an uninterrupted one.

mod colour;
mod jitter;
mod policy;
#[cfg(test)]
mod tests;
mod warp;

pub use jitter::Jitter;
pub use policy::Policy;
pub use warp::Padding;

use super::Size;
use crate::{Error, Result, random::Random};
use colour::{brightness, contrast, saturation};
use std::fmt;

/// Random changes applied to every training image, in this order. Only [`flip`](Augment::flip) mirrors.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Augment {
    /// Shifts by up to this many pixels in both directions.
    pub crop_pad: usize,
    /// What shifts fill the border with.
    pub padding: Padding,
    /// Mirrors left and right with probability one half. Not for text, signs or anything with a handedness.
    pub flip: bool,
    /// Published set of operations, some of them geometric.
    pub policy: Policy,
    /// Changes of brightness, contrast and saturation, in random order.
    pub jitter: Jitter,
    /// Probability of replacing a rectangle with noise (Zhong et al., "Random Erasing", AAAI 2020), with areas and
    /// aspect ratios drawn as in torchvision.
    pub erase: f32,
}

/// Keep the random streams of one seed independent.
const SHIFT: u64 = 0x6175_676d;
const CHANGE: u64 = 0x6368_616e;

impl fmt::Display for Augment {
    /// Every change as the name of its option and its value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Augment { crop_pad, padding: _, flip, policy, jitter, erase } = self;
        let padding = self.border().map_or("off", Padding::name);
        write!(
            f,
            "crop {crop_pad} padding {padding} flip {flip} augment {policy} jitter {jitter} erase {erase}"
        )
    }
}

impl Augment {
    /// What fills the border; `None` if nothing is shifted.
    pub fn border(&self) -> Option<Padding> {
        (self.crop_pad > 0).then_some(self.padding)
    }

    /// Rejects shifts that would leave little of an image of `size` pixels, and strengths outside 0 to 1.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self, size: usize) -> Result<()> {
        if self.crop_pad > size / 2 {
            let want = format!("at most {}, half of the {size} pixels of an image", size / 2);
            return Err(Error::config(format!("--crop {}", self.crop_pad), want));
        }
        let is_fraction = |value: &f32| (0.0..=1.0).contains(value);
        if !self.jitter.strengths().iter().all(is_fraction) {
            return Err(Error::config(format!("--jitter {}", self.jitter), "fractions from 0 to 1"));
        }
        if !is_fraction(&self.erase) {
            return Err(Error::config(format!("--erase {}", self.erase), "a fraction from 0 to 1"));
        }
        Ok(())
    }

    /// Writes the augmented `pixels` `(size.height, size.width, 3)` to `out`, which gets the same length.
    ///
    /// `key` is seed, epoch, image and the image's earlier occurrences in this epoch.
    pub(super) fn apply(&self, pixels: &[u8], size: Size, key: [u64; 4], out: &mut Vec<u8>) {
        let [seed, epoch, index, before] = key;
        let stream = |purpose| match before {
            0 => Random::new(&[seed, purpose, epoch, index]),
            _ => Random::new(&[seed, purpose, epoch, index, before]),
        };
        let mut random = stream(SHIFT);
        let mut shift = || random.below(2 * self.crop_pad + 1) as isize - self.crop_pad as isize;
        let (down, right) = (shift(), shift());
        let mirror = self.flip && random.below(2) == 1;
        warp::shift(pixels, size, (down, right), mirror, self.padding, out);

        let mut random = stream(CHANGE);
        self.policy.apply(out, size, &mut random);
        if self.jitter != Jitter::NONE {
            let changes: [fn(&mut [u8], f32); 3] = [brightness, contrast, saturation];
            let [one, two, three] = self.jitter.strengths();
            let mut steps = [(changes[0], one), (changes[1], two), (changes[2], three)];
            random.shuffle(&mut steps);
            for (change, strength) in steps {
                change(out, 1.0 + strength * (2.0 * random.unit() as f32 - 1.0));
            }
        }
        if self.erase > 0.0 && random.unit() < f64::from(self.erase) {
            erase(out, size, &mut random);
        }
    }
}

/// Fractions of the image an erased rectangle may cover, and its aspect ratios (height over width): torchvision's,
/// which draws the logarithm of the ratio uniformly. The paper erases up to 0.4 of the image.
const ERASED_AREA: (f64, f64) = (0.02, 0.33);
const ERASED_ASPECT: (f64, f64) = (0.3, 3.3);
/// Attempts to fit a rectangle before leaving the image unchanged.
const ERASE_TRIES: usize = 10;

/// Fills one rectangle with noise.
fn erase(pixels: &mut [u8], size: Size, random: &mut Random) {
    let between = |(low, high): (f64, f64), t: f64| low + (high - low) * t;
    for _ in 0..ERASE_TRIES {
        let area = size.area() as f64 * between(ERASED_AREA, random.unit());
        let (low, high) = ERASED_ASPECT;
        let aspect = between((low.ln(), high.ln()), random.unit()).exp();
        let (height, width) =
            ((area * aspect).sqrt().round() as usize, (area / aspect).sqrt().round() as usize);
        if height == 0 || width == 0 || height > size.height || width > size.width {
            continue;
        }
        let (top, left) = (random.below(size.height - height + 1), random.below(size.width - width + 1));
        for y in top..top + height {
            let start = 3 * (y * size.width + left);
            for value in &mut pixels[start..start + 3 * width] {
                *value = random.below(256) as u8;
            }
        }
        return;
    }
}
