//! Bundles written again with fewer bits.

use super::measure::Deployed;
use crate::Result;
use bundles::container::{Bundle, Golden, Kind, Layout, Manifest, SigningKey, Writer};
use bundles::plan::Owner;
use edge_runtime::kernels::Isa;
use edge_runtime::kernels::int8::Grid;
use edge_runtime::{Packing, in_rows, pack_backbone};

/// How numbers are stored (and, in int8, computed with).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats in the file, 32-bit ones at work.
    F16,
    /// Bytes in the file and at work.
    Int8,
}

/// Largest value that f16 holds.
const F16_MOST: f32 = 65504.0;

/// How far a packed task's scores may lie from the golden ones on another device, relative to the largest: what
/// differs is the order of sums in the linear layer, and in f16 those of every layer.
const GOLDEN_TOLERANCE: f32 = 1e-3;

/// The backbone file `bytes` in `precision`, for the instruction set `isa` where its layout depends on one.
///
/// # Errors
/// What is wrong with the file, or that it was packed before.
pub fn backbone(
    file: &str,
    bytes: &[u8],
    precision: Precision,
    isa: Isa,
    signers: &[SigningKey],
) -> Result<Vec<u8>> {
    let packing = match precision {
        Precision::F32 => Packing::F32(isa),
        Precision::F16 => Packing::F16,
        Precision::Int8 => Packing::Int8,
    };
    Ok(pack_backbone(file, bytes, packing, signers)?)
}

/// The task bundle `bytes` in f16, or, with `grids` for its maps, in int8. `backbone` is the file it will run on: the
/// golden vectors are what the runtime makes of the two.
///
/// # Errors
/// What is wrong with either file, or that they do not belong together.
pub fn task(
    bytes: &[u8],
    grids: Option<&[Grid]>,
    backbone: &[u8],
    signers: &[SigningKey],
) -> Result<Vec<u8>> {
    let parsed = Bundle::parse(bytes)?;
    let manifest = parsed.manifest();
    let mut writer = like(manifest, Kind::Task);
    let variant = if grids.is_some() { "int8" } else { "" };
    writer.backbone(manifest.backbone.id, variant);
    for section in &manifest.sections {
        let (name, shape) = (section.name.as_str(), section.shape.as_slice());
        let values = parsed.decode_f32(name)?;
        match (shape, grids) {
            ([rows, _, ..], Some(_)) => {
                let (bytes, scales) = in_rows(name, &values, *rows)?;
                writer.tensor_i8(name, Owner::Task, Layout::Canonical, shape, &bytes, &scales)?;
            }
            _ if values.iter().all(|x| x.abs() <= F16_MOST) => {
                writer.tensor_f16(name, Owner::Task, shape, &values)?;
            }
            _ => {
                writer.tensor_f32(name, Owner::Task, shape, &values)?;
            }
        }
    }
    if let (Some(grids), Some(name)) = (grids, manifest.plan.maps_name()) {
        let numbers: Vec<f32> = grids.iter().flat_map(|grid| [grid.scale, f32::from(grid.zero)]).collect();
        writer.tensor_f32(&name, Owner::Task, &[grids.len(), 2], &numbers)?;
    }
    let mut deployed = Deployed::open(backbone, &writer.finish(&[])?)?;
    for golden in &manifest.golden {
        let scores = deployed.golden(golden.seed)?;
        writer.golden(Golden { seed: golden.seed, scores, tolerance: GOLDEN_TOLERANCE });
    }
    Ok(writer.finish(signers)?)
}

/// The backbone's source network as a task of its own, `None` when its classifier was left out.
///
/// # Errors
/// What is wrong with the file.
pub fn source_task(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let parsed = Bundle::parse(bytes)?;
    let manifest = parsed.manifest();
    let mut writer = like(manifest, Kind::Task);
    writer.backbone(manifest.backbone.id, "");
    for spec in manifest.plan.tensors().iter().filter(|spec| spec.owner == Owner::Task) {
        if parsed.section(&spec.name).is_err() {
            return Ok(None);
        }
        writer.tensor_f32(&spec.name, Owner::Task, &spec.shape, &parsed.decode_f32(&spec.name)?)?;
    }
    if manifest.labels.is_empty() {
        writer.labels((0..manifest.plan.classes()).map(|class| class.to_string()));
    }
    Ok(Some(writer.finish(&[])?))
}

/// A writer that says what `manifest` says, golden vectors and tensors left out.
fn like(manifest: &Manifest, kind: Kind) -> Writer {
    let mut writer = Writer::new(kind, &manifest.name, manifest.plan.clone(), manifest.preprocess);
    writer.labels(manifest.labels.iter().cloned());
    writer.abi(manifest.abi).security_counter(manifest.security_counter);
    for (key, value) in &manifest.facts {
        writer.fact(key, value);
    }
    writer
}
