//! Validation losses that a search has measured, kept in the work folder: a search that is resumed, or a step
//! that comes back to the same network, does not measure them again.

use super::stages::EVAL_BATCH;
use super::{Tailoring, Work};
use crate::net::{Net, Params};
use crate::{Error, Result};
use bundles::plan::Plan;
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Losses by the digest of everything that they depend on, one per line of a file: digest, tab, loss.
#[derive(Debug)]
pub struct Losses {
    path: PathBuf,
    /// What the file holds; `None` until it has been read.
    known: Mutex<Option<BTreeMap<String, f64>>>,
}

impl Losses {
    /// The losses kept in `work`. Nothing is read or created yet.
    pub(super) fn of(work: &Work) -> Losses {
        Losses { path: work.losses(), known: Mutex::default() }
    }

    /// The loss under `key`; measured and added to the file if it is not there.
    fn get(&self, key: &str, measure: impl FnOnce() -> Result<f64>) -> Result<f64> {
        if let Some(loss) = self.look_up(key)? {
            return Ok(loss);
        }
        // Unlocked, because a thread pool measures.
        let loss = measure()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file =
            OpenOptions::new().create(true).append(true).open(&self.path).map_err(Error::io(&self.path))?;
        file.write_all(format!("{key}\t{loss}\n").as_bytes()).map_err(Error::io(&self.path))?;
        if let Some(known) = &mut *known {
            known.insert(key.to_owned(), loss);
        }
        Ok(loss)
    }

    fn look_up(&self, key: &str) -> Result<Option<f64>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match &mut *known {
            Some(known) => known,
            unread => unread.insert(self.read()?),
        };
        Ok(known.get(key).copied())
    }

    /// All losses in the file. A line that a stopped process left incomplete is cut off.
    fn read(&self) -> Result<BTreeMap<String, f64>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(Error::io(&self.path)(error)),
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            let file = OpenOptions::new().write(true).open(&self.path).map_err(Error::io(&self.path))?;
            file.set_len(whole as u64).map_err(Error::io(&self.path))?;
        }
        let text = String::from_utf8_lossy(&bytes[..whole]);
        let losses = text.lines().filter_map(|line| {
            let (key, loss) = line.split_once('\t')?;
            Some((key.to_owned(), loss.parse().ok()?))
        });
        Ok(losses.collect())
    }
}

impl Tailoring<'_> {
    /// Mean cross-entropy on validation.
    pub(super) fn validation_loss(&self, plan: &Plan, params: &Params) -> Result<f64> {
        self.losses.get(&self.digest(plan, params)?, || {
            let batches = self.loader(self.val, EVAL_BATCH)?.eval();
            crate::train::mean_loss(&Net { plan, params }, self.progress.interrupt().watch(batches))
        })
    }

    /// Digest of a network, the images it is evaluated on, and what evaluates it: program and kind of device.
    fn digest(&self, plan: &Plan, params: &Params) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        let by = (env!("CARGO_PKG_VERSION"), params.device().location());
        hasher.update(format!("{:?} {by:?} {plan:?} {:?}", self.identity, params.gating()).as_bytes());
        for (name, _) in params.iter() {
            hasher.update(format!("{name:?}").as_bytes());
            let bytes: Vec<u8> = params.values(name)?.iter().flat_map(|value| value.to_le_bytes()).collect();
            hasher.update(&bytes);
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{Recipe, testing};
    use crate::progress::Progress;
    use candle_core::Device;

    #[test]
    fn a_loss_is_measured_once_for_the_same_numbers() {
        let ground = testing::ground(1, true);
        let folder = tempfile::tempdir().unwrap();
        let (recipe, work) = (Recipe::small(), Work::open(folder.path()).unwrap());
        let progress = Progress::hidden();
        let open = || ground.tailoring(&recipe, &work, &Device::Cpu, &progress);
        let (plan, mut params) = testing::backbone(testing::CLASSES);
        let lines = || std::fs::read_to_string(work.losses()).unwrap().lines().count();
        let loss = open().validation_loss(&plan, &params).unwrap();
        assert_eq!(open().validation_loss(&plan, &params).unwrap(), loss, "read back exactly");
        assert_eq!(lines(), 1);

        let name = params.iter().map(|(name, _)| name.to_owned()).last().unwrap();
        let changed = (params.get(&name).unwrap() + 1.0).unwrap();
        params.set(&name, &changed).unwrap();
        open().validation_loss(&plan, &params).unwrap();
        assert_eq!(lines(), 2, "another number, another network");
        let mut shifted = open();
        shifted.identity = "other images";
        shifted.validation_loss(&plan, &params).unwrap();
        assert_eq!(lines(), 3, "other images");
    }

    #[test]
    fn an_incomplete_line_is_measured_again() {
        let folder = tempfile::tempdir().unwrap();
        let work = Work::open(folder.path()).unwrap();
        std::fs::write(work.losses(), "first\t0.5\nnonsense\nsecond\t0.2").unwrap();
        let losses = Losses::of(&work);
        assert_eq!(losses.get("first", || panic!("it is known")).unwrap(), 0.5);
        assert_eq!(losses.get("second", || Ok(0.25)).unwrap(), 0.25);
        let text = std::fs::read_to_string(work.losses()).unwrap();
        assert_eq!(text, "first\t0.5\nnonsense\nsecond\t0.25\n");
        assert_eq!(Losses::of(&work).get("second", || panic!("it is known")).unwrap(), 0.25);
    }
}
