//! Random initialisation of a backbone.

use super::Params;
use super::params::Noise;
use crate::Result;
use bundles::plan::{Op, Plan};
use candle_core::{Device, Tensor};

/// Separates these draws from those for a classifier or proxies with the same seed.
const KERNELS: u64 = 0x6b61_696d;

impl Params {
    /// Initialises a network for training from scratch, with every kernel and norm trained: kernels from
    /// `N(0, 2 / fan_out)` with `fan_out = c_out k^2` (He et al., ICCV 2015, as in torchvision's ResNets),
    /// norms with weight 1 and bias 0, and a new classifier. Each kernel is a function of `seed` and its
    /// position in the plan.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn from_scratch(plan: &Plan, seed: u64, device: &Device) -> Result<Params> {
        let mut untrained = Params::default();
        let mut noise = Noise::new(seed ^ KERNELS);
        for op in plan.ops() {
            match op {
                Op::Conv(conv) => {
                    let taps = conv.kernel * conv.kernel;
                    let deviation = (2.0 / (conv.c_out * taps) as f64).sqrt();
                    let kernel = noise.normal(conv.c_out * conv.c_in * taps, deviation, device)?;
                    let shape = (conv.c_out, conv.c_in, conv.kernel, conv.kernel);
                    untrained.freeze(format!("{}.weight", conv.name), kernel.reshape(shape)?);
                    if conv.bias {
                        untrained.freeze(format!("{}.bias", conv.name), constant(0.0, conv.c_out, device)?);
                    }
                }
                Op::Affine(norm) => {
                    let parts = [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)];
                    for (part, value) in parts {
                        let vector = constant(value, norm.channels, device)?;
                        untrained.freeze(format!("{}.{part}", norm.name), vector);
                    }
                }
                Op::Linear(_)
                | Op::Relu
                | Op::MaxPool { .. }
                | Op::AvgPool { .. }
                | Op::Subsample { .. }
                | Op::PadChannels { .. }
                | Op::GlobalAvgPool => {}
            }
        }
        Params::teacher(plan, &untrained, seed, device)
    }
}

fn constant(value: f32, n: usize, device: &Device) -> Result<Tensor> {
    Ok(Tensor::full(value, n, device)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundles::plan::Arch;

    fn spread(tensor: &Tensor) -> (f64, f64) {
        let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        (mean, values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n)
    }

    #[test]
    fn kernels_are_as_wide_as_their_fan_out_asks() {
        for arch in ["cifar-resnet8-b", "wrn10-2", "resnet18-s1"] {
            let arch: Arch = arch.parse().unwrap();
            let plan = arch.plan(32, 32, 5).unwrap();
            let params = Params::from_scratch(&plan, 3, &Device::Cpu).unwrap();
            for op in plan.ops() {
                let Op::Conv(conv) = op else { continue };
                let name = format!("{}.weight", conv.name);
                let (mean, variance) = spread(params.get(&name).unwrap());
                let want = 2.0 / (conv.c_out * conv.kernel * conv.kernel) as f64;
                let n = (conv.c_out * conv.c_in * conv.kernel * conv.kernel) as f64;
                // Five standard deviations of each estimate.
                assert!(mean.abs() < 5.0 * (want / n).sqrt(), "{arch} {name}: mean {mean}");
                let error = (variance / want - 1.0).abs();
                assert!(error < 5.0 * (2.0 / n).sqrt(), "{arch} {name}: variance {variance}, not {want}");
                assert!(params.is_free(&name));
            }
        }
    }

    #[test]
    fn the_seed_decides_and_kernels_differ_from_each_other() {
        let plan = "cifar-resnet8-a".parse::<Arch>().unwrap().plan(16, 16, 2).unwrap();
        let kernel = |seed, name: &str| {
            let params = Params::from_scratch(&plan, seed, &Device::Cpu).unwrap();
            params.values(&format!("{name}.weight")).unwrap()
        };
        let first = kernel(1, "layer1.0.conv1");
        assert_eq!(first, kernel(1, "layer1.0.conv1"));
        assert_ne!(first, kernel(2, "layer1.0.conv1"));
        assert_ne!(first, kernel(1, "layer1.0.conv2"));
    }
}
