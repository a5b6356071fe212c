//! Tailors a pre-trained backbone to a task: teach, train, prune, pack. See ARCHITECTURE.md.

mod error;
pub mod ops;

pub use error::{Error, Result};
