//! Who may be at work in a folder.

use crate::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// What is locked for the folder; empty, and left behind.
const FILE: &str = ".lock";

/// Keeps other runs out of a folder as long as it lives. The system gives the folder back however the process ends.
///
/// A lock on a file of its own, which network file systems pass on to other machines; where one has no locks at all,
/// nobody is kept out.
#[derive(Debug)]
pub struct Claim {
    folder: PathBuf,
    file: File,
}

impl Claim {
    /// Makes `folder` if needed and lets nobody else work there.
    ///
    /// # Errors
    /// [`Error::Training`] when somebody does; [`Error::Io`].
    pub fn alone(folder: &Path) -> Result<Claim> {
        Claim::open(folder, FILE)?.keep(File::try_lock)
    }

    /// Makes `folder` if needed and lets others work there who share it, too: candidates of one sweep, which have checkpoints of
    /// their own.
    ///
    /// # Errors
    /// [`Error::Training`] when somebody has it [alone](Claim::alone); [`Error::Io`].
    pub fn shared(folder: &Path) -> Result<Claim> {
        Claim::open(folder, FILE)?.keep(File::try_lock_shared)
    }

    /// The candidate without `dropped` blocks in a shared folder: two processes must not retrain the same one.
    ///
    /// # Errors
    /// [`Error::Training`] when somebody does; [`Error::Io`].
    pub fn candidate(folder: &Path, dropped: usize) -> Result<Claim> {
        Claim::open(folder, &format!("{FILE}-{dropped}"))?.keep(File::try_lock)
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

    fn open(folder: &Path, name: &str) -> Result<Claim> {
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let path = folder.join(name);
        // Locked alone over a network, it has to be open for writing.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        Ok(Claim { folder: folder.to_path_buf(), file: file.map_err(Error::io(&path))? })
    }

    fn keep(self, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<Claim> {
        match lock(&self.file) {
            Err(TryLockError::WouldBlock) => {
                let want = "wait until that ends, stop it, or choose another work folder";
                Err(Error::training(self.folder.display(), "another run is at work in this folder", want))
            }
            // No locks here.
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
        let numbered = Claim::candidate(&folder, 3).unwrap();
        Claim::candidate(&folder, 4).unwrap();
        assert!(Claim::candidate(&folder, 3).is_err(), "the same one twice");
        drop(numbered);
        Claim::candidate(&folder, 3).unwrap();
        let [one, other] = candidates;
        assert!(one.take_alone().is_err(), "the other is at work");
        let alone = other.take_alone().unwrap();
        assert!(Claim::shared(&folder).is_err());
        let shared = alone.share().unwrap();
        drop((Claim::shared(&folder).unwrap(), shared));
        Claim::alone(&folder).unwrap();
    }
}
