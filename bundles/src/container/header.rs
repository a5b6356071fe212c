//! The header, everything in front of a bundle's sections: parsed and verified once, reusable for later
//! readings of the same file.

use super::keys::PublicKey;
use super::preamble::{PREAMBLE, Preamble};
use super::signature::{self, SIGNATURES};
use super::{Manifest, Stored, frame, rules};
use crate::plan::Op;
use crate::wire::corrupt;
use crate::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;
use zstd::bulk::Decompressor;

/// Domain of the hash over preamble and manifest.
const DIGEST_CONTEXT: &str = "tailor 2026 bundle header v1";
/// Length of that hash in bytes.
pub(super) const DIGEST: usize = 32;

/// Hash over preamble and manifest, and thus, through the hashes in it, over the whole bundle except its
/// signatures.
pub(super) fn digest(header: &[u8]) -> [u8; 32] {
    blake3::derive_key(DIGEST_CONTEXT, header)
}

/// The header of a bundle, fully validated and with verified signatures.
///
/// A file whose header bytes are unchanged since an earlier reading need not be parsed and verified again:
/// see [`Bundle::parse_known`](super::Bundle::parse_known). Sections are verified whenever they are decoded.
#[derive(Debug)]
pub struct Header {
    pub(super) manifest: Manifest,
    /// End of the manifest.
    pub(super) end: usize,
    /// Start of the section group.
    pub(super) group: usize,
    pub(super) digest: [u8; DIGEST],
    pub(super) signers: Vec<PublicKey>,
    /// Section indices, sorted by name.
    pub(super) by_name: Vec<usize>,
    /// Length of the file in bytes.
    total: usize,
    /// Everything between the manifest and the sections: digest, signatures, padding.
    tail: Vec<u8>,
}

impl Header {
    /// See [`Bundle::parse`](super::Bundle::parse).
    pub(super) fn parse(stored: &Stored<'_>, zstd: Option<&mut Decompressor<'_>>) -> Result<Header> {
        let bytes = stored.head();
        let preamble = Preamble::parse(bytes, stored.len())?;
        let end = PREAMBLE + preamble.manifest;
        let fixed_end = end + DIGEST + SIGNATURES;
        let part = |range: Range<usize>| {
            let need = range.end as u64;
            let have = stored.len() as u64;
            bytes.get(range).ok_or(Error::Truncated { what: "the bundle's header".into(), need, have })
        };
        let slots = part(end + DIGEST..fixed_end)?;
        // A copy, because a mapped file can be written to: what is verified is what is decoded.
        let header = part(0..end)?.to_vec();
        let digest = digest(&header);
        if part(end..end + DIGEST)? != digest {
            return Err(Error::HashMismatch { what: "header of the bundle".into() });
        }
        let signers = signature::check(&header, slots)?;
        let packed = header.get(PREAMBLE..).unwrap_or_default();
        let manifest = Manifest::from_bytes(&unpacked(packed, preamble.raw_manifest, zstd)?)?;
        let by_name = rules::check(&manifest)?;

        let group = rules::group_start(manifest.kind, fixed_end)?;
        let group_end = group.saturating_add(manifest.group_len());
        if group_end != preamble.total as u64 {
            let want = format!("{group_end} bytes, the end of its last section");
            return corrupt("length of the bundle", want, preamble.total);
        }
        // `group <= group_end`, which was just checked to equal the file length, a usize.
        let group = group as usize;
        zeros(part(fixed_end..group)?, "padding behind the signatures")?;
        let tail = part(end..group)?.to_vec();
        Ok(Header { manifest, end, group, digest, signers, by_name, total: preamble.total, tail })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Approximate heap usage in bytes.
    pub fn bytes(&self) -> usize {
        let Manifest { plan, sections, labels, golden, .. } = &self.manifest;
        // Names and shapes are separate allocations, each with some allocator overhead.
        const PIECE: usize = 16;
        let sections = sections.iter().map(|section| {
            let shape = size_of_val(&section.shape[..]);
            size_of_val(section) + size_of::<usize>() + section.name.len() + shape + 2 * PIECE
        });
        let labels = labels.iter().map(|label| size_of::<String>() + label.len() + PIECE);
        let golden = golden.iter().map(|golden| size_of_val(golden) + size_of_val(&golden.scores[..]));
        let plan = plan.ops().count() * (size_of::<Op>() + 64);
        let blocks = size_of_val(&self.manifest.blocks[..]);
        sections.chain(labels).chain(golden).sum::<usize>() + plan + blocks + self.tail.len()
    }

    /// The digest a file states for itself, not yet verified.
    pub fn stated_digest(stored: &Stored<'_>) -> Option<[u8; 32]> {
        let preamble = Preamble::parse(stored.head(), stored.len()).ok()?;
        let end = PREAMBLE.checked_add(preamble.manifest)?;
        stored.head().get(end..)?.first_chunk().copied()
    }

    /// Hash of preamble and manifest; see [`Bundle::digest`](super::Bundle::digest).
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// Whether parsing that file would give this header: same length, same preamble and manifest (by their
    /// hash), same signatures.
    pub fn is_of(&self, stored: &Stored<'_>) -> bool {
        let bytes = stored.head();
        stored.len() == self.total
            && bytes.get(self.end..self.group) == Some(&self.tail)
            && bytes.get(..self.end).is_some_and(|header| digest(header) == self.digest)
    }
}

/// The manifest, decompressed to `len` bytes if it is stored in fewer.
fn unpacked<'a>(stored: &'a [u8], len: usize, zstd: Option<&mut Decompressor<'_>>) -> Result<Cow<'a, [u8]>> {
    if stored.len() == len {
        return Ok(stored.into());
    }
    let mut out = vec![0; len];
    let what = || "compressed manifest".to_owned();
    match zstd {
        Some(zstd) => frame::unpack(zstd, what, stored, &mut out)?,
        None => frame::unpack(&mut frame::unpacker()?, what, stored, &mut out)?,
    }
    Ok(out.into())
}

pub(super) fn zeros(padding: &[u8], what: &str) -> Result<()> {
    match padding.iter().find(|&&b| b != 0) {
        Some(b) => corrupt(what, "zeros", b),
        None => Ok(()),
    }
}
