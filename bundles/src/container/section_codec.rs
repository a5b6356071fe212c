//! Encoding of the section table.

use super::{Dtype, Isa, Layout, Section};
use crate::Result;
use crate::plan::codec::{get_owner, put_owner};
use crate::wire::{Cursor, Sink, Text, corrupt};

/// Maximum length of a tensor name in bytes.
pub(super) const MAX_NAME: usize = 160;
/// Maximum rank of a tensor.
pub(super) const MAX_RANK: usize = 8;
/// Maximum extent of an axis.
const MAX_EXTENT: usize = 1 << 30;

pub(super) fn put(to: &mut Sink, section: &Section) -> Result<()> {
    to.text("tensor name", &section.name, Text::Token, MAX_NAME)?;
    put_owner(to, section.owner);
    to.u8(match section.dtype {
        Dtype::F32 => 0,
        Dtype::F16 => 1,
        Dtype::I8 => 2,
        Dtype::U8 => 3,
        Dtype::I32 => 4,
    });
    match section.layout {
        Layout::Canonical => to.u8(0),
        Layout::Blocked { isa, revision } => {
            to.u8(1);
            to.u8(match isa {
                Isa::Portable => 0,
                Isa::Avx2 => 1,
                Isa::Avx512 => 2,
                Isa::Avx512Vnni => 3,
                Isa::Neon => 4,
                Isa::NeonFp16 => 5,
                Isa::NeonDot => 6,
            });
            to.varint(revision.into());
        }
    }
    to.size("rank of a tensor", section.shape.len(), MAX_RANK)?;
    for &extent in &section.shape {
        to.size("extent of a tensor", extent, MAX_EXTENT)?;
    }
    if section.layout != Layout::Canonical {
        to.varint(section.raw_len);
    }
    Ok(())
}

pub(super) fn get(from: &mut Cursor<'_>) -> Result<Section> {
    let name = from.text("tensor name", Text::Token, MAX_NAME)?;
    let owner = get_owner(from)?;
    let dtype = match from.u8()? {
        0 => Dtype::F32,
        1 => Dtype::F16,
        2 => Dtype::I8,
        3 => Dtype::U8,
        4 => Dtype::I32,
        other => return corrupt(format!("element type of {name}"), "a tag from 0 to 4", other),
    };
    let layout = match from.u8()? {
        0 => Layout::Canonical,
        1 => Layout::Blocked {
            isa: match from.u8()? {
                0 => Isa::Portable,
                1 => Isa::Avx2,
                2 => Isa::Avx512,
                3 => Isa::Avx512Vnni,
                4 => Isa::Neon,
                5 => Isa::NeonFp16,
                6 => Isa::NeonDot,
                other => return corrupt(format!("instruction set of {name}"), "a tag from 0 to 6", other),
            },
            revision: from.size("revision of a layout", u32::MAX as usize)? as u32,
        },
        other => return corrupt(format!("layout of {name}"), "0 or 1", other),
    };
    let mut shape = Vec::new();
    for _ in 0..from.count("rank of a tensor", MAX_RANK)? {
        shape.push(from.size("extent of a tensor", MAX_EXTENT)?);
    }
    let raw_len = match layout {
        // Derived from its shape by `block::place`.
        Layout::Canonical => 0,
        Layout::Blocked { .. } => from.varint("raw length of a section")?,
    };
    Ok(Section { name, owner, dtype, layout, shape, raw_len, block: 0, first: 0 })
}
