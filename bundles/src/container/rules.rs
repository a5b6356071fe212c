//! The rules a manifest must obey beyond being well-formed, shared by writer and reader.

use super::manifest_codec::MAX_NAME;
use super::section::{align_up, group_alignment};
use super::{Block, Codec, Kind, Layout, Manifest, Section, contents};
use crate::Result;
use crate::by_name::by_name;
use crate::plan::Owner;
use crate::wire::{Sink, Text, at_most, corrupt, uncountable};

/// Maximum raw length of a block of several sections. Bounds what decoding one of them can cost.
pub(super) const LARGEST_GATHERED: u64 = 1 << 20;

/// Maximum raw length of a compressed block of `stored` bytes. Bounds decompression bombs; a writer stores
/// anything beyond it raw.
pub(super) fn largest_raw(stored: u64) -> u64 {
    stored.saturating_mul(64).saturating_add(4096)
}

/// Maximum raw length of a blocked layout, given its canonical length (blocks are padded).
fn largest_blocked(canonical: u64) -> u64 {
    canonical.saturating_mul(64).saturating_add(4096)
}

/// Checks a bundle name: 1 to 64 bytes of UTF-8 without control characters, slashes, a leading dot, or space
/// at either end. It can thus serve as a file name, but never as a path.
///
/// # Errors
/// `Corrupt` or `TooLarge`, naming the violated rule.
pub fn check_name(name: &str) -> Result<()> {
    Sink::default().text("bundle name", name, Text::Line, MAX_NAME)?;
    check_no_path(name)
}

/// Checks a name beyond the rules of the encoding.
fn check_no_path(name: &str) -> Result<()> {
    if name.starts_with('.') || name.contains(['/', '\\']) || name.trim() != name {
        return corrupt("bundle name", "no slash, leading dot, or space at either end", format!("{name:?}"));
    }
    Ok(())
}

/// Checks everything in `manifest` except where its sections lie. Returns the section indices, sorted by
/// name.
pub(super) fn check(manifest: &Manifest) -> Result<Vec<usize>> {
    check_no_path(&manifest.name)?;
    check_preprocess(manifest)?;
    let classes = manifest.plan.classes();
    let labels = manifest.labels.len();
    if labels != classes && !(manifest.kind == Kind::Backbone && labels == 0) {
        return corrupt("labels", format!("{classes}, one per class of the plan"), labels);
    }
    if manifest.backbone.id == [0; 32] {
        return corrupt("backbone id", "the hash of its kernels", "zeros");
    }
    if manifest.kind == Kind::Backbone && manifest.backbone.variant.is_empty() {
        return corrupt("backbone variant", "the name of its packing, such as `f32`", "nothing");
    }
    for golden in &manifest.golden {
        if golden.scores.len() != classes {
            return corrupt("golden scores", format!("{classes}, one per class"), golden.scores.len());
        }
        if golden.tolerance <= 0.0 {
            return corrupt("golden tolerance", "a positive number", golden.tolerance);
        }
    }
    let facts: Vec<&str> = manifest.facts.iter().map(|(key, _)| key.as_str()).collect();
    distinct(&facts, "fact")?;
    let sections: Vec<&str> = manifest.sections.iter().map(|section| section.name.as_str()).collect();
    let by_name = distinct(&sections, "tensor")?;
    manifest.sections.iter().try_for_each(|section| check_section(manifest.kind, section))?;
    manifest.blocks.iter().enumerate().try_for_each(|(i, block)| check_block(manifest.kind, i, block))?;
    contents::check(manifest, &by_name)?;
    Ok(by_name)
}

fn check_preprocess(manifest: &Manifest) -> Result<()> {
    let p = &manifest.preprocess;
    let input = manifest.plan.input;
    if (p.channels, p.height, p.width) != (input.c, input.h, input.w) {
        let got = format!("{}x{}x{}", p.channels, p.height, p.width);
        return corrupt("preprocessing", format!("the plan's input, {input}"), got);
    }
    if p.channels != 1 && p.channels != 3 {
        return corrupt("image channels", "1 or 3", p.channels);
    }
    if p.width == 0 || p.height == 0 {
        return corrupt("image extent", "at least one pixel", format!("{}x{}", p.height, p.width));
    }
    match p.std.iter().find(|&&x| x <= 0.0) {
        Some(x) => corrupt("standard deviation", "a positive number", x),
        None => Ok(()),
    }
}

fn check_section(kind: Kind, section: &Section) -> Result<()> {
    let Section { name, owner, dtype, layout, shape, raw_len, .. } = section;
    let tensor = |what: &str| format!("{what} of tensor {name}");
    let at_most =
        |size, limit| if size > limit { at_most(&tensor("raw length"), size, limit) } else { Ok(()) };
    if kind == Kind::Task && *owner == Owner::Backbone {
        return corrupt(tensor("owner"), "the task, in a task bundle", "the backbone");
    }
    if shape.contains(&0) {
        return corrupt(tensor("shape"), "extents of at least one", format!("{shape:?}"));
    }
    let bytes = section.elements().and_then(|n| n.checked_mul(dtype.width() as u64));
    let Some(bytes) = bytes else {
        return Err(uncountable(tensor("size")));
    };
    match layout {
        Layout::Blocked { .. } if *raw_len < bytes || raw_len % dtype.width() as u64 != 0 => {
            return corrupt(tensor("raw length"), format!("whole elements, at least {bytes} bytes"), raw_len);
        }
        Layout::Blocked { .. } => at_most(*raw_len, largest_blocked(bytes))?,
        Layout::Canonical => {}
    }
    Ok(())
}

fn check_block(kind: Kind, index: usize, block: &Block) -> Result<()> {
    if block.codec == Codec::Raw {
        return Ok(());
    }
    if kind == Kind::Backbone {
        return corrupt(format!("codec of block {index}"), "raw bytes, in a backbone", "a compressed block");
    }
    let what = format!("raw length of block {index}");
    at_most(&what, block.raw_len, largest_raw(block.stored_len))?;
    match block.sections.len() {
        0 | 1 => Ok(()),
        _ => at_most(&what, block.raw_len, LARGEST_GATHERED),
    }
}

/// The indices of `names`, sorted by name, which must be distinct.
fn distinct(names: &[&str], what: &str) -> Result<Vec<usize>> {
    let name = |&i: &usize| names.get(i).copied();
    let order = by_name(names);
    match order.windows(2).find(|pair| pair.first().and_then(name) == pair.last().and_then(name)) {
        Some(pair) => {
            let pair: Vec<&str> = pair.iter().filter_map(name).collect();
            corrupt(format!("names of {what}s"), "distinct ones", format!("{pair:?}"))
        }
        None => Ok(order),
    }
}

/// Start of the section group after a header of `header` bytes.
pub(super) fn group_start(kind: Kind, header: usize) -> Result<u64> {
    align_up(header as u64, group_alignment(kind)).ok_or_else(|| uncountable("end of the section group"))
}
