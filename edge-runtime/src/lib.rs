//! See the crate's description in ARCHITECTURE.md.

pub mod kernels;
pub mod pool;
