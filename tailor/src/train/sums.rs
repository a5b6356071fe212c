//! Running sums of one epoch, which are saved in the checkpoint of an interrupted epoch.

use super::{Record, Score, StepLoss, right};
use crate::Result;
use candle_core::Tensor;
use std::{fmt, str::FromStr};

/// Sums over the steps of one epoch so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sums {
    images: usize,
    /// Steps taken.
    pub(super) steps: usize,
    right: usize,
    loss: f64,
    classification: f64,
    complexity: Option<f64>,
    matching: Option<f64>,
    distillation: Option<f64>,
    /// Seconds spent in steps.
    pub(super) seconds: f64,
}

impl Sums {
    /// Adds one step on `labels` `(n,)`.
    ///
    /// # Errors
    /// If a number cannot be read from its device.
    pub(super) fn add(&mut self, step: &StepLoss, labels: &Tensor) -> Result<()> {
        self.images += labels.dim(0)?;
        self.steps += 1;
        self.right += right(&step.logits, labels)?;
        self.loss += scalar(&step.total)?;
        self.classification += scalar(&step.terms.classification)?;
        self.complexity = add(self.complexity, &step.terms.complexity)?;
        self.matching = add(self.matching, &step.terms.matching)?;
        self.distillation = add(self.distillation, &step.terms.distillation)?;
        Ok(())
    }

    /// Whether the loss was finite at every step.
    pub(super) fn is_finite(&self) -> bool {
        self.loss.is_finite()
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.steps.max(1) as f64
    }

    fn accuracy(&self) -> f64 {
        self.right as f64 / self.images.max(1) as f64
    }

    fn speed(&self) -> f64 {
        self.images as f64 / self.seconds.max(1e-9)
    }

    /// The progress line for the user; `last` is the latest validation.
    pub(super) fn line(&self, last: Score) -> String {
        let mut line = format!("ce {:.3}", self.mean(self.classification));
        if let Some(sum) = self.complexity {
            line += &format!("  cost {:.3}", self.mean(sum));
        }
        if let Some(sum) = self.matching {
            line += &format!("  match {:.4}", self.mean(sum));
        }
        if let Some(sum) = self.distillation {
            line += &format!("  distil {:.3}", self.mean(sum));
        }
        line += &format!("  train {:.1} %", 100.0 * self.accuracy());
        if last.n > 0 {
            line += &format!("  val {:.1} %", 100.0 * last.accuracy());
        }
        line + &format!("  {:.0} img/s", self.speed())
    }

    pub(super) fn record(&self, stage: &str, epoch: usize, rate: f64, score: Score) -> Record {
        Record {
            stage: stage.into(),
            epoch,
            rate,
            loss: self.mean(self.loss),
            classification: self.mean(self.classification),
            complexity: self.complexity.map(|sum| self.mean(sum)),
            matching: self.matching.map(|sum| self.mean(sum)),
            distillation: self.distillation.map(|sum| self.mean(sum)),
            train_accuracy: self.accuracy(),
            val_accuracy: (score.n > 0).then(|| score.accuracy()),
            images_per_second: self.speed(),
            seconds: self.seconds,
        }
    }
}

fn scalar(x: &Tensor) -> Result<f64> {
    Ok(f64::from(x.to_scalar::<f32>()?))
}

fn add(sum: Option<f64>, term: &Option<Tensor>) -> Result<Option<f64>> {
    match term {
        Some(term) => Ok(Some(sum.unwrap_or(0.0) + scalar(term)?)),
        None => Ok(sum),
    }
}

/// Exact: Rust prints floating-point numbers so that parsing restores every bit.
impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let optional = |x: Option<f64>| x.map_or_else(|| "-".into(), |x| x.to_string());
        write!(
            f,
            "{} {} {} {} {} {} {} {} {}",
            self.images,
            self.steps,
            self.right,
            self.loss,
            self.classification,
            optional(self.complexity),
            optional(self.matching),
            optional(self.distillation),
            self.seconds
        )
    }
}

impl FromStr for Sums {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Sums, ()> {
        fn number<T: FromStr>(text: &str) -> std::result::Result<T, ()> {
            text.parse().map_err(drop)
        }
        let optional = |text: &str| if text == "-" { Ok(None) } else { number(text).map(Some) };
        let parts: Vec<&str> = text.split(' ').collect();
        let [images, steps, right, loss, classification, complexity, matching, distillation, seconds] =
            parts[..]
        else {
            return Err(());
        };
        Ok(Sums {
            images: number(images)?,
            steps: number(steps)?,
            right: number(right)?,
            loss: number(loss)?,
            classification: number(classification)?,
            complexity: optional(complexity)?,
            matching: optional(matching)?,
            distillation: optional(distillation)?,
            seconds: number(seconds)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_come_back_bit_for_bit() {
        let sums = Sums {
            images: 96,
            steps: 3,
            right: 40,
            loss: 0.1 + 0.2,
            classification: 1.0 / 3.0,
            complexity: None,
            matching: Some(1e-17),
            distillation: Some(2.0 / 3.0),
            seconds: 12.345_678_901_234_5,
        };
        assert_eq!(sums.to_string().parse(), Ok(sums));
        assert_eq!(Sums::default().to_string().parse(), Ok(Sums::default()));
        for text in ["", "1 2 3", "1 2 3 4 5 6 7 8 x"] {
            assert_eq!(text.parse::<Sums>(), Err(()), "{text}");
        }
    }
}
