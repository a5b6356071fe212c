//! Measures the cost of packing: the same images through the device runtime, before and after.

use super::{File, Form};
use crate::data::{Loader, Split};
use crate::train::Score;
use crate::{Error, Result};
use bundles::container::golden_input;
use candle_core::Device;
use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Options, Session, Task};
use std::sync::Arc;

/// Accuracy of one task before and after packing, on the same images.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Before packing.
    pub before: Score,
    /// After packing.
    pub after: Score,
}

impl Loss {
    /// Accuracy lost, in points (percent of all images, absolute); negative for a gain.
    pub fn points(&self) -> f64 {
        // A single division of integers, so that a loss of exactly the limit compares equal to it.
        let (before, after) = (self.before, self.after);
        let (right, n) = (|a: Score, b: Score| (a.right * b.n) as f64, (before.n * after.n).max(1) as f64);
        100.0 * (right(before, after) - right(after, before)) / n
    }

    /// Refuses a loss of more than `most` points.
    ///
    /// # Errors
    /// [`Error::Precision`], suggesting what would help.
    pub fn check(&self, most: f64) -> Result<()> {
        // Written so that NaN is refused, too.
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
                "at most {most} (--max-drop) are allowed; in int8, calibrate on more images (--calibrate) or \
                 try f16"
            ),
        })
    }
}

/// A backbone and one task on the device runtime, in f32 or int8: measurements and golden vectors do not depend on
/// whether this machine computes in half precision, except for a backbone packed for that.
pub(super) struct Deployed {
    pub task: Task,
    session: Session,
}

impl Deployed {
    pub fn open(backbone: File<'_>, task: File<'_>) -> Result<Deployed> {
        let is_packed_for_one = Form::of(backbone.parse()?.manifest()).kernels().is_some();
        let isa = if is_packed_for_one { None } else { Some(Isa::detect()) };
        let options = Options { isa, ..Options::default() };
        let backbone: Arc<Backbone> = Backbone::from_bytes(backbone.name, backbone.bytes.to_vec(), &options)?;
        let task = Task::from_bytes(&backbone, task.name, task.bytes)?;
        Ok(Deployed { task, session: Session::new(1) })
    }

    /// The scores for the input generated from `seed`.
    pub fn golden(&mut self, seed: u64) -> Result<Vec<f32>> {
        let mut input = vec![0.0; self.task.input().len()];
        golden_input(seed, &mut input);
        Ok(self.session.run(&self.task, &input)?.to_vec())
    }

    fn answers(&mut self, split: &Split, mean: [f32; 3], std: [f32; 3]) -> Result<Vec<u32>> {
        let mut answers = Vec::with_capacity(split.len());
        let len = self.task.input().len();
        for batch in Loader::new(split, mean, std, 64, &Device::Cpu)?.eval() {
            let images: Vec<f32> = batch?.images.flatten_all()?.to_vec1()?;
            for image in images.chunks(len) {
                let scores = self.session.run(&self.task, image)?;
                // The first of equals, as on the device.
                let best =
                    (0..scores.len()).reduce(|best, i| if scores[i] > scores[best] { i } else { best });
                answers.push(best.unwrap_or_default() as u32);
            }
        }
        Ok(answers)
    }
}

/// The class predicted for each image of `split` by a task on its backbone, both as stored in their files.
///
/// # Errors
/// Errors of the runtime.
pub fn answers(backbone: File<'_>, task: File<'_>, split: &Split) -> Result<Vec<u32>> {
    let p = task.parse()?.manifest().preprocess;
    let mut deployed = Deployed::open(backbone, task)?;
    match p.grey {
        true => deployed.answers(&split.in_grey(), p.mean, p.std),
        false => deployed.answers(split, p.mean, p.std),
    }
}

/// The accuracy of [`answers`].
///
/// # Errors
/// Errors of the runtime.
pub fn accuracy(backbone: File<'_>, task: File<'_>, split: &Split) -> Result<Score> {
    let answers = answers(backbone, task, split)?;
    let right = answers.iter().zip(&split.labels).filter(|(answer, label)| answer == label).count();
    Ok(Score { right, n: answers.len() })
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
