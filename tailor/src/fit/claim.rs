//! Who may be at work in a folder.

use crate::{Error, Result};
use std::fs::{File, TryLockError};
use std::path::Path;

/// Keeps other runs out of a folder as long as it lives. The system gives the folder back however the process ends, and nothing
/// is left in it.
#[derive(Debug)]
pub struct Claim {
    /// The folder itself, locked; nobody reads it.
    _folder: File,
}

impl Claim {
    /// Makes `folder` if needed and lets nobody else work there.
    ///
    /// # Errors
    /// [`Error::Training`] when somebody does; [`Error::Io`].
    pub fn alone(folder: &Path) -> Result<Claim> {
        Claim::take(folder, File::try_lock)
    }

    /// Makes `folder` if needed and lets others work there who share it, too: candidates of one sweep, which have checkpoints of
    /// their own.
    ///
    /// # Errors
    /// [`Error::Training`] when somebody has it [alone](Claim::alone); [`Error::Io`].
    pub fn shared(folder: &Path) -> Result<Claim> {
        Claim::take(folder, File::try_lock_shared)
    }

    fn take(folder: &Path, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<Claim> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let opened = File::open(folder).map_err(Error::io(folder))?;
        match lock(&opened) {
            Err(TryLockError::WouldBlock) => {
                let want = "wait until that ends, stop it, or choose another work folder";
                Err(Error::training(folder.display(), "another run is at work in this folder", want))
            }
            // Some network file systems have no locks, and are no worse for one run at a time.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Claim { _folder: opened }),
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
        drop(candidates);
        Claim::alone(&folder).unwrap();
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing is left behind");
    }
}
