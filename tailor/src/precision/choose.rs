//! Chooses the fewest bits for a task within an accuracy limit, and measures the loss.

use super::File;
use super::measure::{Loss, accuracy};
use super::repack::{Rounding, task};
use crate::Result;
use crate::data::{Dataset, Split, spread};
use crate::train::Score;
use bundles::container::SigningKey;
use edge_runtime::kernels::int8::{Bits, Grid};

/// Maximum number of images used to choose the bits.
const CHOOSING: usize = 2_000;

/// A task to pack, the backbones it runs on before and after, and the options.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// The original task.
    pub task: File<'a>,
    /// The imported backbone.
    pub source: File<'a>,
    /// The backbone the packed task will run on.
    pub packed: File<'a>,
    /// The grid of each map in int8; `None` for f16.
    pub grids: Option<&'a [Grid]>,
    /// Bit widths of an int8 task's weights, to be tried in order.
    pub bits: &'a [Bits],
    /// Maximum accuracy loss, in points.
    pub max_drop: f64,
}

/// A packed task.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The bundle.
    pub bytes: Vec<u8>,
    /// The accuracy loss.
    pub loss: Loss,
    /// The split it was measured on: `test`, `val` or `train`.
    pub split: &'static str,
    /// Bits of an int8 task's weights.
    pub bits: Option<Bits>,
}

impl Trial<'_> {
    /// Packs the task in int8, with the first of the bit widths that stays within the limit, or else the last
    /// one; or in f16. The loss is measured on the test images; the bits are chosen on others if there are
    /// any.
    ///
    /// # Errors
    /// Errors in a file or from the runtime.
    pub fn pack(&self, dataset: &Dataset, signers: &[SigningKey]) -> Result<Chosen> {
        let splits =
            [("test", dataset.test.as_ref()), ("val", dataset.val.as_ref()), ("train", Some(&dataset.train))];
        let mut there = splits.into_iter().filter_map(|(name, split)| Some((name, split?)));
        let (split, measured) = there.next().unwrap_or(("train", &dataset.train));
        // Test images are not used to choose if there are others.
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

    /// The first of `tries` that stays within the limit on `images`.
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
