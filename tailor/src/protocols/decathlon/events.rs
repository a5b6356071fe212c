//! The ten tasks of the visual decathlon: baselines, scoring, and augmentation.

use crate::data::{Augment, Jitter, Padding};
use crate::{Error, Result};
use std::fmt;

/// One task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    /// Name of its folder.
    pub name: &'static str,
    /// Accuracy of the challenge's baseline, in percent.
    pub baseline: f64,
    /// Maximum shift in pixels of training images of [`SIZE`] pixels.
    shift: usize,
    /// Whether training images are mirrored.
    flip: bool,
    /// Changes of brightness, contrast and saturation.
    jitter: Jitter,
}

/// Height and width of the challenge's images.
pub const SIZE: usize = 72;

const fn event(name: &'static str, baseline: f64, shift: usize, flip: bool) -> Event {
    Event { name, baseline, shift, flip, jitter: Jitter::NONE }
}

/// The jitter of traffic signs.
const SIGNS: Jitter = Jitter { brightness: 0.5, contrast: 0.2, saturation: 0.2 };

/// The tasks, in the order of the paper's Table 3.
///
/// Baselines are the challenge's; shifts, mirroring and jitter are the authors' (random crops of 64 out of 72
/// pixels are shifts by up to 4, of 72 out of 88 by up to 8).
pub const EVENTS: [Event; 10] = [
    event("imagenet12", 59.87, 4, true),
    event("aircraft", 60.34, 8, true),
    event("cifar100", 82.12, 8, true),
    event("daimlerpedcls", 92.82, 8, true),
    event("dtd", 55.53, 0, true),
    Event { jitter: SIGNS, ..event("gtsrb", 97.53, 8, false) },
    event("vgg-flowers", 81.41, 4, true),
    event("omniglot", 87.69, 4, false),
    event("svhn", 96.55, 4, false),
    event("ucf101", 51.20, 4, true),
];

impl Event {
    /// The task called `name`.
    ///
    /// # Errors
    /// [`Error::Config`], listing all names.
    pub fn named(name: &str) -> Result<&'static Event> {
        EVENTS.iter().find(|event| event.name == name).ok_or_else(|| {
            let known: Vec<&str> = EVENTS.iter().map(|event| event.name).collect();
            Error::config(format!("task `{name}`"), format!("one of {}", known.join(", ")))
        })
    }

    /// Points for an accuracy in percent: `1000 * (max(0, Emax - E) / Emax)^2`, where `E` is the error in
    /// percent and `Emax` is twice the baseline's. The baseline itself scores 250 points.
    pub fn points(&self, accuracy: f64) -> f64 {
        let (error, most) = (100.0 - accuracy, 2.0 * (100.0 - self.baseline));
        1000.0 * ((most - error).max(0.0) / most).powi(2)
    }

    /// Augmentation of its training images at `size` pixels.
    pub fn augment(&self, size: usize) -> Augment {
        let crop_pad = (self.shift * size + SIZE / 2) / SIZE;
        let (padding, flip, jitter) = (Padding::Reflect, self.flip, self.jitter);
        Augment { crop_pad, padding, flip, jitter, ..Augment::default() }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(accuracies: [f64; 10]) -> f64 {
        EVENTS.iter().zip(accuracies).map(|(event, accuracy)| event.points(accuracy)).sum()
    }

    #[test]
    fn points_are_those_worked_out_by_hand() {
        let dtd = Event::named("dtd").unwrap();
        // Emax = 2 * 44.47 = 88.94. 70 % right: E = 30, (58.94 / 88.94)^2 = 0.662694^2 = 0.439163.
        assert!((dtd.points(70.0) - 439.163).abs() < 1e-3, "{}", dtd.points(70.0));
        // At 11.06 % or less: nothing. At 100 %: everything.
        assert_eq!(dtd.points(11.0), 0.0);
        assert_eq!(dtd.points(100.0), 1000.0);
        // Emax = 2 * 2.47 = 4.94. 99 % right: E = 1, (3.94 / 4.94)^2 = 0.797571^2 = 0.636119.
        let gtsrb = Event::named("gtsrb").unwrap();
        assert!((gtsrb.points(99.0) - 636.119).abs() < 1e-2, "{}", gtsrb.points(99.0));
        assert_eq!(gtsrb.points(95.06 - 1e-9), 0.0);
    }

    #[test]
    fn published_accuracies_give_published_scores() {
        // The baselines have half of the maximum error each: 250 points.
        assert!((total(EVENTS.map(|event| event.baseline)) - 2500.0).abs() < 1e-9);
        // Parallel residual adapters (Rebuffi et al., CVPR 2018): 3412, mean 78.07.
        let parallel = [60.32, 64.21, 81.91, 94.73, 58.83, 99.38, 84.68, 89.21, 96.54, 50.94];
        assert_eq!(total(parallel).round(), 3412.0);
        // Deep adaptation networks (Rosenfeld & Tsotsos): 2851, truncated.
        let dan = [57.74, 64.11, 80.07, 91.29, 56.54, 98.46, 86.05, 89.67, 96.77, 49.38];
        assert_eq!(total(dan).floor(), 2851.0);
    }

    #[test]
    fn digits_letters_and_signs_are_never_mirrored() {
        for event in &EVENTS {
            let handed = ["svhn", "omniglot", "gtsrb"].contains(&event.name);
            assert_eq!(event.augment(SIZE).flip, !handed, "{event}");
            event.augment(SIZE).check(SIZE).unwrap();
        }
        let shift = |name: &str, size| Event::named(name).unwrap().augment(size).crop_pad;
        assert_eq!([shift("aircraft", 72), shift("svhn", 72), shift("dtd", 72)], [8, 4, 0]);
        assert_eq!([shift("aircraft", 36), shift("svhn", 18)], [4, 1]);
        let error = Event::named("mnist").unwrap_err().to_string();
        assert!(error.contains("`mnist`") && error.contains("vgg-flowers"), "{error}");
    }
}
