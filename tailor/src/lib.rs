//! Tailors a pre-trained backbone to a task: teach, train, prune, pack. See ARCHITECTURE.md.

pub mod baselines;
pub mod cmd;
pub mod data;
mod destination;
pub mod device;
pub mod draw;
mod error;
pub mod export;
pub mod fit;
pub mod import;
pub mod interrupt;
pub mod net;
pub mod ops;
mod output;
pub mod pack;
mod plural;
pub mod precision;
pub mod pretrain;
pub mod progress;
pub mod protocols;
pub mod random;
pub mod report;
mod shell;
pub mod source;
pub mod startup;
pub mod train;
pub mod weights;

pub use error::{Error, Result};
