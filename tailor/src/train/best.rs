//! Early stopping: the epoch that validation liked best, with its numbers.

use super::Score;
use crate::Result;
use crate::net::Params;
use candle_core::Tensor;
use std::collections::BTreeMap;

/// The best epoch so far. Among equals the last one is kept, since later epochs have lower rates behind them; patience
/// counts from the first.
#[derive(Debug, Clone)]
pub struct Best {
    /// Epochs done when validation last improved.
    pub(super) improved: usize,
    /// Its validation.
    pub(super) score: Score,
    /// All numbers of the network, by name.
    pub(super) numbers: BTreeMap<String, Tensor>,
}

impl Best {
    /// Takes the network after `epoch` epochs into account, with its validation.
    ///
    /// # Errors
    /// When numbers cannot be copied.
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
        // The optimiser writes in place: a shared tensor would follow it.
        let copy = |(name, tensor): (&str, &Tensor)| Ok((name.to_string(), tensor.detach().copy()?));
        let numbers = params.iter().map(copy).collect::<Result<_>>()?;
        *best = Some(Best { improved, score, numbers });
        Ok(())
    }

    /// Puts the kept numbers back.
    ///
    /// # Errors
    /// When they belong to another network.
    pub(super) fn restore(&self, params: &mut Params) -> Result<()> {
        self.numbers.iter().try_for_each(|(name, tensor)| params.set(name, tensor))
    }
}
