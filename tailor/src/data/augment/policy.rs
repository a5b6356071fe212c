//! Published sets of random operations: RandAugment and TrivialAugment.

use super::colour::*;
use super::warp::{rotate, shear_x, shear_y, translate, warp};
use crate::data::Size;
use crate::{Error, Result, random::Random};
use std::{fmt, str::FromStr};

/// A published set of operations. Written `none`, `randaugment:N,M` or `trivial`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// No operations.
    #[default]
    None,
    /// `operations` successive draws from 14 operations, all at one `magnitude` of 0 to 30 (Cubuk et al.,
    /// "RandAugment", 2020).
    RandAugment {
        /// Operations per image.
        operations: usize,
        /// Strength, 0 to 30.
        magnitude: usize,
    },
    /// One of the 14 operations at a random magnitude from a wider range, e.g. rotations by up to 135 degrees
    /// (Müller & Hutter, "TrivialAugment", 2021, the wide space).
    Trivial,
}

/// Largest magnitude: both papers use 31 levels.
const LEVELS: usize = 30;

/// Strength of each operation at the largest magnitude.
struct Reach {
    shear: f64,
    /// Fraction of the image's side.
    translation: f64,
    degrees: f64,
    /// Distance of a factor from 1.
    factor: f64,
    /// Bits removed.
    bits: f64,
}

/// As in torchvision's implementation.
const RAND: Reach = Reach { shear: 0.3, translation: 150.0 / 331.0, degrees: 30.0, factor: 0.9, bits: 4.0 };
/// As in torchvision's implementation, except translations: theirs are 32 pixels, meant for images of 224,
/// whatever the image's size.
const WIDE: Reach = Reach { shear: 0.99, translation: 32.0 / 224.0, degrees: 135.0, factor: 0.99, bits: 6.0 };

/// The operations of both sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Identity,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
    Rotate,
    Brightness,
    Saturation,
    Contrast,
    Sharpness,
    Posterize,
    Solarize,
    AutoContrast,
    Equalize,
}

pub(super) const OPERATIONS: [Operation; 14] = [
    Operation::Identity,
    Operation::ShearX,
    Operation::ShearY,
    Operation::TranslateX,
    Operation::TranslateY,
    Operation::Rotate,
    Operation::Brightness,
    Operation::Saturation,
    Operation::Contrast,
    Operation::Sharpness,
    Operation::Posterize,
    Operation::Solarize,
    Operation::AutoContrast,
    Operation::Equalize,
];

impl Policy {
    /// Changes `image` `(height, width, 3)` in place.
    pub(super) fn apply(self, image: &mut [u8], size: Size, random: &mut Random) {
        match self {
            Policy::None => {}
            Policy::RandAugment { operations, magnitude } => {
                for _ in 0..operations {
                    draw(random, &RAND, Some(magnitude), image, size);
                }
            }
            Policy::Trivial => draw(random, &WIDE, None, image, size),
        }
    }
}

/// Applies a random operation with a random sign, at `magnitude` or a random one.
fn draw(random: &mut Random, reach: &Reach, magnitude: Option<usize>, image: &mut [u8], size: Size) {
    let operation = OPERATIONS[random.below(OPERATIONS.len())];
    let magnitude = magnitude.unwrap_or_else(|| random.below(LEVELS + 1));
    let sign = if random.below(2) == 1 { 1.0 } else { -1.0 };
    operate(operation, reach, magnitude as f64 / LEVELS as f64, sign, image, size);
}

/// Applies `operation` at `strength` (0 to 1) of its reach.
fn operate(operation: Operation, reach: &Reach, strength: f64, sign: f64, image: &mut [u8], size: Size) {
    let Size { height, width } = size;
    let signed = |most: f64| sign * strength * most;
    let factor = || 1.0 + signed(reach.factor) as f32;
    match operation {
        Operation::Identity => {}
        Operation::ShearX => warp(image, size, shear_x(signed(reach.shear))),
        Operation::ShearY => warp(image, size, shear_y(signed(reach.shear))),
        Operation::TranslateX => {
            warp(image, size, translate(signed(reach.translation * width as f64), 0.0));
        }
        Operation::TranslateY => {
            warp(image, size, translate(0.0, signed(reach.translation * height as f64)));
        }
        Operation::Rotate => warp(image, size, rotate(signed(reach.degrees), size)),
        Operation::Brightness => brightness(image, factor()),
        Operation::Saturation => saturation(image, factor()),
        Operation::Contrast => contrast(image, factor()),
        Operation::Sharpness => sharpness(image, size, factor()),
        Operation::Posterize => posterize(image, 8 - (strength * reach.bits).round() as u32),
        Operation::Solarize => solarize(image, 255.0 * (1.0 - strength)),
        Operation::AutoContrast => autocontrast(image),
        Operation::Equalize => equalize(image),
    }
}

/// Applies one RandAugment `operation` at `magnitude`, for tests.
#[cfg(test)]
pub(super) fn rand_augment(operation: Operation, magnitude: usize, sign: f64, image: &mut [u8], size: Size) {
    operate(operation, &RAND, magnitude as f64 / LEVELS as f64, sign, image, size);
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::None => f.write_str("none"),
            Policy::RandAugment { operations, magnitude } => {
                write!(f, "randaugment:{operations},{magnitude}")
            }
            Policy::Trivial => f.write_str("trivial"),
        }
    }
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Policy> {
        let rand_augment = || {
            let (operations, magnitude) = text.strip_prefix("randaugment:")?.split_once(',')?;
            let (operations, magnitude) = (operations.parse().ok()?, magnitude.parse().ok()?);
            (operations > 0 && operations <= OPERATIONS.len() && magnitude <= LEVELS)
                .then_some(Policy::RandAugment { operations, magnitude })
        };
        match text {
            "none" => Ok(Policy::None),
            "trivial" => Ok(Policy::Trivial),
            _ => rand_augment().ok_or_else(|| {
                Error::config(
                    format!("augmentation `{text}`"),
                    "none, trivial, or randaugment:N,M with N operations (1 to 14) of magnitude M (0 to 30)",
                )
            }),
        }
    }
}
