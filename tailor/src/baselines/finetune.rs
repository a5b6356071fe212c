//! Fine-tuning: every kernel and norm of the backbone trained on the task, with a new classifier.
//!
//! Common practice (Girshick et al., CVPR 2014, and others since), and this project's teacher: the same
//! stage, run and checkpoint as in `fit`.

use super::bench::{Bench, Trained};
use super::size::{Owned, Parts, Size};
use crate::Result;
use crate::fit::Teacher;

/// What users are told of it.
pub(super) const PUBLISHED: &str = "Girshick et al., CVPR 2014, and others since. The same training as that \
                                    of fit's teacher, at its rate, where other methods have rates of their \
                                    own.";

pub(super) fn train(bench: &Bench<'_>) -> Result<Trained> {
    let Teacher { plan, params, validation, .. } = bench.tailoring().teach()?;
    let parts = Parts::of(&plan)?;
    let size = Size::new(0, Owned { numbers: parts.all(), bits: 0 }, parts.macs);
    Ok(Trained { plan, params, validation, size, packed: None })
}
