//! Early stopping: the epoch with the best validation score, and its parameters.

use super::Score;
use crate::Result;
use crate::net::Params;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// The best epoch so far. Among equals the last is kept, as it has been trained further at lower rates;
/// patience counts from the first.
#[derive(Debug, Clone)]
pub struct Best {
    /// Number of epochs done when validation last improved.
    pub(super) improved: usize,
    /// Validation score of the best epoch.
    pub(super) score: Score,
    /// All tensors of the network, by name.
    pub(super) numbers: BTreeMap<String, Tensor>,
}

impl Best {
    /// Considers the network after `epoch` epochs, with its validation score.
    ///
    /// # Errors
    /// If tensors cannot be copied.
    pub(super) fn consider(
        best: &mut Option<Best>,
        epoch: usize,
        score: Score,
        params: &Params,
    ) -> Result<()> {
        let improved = match best {
            Some(best) if score.right < best.score.right => return Ok(()),
            Some(best) if score.right == best.score.right => best.improved,
            _ => epoch,
        };
        // The optimiser writes in place, so tensors must not be shared.
        let copy = |(name, tensor): (&str, &Tensor)| Ok((name.to_string(), tensor.detach().copy()?));
        let numbers = params.iter().map(copy).collect::<Result<_>>()?;
        *best = Some(Best { improved, score, numbers });
        Ok(())
    }

    /// Copies the kept tensors back into `params`.
    ///
    /// # Errors
    /// If they belong to a different network.
    pub(super) fn restore(&self, params: &mut Params) -> Result<()> {
        self.numbers.iter().try_for_each(|(name, tensor)| params.set(name, tensor))
    }
}
