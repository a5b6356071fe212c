//! Each method held to what it is to do: PyTorch's layers, whole trainings on a few images, and what they leave alone.

mod layers;
mod lwf;
mod outcomes;
mod trainings;

use candle_core::Tensor;

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Values to the bit.
fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).into_iter().map(f32::to_bits).collect()
}
