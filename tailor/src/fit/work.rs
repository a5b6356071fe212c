//! A run's work folder and the files in it.

use super::stages::STUDENT;
use crate::train::{Checkpoint, Log};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// A folder that holds one run: a checkpoint per stage, the metrics, and finally the bundle.
#[derive(Debug, Clone)]
pub struct Work {
    folder: PathBuf,
}

impl Work {
    /// Opens `folder`, creating it if needed.
    ///
    /// # Errors
    /// [`Error::Config`] if it is a file; [`Error::Io`].
    pub fn open(folder: impl Into<PathBuf>) -> Result<Work> {
        let folder = folder.into();
        create(&folder)?;
        Ok(Work { folder })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Checkpoint of a stage (`teach`, `train`, `prune-3`).
    pub fn checkpoint(&self, stage: &str) -> PathBuf {
        self.folder.join(format!("{stage}.safetensors"))
    }

    /// Whether the student has been fully trained. Whether its options match is for readers of the checkpoint
    /// to check.
    ///
    /// # Errors
    /// [`Error::Io`], or an error in the checkpoint.
    pub fn has_student(&self) -> Result<bool> {
        Ok(Checkpoint::peek(&self.checkpoint(STUDENT))?.is_some_and(|found| found.is_complete()))
    }

    /// The metrics: one line per epoch of every stage.
    pub fn log(&self) -> Log {
        Log::new(self.folder.join("metrics.csv"))
    }

    /// Validation losses that the search has measured.
    pub fn losses(&self) -> PathBuf {
        self.folder.join("losses.tsv")
    }

    /// The packed task named `name`.
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.task"))
    }

    /// The backbone pre-trained here, named `name`.
    pub fn backbone(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.backbone"))
    }

    /// The run's report as one document.
    pub fn report(&self) -> PathBuf {
        self.folder.join("report.json")
    }

    /// The tailored network's predictions for every test image.
    pub fn predictions(&self) -> PathBuf {
        self.folder.join("predictions.json")
    }

    /// Folder with the images of its most confident mistakes.
    pub fn mistakes(&self) -> PathBuf {
        self.folder.join("mistakes")
    }

    /// The drawing of the surviving architecture.
    pub fn drawing(&self) -> PathBuf {
        self.folder.join("architecture.svg")
    }
}

/// Creates `folder` if needed.
///
/// # Errors
/// [`Error::Config`] if it is a file; [`Error::Io`].
pub(super) fn create(folder: &Path) -> Result<()> {
    if folder.exists() && !folder.is_dir() {
        return Err(Error::config(folder.display().to_string(), "must be a folder; this is a file"));
    }
    std::fs::create_dir_all(folder).map_err(Error::io(folder))
}
