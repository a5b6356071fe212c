//! Differentiable operations for training convolutional networks: candle custom ops with fast CPU kernels.
//!
//! Tensors are `f32`, `(n, c, h, w)`. On the CPU, each function is one node of candle's graph with dedicated
//! forward and backward kernels (AVX-512, AVX2 or plain Rust, chosen at run time); on NVIDIA GPUs (feature
//! `cuda`), it uses CUDA kernels and cuBLAS; on any other device, it is composed of candle's ops ([`stock`]),
//! so that the same model runs everywhere. Work is split by shape alone: results are bit-identical for any
//! number of threads.

mod conv;
mod conv_norm;
mod cpu;
mod gate;
#[cfg(feature = "cuda")]
#[allow(unsafe_code)]
mod gpu;
mod loss;
mod matching;
mod node;
mod norm;
mod pool;
mod sgd;
pub mod stock;
#[cfg(test)]
mod tests;

pub use conv::conv2d;
pub use conv_norm::{ConvNorm, ConvNormOutput, conv_norm};
pub use gate::{gated_sum, softmax};
pub use loss::{cross_entropy, mse, scalar, soft_cross_entropy};
pub use matching::{ProxyTrace, local_match};
pub use node::backward;
pub use norm::{BatchNormOutput, affine, batch_norm, follow};
pub use pool::{avg_pool2d, global_avg_pool, max_pool2d, pad_channels, subsample};
pub use sgd::sgd_step;
