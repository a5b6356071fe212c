//! Training: teacher, student and retraining share one training loop and one checkpoint format.

mod best;
mod checkpoint;
mod clip;
mod epochs;
mod evaluate;
mod losses;
mod metrics;
mod schedule;
mod sgd;
mod sums;
mod tensorboard;
#[cfg(test)]
mod tests;

pub use checkpoint::Checkpoint;
pub(crate) use checkpoint::{differences, images_of};
pub use epochs::{Course, Train};
pub use evaluate::{Score, Verdict, evaluate, mean_loss, right, verdicts};
pub use losses::{Objective, StepLoss, Terms, label_loss, student_loss, teacher_loss};
pub use metrics::{Log, Record};
pub use schedule::Schedule;
pub use sgd::{MASK, MASK_RATE, Sgd};
pub use sums::Sums;
