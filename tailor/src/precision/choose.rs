//! How finely a task is rounded: with the fewest bits that keep within a limit, and what that costs.

use super::File;
use super::measure::{Loss, accuracy};
use super::repack::{Rounding, task};
use crate::Result;
use crate::data::{Dataset, Split, spread};
use crate::train::Score;
use bundles::container::SigningKey;
use edge_runtime::kernels::int8::{Bits, Grid};

/// Images by which bits are chosen, at most.
const CHOOSING: usize = 2_000;

/// A task to be packed, what it runs on before and after, and how.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// The task as it was made.
    pub task: File<'a>,
    /// The backbone as it was imported.
    pub source: File<'a>,
    /// The backbone that the packed task will run on.
    pub packed: File<'a>,
    /// Of each map, in int8; `None` for f16.
    pub grids: Option<&'a [Grid]>,
    /// Bits of an int8 task's weights, to be tried in turn.
    pub bits: &'a [Bits],
    /// Most points of accuracy that may be lost.
    pub max_drop: f64,
}

/// A packed task.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The bundle.
    pub bytes: Vec<u8>,
    /// What it costs.
    pub loss: Loss,
    /// On which images: `test`, `val` or `train`.
    pub split: &'static str,
    /// Bits of an int8 task's weights.
    pub bits: Option<Bits>,
}

impl Trial<'_> {
    /// The task in int8 with weights of the first of the bits that keep within the limit, or the last of
    /// them; or in f16. What it costs is told of the test images, bits are chosen by others where there are
    /// some.
    ///
    /// # Errors
    /// What is wrong with a file, or whatever the runtime refuses.
    pub fn pack(&self, dataset: &Dataset, signers: &[SigningKey]) -> Result<Chosen> {
        let splits =
            [("test", dataset.test.as_ref()), ("val", dataset.val.as_ref()), ("train", Some(&dataset.train))];
        let mut there = splits.into_iter().filter_map(|(name, split)| Some((name, split?)));
        let (split, measured) = there.next().unwrap_or(("train", &dataset.train));
        // Nothing is chosen by test images where there are others.
        let choosing = there.next().map_or(measured, |(_, split)| split);
        let tries = self.grids.map_or(&[][..], |_| self.bits);
        let bits = match tries {
            [others @ .., last] if !others.is_empty() => {
                let choosing = choosing.gather(&spread(choosing.len(), CHOOSING));
                self.fewest(others, &choosing)?.or(Some(*last))
            }
            tries => tries.last().copied(),
        };
        let bytes = self.rounded(bits, signers)?;
        let loss = Loss { before: self.before(measured)?, after: self.after(&bytes, measured)? };
        Ok(Chosen { bytes, loss, split, bits })
    }

    /// The first of `tries` that keeps within the limit on `images`.
    fn fewest(&self, tries: &[Bits], images: &Split) -> Result<Option<Bits>> {
        let before = self.before(images)?;
        for &bits in tries {
            let loss = Loss { before, after: self.after(&self.rounded(Some(bits), &[])?, images)? };
            if loss.check(self.max_drop).is_ok() {
                return Ok(Some(bits));
            }
        }
        Ok(None)
    }

    fn rounded(&self, bits: Option<Bits>, signers: &[SigningKey]) -> Result<Vec<u8>> {
        let rounding = self.grids.zip(bits).map(|(grids, bits)| Rounding { grids, bits });
        task(self.task, rounding, self.packed, signers)
    }

    fn before(&self, images: &Split) -> Result<Score> {
        accuracy(self.source, self.task, images)
    }

    fn after(&self, bytes: &[u8], images: &Split) -> Result<Score> {
        accuracy(self.packed, File { name: self.task.name, bytes }, images)
    }
}
