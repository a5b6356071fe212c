//! Checks that a bundle's sections are the tensors its plan requires.

use super::section::COMPANION;
use super::{Dtype, Kind, Layout, Manifest, Section};
use crate::Result;
use crate::plan::Owner;
use crate::wire::corrupt;

/// A manifest's sections by name.
struct Sections<'a> {
    manifest: &'a Manifest,
    /// Indices of sections, sorted by name.
    by_name: &'a [usize],
}

impl<'a> Sections<'a> {
    fn get(&self, name: &str) -> Option<&'a Section> {
        find(self.manifest, self.by_name, name)
    }
}

/// The section named `name`; `by_name` holds the indices of all sections, sorted by name.
pub(super) fn find<'a>(manifest: &'a Manifest, by_name: &[usize], name: &str) -> Option<&'a Section> {
    let of = |i: &usize| manifest.sections.get(*i);
    let found = by_name.binary_search_by_key(&Some(name), |i| of(i).map(|section| section.name.as_str()));
    found.ok().and_then(|at| by_name.get(at)).and_then(of)
}

/// Checks that the plan is valid, that every section is one of its tensors (or a companion of one), and that
/// no tensor owned by this kind of bundle is missing. `by_name` holds the section indices, sorted by name.
pub(super) fn check(manifest: &Manifest, by_name: &[usize]) -> Result<()> {
    let mut specs = match manifest.plan.checked_tensors() {
        Ok((_, specs)) => specs,
        Err(error) => return corrupt("plan of the bundle", "one that passes its checks", error),
    };
    let own = match manifest.kind {
        Kind::Backbone => Owner::Backbone,
        Kind::Task => Owner::Task,
    };
    let sections = Sections { manifest, by_name };
    // In execution order, so that the first missing tensor is reported.
    let missing = specs.iter().find(|spec| spec.owner == own && sections.get(&spec.name).is_none());
    let missing = missing.map(|spec| spec.name.clone());
    specs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let spec = |name: &str| {
        let at = specs.binary_search_by(|spec| spec.name.as_str().cmp(name)).ok()?;
        specs.get(at)
    };
    for section in &manifest.sections {
        let name = section.name.as_str();
        if let Some(spec) = spec(name) {
            if (spec.owner, &spec.shape) != (section.owner, &section.shape) {
                let want = format!("{:?}", (spec.owner, &spec.shape));
                return corrupt(
                    format!("tensor {name}"),
                    want,
                    format!("{:?}", (section.owner, &section.shape)),
                );
            }
            continue;
        }
        let whose = name.split_once(COMPANION).and_then(|(tensor, _)| sections.get(tensor));
        match whose.filter(|tensor| spec(&tensor.name).is_some()) {
            Some(tensor) if tensor.owner == section.owner => {}
            Some(tensor) => {
                let (want, got) = (format!("{:?}", tensor.owner), format!("{:?}", section.owner));
                return corrupt(format!("owner of {name}"), want, got);
            }
            None => return corrupt("tensors", "only those of the plan and their companions", name),
        }
    }
    check_scales(manifest, &sections)?;
    match missing {
        Some(name) => corrupt("tensors", format!("{name}, which the plan calls for"), "none of that name"),
        None => Ok(()),
    }
}

/// Checks quantisation scales: an int8 tensor of the plan needs one scale per row, and the map scales must
/// match the number of maps in the plan.
fn check_scales(manifest: &Manifest, sections: &Sections<'_>) -> Result<()> {
    let is_table = |section: &Section, shape: &[usize]| {
        (section.dtype, section.layout) == (Dtype::F32, Layout::Canonical) && section.shape == shape
    };
    for section in manifest.sections.iter().filter(|s| s.dtype == Dtype::I8 && !s.is_companion()) {
        let rows = section.shape.first().copied().unwrap_or_default();
        let name = Section::scale_name(&section.name);
        match sections.get(&name) {
            Some(scales) if is_table(scales, &[rows]) => {}
            Some(scales) => {
                let got = format!("{:?} {:?}", scales.dtype, scales.shape);
                return corrupt(format!("tensor {name}"), format!("f32 of shape [{rows}], one per row"), got);
            }
            None => {
                let want = format!("{name} beside int8 tensor {}", section.name);
                return corrupt("tensors", want, "none of that name");
            }
        }
    }
    let Some(name) = manifest.plan.maps_name() else { return Ok(()) };
    let Some(maps) = sections.get(&name) else { return Ok(()) };
    let want = [manifest.plan.maps().len(), 2];
    if is_table(maps, &want) {
        return Ok(());
    }
    let got = format!("{:?} {:?}", maps.dtype, maps.shape);
    corrupt(format!("tensor {name}"), format!("f32 of shape {want:?}, one row per map of the plan"), got)
}
