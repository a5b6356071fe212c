//! NetTailor itself, by the same command that users run.
//!
//! Morgado & Vasconcelos, "NetTailor: Tuning the architecture, not just the weights" (CVPR 2019): `fit` with
//! all its stages and the run's recipe. ARCHITECTURE.md (Differences from the paper) says how its defaults
//! differ. The bytes of a switch are counted as for the other methods, four per task-owned number; a signed
//! and compressed bundle may be smaller or larger than that.

use super::Size;
use crate::fit::Report;

/// What users are told of it.
pub(super) const PUBLISHED: &str = "Morgado & Vasconcelos, CVPR 2019. Here by fit, whose recipe is the paper's only with --schedule paper and \
     --complexity paper (its equation 9 as printed, which can be negative).";

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
