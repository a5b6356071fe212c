//! The work folder of one run and the files in it.

use super::stages::STUDENT;
use crate::train::{Checkpoint, Log};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// A folder that holds a run: one checkpoint per stage, the metrics, and at the end the bundle.
#[derive(Debug, Clone)]
pub struct Work {
    folder: PathBuf,
}

impl Work {
    /// Uses `folder`, making it if needed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(folder: impl Into<PathBuf>) -> Result<Work> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
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

    /// Whether the student is trained; of which options is left to its checkpoint's readers.
    ///
    /// # Errors
    /// [`Error::Io`], or what is wrong with the checkpoint.
    pub fn has_student(&self) -> Result<bool> {
        Ok(Checkpoint::peek(&self.checkpoint(STUDENT))?.is_some_and(|found| found.is_complete()))
    }

    /// One line per epoch of every stage.
    pub fn log(&self) -> Log {
        Log::new(self.folder.join("metrics.csv"))
    }

    /// The packed task named `name`.
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.task"))
    }

    /// The backbone trained here, named `name`.
    pub fn backbone(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.backbone"))
    }

    /// Everything about the run in one document.
    pub fn report(&self) -> PathBuf {
        self.folder.join("report.json")
    }

    /// What the tailored network answered for every test image.
    pub fn predictions(&self) -> PathBuf {
        self.folder.join("predictions.json")
    }

    /// Folder of the images it was most certain of and wrong about.
    pub fn mistakes(&self) -> PathBuf {
        self.folder.join("mistakes")
    }

    /// The drawing of what survived.
    pub fn drawing(&self) -> PathBuf {
        self.folder.join("architecture.svg")
    }
}
