//! Tailors a pre-trained backbone to a task: teach, train, prune, pack. See ARCHITECTURE.md.

pub mod data;
mod error;
pub mod import;
pub mod ops;
pub mod random;
pub mod weights;

pub use error::{Error, Result};
