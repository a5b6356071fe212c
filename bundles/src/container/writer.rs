//! Packs bundles deterministically.

use super::frame::{self, Contents};
use super::header::{DIGEST, digest};
use super::preamble::{PREAMBLE, Preamble, largest_manifest};
use super::signature::{self, SIGNATURES};
use super::{
    BackboneRef, Block, Bundle, Codec, Decoder, Dtype, Golden, Kind, Layout, Manifest, Preprocess,
    RUNTIME_ABI, Section, SigningKey, backbone_id, block, f32_to_f16, planes, rules,
};
use crate::plan::{Owner, Plan};
use crate::wire::{corrupt, uncountable};
use crate::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;

/// Target size of a block of several tensors: large enough for few hashes and frames, small enough that the
/// first layers are available early and that it is still in a core's cache when its tensors are extracted.
const GATHERED: usize = 128 * 1024;

/// Collects a bundle's contents; [`Writer::finish`] returns its bytes.
///
/// Tensors are stored in the order they are added: for a task, add them in execution order.
pub struct Writer {
    manifest: Manifest,
    /// Raw bytes of each section.
    raw: Vec<Vec<u8>>,
}

impl Writer {
    /// An empty bundle for this runtime ABI, without labels, facts, golden vectors or tensors.
    pub fn new(kind: Kind, name: impl Into<String>, plan: Plan, preprocess: Preprocess) -> Writer {
        let backbone = BackboneRef { id: [0; 32], variant: String::new() };
        let manifest = Manifest {
            kind,
            name: name.into(),
            plan,
            labels: Vec::new(),
            preprocess,
            backbone,
            abi: RUNTIME_ABI,
            security_counter: 0,
            golden: Vec::new(),
            facts: Vec::new(),
            sections: Vec::new(),
            blocks: Vec::new(),
        };
        Writer { manifest, raw: Vec::new() }
    }

    /// The contents of `bundle`, to be changed and written again. Its signatures are dropped.
    ///
    /// # Errors
    /// `HashMismatch` or `Corrupt` for a damaged tensor.
    pub fn of(bundle: &Bundle<'_>) -> Result<Writer> {
        let mut manifest = bundle.manifest().clone();
        // Rebuilt by `assemble`.
        manifest.blocks.clear();
        let mut decoder = Decoder::new()?;
        let raw = bundle.manifest().sections.iter().map(|section| {
            // Bounded: a section holds at most 64 times the size of its bundle.
            let mut raw = vec![0; usize::try_from(section.raw_len).unwrap_or_default()];
            decoder.decode_into(bundle, section, &mut raw).map(|()| raw)
        });
        Ok(Writer { raw: raw.collect::<Result<_>>()?, manifest })
    }

    /// Class labels in score order.
    pub fn labels<S: Into<String>>(&mut self, labels: impl IntoIterator<Item = S>) -> &mut Writer {
        self.manifest.labels = labels.into_iter().map(Into::into).collect();
        self
    }

    /// The backbone a task belongs to (empty `variant`: any packing works), or a packed backbone is made
    /// from. Not needed for a backbone of canonical f32 kernels: its id is computed and its variant is `f32`.
    pub fn backbone(&mut self, id: [u8; 32], variant: impl Into<String>) -> &mut Writer {
        self.manifest.backbone = BackboneRef { id, variant: variant.into() };
        self
    }

    /// Sets a runtime ABI other than this build's.
    pub fn abi(&mut self, abi: u32) -> &mut Writer {
        self.manifest.abi = abi;
        self
    }

    /// See [`Manifest::security_counter`].
    pub fn security_counter(&mut self, counter: u64) -> &mut Writer {
        self.manifest.security_counter = counter;
        self
    }

    /// Adds a golden vector.
    pub fn golden(&mut self, golden: Golden) -> &mut Writer {
        self.manifest.golden.push(golden);
        self
    }

    /// Adds a fact about the bundle's provenance.
    pub fn fact(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Writer {
        self.manifest.facts.push((key.into(), value.into()));
        self
    }

    /// As [`fact`](Writer::fact), but replaces an existing fact with that key.
    pub fn set_fact(&mut self, key: &str, value: &str) -> &mut Writer {
        match self.manifest.facts.iter_mut().find(|(own, _)| own == key) {
            Some((_, own)) => *own = value.into(),
            None => self.manifest.facts.push((key.into(), value.into())),
        }
        self
    }

    /// Adds a tensor of f32 elements in canonical layout.
    ///
    /// # Errors
    /// `Corrupt` if `values` do not fill `shape` or one is not finite.
    pub fn tensor_f32(
        &mut self,
        name: &str,
        owner: Owner,
        shape: &[usize],
        values: &[f32],
    ) -> Result<&mut Writer> {
        finite(name, values.iter().copied())?;
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensor(name, owner, Dtype::F32, Layout::Canonical, shape, bytes)
    }

    /// Adds a tensor in canonical layout, rounded to f16 elements.
    ///
    /// # Errors
    /// `Corrupt` if `values` do not fill `shape` or one exceeds the range of f16.
    pub fn tensor_f16(
        &mut self,
        name: &str,
        owner: Owner,
        shape: &[usize],
        values: &[f32],
    ) -> Result<&mut Writer> {
        let halves = || values.iter().map(|&x| f32_to_f16(x));
        finite(name, halves().map(super::f16_to_f32))?;
        let bytes = halves().flat_map(u16::to_le_bytes).collect();
        self.tensor(name, owner, Dtype::F16, Layout::Canonical, shape, bytes)
    }

    /// Adds an int8 tensor in the given `layout`, with one scale per index of the first axis: the value of an
    /// element is its byte times the scale of its row.
    ///
    /// # Errors
    /// `Corrupt` if `bytes` do not fill `shape` or a scale is not finite.
    pub fn tensor_i8(
        &mut self,
        name: &str,
        owner: Owner,
        layout: Layout,
        shape: &[usize],
        bytes: &[i8],
        scales: &[f32],
    ) -> Result<&mut Writer> {
        self.tensor_f32(&Section::scale_name(name), owner, &shape[..shape.len().min(1)], scales)?;
        let bytes = bytes.iter().map(|&byte| byte as u8).collect();
        self.tensor(name, owner, Dtype::I8, layout, shape, bytes)
    }

    /// Adds a tensor as little-endian bytes of any element type and layout.
    ///
    /// # Errors
    /// `Corrupt` if `bytes` do not fill `shape`.
    pub fn tensor(
        &mut self,
        name: &str,
        owner: Owner,
        dtype: Dtype,
        layout: Layout,
        shape: &[usize],
        bytes: Vec<u8>,
    ) -> Result<&mut Writer> {
        let raw_len = bytes.len() as u64;
        let section = Section {
            name: name.into(),
            owner,
            dtype,
            layout,
            shape: shape.to_vec(),
            raw_len,
            block: 0,
            first: 0,
        };
        let needed = section.elements().and_then(|n| n.checked_mul(dtype.width() as u64));
        if layout == Layout::Canonical && needed != Some(raw_len) {
            let needed = needed.ok_or_else(|| uncountable(format!("tensor {name}")))?;
            let want = format!("the {needed} bytes of shape {shape:?}");
            return corrupt(format!("tensor {name}"), want, format!("{raw_len} bytes"));
        }
        self.manifest.sections.push(section);
        self.raw.push(bytes);
        Ok(self)
    }

    /// The bundle's bytes, signed by `signers`, or with the development key if there are none.
    ///
    /// # Errors
    /// `Corrupt` or `TooLarge`, naming the violated rule of the format.
    pub fn finish(&self, signers: &[SigningKey]) -> Result<Vec<u8>> {
        match signers {
            [] => self.assemble(&[SigningKey::development()]),
            _ => self.assemble(signers),
        }
    }

    /// The bundle's unsigned bytes, to be signed elsewhere with [`sign`](super::sign).
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub fn finish_unsigned(&self) -> Result<Vec<u8>> {
        self.assemble(&[])
    }

    fn assemble(&self, signers: &[SigningKey]) -> Result<Vec<u8>> {
        let mut manifest = self.manifest.clone();
        let kind = manifest.kind;
        if kind == Kind::Backbone && manifest.backbone.id == [0; 32] {
            manifest.backbone = self.own_identity()?;
        }
        let mut stored: Vec<Cow<'_, [u8]>> = Vec::new();
        for sections in self.gathered() {
            let raw = self.raw.get(sections.clone()).unwrap_or_default();
            let own = manifest.sections.get(sections.clone()).unwrap_or_default();
            if let Some(bytes) = compress(kind, own, raw)? {
                let hash = blake3::hash(&bytes).into();
                manifest.blocks.push(Block::new(Codec::Zstd, sections, bytes.len() as u64, hash));
                stored.push(bytes.into());
                continue;
            }
            for (at, raw) in sections.zip(raw) {
                let hash = blake3::hash(raw).into();
                manifest.blocks.push(Block::new(Codec::Raw, at..at + 1, raw.len() as u64, hash));
                stored.push(raw.into());
            }
        }
        let end = block::place(kind, &mut manifest.sections, &mut manifest.blocks)?;
        rules::check(&manifest)?;
        let blocks = manifest.blocks.iter().zip(&stored).map(|(block, bytes)| (block.offset, &bytes[..]));
        seal(kind, &manifest.to_bytes()?, end, blocks, signers)
    }

    /// Groups sections into blocks: in a task, as many as fit into one.
    fn gathered(&self) -> Vec<Range<usize>> {
        let mut blocks: Vec<Range<usize>> = Vec::new();
        let mut filled = 0;
        for (i, raw) in self.raw.iter().enumerate() {
            filled += raw.len();
            match blocks.last_mut() {
                Some(block) if self.manifest.kind == Kind::Task && filled <= GATHERED => block.end = i + 1,
                _ => {
                    blocks.push(i..i + 1);
                    filled = raw.len();
                }
            }
        }
        blocks
    }

    /// Id and variant of a backbone whose kernels are all canonical f32.
    fn own_identity(&self) -> Result<BackboneRef> {
        let sections =
            self.manifest.sections.iter().zip(&self.raw).filter(|(s, _)| s.owner == Owner::Backbone);
        let mut kernels = Vec::new();
        for (section, raw) in sections {
            if section.dtype != Dtype::F32 || section.layout != Layout::Canonical {
                return Err(Error::BadRequest {
                    what: format!(
                        "kernel {} is packed, so the backbone's id cannot be computed",
                        section.name
                    ),
                    want: "give the id of the canonical backbone".into(),
                });
            }
            let (elements, _) = raw.as_chunks::<4>();
            kernels.push((section, elements.iter().map(|&b| f32::from_le_bytes(b)).collect::<Vec<f32>>()));
        }
        let id =
            backbone_id(kernels.iter().map(|(s, v)| (s.name.as_str(), s.shape.as_slice(), v.as_slice())));
        Ok(BackboneRef { id, variant: "f32".into() })
    }
}

/// Assembles preamble, manifest, digest, signatures and blocks (offset in the group, stored bytes).
pub(super) fn seal<'s>(
    kind: Kind,
    manifest: &[u8],
    group_end: u64,
    blocks: impl Iterator<Item = (u64, &'s [u8])>,
    signers: &[SigningKey],
) -> Result<Vec<u8>> {
    let packed = frame::pack("manifest of the bundle", Contents::Text, &[manifest])?;
    // A manifest that compresses beyond the bomb limit is stored uncompressed.
    let pays = packed.len() < manifest.len() && manifest.len() <= largest_manifest(packed.len());
    let stored = if pays { &packed } else { manifest };
    seal_stored(kind, stored, manifest.len(), group_end, blocks, signers)
}

/// As [`seal`], with the manifest as stored in the file and its raw length.
pub(super) fn seal_stored<'s>(
    kind: Kind,
    manifest: &[u8],
    raw_manifest: usize,
    group_end: u64,
    blocks: impl Iterator<Item = (u64, &'s [u8])>,
    signers: &[SigningKey],
) -> Result<Vec<u8>> {
    let fixed_end = PREAMBLE + manifest.len() + DIGEST + SIGNATURES;
    let group = rules::group_start(kind, fixed_end)? as usize;
    let total = group.saturating_add(group_end as usize);
    let mut out = Preamble { manifest: manifest.len(), raw_manifest, total }.to_bytes().to_vec();
    out.extend_from_slice(manifest);
    let (digest, signatures) = (digest(&out), signature::block(&out, signers)?);
    out.extend_from_slice(&digest);
    out.extend_from_slice(&signatures);
    out.reserve(total.saturating_sub(out.len()));
    for (offset, bytes) in blocks {
        out.resize(group.saturating_add(offset as usize), 0);
        out.extend_from_slice(bytes);
    }
    out.resize(total, 0);
    Ok(out)
}

/// The zstd frame of `sections` of a task, whose bytes are `raw`; `None` for a backbone, for a lone section that
/// would not get smaller, and for a frame that would look like a decompression bomb.
fn compress(kind: Kind, sections: &[Section], raw: &[Vec<u8>]) -> Result<Option<Vec<u8>>> {
    if kind == Kind::Backbone {
        return Ok(None);
    }
    let parts: Vec<(usize, &[u8])> =
        sections.iter().zip(raw).map(|(section, raw)| (section.dtype.width(), &raw[..])).collect();
    let planes = planes::gather(&parts);
    let planes: Vec<&[u8]> = planes.iter().map(Vec::as_slice).filter(|plane| !plane.is_empty()).collect();
    let what = sections.first().map_or("", |section| section.name.as_str());
    let bytes = frame::pack(what, Contents::Numbers, &planes)?;
    let len: usize = raw.iter().map(Vec::len).sum();
    let pays = parts.len() > 1 || bytes.len() < len;
    let modest = len as u64 <= rules::largest_raw(bytes.len() as u64);
    Ok((pays && modest).then_some(bytes))
}

fn finite(name: &str, mut values: impl Iterator<Item = f32>) -> Result<()> {
    match values.position(|x| !x.is_finite()) {
        Some(at) => corrupt(format!("tensor {name}"), "finite values", format!("another at element {at}")),
        None => Ok(()),
    }
}
