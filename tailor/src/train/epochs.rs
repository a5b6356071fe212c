//! The epoch loop every training stage runs through: steps, running statistics, validation, checkpoint.

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

/// An epoch that lasts longer is kept on the way, so that a power cut costs no more than this.
const KEEP_EVERY: Duration = Duration::from_secs(120);

/// The moving parts of a stage: its data, its loss, its validation.
pub struct Train<'a> {
    /// Steps of one epoch.
    pub steps: usize,
    /// Training batches of an epoch (from 0). A function of the epoch alone, so that a resumed run sees the
    /// same images.
    pub batches: &'a dyn Fn(usize) -> Result<Batches>,
    /// Loss of one batch.
    pub loss: &'a dyn Fn(&Params, &Batch) -> Result<StepLoss>,
    /// Accuracy on the validation split. May end in [`Error::Interrupted`], and is then asked again when the run is
    /// continued.
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
    /// Longest gradient; a longer one is shortened.
    pub clip: Option<f64>,
    /// Epochs without better validation after which training stops, of those in which the schedule's rate has come down;
    /// the best of all epochs is kept then. Without it, the last epoch's numbers.
    pub patience: Option<usize>,
    /// Where the run is kept, if anywhere.
    pub checkpoint: Option<&'a Path>,
    /// Where epochs are recorded, if anywhere.
    pub log: Option<&'a Log>,
    /// What a person sees meanwhile.
    pub progress: &'a Progress,
}

/// Where a run stands.
#[derive(Default)]
struct At {
    /// Epochs done.
    epoch: usize,
    /// What the epoch under way has done.
    sums: Sums,
    /// The newest validation.
    score: Score,
    /// The best epoch, where early stopping asks for it.
    best: Option<Best>,
}

impl Course<'_> {
    /// Trains `params` to the end of the course, or until patience is out, and returns the validation score of what it
    /// leaves in them. Continues from the checkpoint when there is one of the same run, in the middle of an epoch if need
    /// be; the result is the same as without interruption.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when someone asked for a stop, once the run is on disk; [`Error::Training`] when the
    /// loss stops being a number; whatever data, loss or disk report.
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
                    return Err(Error::training(
                        self.place(&at, train),
                        "the loss is no longer a number",
                        "lower the learning rate",
                    ));
                }
                bar.step(|| format!("epoch {}/{}  {}", at.epoch + 1, self.epochs, at.sums.line(at.score)));
                if interrupt.is_requested() || kept.elapsed() > KEEP_EVERY {
                    self.keep(&at, params, &sgd)?;
                    kept = Instant::now();
                }
                if interrupt.is_requested() {
                    return Err(self.interrupted(&at, train));
                }
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

    /// Which step a run has taken last, in words.
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
