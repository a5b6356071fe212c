//! Packs a trained task in fewer bits: f16, or int8 with maps calibrated on images, and measures the accuracy
//! lost.

mod calibrate;
mod choose;
mod file;
mod form;
mod measure;
mod repack;

pub use calibrate::{calibrate, calibrate_on};
pub use choose::{Chosen, Trial};
pub use file::{File, Loaded};
pub use form::{Form, most_needed, needs};
pub use measure::{Loss, accuracy, answers};
pub use repack::{Precision, Rounding, backbone, restated, source_task, task};
