//! Converts published weights to a backbone: recognises the architecture, checks names and shapes, and brings
//! norms to one form.
//!
//! [`import`] turns a state dict into an [`Imported`] network named after its plan; [`write_backbone`] and
//! [`read_backbone`] store it in a container.

mod file;
mod fitting;
mod names;
mod recognise;
#[cfg(test)]
mod tests;

pub use file::{read_backbone, write_backbone};

use crate::{
    Error, Result,
    weights::{StateDict, read_state_dict},
};
use bundles::container::check_fact;
use bundles::plan::{Arch, Plan, Shortcut};
use std::{collections::BTreeMap, path::Path};

/// Epsilon that batch-norms add to the variance: PyTorch's default, used by every supported source.
const NORM_EPS: f32 = crate::net::NORM_EPS as f32;

/// Shape and values of tensors by name.
pub type NamedValues = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// A source network in the plan's terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The backbone at the image size it was trained for (for imported weights, the architecture's native
    /// size), with the source's number of classes.
    pub plan: Plan,
    /// The recognised architecture.
    pub arch: Arch,
    /// Shape and values by name: `{conv}.weight` for every kernel of the plan; `weight`, `bias`,
    /// `running_mean` and `running_var` for every norm (see [`Affine`](bundles::plan::Affine)); `fc.weight`
    /// and `fc.bias` if there is a classifier.
    pub tensors: NamedValues,
    /// Whether the source classifier is included.
    pub classifier: bool,
    /// Class labels of the source classifier in score order; empty if the source did not state them.
    pub labels: Vec<String>,
    /// Whether the source's norms were folded into convolution biases. They are then exact in inference but
    /// have no statistics: mean 0 and variance 1 stand in for them.
    pub folded: bool,
    /// Per-channel mean used in the source's training, for pixels scaled to 0..1.
    pub mean: [f32; 3],
    /// Per-channel standard deviation.
    pub std: [f32; 3],
    /// Other metadata of the source, such as its accuracy.
    pub facts: BTreeMap<String, String>,
    /// Notes for the user: assumptions made, tensors left out.
    pub notes: Vec<String>,
}

/// User overrides of what the file states.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The architecture; recognised from names and shapes if `None`.
    pub arch: Option<Arch>,
    /// Per-channel mean; from the file, or the source's usual one, if `None`.
    pub mean: Option<[f32; 3]>,
    /// Per-channel standard deviation.
    pub std: Option<[f32; 3]>,
}

/// Reads a state dict (see [`read_state_dict`]) and fits it to an architecture.
///
/// # Errors
/// As [`read_state_dict`], and [`Error::Import`] naming the tensor with its actual and expected shape, or the
/// reason no architecture was recognised.
pub fn import(path: &Path, request: &Request) -> Result<Imported> {
    from_state_dict(read_state_dict(path)?, request, &path.display().to_string())
}

/// Fits a state dict to an architecture; `place` names it in messages.
///
/// # Errors
/// As [`import`].
pub fn from_state_dict(dict: StateDict, request: &Request, place: &str) -> Result<Imported> {
    let StateDict { tensors, mut metadata } = dict;
    let tensors = names::canonical(tensors);
    let arch = match request.arch {
        Some(arch) => arch,
        None => recognise::recognise(&tensors, place)?,
    };
    let mut imported = fitting::fit(arch, tensors, place)?;

    let usual = usual_normalisation(arch, imported.plan.classes());
    let mut pick = |asked: Option<[f32; 3]>, key: &str, usual: [f32; 3]| -> Result<[f32; 3]> {
        let stated = metadata.remove(key);
        if let Some(values) = asked {
            return Ok(values);
        }
        let Some(text) = stated else {
            imported
                .notes
                .push(format!("{key} {usual:?} assumed, the usual one of {arch}; --{key} changes it"));
            return Ok(usual);
        };
        triple(&text).ok_or_else(|| {
            let want = format!("three numbers such as 0.5,0.5,0.5; or give --{key}");
            Error::import(format!("{place}: metadata `{key}`"), format!("`{text}`"), want)
        })
    };
    imported.mean = pick(request.mean, "mean", usual.0)?;
    imported.std = pick(request.std, "std", usual.1)?;
    // Recorded by the import itself.
    metadata.retain(|key, _| !["arch", file::FOLDED].contains(&key.as_str()));
    for (key, value) in metadata {
        match check_fact(&key, &value) {
            Ok(()) => drop(imported.facts.insert(key, value)),
            Err(error) => imported.notes.push(format!("metadata `{}` left out: {error}", key.escape_debug())),
        }
    }
    Ok(imported)
}

fn triple(text: &str) -> Option<[f32; 3]> {
    let values: Vec<f32> = text
        .trim_matches(['[', ']', '(', ')'])
        .split(',')
        .map(|v| v.trim().parse().ok())
        .collect::<Option<_>>()?;
    values.try_into().ok()
}

/// Mean and standard deviation commonly used in training public weights of this kind.
fn usual_normalisation(arch: Arch, classes: usize) -> ([f32; 3], [f32; 3]) {
    match (arch, classes) {
        // The well-known option-A weights used ImageNet's values on CIFAR, as all ImageNet networks do.
        (Arch::CifarResNet { shortcut: Shortcut::Pad, .. } | Arch::ResNet { .. } | Arch::DecathlonWrn, _) => {
            ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        }
        (_, 100) => ([0.5070, 0.4865, 0.4409], [0.2673, 0.2564, 0.2761]),
        _ => ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
    }
}
