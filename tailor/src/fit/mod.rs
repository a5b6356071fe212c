//! Tailoring one task: teach, train, prune, pack, in a work folder from which a run can be resumed at any
//! epoch.

mod begun;
mod behind;
mod claim;
mod cut;
mod fingerprint;
mod ground;
mod iterate;
mod job;
mod latency;
mod losses;
mod measure;
mod options;
mod predictions;
mod pruning;
mod recipe;
mod record;
mod report;
mod retrain;
mod search;
mod select;
mod stages;
#[cfg(test)]
pub(crate) mod testing;
mod work;

pub use begun::refuse_others;
pub(crate) use begun::{about, made_otherwise};
pub use behind::{Behind, Judge};
pub(crate) use behind::{images_for_gap, margin_of_gap, points};
pub use claim::Claim;
pub use ground::Ground;
pub(crate) use iterate::taken;
pub use job::Job;
pub use latency::LatencyTable;
pub use losses::Losses;
pub use measure::{Budget, Measure};
pub(crate) use options::said;
pub use predictions::{Answer, answers};
pub use pruning::Pruned;
pub(crate) use recipe::MOST_EPOCHS;
pub use recipe::{Recipe, Search, Stage};
pub(crate) use report::paid;
pub use report::{BackboneSize, Report, count};
pub use select::{Attempt, Candidate, Goal, Selection};
pub(crate) use stages::EVAL_BATCH;
pub use stages::{Student, Tailoring, Teacher};
pub use work::Work;
