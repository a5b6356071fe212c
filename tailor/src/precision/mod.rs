//! A trained task in fewer bits: f16, or int8 with its maps calibrated on images, and what that costs in accuracy.

mod calibrate;
mod measure;
mod repack;

pub use calibrate::calibrate;
pub use measure::{Loss, accuracy};
pub use repack::{Precision, Rounding, backbone, source_task, task};
