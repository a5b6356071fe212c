//! The backbone file: universal kernels with the source's norms and classifier.
//!
//! The container stores a norm as `{name}.scale` and `{name}.shift`. The four vectors needed for training are
//! stored as companions: `{name}.scale#weight`, `{name}.scale#running_var`, `{name}.shift#bias` and
//! `{name}.shift#running_mean`. The same file thus also runs directly, including the source classifier.

use super::{Imported, NORM_EPS};
use crate::{Error, Result};
use bundles::{
    container::{Bundle, Dtype, Kind, Layout, Preprocess, Resize, Writer, write_atomically},
    plan::{Affine, Op, Owner},
};
use std::{collections::BTreeMap, fs, path::Path};

/// Key of the fact recording that the source's norms were folded.
pub(super) const FOLDED: &str = "folded";

/// Companions of a norm: the packed tensor they accompany, and the vector they hold.
const COMPANIONS: [(&str, &str); 4] =
    [("scale", "weight"), ("scale", "running_var"), ("shift", "bias"), ("shift", "running_mean")];

/// Writes a backbone file deterministically and returns the backbone's id.
///
/// # Errors
/// [`Error::Bundle`] if the container refuses the network or the file cannot be written.
pub fn write_backbone(imported: &Imported, path: &Path) -> Result<[u8; 32]> {
    let plan = &imported.plan;
    let (height, width) = (plan.input.h, plan.input.w);
    let preprocess = Preprocess::new(3, width, height, Resize::Bilinear, imported.mean, imported.std);
    let mut writer = Writer::new(Kind::Backbone, imported.arch.to_string(), plan.clone(), preprocess);
    writer.labels(&imported.labels);
    for (key, value) in &imported.facts {
        writer.fact(key, value);
    }
    if imported.folded {
        writer.fact(FOLDED, "true");
    }
    let tensor = |name: &str| {
        imported
            .tensors
            .get(name)
            .ok_or_else(|| Error::import(format!("tensor `{name}`"), "missing", "import the weights again"))
    };
    let norms: BTreeMap<String, &Affine> = plan
        .ops()
        .filter_map(|op| match op {
            Op::Affine(norm) => Some((format!("{}.scale", norm.name), norm)),
            _ => None,
        })
        .collect();
    for spec in plan.tensors() {
        if let Some(norm) = norms.get(&spec.name) {
            write_norm(&mut writer, &norm.name, &tensor)?;
        } else if spec.owner == Owner::Backbone || imported.tensors.contains_key(&spec.name) {
            let (shape, values) = tensor(&spec.name)?;
            writer.tensor_f32(&spec.name, spec.owner, shape, values)?;
        }
    }
    let bytes = writer.finish(&[])?;
    write_atomically(path, &bytes)?;
    Ok(Bundle::parse(&bytes)?.manifest().backbone.id)
}

fn write_norm<'t>(
    writer: &mut Writer,
    name: &str,
    tensor: &impl Fn(&str) -> Result<&'t (Vec<usize>, Vec<f32>)>,
) -> Result<()> {
    let part = |part: &str| tensor(&format!("{name}.{part}"));
    let (shape, weight) = part("weight")?;
    let (bias, mean, variance) = (&part("bias")?.1, &part("running_mean")?.1, &part("running_var")?.1);
    let scale: Vec<f32> = weight.iter().zip(variance).map(|(w, v)| w / (v + NORM_EPS).sqrt()).collect();
    let shift: Vec<f32> = bias.iter().zip(mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
    for (packed, values) in [("scale", &scale), ("shift", &shift)] {
        let packed_name = format!("{name}.{packed}");
        writer.tensor_f32(&packed_name, Owner::Task, shape, values)?;
        for (_, vector) in COMPANIONS.iter().filter(|(beside, _)| *beside == packed) {
            writer.tensor_f32(&format!("{packed_name}#{vector}"), Owner::Task, shape, &part(vector)?.1)?;
        }
    }
    Ok(())
}

/// Reads a backbone file written by [`write_backbone`], verifying every section's hash, and its id.
///
/// # Errors
/// [`Error::Io`]; [`Error::Container`] if the file is damaged or no bundle; [`Error::Config`] if it is a task;
/// [`Error::Import`] if it is packed for a device without the norms needed for training.
pub fn read_backbone(path: &Path) -> Result<(Imported, [u8; 32])> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let damaged = || Error::container(path.display().to_string());
    // Most likely weights that are still to be imported.
    let hint = "a backbone file, as `tailor import` writes it, is needed";
    let bundle = Bundle::parse(&bytes).map_err(|error| match error {
        bundles::Error::BadMagic { got, .. } => damaged()(bundles::Error::BadMagic { got, hint }),
        error => damaged()(error),
    })?;
    let manifest = bundle.manifest();
    let packed = "a backbone packed for a device cannot be trained on; use the imported one";
    if manifest.kind != Kind::Backbone {
        return Err(Error::config(path.display().to_string(), format!("a {}; {hint}", manifest.kind.word())));
    }
    let mut tensors = BTreeMap::new();
    let mut take = |section: &str, name: String| -> Result<bool> {
        if !manifest.sections.iter().any(|s| s.name == section) {
            return Ok(false);
        }
        let found = bundle.section(section).map_err(damaged())?;
        if found.layout != Layout::Canonical || found.dtype == Dtype::I8 {
            let found = format!("kernels in a device's layout (`{section}`)");
            return Err(Error::import(path.display(), found, packed));
        }
        let shape = found.shape.clone();
        tensors.insert(name, (shape, bundle.decode_f32(section).map_err(damaged())?));
        Ok(true)
    };
    let mut classifier = false;
    for op in manifest.plan.ops() {
        match op {
            Op::Affine(Affine { name, .. }) => {
                for (beside, vector) in COMPANIONS {
                    if !take(&format!("{name}.{beside}#{vector}"), format!("{name}.{vector}"))? {
                        let found = format!("no {vector} of norm `{name}`");
                        return Err(Error::import(path.display(), found, packed));
                    }
                }
            }
            Op::Conv(_) | Op::Linear(_) => {
                let mut all = true;
                for spec in op.tensors() {
                    all &= take(&spec.name, spec.name.clone())?;
                }
                if matches!(op, Op::Linear(_)) {
                    classifier = all;
                }
            }
            Op::Relu
            | Op::MaxPool { .. }
            | Op::AvgPool { .. }
            | Op::Subsample { .. }
            | Op::PadChannels { .. }
            | Op::GlobalAvgPool => {}
        }
    }
    let mut facts: BTreeMap<String, String> = manifest.facts.iter().cloned().collect();
    let imported = Imported {
        plan: manifest.plan.clone(),
        arch: manifest.plan.arch.parse().map_err(damaged())?,
        tensors,
        classifier,
        labels: manifest.labels.clone(),
        folded: facts.remove(FOLDED).is_some_and(|value| value == "true"),
        mean: manifest.preprocess.mean,
        std: manifest.preprocess.std,
        facts,
        notes: Vec::new(),
    };
    Ok((imported, manifest.backbone.id))
}
