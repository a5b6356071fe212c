//! Each method held to what it is to do: PyTorch's layers, whole trainings on a few images, and what they leave alone.

mod layers;
mod outcomes;
mod trainings;

use crate::net::Params;
use bundles::plan::{Arch, Plan};
use candle_core::{Device, Tensor};

/// A small network and its numbers, as a backbone.
fn backbone(classes: usize) -> (Plan, Params) {
    let plan = "cifar-resnet8-b".parse::<Arch>().unwrap().plan(12, 12, classes).unwrap();
    let untrained = Params::from_scratch(&plan, 3, &Device::Cpu).unwrap();
    let mut params = Params::default();
    for (name, tensor) in untrained.iter() {
        params.freeze(name, tensor.clone());
    }
    (plan, params)
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Values to the bit.
fn bits(tensor: &Tensor) -> Vec<u32> {
    values(tensor).into_iter().map(f32::to_bits).collect()
}
