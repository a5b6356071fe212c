//! NetTailor itself, by the same command that users run.
//!
//! Morgado & Vasconcelos, "NetTailor: Tuning the architecture, not just the weights" (CVPR 2019): `fit` with
//! all its stages and the run's recipe. Deviations: those of `fit` (see ARCHITECTURE.md, Training). The bytes
//! of a switch are counted as for the other methods, four per task-owned number; a signed and compressed
//! bundle may be smaller or larger than that.

use super::Size;
use crate::fit::{Report, Work};
use crate::{Error, Result};
use std::path::Path;

impl Size {
    /// Costs of a tailored task.
    pub fn tailored(report: &Report) -> Size {
        Size {
            params: report.params,
            task_params: report.task_params,
            macs: report.macs,
            swap_bytes: 4 * report.task_params,
        }
    }
}

/// Starts `work` from the teacher that fine-tuning left in `finetuned`, with its metrics: the stage is the
/// same, and so is its result. Does nothing if there is no such teacher, or `work` has one already.
///
/// # Errors
/// [`Error::Io`].
pub fn borrow_teacher(finetuned: &Path, work: &Work) -> Result<()> {
    let teacher = work.checkpoint("teach");
    let log = work.log();
    if teacher.exists() || log.has_other_than("teach")? {
        return Ok(());
    }
    let lines = log.path().with_extension("jsonl");
    // The checkpoint comes last, so that a copy interrupted before it does not count.
    for to in [log.path(), &lines, &teacher] {
        let Some(from) = to.file_name().map(|name| finetuned.join(name)) else { continue };
        if from.exists() {
            let bytes = std::fs::read(&from).map_err(Error::io(&from))?;
            bundles::container::write_atomically(to, &bytes)?;
        }
    }
    Ok(())
}
