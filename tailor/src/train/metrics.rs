//! What a training run reports: one record per epoch, appended to `metrics.csv`.

use crate::{Error, Result};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Means over one epoch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// `teach`, `train`, `prune-3`, ...
    pub stage: String,
    /// From 1.
    pub epoch: usize,
    /// Learning rate of the last step.
    pub rate: f64,
    /// Weighted sum of the terms.
    pub loss: f64,
    /// Cross-entropy.
    pub classification: f64,
    /// Expected relative complexity.
    pub complexity: Option<f64>,
    /// Distance to the teacher.
    pub matching: Option<f64>,
    /// Share of right answers on training batches, as seen during the epoch.
    pub train_accuracy: f64,
    /// Accuracy on the validation split after the epoch.
    pub val_accuracy: f64,
    /// Training images per second.
    pub images_per_second: f64,
}

/// A metrics file, written one line at a time.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
}

const HEADER: &str =
    "stage,epoch,rate,loss,classification,complexity,matching,train_accuracy,val_accuracy,images_per_second";

impl Log {
    /// Appends to `path`, which gets its header line when it is new.
    pub fn new(path: impl Into<PathBuf>) -> Log {
        Log { path: path.into() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes out what an interrupted run recorded of `stage` after `epoch` epochs.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn rewind(&self, stage: &str, epoch: usize) -> Result<()> {
        let Ok(text) = std::fs::read_to_string(&self.path) else { return Ok(()) };
        let later = |line: &&str| {
            let mut fields = line.split(',');
            fields.next() == Some(stage)
                && fields.next().and_then(|e| e.parse::<usize>().ok()).is_some_and(|e| e > epoch)
        };
        if !text.lines().any(|line| later(&line)) {
            return Ok(());
        }
        let kept: String = text.lines().filter(|line| !later(line)).flat_map(|l| [l, "\n"]).collect();
        bundles::container::write_atomically(&self.path, kept.as_bytes())?;
        Ok(())
    }

    /// Appends one record.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&self, record: &Record) -> Result<()> {
        let optional = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.6}"));
        let line = format!(
            "{},{},{:.6e},{:.6},{:.6},{},{},{:.6},{:.6},{:.1}\n",
            record.stage,
            record.epoch,
            record.rate,
            record.loss,
            record.classification,
            optional(record.complexity),
            optional(record.matching),
            record.train_accuracy,
            record.val_accuracy,
            record.images_per_second
        );
        let io = |source| Error::Io { path: self.path.clone(), source };
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path).map_err(io)?;
        if file.metadata().map_err(io)?.len() == 0 {
            writeln!(file, "{HEADER}").map_err(io)?;
        }
        file.write_all(line.as_bytes()).map_err(io)
    }
}
