//! The training loop shared by all stages: steps, running statistics, validation, checkpoints.

use super::best::Best;
use super::clip::clip;
use super::{Checkpoint, Log, Schedule, Score, Sgd, StepLoss, Sums};
use crate::data::{Batch, Batches};
use crate::net::Params;
use crate::ops;
use crate::progress::{Progress, duration};
use crate::{Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longer epochs are checkpointed at this interval, so that a power cut costs no more than that.
const KEEP_EVERY: Duration = Duration::from_secs(120);

/// What differs between stages: data, loss and validation.
pub struct Train<'a> {
    /// Steps per epoch.
    pub steps: usize,
    /// Training batches of an epoch (counted from 0). A function of the epoch alone, so that a resumed run
    /// sees the same images.
    pub batches: &'a dyn Fn(usize) -> Result<Batches>,
    /// Loss of one batch.
    pub loss: &'a dyn Fn(&Params, &Batch) -> Result<StepLoss>,
    /// Accuracy on the validation split. May fail with [`Error::Interrupted`]; it is then called again when
    /// the run resumes.
    pub validate: &'a dyn Fn(&Params) -> Result<Score>,
}

/// The training loop of one stage: its schedule, optimiser options and outputs.
pub struct Course<'a> {
    /// Name of the stage in progress output, logs and checkpoint.
    pub stage: &'a str,
    /// Everything that shapes the run, as text.
    pub fingerprint: &'a str,
    /// Number of epochs.
    pub epochs: usize,
    /// Learning rate.
    pub schedule: Schedule,
    /// Momentum of the optimiser.
    pub momentum: f64,
    /// Weight decay of everything but alpha logits.
    pub decay: f64,
    /// Maximum gradient norm; longer gradients are scaled down.
    pub clip: Option<f64>,
    /// Early stopping: training ends after this many epochs without better validation, counted among those in
    /// which the learning rate is low, and the best epoch's parameters are kept. Without it, the last epoch's
    /// are.
    pub patience: Option<usize>,
    /// File of the checkpoint, if one is kept.
    pub checkpoint: Option<&'a Path>,
    /// Log for the epochs' metrics, if any.
    pub log: Option<&'a Log>,
    /// Progress shown to the user.
    pub progress: &'a Progress,
}

/// The position of a run.
#[derive(Default)]
struct At {
    /// Epochs done.
    epoch: usize,
    /// Running sums of the current epoch.
    sums: Sums,
    /// The latest validation score.
    score: Score,
    /// The best epoch, with early stopping.
    best: Option<Best>,
}

impl Course<'_> {
    /// Trains `params` to the end of the schedule, or until patience runs out, and returns the validation
    /// score of the result. Resumes from the checkpoint if it belongs to the same run, mid-epoch if need be;
    /// the result is the same as without interruption.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if a stop was requested, after the run has been saved; [`Error::Diverged`] if
    /// loss or network are no longer finite; any error of data, loss or disk.
    pub fn run(&self, params: &mut Params, train: &Train<'_>) -> Result<Score> {
        let interrupt = self.progress.interrupt();
        let _held_back = interrupt.begin();
        let mut sgd = Sgd::new(self.momentum, self.decay);
        let mut at = self.resume(params, &mut sgd)?;
        if let Some(log) = self.log {
            log.rewind(self.stage, at.epoch)?;
        }
        let total = self.epochs * train.steps;
        let begun = at.epoch * train.steps + at.sums.steps;
        let bar = self.progress.stage(self.stage, total as u64, begun as u64);
        let start = Instant::now();
        let mut kept = Instant::now();
        while at.epoch < self.epochs && !self.is_out_of_patience(&at) {
            let (epoch, done) = (at.epoch, at.sums.steps);
            let rate = |step: usize| self.schedule.rate(epoch * train.steps + step, total, self.epochs);
            let mut clock = Instant::now();
            for (step, batch) in (train.batches)(epoch)?.enumerate().skip(done) {
                let batch = batch?;
                let loss = (train.loss)(params, &batch)?;
                self.step(params, &mut sgd, &loss, rate(step))?;
                at.sums.add(&loss, &batch.labels)?;
                at.sums.seconds += clock.elapsed().as_secs_f64();
                clock = Instant::now();
                if !at.sums.is_finite() {
                    return Err(Error::Diverged { place: self.place(&at, train), what: "loss" });
                }
                bar.step(|| format!("epoch {}/{}  {}", at.epoch + 1, self.epochs, at.sums.line(at.score)));
                let stops = interrupt.is_requested();
                if stops || kept.elapsed() > KEEP_EVERY {
                    self.keep(&at, params, &sgd)?;
                    kept = Instant::now();
                }
                if stops {
                    return Err(self.interrupted(&at, train));
                }
            }
            // The loss of an epoch's last step says nothing about what that step led to.
            if !params.is_finite()? {
                return Err(Error::Diverged { place: self.place(&at, train), what: "network" });
            }
            at.score = match (train.validate)(params) {
                Err(Error::Interrupted { .. }) => {
                    self.keep(&at, params, &sgd)?;
                    return Err(self.interrupted(&at, train));
                }
                validated => validated?,
            };
            let last = rate(train.steps.saturating_sub(1));
            let record = at.sums.record(self.stage, epoch + 1, last, at.score);
            let line = at.sums.line(at.score);
            at = At { epoch: epoch + 1, sums: Sums::default(), ..at };
            if self.patience.is_some() {
                Best::consider(&mut at.best, at.epoch, at.score, params)?;
            }
            if let Some(log) = self.log {
                log.append(&record)?;
            }
            self.keep(&at, params, &sgd)?;
            kept = Instant::now();
            bar.epoch(|| {
                let steps = at.epoch * train.steps;
                let left =
                    start.elapsed().as_secs_f64() / (steps - begun).max(1) as f64 * (total - steps) as f64;
                format!("epoch {}/{}  {line}  {} left", at.epoch, self.epochs, duration(left))
            });
            if interrupt.is_requested() {
                return Err(self.interrupted(&at, train));
            }
        }
        let score = match &at.best {
            Some(best) => {
                best.restore(params)?;
                best.score
            }
            None => at.score,
        };
        bar.finish(&match score.n {
            0 => "done".into(),
            _ => format!("validation {:.1} %", 100.0 * score.accuracy()),
        });
        Ok(score)
    }

    fn step(&self, params: &mut Params, sgd: &mut Sgd, loss: &StepLoss, rate: f64) -> Result<()> {
        let mut grads = ops::backward(&loss.total)?;
        if let Some(most) = self.clip {
            clip(&mut grads, params, most)?;
        }
        sgd.step(params, &grads, rate)?;
        for stat in &loss.stats {
            params.track(&stat.norm, &stat.mean, &stat.var)?;
        }
        Ok(())
    }

    fn is_out_of_patience(&self, at: &At) -> bool {
        let (Some(patience), Some(best)) = (self.patience, &at.best) else { return false };
        let annealed = |epoch: &usize| self.schedule.is_annealed(*epoch, self.epochs);
        (best.improved..at.epoch).filter(annealed).count() >= patience
    }

    /// The last step taken, as text.
    fn place(&self, at: &At, train: &Train<'_>) -> String {
        match at.sums.steps {
            0 => format!("{}, after epoch {} of {}", self.stage, at.epoch, self.epochs),
            step => format!("{}, epoch {}, step {step} of {}", self.stage, at.epoch + 1, train.steps),
        }
    }

    fn interrupted(&self, at: &At, train: &Train<'_>) -> Error {
        Error::Interrupted { place: self.place(at, train), kept: self.checkpoint.map(Path::to_path_buf) }
    }

    fn keep(&self, at: &At, params: &Params, sgd: &Sgd) -> Result<()> {
        let Some(path) = self.checkpoint else { return Ok(()) };
        let checkpoint = Checkpoint {
            stage: self.stage.into(),
            fingerprint: self.fingerprint.into(),
            epoch: at.epoch,
            sums: at.sums.clone(),
            epochs: self.epochs,
            validation: (at.score.right, at.score.n),
            best: at.best.as_ref().map(|best| (best.improved, best.score.right, best.score.n)),
        };
        checkpoint.write(path, params, sgd, at.best.as_ref())
    }

    fn resume(&self, params: &mut Params, sgd: &mut Sgd) -> Result<At> {
        let Some(path) = self.checkpoint else { return Ok(At::default()) };
        let Some(found) = Checkpoint::peek(path)? else { return Ok(At::default()) };
        if found.stage != self.stage || found.fingerprint != self.fingerprint || found.epochs != self.epochs {
            return Err(Checkpoint::of_other_options(path, &found.fingerprint, self.fingerprint));
        }
        let best = Checkpoint::restore(path, params, sgd)?;
        let (right, n) = found.validation;
        Ok(At { epoch: found.epoch, sums: found.sums, score: Score { right, n }, best })
    }
}
