//! Packing a backbone for an instruction set on the workstation, so that the device reads it in place.

use crate::backbone::{Kernel, LAYOUT_REVISION, isa_in_files};
use crate::bundle;
use crate::engine::Program;
use crate::kernels::{self, ConvShape, Floats, Isa};
use crate::{Error, Result};
use bundles::container::{Bundle, Dtype, Kind, Layout, SigningKey, Writer};
use bundles::plan::{Conv, Owner};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

/// The backbone `bytes` with its kernels in the layout that `isa` reads, for images of the size in its plan.
///
/// Needs no machine with that instruction set. The id stays, so every task of this backbone runs on the packed
/// file too; the variant gains the instruction set's name. Winograd kernels take up to four times the room of
/// plain ones. Signed with `signers`, or the development key if there are none.
///
/// # Errors
/// What is wrong with the file; [`Error::Incompatible`] for kernels that are not plain f32.
pub fn pack_backbone(file: &str, bytes: &[u8], isa: Isa, signers: &[SigningKey]) -> Result<Vec<u8>> {
    let container = || Error::container(file);
    let parsed = Bundle::parse(bytes).map_err(container())?;
    let manifest = parsed.manifest();
    bundle::check_kind(file, manifest, Kind::Backbone)?;
    parsed.verify_sections().map_err(container())?;

    let mut writer = Writer::new(Kind::Backbone, &manifest.name, manifest.plan.clone(), manifest.preprocess);
    let variant = format!("{}-{isa}", manifest.backbone.variant);
    writer.labels(manifest.labels.iter().map(String::as_str)).backbone(manifest.backbone.id, variant);
    writer.abi(manifest.abi).security_counter(manifest.security_counter);
    for golden in &manifest.golden {
        writer.golden(golden.clone());
    }
    for (key, value) in &manifest.facts {
        writer.fact(key, value);
    }
    let shapes = shapes(file, &parsed, isa)?;
    for section in &manifest.sections {
        let stored = parsed.raw(&section.name).map_err(container())?;
        let shape = shapes.get(&section.name).filter(|_| section.owner == Owner::Backbone);
        let (layout, bytes) = match shape {
            None => (section.layout, stored.to_vec()),
            Some(shape) if section.dtype == Dtype::F32 && section.layout == Layout::Canonical => {
                let plain: Vec<f32> = stored.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
                let mut packed = Floats::zeros(kernels::packed_len(isa, shape));
                kernels::pack(isa, shape, &plain, &mut packed)
                    .map_err(|source| Error::Kernel { step: section.name.clone(), source })?;
                let layout = Layout::Blocked { isa: isa_in_files(isa), revision: LAYOUT_REVISION };
                (layout, packed.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
            Some(_) => {
                return Err(Error::Incompatible {
                    file: file.into(),
                    want: format!("tensor `{}` as {:?}, {:?}", section.name, section.dtype, section.layout),
                    got: "a packer of plain F32 kernels".into(),
                });
            }
        };
        let added = writer.tensor(&section.name, section.owner, section.dtype, layout, &section.shape, bytes);
        added.map_err(container())?;
    }
    writer.finish(signers).map_err(container())
}

/// The shape each kernel runs in. A kernel that the plan uses in two ways that are packed differently is left
/// out, so that it stays plain and is repacked at open.
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
