//! Accuracy of a network on a split.

use crate::Result;
use crate::data::Batch;
use crate::net::{Net, Pass};
use crate::ops;
use candle_core::{D, Tensor};

/// Number of correct answers among a number of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Score {
    /// Images whose highest-scoring class was their label.
    pub right: usize,
    /// Number of images.
    pub n: usize,
}

impl Score {
    /// Fraction of correct answers; 0 if there are no images.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.n.max(1) as f64
    }

    /// Lower and upper end of the 95 % confidence interval (Wilson) of the accuracy, as fractions. It is not
    /// symmetric: all of ten images correct is compatible with 72 %.
    pub fn interval(&self) -> [f64; 2] {
        if self.n == 0 {
            return [0.0, 1.0];
        }
        let (n, p, z) = (self.n as f64, self.accuracy(), 1.96);
        let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
        let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        [(centre - half).max(0.0), (centre + half).min(1.0)]
    }

    /// Formats the accuracy in percent, to that many decimals, with its interval: `99.5 % (97.2–99.9)`.
    pub fn percent(&self, decimals: usize) -> String {
        let [low, high] = self.interval().map(|end| 100.0 * end);
        format!("{:.decimals$} % ({low:.decimals$}–{high:.decimals$})", 100.0 * self.accuracy())
    }
}

/// Number of rows of `logits` `(n, classes)` whose largest entry is at `labels`.
///
/// # Errors
/// If shapes differ.
pub fn right(logits: &Tensor, labels: &Tensor) -> Result<usize> {
    let hits = logits.argmax(D::Minus1)?.eq(labels)?;
    Ok(hits.to_dtype(candle_core::DType::U32)?.sum_all()?.to_scalar::<u32>()? as usize)
}

/// Mean cross-entropy over all images, with running statistics; 0 if there are none.
///
/// # Errors
/// If images do not fit the network or a batch cannot be read.
pub fn mean_loss(net: &Net<'_>, batches: impl Iterator<Item = Result<Batch>>) -> Result<f64> {
    let (mut sum, mut n) = (0.0, 0);
    for batch in batches {
        let batch = batch?;
        let logits = net.forward(&batch.images, Pass::Infer)?.logits;
        let images = batch.indices.len();
        sum +=
            f64::from(ops::cross_entropy(&logits, &batch.labels, 0.0)?.to_scalar::<f32>()?) * images as f64;
        n += images;
    }
    Ok(sum / f64::from(n.max(1) as u32))
}

/// Accuracy over all batches, with running statistics.
///
/// # Errors
/// If a batch cannot be read or does not fit the plan.
pub fn evaluate(net: &Net<'_>, batches: impl Iterator<Item = Result<Batch>>) -> Result<Score> {
    let verdicts = verdicts(net, batches)?;
    Ok(Score { right: verdicts.iter().filter(|verdict| verdict.right).count(), n: verdicts.len() })
}

/// A network's prediction for one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Whether its highest-scoring class is the label.
    pub right: bool,
    /// Probability (softmax) of the label.
    pub probability: f64,
}

/// Verdicts on every image in order, with running statistics.
///
/// # Errors
/// If a batch cannot be read or does not fit the plan.
pub fn verdicts(net: &Net<'_>, batches: impl Iterator<Item = Result<Batch>>) -> Result<Vec<Verdict>> {
    let mut out = Vec::new();
    for batch in batches {
        let batch = batch?;
        let logits = net.forward(&batch.images, Pass::Infer)?.logits;
        let hits: Vec<u8> = logits.argmax(D::Minus1)?.eq(&batch.labels)?.to_vec1()?;
        let labels: Vec<u32> = batch.labels.to_vec1()?;
        for ((scores, label), hit) in logits.to_vec2::<f32>()?.into_iter().zip(labels).zip(hits) {
            let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weight = |score: &f32| f64::from(score - best).exp();
            let given = scores.get(label as usize).map_or(0.0, weight);
            let probability = given / scores.iter().map(weight).sum::<f64>();
            out.push(Verdict { right: hit != 0, probability });
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_wilsons() {
        // The second and third as in Newcombe, Statist. Med. 17 (1998), table I, method 3.
        let cases = [
            ((10, 10), [0.7225, 1.0]),
            ((15, 148), [0.0624, 0.1605]),
            ((0, 20), [0.0, 0.1611]),
            ((9700, 10_000), [0.9665, 0.9732]),
            ((0, 0), [0.0, 1.0]),
        ];
        for ((right, n), want) in cases {
            let interval = Score { right, n }.interval();
            let is_close = interval.iter().zip(want).all(|(end, want)| (end - want).abs() < 6e-5);
            assert!(is_close, "{right} of {n}: {interval:?}");
        }
        assert_eq!(Score { right: 199, n: 200 }.percent(1), "99.5 % (97.2–99.9)");
    }
}
