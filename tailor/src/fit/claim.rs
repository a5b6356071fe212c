//! Who may be at work in a folder.

use crate::{Error, Result};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Keeps other runs out of a folder as long as it lives. The system gives the folder back however the process ends, and nothing
/// is left in it.
#[derive(Debug)]
pub struct Claim {
    /// The folder itself, locked; nobody reads it.
    opened: File,
    folder: PathBuf,
}

impl Claim {
    /// Makes `folder` if needed and lets nobody else work there.
    ///
    /// # Errors
    /// [`Error::Training`] when somebody does; [`Error::Io`].
    pub fn alone(folder: &Path) -> Result<Claim> {
        Claim::open(folder)?.keep(File::try_lock)
    }

    /// Makes `folder` if needed and lets others work there who share it, too: candidates of one sweep, which have checkpoints of
    /// their own.
    ///
    /// # Errors
    /// [`Error::Training`] when somebody has it [alone](Claim::alone); [`Error::Io`].
    pub fn shared(folder: &Path) -> Result<Claim> {
        Claim::open(folder)?.keep(File::try_lock_shared)
    }

    /// Lets nobody else work there from now on, until it is [shared again](Claim::share).
    ///
    /// # Errors
    /// [`Error::Training`] when somebody does; the claim is given up then.
    pub fn take_alone(self) -> Result<Claim> {
        self.keep(File::try_lock)
    }

    /// Lets those work there again who share it.
    ///
    /// # Errors
    /// [`Error::Training`] when somebody had it alone in between.
    pub fn share(self) -> Result<Claim> {
        self.keep(File::try_lock_shared)
    }

    fn open(folder: &Path) -> Result<Claim> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        Ok(Claim { opened: File::open(folder).map_err(Error::io(folder))?, folder: folder.to_path_buf() })
    }

    fn keep(self, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<Claim> {
        match lock(&self.opened) {
            Err(TryLockError::WouldBlock) => {
                let want = "wait until that ends, stop it, or choose another work folder";
                Err(Error::training(self.folder.display(), "another run is at work in this folder", want))
            }
            // Some network file systems have no locks, and are no worse for one run at a time.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_or_several_candidates_are_at_work_in_a_folder() {
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("run");
        let alone = Claim::alone(&folder).unwrap();
        for second in [Claim::alone(&folder), Claim::shared(&folder)] {
            let error = second.unwrap_err().to_string();
            assert!(error.contains("another run is at work") && error.contains("run"), "{error}");
        }
        drop(alone);
        let candidates = [Claim::shared(&folder).unwrap(), Claim::shared(&folder).unwrap()];
        assert!(Claim::alone(&folder).is_err());
        let [one, other] = candidates;
        assert!(one.take_alone().is_err(), "the other is at work");
        let alone = other.take_alone().unwrap();
        assert!(Claim::shared(&folder).is_err());
        let shared = alone.share().unwrap();
        drop((Claim::shared(&folder).unwrap(), shared));
        Claim::alone(&folder).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing is left behind");
    }
}
