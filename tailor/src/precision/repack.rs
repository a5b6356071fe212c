//! Rewrites bundles with fewer bits.

use super::File;
use super::measure::Deployed;
use crate::{Error, Result};
use bundles::container::{Golden, Kind, Layout, Manifest, SigningKey, Writer};
use bundles::plan::Owner;
use edge_runtime::kernels::Isa;
use edge_runtime::kernels::int8::{Bits, Grid};
use edge_runtime::{Packing, in_rows, pack_backbone};

/// Storage precision (and, for int8, arithmetic).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats in the file; in memory too, and computed with, where the device has instructions for it.
    F16,
    /// Bytes in the file and in memory.
    Int8,
}

/// Largest f16 value.
const F16_MOST: f32 = 65504.0;

/// Maximum deviation of a packed task's scores from the golden ones on another device, relative to the
/// largest: it comes from the order of sums in the linear layer, and in f16 in every layer.
const GOLDEN_TOLERANCE: f32 = 1e-3;

/// Packs the backbone `file` in `precision`: in f32 for the instruction set `isa`, in f16 for it if it computes
/// in half precision, and otherwise in one layout for all.
///
/// # Errors
/// Errors in the file, or that it is already packed.
pub fn backbone(file: File<'_>, precision: Precision, isa: Isa, signers: &[SigningKey]) -> Result<Vec<u8>> {
    let packing = match precision {
        Precision::F32 => Packing::For(isa),
        Precision::F16 if isa.is_half() => Packing::For(isa),
        Precision::F16 => Packing::F16,
        Precision::Int8 => Packing::Int8,
    };
    Ok(pack_backbone(file.name, file.bytes, packing, signers)?)
}

/// How to quantise a task.
#[derive(Debug, Clone, Copy)]
pub struct Rounding<'a> {
    /// The grid of each map, in the order of [`bundles::plan::Plan::maps`].
    pub grids: &'a [Grid],
    /// Bits of each weight.
    pub bits: Bits,
}

/// Packs the task `file` in f16, or, with a `rounding`, in int8. `backbone` is the one it will run on: the
/// golden vectors are computed by the runtime from the two.
///
/// # Errors
/// Errors in either file, or that they do not belong together.
pub fn task(
    file: File<'_>,
    rounding: Option<Rounding<'_>>,
    backbone: File<'_>,
    signers: &[SigningKey],
) -> Result<Vec<u8>> {
    let parsed = file.parse()?;
    let manifest = parsed.manifest();
    let mut writer = like(manifest, Kind::Task);
    let variant = if rounding.is_some() { "int8" } else { "" };
    writer.backbone(manifest.backbone.id, variant);
    for section in &manifest.sections {
        let (name, shape) = (section.name.as_str(), section.shape.as_slice());
        let values = parsed.decode_f32(name).map_err(Error::container(file.name))?;
        match (shape, rounding) {
            ([rows, _, ..], Some(Rounding { bits, .. })) => {
                let (bytes, scales) = in_rows(name, &values, *rows, bits)?;
                writer.tensor_i8(name, Owner::Task, Layout::Canonical, shape, &bytes, &scales)?;
            }
            (_, Some(_)) if fits(&values) => {
                let values: Vec<f32> = values.into_iter().map(rounded).collect();
                writer.tensor_f16(name, Owner::Task, shape, &values)?;
            }
            _ if fits(&values) => {
                writer.tensor_f16(name, Owner::Task, shape, &values)?;
            }
            _ => {
                writer.tensor_f32(name, Owner::Task, shape, &values)?;
            }
        }
    }
    if let (Some(Rounding { grids, .. }), Some(name)) = (rounding, manifest.plan.maps_name()) {
        let numbers: Vec<f32> = grids.iter().flat_map(|grid| [grid.scale, f32::from(grid.zero)]).collect();
        writer.tensor_f32(&name, Owner::Task, &[grids.len(), 2], &numbers)?;
    }
    let bytes = writer.finish(&[])?;
    let mut deployed = Deployed::open(backbone, File { name: file.name, bytes: &bytes })?;
    for golden in &manifest.golden {
        let scores = deployed.golden(golden.seed)?;
        writer.golden(Golden { seed: golden.seed, scores, tolerance: GOLDEN_TOLERANCE });
    }
    Ok(writer.finish(signers)?)
}

/// The backbone's source network as a task of its own; `None` if it has no classifier.
///
/// # Errors
/// Errors in the file.
pub fn source_task(backbone: File<'_>) -> Result<Option<Vec<u8>>> {
    let parsed = backbone.parse()?;
    let manifest = parsed.manifest();
    let mut writer = like(manifest, Kind::Task);
    writer.backbone(manifest.backbone.id, "");
    for spec in manifest.plan.tensors().iter().filter(|spec| spec.owner == Owner::Task) {
        if parsed.section(&spec.name).is_err() {
            return Ok(None);
        }
        let values = parsed.decode_f32(&spec.name).map_err(Error::container(backbone.name))?;
        writer.tensor_f32(&spec.name, Owner::Task, &spec.shape, &values)?;
    }
    if manifest.labels.is_empty() {
        writer.labels((0..manifest.plan.classes()).map(|class| class.to_string()));
    }
    Ok(Some(writer.finish(&[])?))
}

/// `file` with these facts, replacing its own with the same keys, and the security counter if given. Signed
/// with `signers`, or with the development key if there are none: its own signatures do not cover the new
/// bytes.
///
/// # Errors
/// Errors in the file, or a fact no bundle can hold.
pub fn restated(
    file: File<'_>,
    facts: &[(String, String)],
    counter: Option<u64>,
    signers: &[SigningKey],
) -> Result<Vec<u8>> {
    let mut writer = Writer::of(&file.parse()?).map_err(Error::container(file.name))?;
    for (key, value) in facts {
        writer.set_fact(key, value);
    }
    if let Some(counter) = counter {
        writer.security_counter(counter);
    }
    Ok(writer.finish(signers)?)
}

/// Whether f16 can hold all values, [rounded](rounded) or not.
fn fits(values: &[f32]) -> bool {
    values.iter().all(|x| rounded(*x).abs() <= F16_MOST)
}

/// Rounds to eight significant bits: more would add nothing next to weights that have no more, and would make
/// bundles larger.
fn rounded(x: f32) -> f32 {
    const REST: u32 = 0xffff;
    let half = REST / 2 + (x.to_bits() >> 16 & 1);
    f32::from_bits(x.to_bits().wrapping_add(half) & !REST)
}

/// A writer with the contents of `manifest`, without golden vectors and tensors.
fn like(manifest: &Manifest, kind: Kind) -> Writer {
    let mut writer = Writer::new(kind, &manifest.name, manifest.plan.clone(), manifest.preprocess);
    writer.labels(manifest.labels.iter().cloned());
    writer.abi(manifest.abi).security_counter(manifest.security_counter);
    for (key, value) in &manifest.facts {
        writer.fact(key, value);
    }
    writer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_keep_eight_significant_bits() {
        let steps = |n: f32| n / 256.0;
        let cases =
            [(1.0, 1.0), (-0.3, steps(-77.0)), (steps(257.0), 1.0), (steps(259.0), steps(260.0)), (0.0, 0.0)];
        for (x, want) in cases {
            assert_eq!(rounded(x), want, "{x}");
        }
        assert!(fits(&[65280.0, -1.0]) && !fits(&[65500.0]) && !fits(&[f32::NAN]));
    }
}
