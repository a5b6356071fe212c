//! CPU kernels: plain functions over slices, independent of candle's tensors.

pub(crate) mod conv;
pub(crate) mod lanes;
pub(crate) mod level;
pub(crate) mod levels;
pub(crate) mod norm;
pub(crate) mod output;
pub(crate) mod pool;
pub(crate) mod scratch;
pub(crate) mod shape;
pub(crate) mod simple;
pub(crate) mod tile;
pub(crate) mod winograd;
