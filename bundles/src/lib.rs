//! The contract between host and device: the [`plan`] (a tailored network as plain data) and the container
//! for backbones and task bundles.
//!
//! This crate has no tensor library. It defines structure, shapes, costs, pruning, encoding and hashes;
//! networks are run by `tailor` (with autograd) and by `edge-runtime` (in place).

#![forbid(unsafe_code)]

mod by_name;
pub mod container;
mod error;
pub mod plan;
pub mod preprocess;
mod wire;

pub use error::{Error, Result};
