//! Accuracy of a network on a split.

use crate::Result;
use crate::data::Batch;
use crate::net::{Net, Pass};
use candle_core::{D, Tensor};

/// Right answers out of a number of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Score {
    /// Images whose highest-scoring class was their label.
    pub right: usize,
    /// Images.
    pub n: usize,
}

impl Score {
    /// Share of right answers, 0 for no images.
    pub fn accuracy(&self) -> f64 {
        self.right as f64 / self.n.max(1) as f64
    }

    /// Half the width of a 95 % confidence interval of the accuracy (Wilson).
    pub fn margin(&self) -> f64 {
        let n = self.n.max(1) as f64;
        let (p, z) = (self.accuracy(), 1.96);
        z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt()
    }
}

/// Number of rows of `logits` `(n, classes)` whose largest entry is at `labels`.
///
/// # Errors
/// When shapes differ.
pub fn right(logits: &Tensor, labels: &Tensor) -> Result<usize> {
    let hits = logits.argmax(D::Minus1)?.eq(labels)?;
    Ok(hits.to_dtype(candle_core::DType::U32)?.sum_all()?.to_scalar::<u32>()? as usize)
}

/// Accuracy with running statistics over every batch.
///
/// # Errors
/// When a batch cannot be read or does not fit the plan.
pub fn evaluate(net: &Net<'_>, batches: impl Iterator<Item = Result<Batch>>) -> Result<Score> {
    let mut score = Score::default();
    for batch in batches {
        let batch = batch?;
        let logits = net.forward(&batch.images, Pass::Infer)?.logits;
        score.right += right(&logits, &batch.labels)?;
        score.n += batch.labels.dim(0)?;
    }
    Ok(score)
}
