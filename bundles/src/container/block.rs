//! Blocks: contiguous byte ranges of the file, each covered by one hash.

use super::planes::{Place, WIDTHS};
use super::section::{align_up, section_alignment};
use super::{Kind, Layout, Section};
use crate::Result;
use crate::wire::{Cursor, Sink, corrupt, uncountable};
use std::ops::Range;

/// How a block's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// The bytes of one tensor, uncompressed.
    Raw,
    /// One zstd frame holding any number of tensors.
    Zstd,
}

/// One or more tensors stored contiguously. Fields that the file does not state are derived by `place`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Compression.
    pub codec: Codec,
    /// The sections it holds.
    pub sections: Range<usize>,
    /// First stored byte, counted from the start of the section group.
    pub offset: u64,
    /// Bytes in the file.
    pub stored_len: u64,
    /// Total bytes of its tensors.
    pub raw_len: u64,
    /// BLAKE3 of the bytes in the file.
    pub hash: [u8; 32],
    /// Number of elements of each width in [`WIDTHS`].
    pub(super) elements: [u64; WIDTHS.len()],
}

impl Block {
    /// A block of these sections. Everything but codec, stored length and hash is filled in by [`place`].
    pub(super) fn new(codec: Codec, sections: Range<usize>, stored_len: u64, hash: [u8; 32]) -> Block {
        Block { codec, sections, offset: 0, stored_len, raw_len: 0, hash, elements: [0; WIDTHS.len()] }
    }

    /// Where the elements of one of its sections lie in the decompressed block.
    pub(super) fn place_of(&self, section: &Section) -> Option<Place> {
        let mut base = 0;
        for (width, all) in WIDTHS.into_iter().zip(self.elements) {
            let all = usize::try_from(all).ok()?;
            if width == section.dtype.width() {
                let len = usize::try_from(section.raw_len).ok()? / width;
                return Some(Place { base, all, first: usize::try_from(section.first).ok()?, len });
            }
            base = all.checked_mul(width)?.checked_add(base)?;
        }
        None
    }
}

/// Derives where sections and blocks lie, and returns the end of the last block.
///
/// # Errors
/// `TooLarge` for lengths beyond 64 bits.
pub(super) fn place(kind: Kind, sections: &mut [Section], blocks: &mut [Block]) -> Result<u64> {
    let mut end = 0;
    for (index, block) in blocks.iter_mut().enumerate() {
        (block.raw_len, block.elements) = (0, [0; WIDTHS.len()]);
        let own = sections.get_mut(block.sections.clone()).unwrap_or_default();
        for section in own {
            let width = section.dtype.width() as u64;
            if section.layout == Layout::Canonical {
                let bytes = section.elements().and_then(|n| n.checked_mul(width));
                section.raw_len = bytes.ok_or_else(|| uncountable(format!("tensor {}", section.name)))?;
            }
            section.block = index;
            let slot = WIDTHS.iter().position(|&w| w as u64 == width);
            if let Some(all) = slot.and_then(|slot| block.elements.get_mut(slot)) {
                section.first = *all;
                *all = all.saturating_add(section.raw_len / width);
            }
            let sum = block.raw_len.checked_add(section.raw_len);
            block.raw_len = sum.ok_or_else(|| uncountable(format!("block of tensor {}", section.name)))?;
        }
        if block.codec == Codec::Raw {
            block.stored_len = block.raw_len;
        }
        let group = || uncountable("the section group");
        block.offset = align_up(end, section_alignment(kind)).ok_or_else(group)?;
        end = block.offset.checked_add(block.stored_len).ok_or_else(group)?;
    }
    Ok(end)
}

/// Encodes the stated fields of a block.
pub(super) fn put(to: &mut Sink, block: &Block) {
    match block.codec {
        Codec::Raw => to.u8(0),
        Codec::Zstd => {
            to.u8(1);
            to.varint(block.sections.len() as u64);
            to.varint(block.stored_len);
        }
    }
    to.bytes.extend_from_slice(&block.hash);
}

/// Decodes the blocks of `sections` sections; each section belongs to exactly one block, in order.
pub(super) fn get_all(from: &mut Cursor<'_>, sections: usize) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut next = 0usize;
    while next < sections {
        let codec = match from.u8()? {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            other => {
                return corrupt(format!("codec of block {}", blocks.len()), "0 (raw) or 1 (zstd)", other);
            }
        };
        let (count, stored_len) = match codec {
            Codec::Raw => (1, 0),
            Codec::Zstd => {
                let count = from.varint("sections of a block")?;
                (count, from.varint("stored length of a block")?)
            }
        };
        let rest = (sections - next) as u64;
        if count == 0 || count > rest {
            return corrupt(
                format!("sections of block {}", blocks.len()),
                format!("at least one, of the {rest} that are left"),
                count,
            );
        }
        // Checked above to be at most `rest`, a usize.
        let end = next + count as usize;
        blocks.push(Block::new(codec, next..end, stored_len, from.array()?));
        next = end;
    }
    Ok(blocks)
}
