//! The epoch loop every training stage runs through: steps, running statistics, validation, checkpoint.

use super::evaluate::right;
use super::{Checkpoint, Log, Record, Schedule, Score, Sgd, StepLoss};
use crate::data::{Batch, Batches};
use crate::net::Params;
use crate::progress::Progress;
use crate::{Error, Result};
use candle_core::Tensor;
use std::path::Path;
use std::time::Instant;

/// The moving parts of a stage: its data, its loss, its validation.
pub struct Train<'a> {
    /// Steps of one epoch.
    pub steps: usize,
    /// Training batches of an epoch (from 0). A function of the epoch alone, so that a resumed run sees the
    /// same images.
    pub batches: &'a dyn Fn(usize) -> Result<Batches>,
    /// Loss of one batch.
    pub loss: &'a dyn Fn(&Params, &Batch) -> Result<StepLoss>,
    /// Accuracy on the validation split.
    pub validate: &'a dyn Fn(&Params) -> Result<Score>,
}

/// How long and how fast to train, and what to leave on disk.
pub struct Course<'a> {
    /// Name of the stage in progress, logs and checkpoint.
    pub stage: &'a str,
    /// Everything that shapes the run, written out.
    pub fingerprint: &'a str,
    /// Epochs.
    pub epochs: usize,
    /// Learning rate.
    pub schedule: Schedule,
    /// Momentum of the optimiser.
    pub momentum: f64,
    /// Weight decay on everything but alpha logits.
    pub decay: f64,
    /// Where the run is kept, if anywhere.
    pub checkpoint: Option<&'a Path>,
    /// Where epochs are recorded, if anywhere.
    pub log: Option<&'a Log>,
    /// What a person sees meanwhile.
    pub progress: &'a Progress,
}

impl Course<'_> {
    /// Trains `params` to the end of the course and returns the last validation score. Continues from the
    /// checkpoint when there is one of the same run; the result is the same as without interruption.
    ///
    /// # Errors
    /// [`Error::Training`] when the loss stops being a number; whatever data, loss or disk report.
    pub fn run(&self, params: &mut Params, train: &Train<'_>) -> Result<Score> {
        let mut sgd = Sgd::new(self.momentum, self.decay);
        let (start, mut score) = self.resume(params, &mut sgd)?;
        let total = self.epochs * train.steps;
        let bar = self.progress.stage(self.stage, total as u64, (start * train.steps) as u64);
        for epoch in start..self.epochs {
            let clock = Instant::now();
            let mut sums = Sums::default();
            let mut rate = 0.0;
            for (step, batch) in (train.batches)(epoch)?.enumerate() {
                let batch = batch?;
                let StepLoss { total: loss, terms, logits, stats } = (train.loss)(params, &batch)?;
                rate = self.schedule.rate(epoch * train.steps + step, total, self.epochs);
                sgd.step(params, &loss.backward()?, rate)?;
                for stat in stats {
                    params.track(&stat.norm, &stat.mean, &stat.var)?;
                }
                sums.images += batch.labels.dim(0)?;
                sums.steps += 1;
                sums.right += right(&logits, &batch.labels)?;
                sums.loss += scalar(&loss)?;
                sums.classification += scalar(&terms.classification)?;
                sums.complexity = add(sums.complexity, &terms.complexity)?;
                sums.matching = add(sums.matching, &terms.matching)?;
                if !sums.loss.is_finite() {
                    return Err(Error::training(
                        format!("{}, epoch {}, step {}", self.stage, epoch + 1, step + 1),
                        "the loss is no longer a number",
                        "lower the learning rate",
                    ));
                }
                bar.step(|| sums.line(epoch + 1, self.epochs, clock.elapsed().as_secs_f64(), score));
            }
            let seconds = clock.elapsed().as_secs_f64();
            score = (train.validate)(params)?;
            let record = sums.record(self.stage, epoch + 1, rate, seconds, score);
            if let Some(log) = self.log {
                log.rewind(self.stage, epoch)?;
                log.append(&record)?;
            }
            if let Some(path) = self.checkpoint {
                self.here(epoch + 1, score).write(path, params, &sgd)?;
            }
        }
        bar.finish(&format!("validation {:.1} %", 100.0 * score.accuracy()));
        Ok(score)
    }

    fn here(&self, epoch: usize, score: Score) -> Checkpoint {
        Checkpoint {
            stage: self.stage.into(),
            fingerprint: self.fingerprint.into(),
            epoch,
            epochs: self.epochs,
            validation: (score.right, score.n),
        }
    }

    fn resume(&self, params: &mut Params, sgd: &mut Sgd) -> Result<(usize, Score)> {
        let Some(path) = self.checkpoint else { return Ok((0, Score::default())) };
        let Some(found) = Checkpoint::peek(path)? else { return Ok((0, Score::default())) };
        if found.stage != self.stage || found.fingerprint != self.fingerprint || found.epochs != self.epochs {
            return Err(Error::training(
                path.display(),
                "a run with other options was begun here",
                "repeat its options, remove the file, or choose another work folder",
            ));
        }
        let device = params.iter().next().map(|(_, t)| t.device().clone());
        Checkpoint::restore(path, params, sgd, &device.unwrap_or(candle_core::Device::Cpu))?;
        let (right, n) = found.validation;
        Ok((found.epoch, Score { right, n }))
    }
}

/// Running sums of one epoch.
#[derive(Default)]
struct Sums {
    images: usize,
    steps: usize,
    right: usize,
    loss: f64,
    classification: f64,
    complexity: Option<f64>,
    matching: Option<f64>,
}

impl Sums {
    fn mean(&self, sum: f64) -> f64 {
        sum / self.steps.max(1) as f64
    }

    fn line(&self, epoch: usize, epochs: usize, seconds: f64, last: Score) -> String {
        let mut line = format!("epoch {epoch}/{epochs}  ce {:.3}", self.mean(self.classification));
        if let Some(sum) = self.complexity {
            line += &format!("  cost {:.3}", self.mean(sum));
        }
        if let Some(sum) = self.matching {
            line += &format!("  match {:.4}", self.mean(sum));
        }
        let accuracy = 100.0 * self.right as f64 / self.images.max(1) as f64;
        line += &format!("  train {accuracy:.1} %");
        if last.n > 0 {
            line += &format!("  val {:.1} %", 100.0 * last.accuracy());
        }
        line + &format!("  {:.0} img/s", self.images as f64 / seconds.max(1e-9))
    }

    fn record(&self, stage: &str, epoch: usize, rate: f64, seconds: f64, score: Score) -> Record {
        Record {
            stage: stage.into(),
            epoch,
            rate,
            loss: self.mean(self.loss),
            classification: self.mean(self.classification),
            complexity: self.complexity.map(|sum| self.mean(sum)),
            matching: self.matching.map(|sum| self.mean(sum)),
            train_accuracy: self.right as f64 / self.images.max(1) as f64,
            val_accuracy: score.accuracy(),
            images_per_second: self.images as f64 / seconds.max(1e-9),
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
