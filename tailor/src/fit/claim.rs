//! Locks that keep two runs from working in the same folder.

use super::work::create;
use crate::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// The file that is locked. It is empty and stays behind.
const FILE: &str = ".lock";

/// A lock on a work folder, held until dropped. The operating system releases it however the process ends.
///
/// The lock is taken on a separate file, which network file systems propagate to other machines. On file
/// systems without locks, nobody is kept out.
#[derive(Debug)]
pub struct Claim {
    folder: PathBuf,
    file: File,
}

impl Claim {
    /// Creates `folder` if needed and locks it exclusively.
    ///
    /// # Errors
    /// [`Error::Training`] if another run holds it; [`Error::Config`] if it is a file; [`Error::Io`].
    pub fn alone(folder: &Path) -> Result<Claim> {
        Claim::open(folder, FILE)?.keep(File::try_lock)
    }

    /// Creates `folder` if needed and locks it shared: candidates of one sweep have separate checkpoints and
    /// can run side by side.
    ///
    /// # Errors
    /// [`Error::Training`] if a run holds it [exclusively](Claim::alone); [`Error::Config`] if it is a file;
    /// [`Error::Io`].
    pub fn shared(folder: &Path) -> Result<Claim> {
        Claim::open(folder, FILE)?.keep(File::try_lock_shared)
    }

    /// Locks the candidate without `dropped` blocks in a shared folder: two processes must not retrain the
    /// same one.
    ///
    /// # Errors
    /// [`Error::Training`] if another process holds it; [`Error::Io`].
    pub fn candidate(folder: &Path, dropped: usize) -> Result<Claim> {
        Claim::open(folder, &format!("{FILE}-{dropped}"))?.keep(File::try_lock)
    }

    /// Turns a shared lock into an exclusive one, until it is [shared again](Claim::share).
    ///
    /// # Errors
    /// [`Error::Training`] if another run holds the folder; the lock is then released.
    pub fn take_alone(self) -> Result<Claim> {
        self.keep(File::try_lock)
    }

    /// Turns an exclusive lock back into a shared one.
    ///
    /// # Errors
    /// [`Error::Training`] if another run took it exclusively in between.
    pub fn share(self) -> Result<Claim> {
        self.keep(File::try_lock_shared)
    }

    fn open(folder: &Path, name: &str) -> Result<Claim> {
        create(folder)?;
        let path = folder.join(name);
        // Network file systems require write access for an exclusive lock.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        Ok(Claim { folder: folder.to_path_buf(), file: file.map_err(Error::io(&path))? })
    }

    fn keep(self, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<Claim> {
        match lock(&self.file) {
            Err(TryLockError::WouldBlock) => {
                let want = "wait until that ends, stop it, or choose another work folder";
                Err(Error::training(self.folder.display(), "another run is at work in this folder", want))
            }
            // The file system does not support locks.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::Work;

    #[test]
    fn a_folder_admits_one_run_or_several_candidates() {
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

    #[test]
    fn a_file_is_not_a_folder_to_work_in() {
        let outside = tempfile::tempdir().unwrap();
        let file = outside.path().join("run");
        std::fs::write(&file, "text").unwrap();
        for error in [Claim::alone(&file).unwrap_err(), Work::open(&file).unwrap_err()] {
            assert_eq!(error.exit_code(), 2);
            assert_eq!(error.to_string(), format!("{}: must be a folder; this is a file", file.display()));
        }
    }
}
