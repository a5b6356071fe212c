//! Reading a bundle: everything is checked once, before anything is handed out.

use super::decoder::Decoder;
use super::keys::{PublicKey, TrustedKey};
use super::preamble::{PREAMBLE, Preamble};
use super::signature::{self, SIGNATURES, Trust};
use super::{Codec, Dtype, Kind, Layout, Manifest, Section, backbone_id, rules};
use crate::plan::Owner;
use crate::wire::corrupt;
use crate::{Error, Result};
use std::ops::Range;

/// Domain of the hash over preamble and manifest.
const DIGEST_CONTEXT: &str = "tailor 2026 bundle header v1";
/// Bytes of that hash.
pub(super) const DIGEST: usize = 32;

/// Hash over preamble and manifest, and so, through the hashes in it, over all of the bundle but its signatures.
pub(super) fn digest(header: &[u8]) -> [u8; 32] {
    blake3::derive_key(DIGEST_CONTEXT, header)
}

/// A view of a bundle's bytes, which usually are a memory map.
///
/// What [`Bundle::parse`] returned obeys the whole format, except for the *contents* of sections: those are
/// checked against the manifest when decoded, or all at once by [`Bundle::verify_sections`].
#[derive(Debug)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
    manifest: Manifest,
    /// End of the manifest.
    header_end: usize,
    /// Start of the section group.
    group: usize,
    digest: [u8; 32],
    signers: Vec<PublicKey>,
    /// Indices of sections, sorted by name.
    by_name: Vec<usize>,
}

impl<'a> Bundle<'a> {
    /// Reads `bytes`, which must be the whole file. Touches the header only, so that opening a mapped backbone
    /// costs no page of its weights.
    ///
    /// Never panics on any input, and never uses more than a small constant factor of its size.
    ///
    /// # Errors
    /// `BadMagic`, `Unsupported`, `Truncated`, `TooLarge`, `HashMismatch` (damaged header), `BadSignature` (a
    /// signature is present and wrong), or `Corrupt` naming the field that breaks a rule.
    pub fn parse(bytes: &'a [u8]) -> Result<Bundle<'a>> {
        let preamble = Preamble::parse(bytes)?;
        let header_end = PREAMBLE + preamble.manifest;
        let fixed_end = header_end + DIGEST + SIGNATURES;
        let part = |range: Range<usize>| {
            let need = range.end as u64;
            let have = bytes.len() as u64;
            bytes.get(range).ok_or(Error::Truncated { what: "the bundle's header".into(), need, have })
        };
        let slots = part(header_end + DIGEST..fixed_end)?;
        let header = part(0..header_end)?;
        let digest = digest(header);
        if part(header_end..header_end + DIGEST)? != digest {
            return Err(Error::HashMismatch { what: "header of the bundle".into() });
        }
        let signers = signature::check(header, slots)?;
        let manifest = Manifest::from_bytes(part(PREAMBLE..header_end)?)?;
        rules::check(&manifest)?;

        let group = rules::group_start(manifest.kind, fixed_end)?;
        let end = group.saturating_add(rules::check_places(&manifest)?);
        if end != preamble.total as u64 {
            let want = format!("{end} bytes, the end of its last section");
            return corrupt("length of the bundle", want, preamble.total);
        }
        // `group <= end`, and `end` was just found to be the length of a slice.
        let group = group as usize;
        zeros(part(fixed_end..group)?, "padding behind the signatures")?;
        let mut by_name: Vec<usize> = (0..manifest.sections.len()).collect();
        by_name.sort_by_key(|&i| manifest.sections.get(i).map(|s| s.name.as_str()));
        Ok(Bundle { bytes, manifest, header_end, group, digest, signers, by_name })
    }

    /// What the bundle says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest, when the bytes are no longer needed.
    pub fn into_manifest(self) -> Manifest {
        self.manifest
    }

    /// Names the bundle's contents: the hash of preamble and manifest, which hold the hash of every section.
    /// Signing changes the file but not this.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Keys whose signatures the bundle carries; all of them were checked.
    pub fn signers(&self) -> &[PublicKey] {
        &self.signers
    }

    /// What the signatures amount to for somebody who trusts these keys.
    ///
    /// # Errors
    /// `BadKey` if the development key is among them: its secret half is public. (That signatures are right was
    /// checked by [`Bundle::parse`].)
    pub fn verify(&self, trusted: &[TrustedKey]) -> Result<Trust> {
        if trusted.iter().any(|t| t.key.is_development()) {
            let want = "keys whose secret half is secret".into();
            return Err(Error::BadKey { what: "the development key is among the trusted ones".into(), want });
        }
        Ok(signature::judge(&self.signers, trusted))
    }

    /// The entry of a tensor.
    ///
    /// # Errors
    /// `MissingTensor`.
    pub fn section(&self, name: &str) -> Result<&Section> {
        let sections = &self.manifest.sections;
        let of = |&i: &usize| sections.get(i);
        let found = self.by_name.binary_search_by_key(&Some(name), |i| of(i).map(|s| s.name.as_str()));
        found
            .ok()
            .and_then(|at| self.by_name.get(at))
            .and_then(of)
            .ok_or_else(|| Error::MissingTensor { name: name.into(), bundle: self.manifest.name.clone() })
    }

    /// Where a section's stored bytes lie in the file.
    ///
    /// # Errors
    /// `BadRequest` when `section` is no entry of this bundle.
    pub fn file_range(&self, section: &Section) -> Result<Range<usize>> {
        let own = self.section(&section.name).is_ok_and(|own| own == section);
        let start = usize::try_from(section.offset).ok().and_then(|offset| self.group.checked_add(offset));
        let length = usize::try_from(section.stored_len).ok();
        match start.zip(length).and_then(|(start, length)| Some(start..start.checked_add(length)?)) {
            Some(range) if own && range.end <= self.bytes.len() => Ok(range),
            _ => Err(Error::BadRequest {
                what: format!("tensor {} is not an entry of bundle `{}`", section.name, self.manifest.name),
                want: "use the entries of its own manifest".into(),
            }),
        }
    }

    /// A section's bytes as they lie in the file.
    pub(super) fn stored(&self, section: &Section) -> Result<&'a [u8]> {
        let range = self.file_range(section)?;
        self.bytes.get(range).ok_or_else(|| Error::HashMismatch { what: section.name.clone() })
    }

    /// Borrows the bytes of a tensor that is stored raw: little-endian, and in a backbone 64-byte aligned if
    /// the bundle's first byte lies on a page. Not checked here; see [`Bundle::verify_sections`].
    ///
    /// # Errors
    /// `MissingTensor`, or `BadRequest` when the tensor is compressed.
    pub fn raw(&self, name: &str) -> Result<&'a [u8]> {
        let section = self.section(name)?;
        if section.codec != Codec::Raw {
            let what = format!("tensor {name} is compressed");
            return Err(Error::BadRequest { what, want: "decode it instead of borrowing it".into() });
        }
        self.stored(section)
    }

    /// Checks the stored bytes of every section, and the padding between them.
    ///
    /// # Errors
    /// `HashMismatch` naming the tensor, or `Corrupt` for padding that is not zero.
    pub fn verify_sections(&self) -> Result<()> {
        let mut end = self.group;
        for section in &self.manifest.sections {
            let range = self.file_range(section)?;
            zeros(self.bytes.get(end..range.start).unwrap_or_default(), "padding between sections")?;
            end = range.end;
            check_hash(self.stored(section)?, &section.stored_hash, &section.name)?;
        }
        Ok(())
    }

    /// Decodes a tensor into `out` (`section.raw_len` bytes). Stored bytes are checked before the decoder sees
    /// them, raw bytes before the caller does. For many tensors in a row, keep a [`Decoder`].
    ///
    /// # Errors
    /// `HashMismatch`, `Corrupt`, or `BadRequest` when `out` has another length.
    pub fn decode_into(&self, section: &Section, out: &mut [u8]) -> Result<()> {
        Decoder::new()?.decode_into(self, section, out)
    }

    /// Decodes a tensor of f32 or f16 elements, in the order of its layout.
    ///
    /// # Errors
    /// As [`Bundle::decode_into`]; `MissingTensor`; `Unsupported` for other element types.
    pub fn decode_f32(&self, name: &str) -> Result<Vec<f32>> {
        let section = self.section(name)?;
        // Bounded by the file's size, see `rules::largest_raw`.
        let elements = section.raw_len / section.dtype.width() as u64;
        let mut out = vec![0.0; usize::try_from(elements).unwrap_or_default()];
        Decoder::new()?.decode_f32_into(self, section, &mut out)?;
        Ok(out)
    }

    /// Recomputes the id of a backbone from its kernels.
    ///
    /// True if it is the one the manifest states; false if these kernels are not in canonical f32 form, so that
    /// the signed statement is all there is.
    ///
    /// # Errors
    /// `HashMismatch` when id and kernels disagree, or a section is damaged.
    pub fn verify_identity(&self) -> Result<bool> {
        let mut tensors = Vec::new();
        let kernels = self.manifest.sections.iter().filter(|s| s.owner == Owner::Backbone);
        for section in kernels {
            if section.dtype != Dtype::F32 || section.layout != Layout::Canonical {
                return Ok(false);
            }
            tensors.push((section, self.decode_f32(&section.name)?));
        }
        if self.manifest.kind == Kind::Task {
            return Ok(false);
        }
        let id =
            backbone_id(tensors.iter().map(|(s, v)| (s.name.as_str(), s.shape.as_slice(), v.as_slice())));
        if id != self.manifest.backbone.id {
            return Err(Error::HashMismatch { what: format!("backbone id of `{}`", self.manifest.name) });
        }
        Ok(true)
    }

    pub(super) fn header(&self) -> &'a [u8] {
        self.bytes.get(..self.header_end).unwrap_or_default()
    }

    pub(super) fn slots_range(&self) -> Range<usize> {
        self.header_end + DIGEST..self.header_end + DIGEST + SIGNATURES
    }

    pub(super) fn slots(&self) -> &'a [u8] {
        self.bytes.get(self.slots_range()).unwrap_or_default()
    }
}

pub(super) fn check_hash(bytes: &[u8], expected: &[u8; 32], name: &str) -> Result<()> {
    if blake3::hash(bytes).as_bytes() == expected {
        return Ok(());
    }
    Err(Error::HashMismatch { what: format!("tensor {name}") })
}

fn zeros(padding: &[u8], what: &str) -> Result<()> {
    match padding.iter().find(|&&b| b != 0) {
        Some(b) => corrupt(what, "zeros", b),
        None => Ok(()),
    }
}
