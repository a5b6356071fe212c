//! Learning rate as a function of progress.

use crate::{Error, Result};
use std::{fmt, str::FromStr};

/// A learning-rate schedule. Written `one-cycle:0.05`, `step:0.01,20,0.1` (rate, epochs, factor) or
/// `cosine:0.01`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// Rises from a 25th of `peak` over the first 30 % of the steps, falls to nearly zero over the rest, both
    /// along half a cosine (Smith & Topin, 2017).
    OneCycle {
        /// Highest rate.
        peak: f64,
    },
    /// `rate`, multiplied by `factor` after every `every` epochs.
    Step {
        /// First rate.
        rate: f64,
        /// Epochs between drops.
        every: usize,
        /// Multiplier of a drop.
        factor: f64,
    },
    /// From `rate` to zero along half a cosine.
    Cosine {
        /// First rate.
        rate: f64,
    },
}

/// Share of a one-cycle run spent rising.
const WARM_UP: f64 = 0.3;

impl Schedule {
    /// Rate at step `step` of `steps` steps (`epochs` epochs in all).
    pub fn rate(&self, step: usize, steps: usize, epochs: usize) -> f64 {
        let progress = if steps > 1 { step as f64 / (steps - 1) as f64 } else { 1.0 };
        match *self {
            Schedule::OneCycle { peak } if progress < WARM_UP => {
                between(peak / 25.0, peak, progress / WARM_UP)
            }
            Schedule::OneCycle { peak } => {
                between(peak, peak / 250_000.0, (progress - WARM_UP) / (1.0 - WARM_UP))
            }
            Schedule::Step { rate, every, factor } => {
                let epoch = step * epochs / steps.max(1);
                rate * factor.powi((epoch / every.max(1)) as i32)
            }
            Schedule::Cosine { rate } => between(rate, 0.0, progress),
        }
    }
}

/// From `a` (at 0) to `b` (at 1) along half a cosine.
fn between(a: f64, b: f64, t: f64) -> f64 {
    b + (a - b) * 0.5 * (1.0 + (std::f64::consts::PI * t.clamp(0.0, 1.0)).cos())
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::OneCycle { peak } => write!(f, "one-cycle:{peak}"),
            Schedule::Step { rate, every, factor } => write!(f, "step:{rate},{every},{factor}"),
            Schedule::Cosine { rate } => write!(f, "cosine:{rate}"),
        }
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Schedule> {
        let parsed = || {
            let (kind, numbers) = text.split_once(':')?;
            let numbers: Vec<f64> = numbers.split(',').map(|n| n.parse().ok()).collect::<Option<_>>()?;
            if numbers.iter().any(|n| !n.is_finite() || *n <= 0.0) {
                return None;
            }
            match (kind, numbers.as_slice()) {
                ("one-cycle", &[peak]) => Some(Schedule::OneCycle { peak }),
                ("cosine", &[rate]) => Some(Schedule::Cosine { rate }),
                ("step", &[rate, every, factor]) if every.fract() == 0.0 => {
                    Some(Schedule::Step { rate, every: every as usize, factor })
                }
                _ => None,
            }
        };
        parsed().ok_or_else(|| {
            Error::config(
                format!("schedule `{text}`"),
                "one-cycle:PEAK, cosine:RATE or step:RATE,EPOCHS,FACTOR with positive numbers",
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
        ];
        for (text, step, want) in cases {
            let schedule: Schedule = text.parse().unwrap();
            let got = schedule.rate(step, 101, 5);
            assert!((got - want).abs() < 1e-9, "{text} at {step}: {got}, not {want}");
            assert_eq!(schedule.to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_forms_that_exist() {
        for text in
            ["", "one-cycle", "one-cycle:-1", "step:0.1", "step:0.1,1.5,0.1", "linear:0.1", "cosine:x"]
        {
            let error = text.parse::<Schedule>().unwrap_err().to_string();
            assert!(error.contains("one-cycle:PEAK"), "{error}");
        }
    }
}
