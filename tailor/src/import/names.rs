//! Maps tensor names used by other programs to the plan's names.

use crate::weights::Tensor;
use std::collections::BTreeMap;

/// Renames tensors as in plans; drops counters that inference does not need.
pub(super) fn canonical(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let kept = tensors.into_iter().filter(|(name, _)| !name.ends_with("num_batches_tracked"));
    kept.map(|(name, tensor)| (rename(&name), tensor)).collect()
}

fn rename(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        ["linear" | "classifier" | "head", part] => format!("fc.{part}"),
        // Wide ResNets store their blocks in a list inside each stage.
        [stage, "layer", block, ref rest @ ..] if stage_number(stage).is_some() => {
            in_block(stage_number(stage).unwrap_or_default(), block, rest)
        }
        [stage, block, ref rest @ ..] if stage_number(stage).is_some() && is_number(block) => {
            in_block(stage_number(stage).unwrap_or_default(), block, rest)
        }
        _ => name.to_owned(),
    }
}

fn in_block(stage: &str, block: &str, rest: &[&str]) -> String {
    let rest = match rest {
        ["convShortcut", part] => format!("shortcut.{part}"),
        ["shortcut", index @ ("0" | "1"), part] => format!("downsample.{index}.{part}"),
        _ => rest.join("."),
    };
    format!("layer{stage}.{block}.{rest}")
}

/// `3` of `layer3`, `block3` or `stage3`.
fn stage_number(part: &str) -> Option<&str> {
    let number = ["layer", "block", "stage"].iter().find_map(|prefix| part.strip_prefix(prefix))?;
    is_number(number).then_some(number)
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.len() < 4 && part.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::rename;

    #[test]
    fn maps_other_names_to_the_plans_names() {
        let cases = [
            ("conv1.weight", "conv1.weight"),
            ("layer2.0.downsample.1.running_var", "layer2.0.downsample.1.running_var"),
            ("layer2.0.shortcut.0.weight", "layer2.0.downsample.0.weight"),
            ("layer2.layer.1.bn1.bias", "layer2.1.bn1.bias"),
            ("block3.layer.0.convShortcut.weight", "layer3.0.shortcut.weight"),
            ("linear.bias", "fc.bias"),
            ("head.bias", "fc.bias"),
            ("layers.0.weight", "layers.0.weight"),
        ];
        for (name, want) in cases {
            assert_eq!(rename(name), want);
        }
    }
}
