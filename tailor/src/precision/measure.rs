//! What a packing costs: the same images through the device's runtime, before and after.

use crate::data::{Loader, Split};
use crate::train::Score;
use crate::{Error, Result};
use bundles::container::{Bundle, golden_input};
use candle_core::Device;
use edge_runtime::{Backbone, Options, Session, Task};
use std::sync::Arc;

/// Accuracy of one task before and after packing, on the same images.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// As it was.
    pub before: Score,
    /// As packed.
    pub after: Score,
}

impl Loss {
    /// Accuracy lost, in points (percent of all images, absolute); negative for a gain.
    pub fn points(&self) -> f64 {
        // One division of whole numbers, so that a loss of exactly the limit is exactly the limit.
        let (before, after) = (self.before, self.after);
        let (right, n) = (|a: Score, b: Score| (a.right * b.n) as f64, (before.n * after.n).max(1) as f64);
        100.0 * (right(before, after) - right(after, before)) / n
    }

    /// Refuses a loss of more than `most` points.
    ///
    /// # Errors
    /// [`Error::Precision`], saying what would help.
    pub fn check(&self, most: f64) -> Result<()> {
        // Written so that what is no number is refused too.
        if self.points() <= most {
            return Ok(());
        }
        Err(Error::Precision {
            found: format!(
                "{:.2} points of accuracy lost ({:.2} % before, {:.2} % after, {} images)",
                self.points(),
                100.0 * self.before.accuracy(),
                100.0 * self.after.accuracy(),
                self.before.n
            ),
            want: format!(
                "at most {most} (--max-drop) are allowed; in int8, calibrate on more images (--calibrate) or try f16"
            ),
        })
    }
}

/// A backbone and one task on the device's runtime.
pub(super) struct Deployed {
    pub task: Task,
    session: Session,
}

impl Deployed {
    pub fn open(backbone: &[u8], task: &[u8]) -> Result<Deployed> {
        let backbone: Arc<Backbone> =
            Backbone::from_bytes("the backbone", backbone.to_vec(), &Options::default())?;
        let task = Task::from_bytes(&backbone, "the task", task)?;
        Ok(Deployed { task, session: Session::new(1) })
    }

    /// Scores of the input that `seed` stands for.
    pub fn golden(&mut self, seed: u64) -> Result<Vec<f32>> {
        let mut input = vec![0.0; self.task.input().len()];
        golden_input(seed, &mut input);
        Ok(self.session.run(&self.task, &input)?.to_vec())
    }

    fn score(&mut self, split: &Split, mean: [f32; 3], std: [f32; 3]) -> Result<Score> {
        let mut score = Score::default();
        let len = self.task.input().len();
        for batch in Loader::new(split, mean, std, 64, &Device::Cpu)?.eval() {
            let batch = batch?;
            let images: Vec<f32> = batch.images.flatten_all()?.to_vec1()?;
            for (image, label) in images.chunks(len).zip(batch.labels.to_vec1::<u32>()?) {
                let scores = self.session.run(&self.task, image)?.iter().enumerate();
                let best = scores.max_by(|a, b| a.1.total_cmp(b.1)).map(|(class, _)| class);
                score.right += usize::from(best == Some(label as usize));
                score.n += 1;
            }
        }
        Ok(score)
    }
}

/// Accuracy on `split` of a task on its backbone, both as their files have them.
///
/// # Errors
/// Whatever the runtime refuses.
pub fn accuracy(backbone: &[u8], task: &[u8], split: &Split) -> Result<Score> {
    let parsed = Bundle::parse(task)?;
    let p = parsed.manifest().preprocess;
    Deployed::open(backbone, task)?.score(split, p.mean, p.std)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_above_the_limit_is_refused_with_its_figures() {
        let score = |right| Score { right, n: 200 };
        let loss = Loss { before: score(190), after: score(188) };
        assert_eq!(loss.points(), 1.0);
        loss.check(1.0).unwrap();
        let error = loss.check(0.5).unwrap_err().to_string();
        for word in ["1.00 points", "95.00 %", "94.00 %", "200 images", "0.5 (--max-drop)"] {
            assert!(error.contains(word), "{error}");
        }
        Loss { before: score(188), after: score(190) }.check(0.0).unwrap();
        assert!(loss.check(f64::NAN).is_err());
    }
}
