//! The manifest's canonical encoding, and a decoder for untrusted bytes.

use super::preamble::MAX_MANIFEST;
use super::{BackboneRef, Golden, Kind, Manifest, Preprocess, Resize, block, section_codec};
use crate::Result;
use crate::plan::Plan;
use crate::wire::{Cursor, Sink, Text, at_most, corrupt};

pub(super) const MAX_NAME: usize = 64;
const MAX_LABELS: usize = 1 << 16;
const MAX_LABEL: usize = 256;
const MAX_VARIANT: usize = 64;
const MAX_EXTENT: usize = 1 << 16;
const MAX_GOLDEN: usize = 64;
const MAX_FACTS: usize = 256;
const MAX_KEY: usize = 64;
const MAX_VALUE: usize = 4096;
const MAX_SECTIONS: usize = 1 << 14;

/// Checks a class label: 1 to 256 bytes of UTF-8 without control characters.
///
/// # Errors
/// `Corrupt` or `TooLarge`, naming the violated rule.
pub fn check_label(label: &str) -> Result<()> {
    Sink::default().text("label", label, Text::Line, MAX_LABEL)
}

/// Checks a fact: `key` is 1 to 64 bytes of printable ASCII without spaces, `value` at most 4096 bytes of
/// UTF-8 without control characters.
///
/// # Errors
/// `Corrupt` or `TooLarge`, naming the violated rule.
pub fn check_fact(key: &str, value: &str) -> Result<()> {
    Sink::default().text("key of a fact", key, Text::Token, MAX_KEY)?;
    Sink::default().text("value of a fact", value, Text::Free, MAX_VALUE)
}

impl Manifest {
    /// Encodes the manifest; refuses what the encoding cannot express and leaves other rules to
    /// [`super::rules`].
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut to = Sink::default();
        to.u8(match self.kind {
            Kind::Backbone => 1,
            Kind::Task => 2,
        });
        to.text("bundle name", &self.name, Text::Line, MAX_NAME)?;
        self.plan.encode(&mut to)?;
        to.size("number of labels", self.labels.len(), MAX_LABELS)?;
        for label in &self.labels {
            to.text("label", label, Text::Line, MAX_LABEL)?;
        }
        put_preprocess(&mut to, &self.preprocess)?;
        to.bytes.extend_from_slice(&self.backbone.id);
        to.text("backbone variant", &self.backbone.variant, Text::Free, MAX_VARIANT)?;
        to.varint(self.abi.into());
        to.varint(self.security_counter);
        to.size("number of golden vectors", self.golden.len(), MAX_GOLDEN)?;
        for golden in &self.golden {
            to.bytes.extend_from_slice(&golden.seed.to_le_bytes());
            to.size("number of golden scores", golden.scores.len(), MAX_LABELS)?;
            golden.scores.iter().try_for_each(|&score| to.f32("golden score", score))?;
            to.f32("golden tolerance", golden.tolerance)?;
        }
        to.size("number of facts", self.facts.len(), MAX_FACTS)?;
        for (key, value) in &self.facts {
            to.text("key of a fact", key, Text::Token, MAX_KEY)?;
            to.text("value of a fact", value, Text::Free, MAX_VALUE)?;
        }
        to.size("number of sections", self.sections.len(), MAX_SECTIONS)?;
        for section in &self.sections {
            section_codec::put(&mut to, section)?;
        }
        self.blocks.iter().for_each(|block| block::put(&mut to, block));
        at_most("manifest of the bundle", to.bytes.len() as u64, MAX_MANIFEST as u64)?;
        Ok(to.bytes)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Manifest> {
        let mut from = Cursor::new(bytes, "the manifest");
        let kind = match from.u8()? {
            1 => Kind::Backbone,
            2 => Kind::Task,
            other => return corrupt("kind of bundle", "1 (backbone) or 2 (task)", other),
        };
        let name = from.text("bundle name", Text::Line, MAX_NAME)?;
        let plan = Plan::decode(&mut from)?;
        let n = from.count("number of labels", MAX_LABELS)?;
        let labels = from.list(n, |from| from.text("label", Text::Line, MAX_LABEL))?;
        let preprocess = get_preprocess(&mut from)?;
        let id = from.array()?;
        let variant = from.text("backbone variant", Text::Free, MAX_VARIANT)?;
        let abi = from.size("runtime ABI", u32::MAX as usize)? as u32;
        let security_counter = from.varint("security counter")?;
        let n = from.count("number of golden vectors", MAX_GOLDEN)?;
        let golden = from.list(n, get_golden)?;
        let n = from.count("number of facts", MAX_FACTS)?;
        let facts = from.list(n, |from| {
            let key = from.text("key of a fact", Text::Token, MAX_KEY)?;
            Ok((key, from.text("value of a fact", Text::Free, MAX_VALUE)?))
        })?;
        let n = from.count("number of sections", MAX_SECTIONS)?;
        let mut sections = from.list(n, section_codec::get)?;
        let mut blocks = block::get_all(&mut from, sections.len())?;
        from.finish()?;
        block::place(kind, &mut sections, &mut blocks)?;
        let backbone = BackboneRef { id, variant };
        Ok(Manifest {
            kind,
            name,
            plan,
            labels,
            preprocess,
            backbone,
            abi,
            security_counter,
            golden,
            facts,
            sections,
            blocks,
        })
    }
}

fn get_golden(from: &mut Cursor<'_>) -> Result<Golden> {
    let seed = u64::from_le_bytes(from.array()?);
    let n = from.count("number of golden scores", MAX_LABELS)?;
    let scores = from.list(n, |from| from.f32("golden score"))?;
    Ok(Golden { seed, scores, tolerance: from.f32("golden tolerance")? })
}

fn put_preprocess(to: &mut Sink, p: &Preprocess) -> Result<()> {
    for extent in [p.channels, p.width, p.height] {
        to.size("extent of the preprocessed image", extent, MAX_EXTENT)?;
    }
    to.u8(match p.resize {
        Resize::Bilinear => 1,
    });
    p.mean.iter().try_for_each(|&x| to.f32("mean", x))?;
    p.std.iter().try_for_each(|&x| to.f32("standard deviation", x))?;
    to.bool(p.grey);
    Ok(())
}

fn get_preprocess(from: &mut Cursor<'_>) -> Result<Preprocess> {
    let mut extent = || from.size("extent of the preprocessed image", MAX_EXTENT);
    let (channels, width, height) = (extent()?, extent()?, extent()?);
    let resize = match from.u8()? {
        1 => Resize::Bilinear,
        other => return corrupt("resize filter", "1 (bilinear)", other),
    };
    let mut three = |what| Ok::<_, crate::Error>([from.f32(what)?, from.f32(what)?, from.f32(what)?]);
    let (mean, std) = (three("mean")?, three("standard deviation")?);
    let grey = from.bool("grey")?;
    Ok(Preprocess { channels, width, height, resize, mean, std, grey })
}
