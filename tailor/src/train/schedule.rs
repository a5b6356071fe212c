//! Learning-rate schedules.

use crate::{Error, Result};
use std::{fmt, str::FromStr};

/// A learning-rate schedule: `one-cycle:0.05`, `step:0.01,20,0.1` (rate, epochs, factor) or `cosine:0.01`.
/// The last two may end in `,warm-up=2`: over that many first epochs, the rate rises linearly from zero to
/// meet the schedule (Goyal et al., 2017). One-cycle has a warm-up of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Rises from 1/25 of `peak` over the first 30 % of the steps, then falls to nearly zero, both along half
    /// a cosine (Smith & Topin, 2017).
    OneCycle {
        /// Highest rate.
        peak: f64,
    },
    /// `rate`, multiplied by `factor` after every `every` epochs.
    Step {
        /// Initial rate.
        rate: f64,
        /// Epochs between drops.
        every: usize,
        /// Factor of each drop.
        factor: f64,
        /// Warm-up epochs; they count towards the epochs between drops.
        warm_up: usize,
    },
    /// From `rate` to zero along half a cosine.
    Cosine {
        /// Initial rate.
        rate: f64,
        /// Warm-up epochs.
        warm_up: usize,
    },
}

/// Fraction of a one-cycle run in which the rate rises.
const WARM_UP: f64 = 0.3;

/// Fraction of the highest rate at or below which a rate counts as low.
const ANNEALED: f64 = 0.1;

impl Schedule {
    /// Learning rate at step `step` of `steps` (`epochs` epochs in all).
    pub fn rate(&self, step: usize, steps: usize, epochs: usize) -> f64 {
        let progress = if steps > 1 { step as f64 / (steps - 1) as f64 } else { 1.0 };
        let rate = match *self {
            Schedule::OneCycle { peak } if progress < WARM_UP => {
                between(peak / 25.0, peak, progress / WARM_UP)
            }
            Schedule::OneCycle { peak } => {
                between(peak, peak / 250_000.0, (progress - WARM_UP) / (1.0 - WARM_UP))
            }
            Schedule::Step { rate, every, factor, .. } => {
                let epoch = step * epochs / steps.max(1);
                rate * factor.powi((epoch / every.max(1)) as i32)
            }
            Schedule::Cosine { rate, .. } => between(rate, 0.0, progress),
        };
        // All epochs have the same number of steps.
        let rising = self.warm_up() * steps / epochs.max(1);
        if step < rising { rate * (step + 1) as f64 / rising as f64 } else { rate }
    }

    /// Whether the rate is low in epoch `epoch` (from 0) of `epochs`: at most a tenth of the highest before
    /// it, or at its final value. Before that, validation says little: it often stagnates while the rate is
    /// high and improves once it falls.
    pub(super) fn is_annealed(&self, epoch: usize, epochs: usize) -> bool {
        let rate = |epoch| self.rate(epoch, epochs, epochs);
        let (now, highest) = (rate(epoch), (0..=epoch).map(rate).fold(0.0, f64::max));
        now <= ANNEALED * highest || (epoch..epochs).all(|later| rate(later) == now)
    }

    /// Warm-up epochs.
    fn warm_up(&self) -> usize {
        match *self {
            Schedule::OneCycle { .. } => 0,
            Schedule::Step { warm_up, .. } | Schedule::Cosine { warm_up, .. } => warm_up,
        }
    }

    /// Refuses a schedule whose first drop, or whose end of the warm-up, lies beyond the `epochs` of the run.
    /// `option` is the command-line option it was given for.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self, epochs: usize, option: &str) -> Result<()> {
        let refuse = |want: String| Err(Error::config(format!("{option} {self}"), want));
        if let Schedule::Step { every, .. } = *self
            && every >= epochs
        {
            return refuse(format!(
                "fewer than {epochs} epochs between drops, or longer training: in {epochs} epochs it never drops"
            ));
        }
        if self.warm_up() > 0 && self.warm_up() >= epochs {
            return refuse(format!(
                "a shorter warm-up or longer training: {epochs} epochs end before the warm-up does"
            ));
        }
        Ok(())
    }
}

/// Interpolates from `a` (at 0) to `b` (at 1) along half a cosine.
fn between(a: f64, b: f64, t: f64) -> f64 {
    b + (a - b) * 0.5 * (1.0 + (std::f64::consts::PI * t.clamp(0.0, 1.0)).cos())
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::OneCycle { peak } => write!(f, "one-cycle:{peak}"),
            Schedule::Step { rate, every, factor, .. } => write!(f, "step:{rate},{every},{factor}"),
            Schedule::Cosine { rate, .. } => write!(f, "cosine:{rate}"),
        }?;
        match self.warm_up() {
            0 => Ok(()),
            epochs => write!(f, ",{WARM_UP_WORD}={epochs}"),
        }
    }
}

/// Keyword of the warm-up.
const WARM_UP_WORD: &str = "warm-up";

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Schedule> {
        let parsed = || {
            let (kind, rest) = text.split_once(':')?;
            let (mut numbers, mut warm_up) = (Vec::new(), 0);
            for part in rest.split(',') {
                match part.split_once('=') {
                    // The warm-up comes last, and only once.
                    _ if warm_up > 0 => return None,
                    Some((WARM_UP_WORD, epochs)) => {
                        warm_up = epochs.parse().ok().filter(|&epochs: &usize| epochs > 0)?;
                    }
                    Some(_) => return None,
                    None => numbers.push(part.parse::<f64>().ok().filter(|n| n.is_finite() && *n > 0.0)?),
                }
            }
            match (kind, numbers.as_slice()) {
                ("one-cycle", &[peak]) if warm_up == 0 => Some(Schedule::OneCycle { peak }),
                ("cosine", &[rate]) => Some(Schedule::Cosine { rate, warm_up }),
                ("step", &[rate, every, factor]) if every.fract() == 0.0 => {
                    Some(Schedule::Step { rate, every: every as usize, factor, warm_up })
                }
                _ => None,
            }
        };
        parsed().ok_or_else(|| {
            Error::config(
                format!("schedule `{text}`"),
                "one-cycle:PEAK, cosine:RATE or step:RATE,EPOCHS,FACTOR with positive numbers, the last two with \
                 an optional ,warm-up=EPOCHS at the end",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_their_schedule() {
        let cases = [
            ("one-cycle:0.5", 0, 0.02),
            ("one-cycle:0.5", 30, 0.5),
            ("one-cycle:0.5", 100, 0.5 / 250_000.0),
            ("cosine:0.1", 0, 0.1),
            ("cosine:0.1", 50, 0.05),
            ("cosine:0.1", 100, 0.0),
            ("step:0.1,2,0.1", 39, 0.1),
            ("step:0.1,2,0.1", 41, 0.01),
            ("step:0.1,2,0.1", 100, 0.001),
            ("step:0.1,2,0.1,warm-up=1", 0, 0.005),
            ("step:0.1,2,0.1,warm-up=1", 19, 0.1),
            ("step:0.1,2,0.1,warm-up=1", 41, 0.01),
            ("cosine:0.1,warm-up=3", 29, 0.5 * between(0.1, 0.0, 0.29)),
            ("cosine:0.1,warm-up=3", 60, between(0.1, 0.0, 0.6)),
        ];
        for (text, step, want) in cases {
            let schedule: Schedule = text.parse().unwrap();
            let got = schedule.rate(step, 101, 5);
            assert!((got - want).abs() < 1e-9, "{text} at {step}: {got}, not {want}");
            assert_eq!(schedule.to_string(), text);
        }
    }

    #[test]
    fn a_rate_is_annealed_once_it_is_low_for_good() {
        // (schedule, epochs, the first annealed epoch, from 0)
        for (text, epochs, first) in [
            ("one-cycle:0.05", 24, 20),
            ("one-cycle:0.05", 240, 205),
            ("one-cycle:0.05", 1, 0),
            ("cosine:0.1", 101, 80),
            ("cosine:0.1,warm-up=30", 101, 82),
            ("step:0.01,20,0.1", 60, 20),
            ("step:0.01,20,0.5", 60, 40),
            ("step:0.01,20,0.9,warm-up=19", 60, 40),
        ] {
            let schedule: Schedule = text.parse().unwrap();
            let annealed: Vec<bool> = (0..epochs).map(|epoch| schedule.is_annealed(epoch, epochs)).collect();
            let want: Vec<bool> = (0..epochs).map(|epoch| epoch >= first).collect();
            assert_eq!(annealed, want, "{text} in {epochs} epochs");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_forms_that_exist() {
        for text in [
            "",
            "one-cycle",
            "one-cycle:-1",
            "step:0.1",
            "step:0.1,1.5,0.1",
            "linear:0.1",
            "cosine:x",
            "one-cycle:0.1,warm-up=2",
            "cosine:0.1,warm-up=0",
            "cosine:warm-up=2,0.1",
            "cosine:0.1,cool=2",
        ] {
            let error = text.parse::<Schedule>().unwrap_err().to_string();
            assert!(error.contains("one-cycle:PEAK"), "{error}");
        }
    }

    #[test]
    fn schedules_that_never_take_effect_are_refused() {
        for (text, epochs, fine) in [
            ("step:0.1,20,0.1", 21, true),
            ("step:0.1,20,0.1", 20, false),
            ("cosine:0.1,warm-up=2", 3, true),
            ("cosine:0.1,warm-up=2", 2, false),
            ("one-cycle:0.1", 1, true),
        ] {
            let schedule: Schedule = text.parse().unwrap();
            match schedule.check(epochs, "--rate") {
                Ok(()) => assert!(fine, "{text} in {epochs} epochs"),
                Err(error) => {
                    let message = error.to_string();
                    assert!(!fine && message.starts_with(&format!("--rate {text}")), "{message}");
                }
            }
        }
    }
}
