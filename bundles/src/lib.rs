//! What host and device agree on: the [`plan`] (one tailored network as plain data) and the container
//! that carries backbones and task bundles.
//!
//! This crate knows no tensor library. It holds structure, shapes, costs, pruning, bytes and hashes;
//! numbers are run by `tailor` (under autograd) and by `edge-runtime` (in place).

#![forbid(unsafe_code)]

pub mod container;
mod error;
pub mod plan;
pub mod preprocess;
mod wire;

pub use error::{Error, Result};
