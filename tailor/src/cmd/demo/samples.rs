//! The samples embedded in the program: weights and two sets of images.

use anyhow::Context;
use bundles::container::write_atomically;
use std::path::{Path, PathBuf};

/// A file embedded in the program.
pub(super) struct Packed {
    pub(super) name: &'static str,
    bytes: &'static [u8],
}

/// A task of the demo.
pub(super) struct Sample {
    pub(super) name: &'static str,
    pub(super) images: Packed,
    /// Epochs of teacher, student, retraining.
    pub(super) epochs: [usize; 3],
    pub(super) crop_pad: usize,
    pub(super) flip: bool,
}

/// CIFAR-100 ResNet-20, pre-trained for this project.
pub(super) const WEIGHTS: Packed = Packed {
    name: "cifar100-resnet20.safetensors",
    bytes: include_bytes!("../../../../bundles/samples/cifar100-resnet20.safetensors"),
};

/// Handwritten digits (easy) and articles of clothing (harder).
pub(super) const TASKS: [Sample; 2] = [
    Sample {
        name: "digits",
        images: Packed {
            name: "digits.zip",
            bytes: include_bytes!("../../../../bundles/samples/digits.zip"),
        },
        epochs: [6, 8, 5],
        crop_pad: 2,
        flip: false,
    },
    Sample {
        name: "fashion",
        images: Packed {
            name: "fashion.zip",
            bytes: include_bytes!("../../../../bundles/samples/fashion.zip"),
        },
        epochs: [5, 6, 3],
        crop_pad: 2,
        flip: true,
    },
];

/// Writes a sample below `folder`, where it stays for inspection.
pub(super) fn unpack(folder: &Path, sample: &Packed) -> anyhow::Result<PathBuf> {
    let samples = folder.join("samples");
    std::fs::create_dir_all(&samples).with_context(|| samples.display().to_string())?;
    let path = samples.join(sample.name);
    if !std::fs::metadata(&path).is_ok_and(|meta| meta.len() == sample.bytes.len() as u64) {
        write_atomically(&path, sample.bytes)?;
    }
    Ok(path)
}
