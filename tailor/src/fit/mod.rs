//! Tailoring one task: teach, train, prune, pack, in a work folder that can be picked up at any epoch.

mod begun;
mod ground;
mod job;
mod predictions;
mod recipe;
mod record;
mod report;
mod select;
mod stages;
mod work;

pub use begun::refuse_others;
pub use ground::Ground;
pub use job::{Job, hex};
pub use predictions::{Answer, answers};
pub use recipe::{Recipe, Search, Stage};
pub use report::{BackboneSize, Report, count};
pub use select::{Attempt, Candidate, Selection};
pub(crate) use stages::EVAL_BATCH;
pub use stages::{Pruned, Student, Tailoring, Teacher};
pub use work::Work;
