//! Checks of each method: against PyTorch's layers, in whole trainings on a few images, and for what it must
//! leave unchanged; and of running several.

mod comparison;
mod layers;
mod lwf;
mod outcomes;
mod trainings;

use candle_core::Tensor;

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Bit patterns of the values.
fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).into_iter().map(f32::to_bits).collect()
}
