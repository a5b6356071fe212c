//! Recognises an architecture from tensor names and shapes.

use crate::{Error, Result, weights::Tensor};
use bundles::plan::{Arch, Shortcut};
use std::collections::{BTreeMap, BTreeSet};

/// Recognises the architecture from the stem's kernel, the blocks of each stage and their contents.
pub(super) fn recognise(tensors: &BTreeMap<String, Tensor>, place: &str) -> Result<Arch> {
    let shape = |name: &str| tensors.get(name).map(|tensor| tensor.shape.as_slice());
    let any = |part: &str| tensors.keys().any(|name| name.contains(part));
    let stages = blocks_per_stage(tensors);
    let unknown = || {
        let stem = match shape("conv1.weight") {
            Some(shape) => format!("conv1.weight of shape {shape:?}"),
            None => format!("no conv1.weight (its first tensors: {})", first_names(tensors)),
        };
        let want = "expected one of CIFAR ResNets, torchvision's resnet18/34/50, wide ResNets and the decathlon's \
                    wrn26, or give --arch";
        Error::import(place, format!("no known architecture: {stem}, blocks per stage {stages:?}"), want)
    };
    let even = |n: usize| stages.len() == 3 && stages.iter().all(|&blocks| blocks == n);
    let first = stages.first().copied().unwrap_or(0);
    let arch = match shape("conv1.weight") {
        Some([64, 3, 7, 7]) => {
            let basic: [(usize, &[usize]); 2] = [(18, &[2, 2, 2, 2]), (34, &[3, 4, 6, 3])];
            let found = basic.iter().find(|(_, blocks)| !stages.is_empty() && blocks.starts_with(&stages));
            match found {
                Some((34, _)) if any("conv3.weight") => Arch::ResNet { depth: 50, stages: stages.len() },
                Some((depth, _)) => Arch::ResNet { depth: *depth, stages: stages.len() },
                None => return Err(unknown()),
            }
        }
        Some([16, 3, 3, 3]) if first > 0 && even(first) => {
            // Wide ResNets activate first: the norm before a block's first convolution has the width of the
            // block's input.
            let wide = shape("layer1.0.conv1.weight").and_then(|shape| shape.first().copied()).unwrap_or(0);
            let last_norm = shape("bn1.weight").and_then(|shape| shape.first().copied());
            if last_norm == Some(4 * wide) && wide >= 16 {
                Arch::WideResNet { depth: 6 * first + 4, width: wide / 16 }
            } else {
                let shortcut = if any(".downsample.0.weight") { Shortcut::Project } else { Shortcut::Pad };
                Arch::CifarResNet { depth: 6 * first + 2, shortcut }
            }
        }
        Some([32, 3, 3, 3]) if even(4) => Arch::DecathlonWrn,
        _ => return Err(unknown()),
    };
    if arch.is_supported() { Ok(arch) } else { Err(unknown()) }
}

/// Number of blocks in `layer1`, `layer2`, ..., up to the first stage without any.
fn blocks_per_stage(tensors: &BTreeMap<String, Tensor>) -> Vec<usize> {
    let mut blocks: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for name in tensors.keys() {
        let mut parts = name.split('.');
        let stage = parts.next().and_then(|part| part.strip_prefix("layer")?.parse().ok());
        let block = parts.next().and_then(|part| part.parse().ok());
        if let (Some(stage), Some(block)) = (stage, block) {
            blocks.entry(stage).or_default().insert(block);
        }
    }
    (1..).map_while(|stage| blocks.get(&stage).map(BTreeSet::len)).collect()
}

fn first_names(tensors: &BTreeMap<String, Tensor>) -> String {
    tensors.keys().take(5).map(String::as_str).collect::<Vec<_>>().join(", ")
}
