//! Reads a bundle: everything is checked before anything is returned.

use super::decoder::Decoder;
use super::header::{DIGEST, Header, zeros};
use super::keys::{PublicKey, TrustedKey};
use super::signature::{self, SIGNATURES, Trust};
use super::{Block, Codec, Dtype, Kind, Layout, Manifest, Section, Stored, backbone_id, contents, preamble};
use crate::plan::Owner;
use crate::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A view of a bundle's bytes: memory-mapped, in memory, or still in a file.
///
/// A value returned by [`Bundle::parse`] obeys the whole format, except for the *contents* of sections: those
/// are checked against the manifest when decoded, or all at once by [`Bundle::verify_sections`].
#[derive(Debug)]
pub struct Bundle<'a> {
    stored: Stored<'a>,
    header: Arc<Header>,
    /// Number of this reading, unique within the process.
    reading: u64,
}

impl<'a> Bundle<'a> {
    /// Parses `bytes`, which must be the whole file. Reads only the header: no page of a mapped backbone's
    /// weights is touched until [`verify_sections`](Bundle::verify_sections) or a section is requested.
    ///
    /// Never panics on any input. Memory use is bounded by the size of the header, not by what it states: the
    /// manifest decompresses to at most 16 times its stored size plus 4 KiB (and 1 MiB), and each of those
    /// bytes takes at most 256 bytes of memory.
    ///
    /// # Errors
    /// `BadMagic`, `Unsupported`, `Truncated`, `TooLarge`, `HashMismatch` (damaged header), `BadSignature` (a
    /// signature is present and wrong), or `Corrupt` naming the field that breaks a rule.
    pub fn parse(bytes: &'a [u8]) -> Result<Bundle<'a>> {
        let stored = Stored::from(bytes);
        let header = Header::parse(&stored, None)?;
        Ok(Bundle::of(stored, Arc::new(header)))
    }

    /// As [`parse`](Bundle::parse), for bytes stored anywhere, with an existing decoder; a `known` header of
    /// the same file (see [`Header::is_of`]) is not parsed and verified again.
    ///
    /// # Errors
    /// As [`parse`](Bundle::parse).
    pub fn parse_known(
        stored: Stored<'a>,
        known: Option<&Arc<Header>>,
        decoder: &mut Decoder,
    ) -> Result<Bundle<'a>> {
        let header = match known.filter(|header| header.is_of(&stored)) {
            Some(header) => Arc::clone(header),
            None => Arc::new(Header::parse(&stored, Some(&mut decoder.zstd))?),
        };
        Ok(Bundle::of(stored, header))
    }

    fn of(stored: Stored<'a>, header: Arc<Header>) -> Bundle<'a> {
        static READINGS: AtomicU64 = AtomicU64::new(0);
        Bundle { stored, header, reading: READINGS.fetch_add(1, Ordering::Relaxed) }
    }

    pub(super) fn reading(&self) -> u64 {
        self.reading
    }

    /// Everything in front of the sections.
    pub fn header(&self) -> &Arc<Header> {
        &self.header
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.header.manifest
    }

    /// The bytes, if the bundle owns them.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        match self.stored {
            Stored::Memory(Cow::Owned(bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// The manifest, discarding the bytes.
    pub fn into_manifest(self) -> Manifest {
        match Arc::try_unwrap(self.header) {
            Ok(header) => header.manifest,
            Err(shared) => shared.manifest.clone(),
        }
    }

    /// Identifies the bundle's contents: the hash of preamble and manifest, which contain the hash of every
    /// block. Signing changes the file but not this.
    pub fn digest(&self) -> [u8; 32] {
        self.header.digest
    }

    /// Major and minor format version stated by the file.
    pub fn version(&self) -> (u16, u16) {
        preamble::version(self.stored.head())
    }

    /// Keys whose signatures the bundle carries; all were verified.
    pub fn signers(&self) -> &[PublicKey] {
        &self.header.signers
    }

    /// Evaluates the signatures against these trusted keys.
    ///
    /// # Errors
    /// `BadKey` if the development key is among them: its secret half is public. (The signatures themselves
    /// were verified by [`Bundle::parse`].)
    pub fn verify(&self, trusted: &[TrustedKey]) -> Result<Trust> {
        if trusted.iter().any(|t| t.key.is_development()) {
            let want = "keys whose secret half is secret".into();
            return Err(Error::BadKey { what: "the development key is among the trusted ones".into(), want });
        }
        Ok(signature::judge(&self.header.signers, trusted))
    }

    /// The section table entry of a tensor.
    ///
    /// # Errors
    /// `MissingTensor`.
    pub fn section(&self, name: &str) -> Result<&Section> {
        let Header { manifest, by_name, .. } = &*self.header;
        contents::find(manifest, by_name, name)
            .ok_or_else(|| Error::MissingTensor { name: name.into(), bundle: manifest.name.clone() })
    }

    /// The block that contains a section, and its index.
    ///
    /// # Errors
    /// `BadRequest` if `section` is not an entry of this bundle.
    pub(super) fn block_of(&self, section: &Section) -> Result<(usize, &Block)> {
        let Manifest { name, sections, blocks, .. } = &self.header.manifest;
        let own = sections.as_ptr_range().contains(&std::ptr::from_ref(section))
            || self.section(&section.name).is_ok_and(|own| own == section);
        match blocks.get(section.block) {
            Some(block) if own => Ok((section.block, block)),
            _ => Err(Error::BadRequest {
                what: format!("tensor {} is not an entry of bundle `{name}`", section.name),
                want: "use the entries of its own manifest".into(),
            }),
        }
    }

    /// The byte range of a tensor in the file, if it is stored raw.
    ///
    /// # Errors
    /// `BadRequest` if it is compressed, or `section` is not an entry of this bundle.
    pub fn file_range(&self, section: &Section) -> Result<Range<usize>> {
        let (_, block) = self.block_of(section)?;
        if block.codec != Codec::Raw {
            let what = format!("tensor {} is compressed", section.name);
            return Err(Error::BadRequest { what, want: "decode it instead of borrowing it".into() });
        }
        Ok(self.block_range(block))
    }

    /// The byte range of a block in the file.
    pub(super) fn block_range(&self, block: &Block) -> Range<usize> {
        // Parsing checked that all blocks end within the file, so nothing saturates here.
        let at = |offset: u64| {
            usize::try_from(offset).map_or(usize::MAX, |offset| self.header.group.saturating_add(offset))
        };
        at(block.offset)..at(block.offset.saturating_add(block.stored_len))
    }

    /// The stored bytes of a block, verified against its hash. Read into `room` unless they are in memory.
    pub(super) fn checked<'b>(&'b self, block: &Block, room: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        let bytes = self.stored.fetch(self.block_range(block), room, || self.tensors_of(block))?;
        if *blake3::hash(bytes).as_bytes() != block.hash {
            return Err(Error::HashMismatch { what: self.tensors_of(block) });
        }
        Ok(bytes)
    }

    /// The bytes of the block last checked with this buffer.
    pub(super) fn held<'b>(&'b self, block: &Block, room: &'b [u8]) -> &'b [u8] {
        self.stored.fetched(self.block_range(block), room)
    }

    /// Describes a block's contents, for messages.
    pub(super) fn tensors_of(&self, block: &Block) -> String {
        let sections = self.header.manifest.sections.get(block.sections.clone()).unwrap_or_default();
        match sections {
            [first, .., last] => format!("tensors {} to {}", first.name, last.name),
            [one] => format!("tensor {}", one.name),
            [] => "no tensor".into(),
        }
    }

    /// Borrows the bytes of a tensor that is stored raw: little-endian, and in a backbone 64-byte aligned if
    /// the bundle starts on a page boundary. Not verified here; see [`Bundle::verify_sections`].
    ///
    /// # Errors
    /// `MissingTensor`, or `BadRequest` if the tensor is compressed or has not been read from its file.
    pub fn raw(&self, name: &str) -> Result<&[u8]> {
        let range = self.file_range(self.section(name)?)?;
        self.stored.head().get(range).ok_or_else(|| Error::BadRequest {
            what: format!("tensor {name} is still in its file"),
            want: "decode it instead of borrowing it".into(),
        })
    }

    /// Verifies the stored bytes of every tensor and the padding between them.
    ///
    /// # Errors
    /// `HashMismatch` naming the tensors, or `Corrupt` for padding that is not zero.
    pub fn verify_sections(&self) -> Result<()> {
        let (mut end, mut room) = (self.header.group, Vec::new());
        for block in &self.header.manifest.blocks {
            let range = self.block_range(block);
            let what = "padding between sections";
            zeros(self.stored.fetch(end..range.start, &mut room, || what.into())?, what)?;
            end = range.end;
            self.checked(block, &mut room)?;
        }
        Ok(())
    }

    /// Decodes a tensor into `out` (`section.raw_len` bytes). Stored bytes are verified before decoding. To
    /// decode many tensors, keep a [`Decoder`].
    ///
    /// # Errors
    /// `HashMismatch`, `Corrupt`, or `BadRequest` if `out` has another length.
    pub fn decode_into(&self, section: &Section, out: &mut [u8]) -> Result<()> {
        Decoder::new()?.decode_into(self, section, out)
    }

    /// Decodes a tensor of f32 or f16 elements, in layout order.
    ///
    /// # Errors
    /// As [`Bundle::decode_into`]; `MissingTensor`; `Unsupported` for other element types.
    pub fn decode_f32(&self, name: &str) -> Result<Vec<f32>> {
        let section = self.section(name)?;
        // Bounded by the file size; see `rules::largest_raw`.
        let elements = section.raw_len / section.dtype.width() as u64;
        let mut out = vec![0.0; usize::try_from(elements).unwrap_or_default()];
        Decoder::new()?.decode_f32_into(self, section, &mut out)?;
        Ok(out)
    }

    /// Recomputes the id of a backbone from its kernels.
    ///
    /// True if it matches the one in the manifest; false if these kernels are not in canonical f32 form, so
    /// that the id rests on the signature alone.
    ///
    /// # Errors
    /// `HashMismatch` if id and kernels disagree, or a section is damaged.
    pub fn verify_identity(&self) -> Result<bool> {
        let mut tensors = Vec::new();
        let kernels = self.header.manifest.sections.iter().filter(|s| s.owner == Owner::Backbone);
        for section in kernels {
            if section.dtype != Dtype::F32 || section.layout != Layout::Canonical {
                return Ok(false);
            }
            tensors.push((section, self.decode_f32(&section.name)?));
        }
        if self.header.manifest.kind == Kind::Task {
            return Ok(false);
        }
        let id =
            backbone_id(tensors.iter().map(|(s, v)| (s.name.as_str(), s.shape.as_slice(), v.as_slice())));
        if id != self.header.manifest.backbone.id {
            return Err(Error::HashMismatch {
                what: format!("backbone id of `{}`", self.header.manifest.name),
            });
        }
        Ok(true)
    }

    /// Preamble and manifest: the signed bytes.
    pub(super) fn signed(&self) -> &[u8] {
        self.stored.head().get(..self.header.end).unwrap_or_default()
    }

    pub(super) fn slots_range(&self) -> Range<usize> {
        self.header.end + DIGEST..self.header.end + DIGEST + SIGNATURES
    }

    pub(super) fn slots(&self) -> &[u8] {
        self.stored.head().get(self.slots_range()).unwrap_or_default()
    }
}
