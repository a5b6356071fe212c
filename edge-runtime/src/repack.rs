//! Packing a backbone on the workstation: in the layout that a device's kernels read, or at lower precision.

use crate::backbone::{INT8_REVISION, Kernel, LAYOUT_REVISION, int8_shape, isa_in_files, kernel_dtype};
use crate::bundle;
use crate::engine::Program;
use crate::kernels::int8::{self, Bits};
use crate::kernels::{self, ConvShape, Floats, Isa};
use crate::{Error, Result};
use bundles::container::{self, Bundle, Dtype, Kind, Layout, Section, SigningKey, Writer};
use bundles::plan::{Conv, Op, Owner};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// How a backbone's kernels are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// In the layout of an instruction set: mapped and used in place. Winograd kernels take up to four times
    /// the space of plain ones. The numbers are f32, or, for a set with [half precision](Isa::is_half), f16
    /// for all but the Winograd kernels.
    For(Isa),
    /// f16 in plain order: half the file size, converted to the device's layout at open (as f32, or as f16
    /// where it computes in half precision).
    F16,
    /// Bytes with a scale per output channel, in the one order that all integer kernels read in place: a
    /// quarter of the file size. Runs only tasks that were packed for it.
    Int8,
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Packing::For(isa) if isa.is_half() => write!(f, "f16-{isa}"),
            Packing::For(isa) => write!(f, "f32-{isa}"),
            Packing::F16 => f.write_str("f16"),
            Packing::Int8 => f.write_str("int8"),
        }
    }
}

/// Packs the backbone `bytes` as `packing`, for images of the size in its plan.
///
/// The machine need not support the target instruction set. The id is unchanged; the variant becomes the
/// packing's name. In f32 everything else in the file is kept; the others keep only what a device may use:
/// vectors that only training reads (companions of the source's norms) are dropped, and the source's own
/// tensors are rounded too. Signed with `signers`, or with the development key if there are none.
///
/// # Errors
/// If the file is invalid; [`Error::Usage`] for a file that is already packed.
pub fn pack_backbone(file: &str, bytes: &[u8], packing: Packing, signers: &[SigningKey]) -> Result<Vec<u8>> {
    let container = || Error::container(file);
    let parsed = Bundle::parse(bytes).map_err(container())?;
    let manifest = parsed.manifest();
    bundle::check_kind(file, manifest, Kind::Backbone)?;
    parsed.verify_sections().map_err(container())?;

    let mut writer = Writer::new(Kind::Backbone, &manifest.name, manifest.plan.clone(), manifest.preprocess);
    writer.labels(manifest.labels.iter().map(String::as_str));
    writer.backbone(manifest.backbone.id, packing.to_string());
    writer.abi(manifest.abi).security_counter(manifest.security_counter);
    for golden in &manifest.golden {
        writer.golden(golden.clone());
    }
    for (key, value) in &manifest.facts {
        writer.fact(key, value);
    }
    match packing {
        Packing::For(isa) => blocked(file, &parsed, isa, &mut writer)?,
        Packing::F16 => rounded(file, &parsed, false, &mut writer)?,
        Packing::Int8 => rounded(file, &parsed, true, &mut writer)?,
    }
    writer.finish(signers).map_err(container())
}

/// Adds every section, with kernels in the layout of `isa`; what is no kernel is rounded if these are.
fn blocked(file: &str, parsed: &Bundle<'_>, isa: Isa, writer: &mut Writer) -> Result<()> {
    let container_error = || Error::container(file);
    let shapes = shapes(file, parsed, isa)?;
    for section in &parsed.manifest().sections {
        let shape = shapes.get(&section.name).filter(|_| section.owner == Owner::Backbone);
        let (dtype, layout, bytes) = match shape {
            None if isa.is_half() && section.is_companion() => continue,
            None if isa.is_half() => {
                let values = plain(file, parsed, section)?;
                let added = writer.tensor_f16(&section.name, section.owner, &section.shape, &values);
                added.map_err(container_error())?;
                continue;
            }
            None => (
                section.dtype,
                section.layout,
                parsed.raw(&section.name).map_err(container_error())?.to_vec(),
            ),
            Some(shape) => {
                let mut plain = plain(file, parsed, section)?;
                if isa.is_half() {
                    // As `Packing::F16` rounds them: what Winograd transforms, too.
                    let halves = |x: &f32| container::f16_to_f32(container::f32_to_f16(*x));
                    let rounded: Vec<f32> = plain.iter().map(halves).collect();
                    if rounded.iter().any(|x| !x.is_finite()) {
                        // Refuses what halves cannot hold.
                        let refused = writer.tensor_f16(&section.name, section.owner, &section.shape, &plain);
                        refused.map_err(container_error())?;
                    }
                    plain = rounded;
                }
                let mut packed = Floats::zeros(kernels::packed_len(isa, shape));
                kernels::pack(isa, shape, &plain, &mut packed)
                    .map_err(|source| Error::Kernel { step: section.name.clone(), source })?;
                let layout = Layout::Blocked { isa: isa_in_files(isa), revision: LAYOUT_REVISION };
                let bytes = packed.iter().flat_map(|x| x.to_le_bytes()).collect();
                (kernel_dtype(isa, shape, packed.len()), layout, bytes)
            }
        };
        let added = writer.tensor(&section.name, section.owner, dtype, layout, &section.shape, bytes);
        added.map_err(container_error())?;
    }
    Ok(())
}

/// Adds the plan's tensors rounded to f16, or quantised to bytes by row if `to_bytes` is set and they have
/// rows.
fn rounded(file: &str, parsed: &Bundle<'_>, to_bytes: bool, writer: &mut Writer) -> Result<()> {
    let manifest = parsed.manifest();
    let kernels: HashMap<String, &Conv> = manifest
        .plan
        .ops()
        .filter_map(|op| match op {
            Op::Conv(conv) if conv.owner == Owner::Backbone => Some((format!("{}.weight", conv.name), conv)),
            _ => None,
        })
        .collect();
    for section in manifest.sections.iter().filter(|section| !section.is_companion()) {
        let (name, owner, shape) = (section.name.as_str(), section.owner, section.shape.as_slice());
        let values = plain(file, parsed, section)?;
        let kernel = kernels.get(name);
        let added = match shape {
            [rows, _, ..] if to_bytes => {
                let (bytes, scales) = in_rows(name, &values, *rows, Bits::ALL)?;
                match kernel {
                    Some(conv) => {
                        let shape8 = int8_shape(conv);
                        let mut packed = vec![0; int8::packed_len(&shape8)];
                        int8::pack(&shape8, &bytes, &mut packed)
                            .map_err(|source| Error::Kernel { step: name.into(), source })?;
                        let layout =
                            Layout::Blocked { isa: container::Isa::Portable, revision: INT8_REVISION };
                        writer.tensor_i8(name, owner, layout, shape, &packed, &scales)
                    }
                    None => writer.tensor_i8(name, owner, Layout::Canonical, shape, &bytes, &scales),
                }
            }
            _ => writer.tensor_f16(name, owner, shape, &values),
        };
        added.map_err(Error::container(file))?;
    }
    Ok(())
}

/// Quantises a tensor to `bits` bits, and returns its bytes and the scale of each of its `rows`.
///
/// # Errors
/// [`Error::Kernel`] if its length is not a multiple of `rows`.
pub fn in_rows(name: &str, values: &[f32], rows: usize, bits: Bits) -> Result<(Vec<i8>, Vec<f32>)> {
    let (mut bytes, mut scales) = (vec![0; values.len()], vec![0.0; rows]);
    int8::quantise_rows(values, rows, bits, &mut bytes, &mut scales)
        .map_err(|source| Error::Kernel { step: name.into(), source })?;
    Ok((bytes, scales))
}

/// The numbers of a section that is still as imported.
fn plain(file: &str, parsed: &Bundle<'_>, section: &Section) -> Result<Vec<f32>> {
    if (section.dtype, section.layout) != (Dtype::F32, Layout::Canonical) {
        return Err(Error::Usage {
            got: format!(
                "{file} is already packed (tensor `{}` is {:?}, {:?})",
                section.name, section.dtype, section.layout
            ),
            want: "the file that `tailor import`, `pretrain` or `fit` made".into(),
        });
    }
    parsed.decode_f32(&section.name).map_err(Error::container(file))
}

/// The shape each kernel runs in. A kernel that the plan uses in two ways with different packings is left
/// out; it stays plain and is repacked at open.
fn shapes(file: &str, bundle: &Bundle<'_>, isa: Isa) -> Result<HashMap<String, ConvShape>> {
    let used = RefCell::new(Vec::new());
    let empty = Arc::new(Floats::default());
    let note = |conv: &Conv, shape: &ConvShape| {
        used.borrow_mut().push((format!("{}.weight", conv.name), *shape));
        Ok(Kernel::Packed(Arc::clone(&empty)))
    };
    Program::compile(file, &bundle.manifest().plan, isa, &note)?;
    let used = used.into_inner();
    let len = |shape| kernels::packed_len(isa, shape);
    let first: HashMap<_, _> = used.iter().rev().cloned().collect();
    let agree = |name: &String| {
        let mut uses = used.iter().filter(|(other, _)| other == name);
        uses.all(|(_, shape)| first.get(name).is_some_and(|first| len(first) == len(shape)))
    };
    Ok(first.iter().filter(|(name, _)| agree(name)).map(|(name, shape)| (name.clone(), *shape)).collect())
}
