//! Kernels over channel-blocked activations: one frame at a time, f32 (with products in f16 on
//! [`Isa::NeonFp16`]).
//!
//! **Layout.** A feature map `(c, h, w)` is stored as `[ceil(c / cb)][h][w][cb]` with `cb =` [`Isa::block`];
//! the padding channels of the last block hold zeros, and every kernel keeps them zero. [`pack`] reorders
//! convolution weights for the kernel chosen for the shape; that choice is a static rule, so a file packed
//! for an instruction set stays valid.
//!
//! **Contract.** Every function checks its slices once and returns a [`KernelError`] instead of panicking;
//! slices may be longer than needed. Nothing allocates. Work is split statically over a [`Pool`](pool::Pool),
//! and results do not depend on the number of threads.

mod blocked;
mod conv;
mod direct;
mod elementwise;
mod floats;
pub mod int8;
mod isa;
mod linear;
mod plain;
mod pointwise;
pub mod pool;
mod pooling;
mod simd;
#[cfg(test)]
mod tests;
mod tile;
mod winograd;

pub use blocked::{blocked_len, pad_channels, subsample, to_blocked};
pub use conv::{
    ConvShape, Epilogue, accepts, conv, holds_halves, pack, pack_run, packed_len, run, scratch_len,
};
pub use elementwise::{add_scaled, affine};
pub use floats::{Floats, Reserved, bytes, bytes_mut, signed, signed_mut};
pub use isa::{Isa, KernelError};
pub use linear::linear;
pub use pointwise::{MAX_TERMS, Term, pointwise};
pub use pooling::{Window, avg_pool, global_avg_pool, max_pool};
