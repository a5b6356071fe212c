//! Whether a bundle's sections are the tensors that its plan calls for, and whether a task fits a backbone.

use super::section::COMPANION;
use super::{Dtype, Kind, Layout, Manifest, RUNTIME_ABI, Section};
use crate::plan::Owner;
use crate::wire::corrupt;
use crate::{Error, Result};
use std::collections::HashMap;

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

/// The section of that name; `by_name` are the indices of all, sorted by name.
pub(super) fn find<'a>(manifest: &'a Manifest, by_name: &[usize], name: &str) -> Option<&'a Section> {
    let of = |i: &usize| manifest.sections.get(*i);
    let found = by_name.binary_search_by_key(&Some(name), |i| of(i).map(|section| section.name.as_str()));
    found.ok().and_then(|at| by_name.get(at)).and_then(of)
}

/// Checks that the plan itself holds together, that every section is one of its tensors (or a companion of
/// one), and that none is missing of those that this kind of bundle owns. `by_name` are the indices of sections,
/// sorted by name.
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
    // In execution order, so that the first one that is missing is named.
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

/// Bytes stand for numbers only beside their scales: an int8 tensor of the plan has one for each of its rows, and
/// the scales of maps are as many as the plan has maps.
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

impl Manifest {
    /// Checks that this task can run on `backbone`: same runtime ABI as this build, the backbone it was cut
    /// for (and the variant, if it insists on one), and every kernel its plan shares in the shape it expects.
    ///
    /// # Errors
    /// `Incompatible`, saying what to install instead.
    pub fn fits(&self, backbone: &Manifest) -> Result<()> {
        let differ = |what: String, want: String, got: String| Err(Error::Incompatible { what, want, got });
        let task = &self.name;
        for bundle in [self, backbone] {
            if bundle.abi != RUNTIME_ABI {
                let what =
                    format!("runtime ABI of `{}` (pack it again, or update this program)", bundle.name);
                return differ(what, RUNTIME_ABI.to_string(), bundle.abi.to_string());
            }
        }
        if (self.kind, backbone.kind) != (Kind::Task, Kind::Backbone) {
            let got = format!("{} on {}", self.kind.word(), backbone.kind.word());
            return differ(format!("running `{task}`"), "a task on a backbone".into(), got);
        }
        if self.backbone.id != backbone.backbone.id {
            let what = format!("backbone of task `{task}` (install the one it was cut for)");
            return differ(what, short(&self.backbone.id), short(&backbone.backbone.id));
        }
        let variant = &self.backbone.variant;
        if !variant.is_empty() && *variant != backbone.backbone.variant {
            let what = format!("variant of the backbone of task `{task}`");
            return differ(what, variant.clone(), backbone.backbone.variant.clone());
        }
        let kernels: HashMap<&str, &Section> =
            backbone.sections.iter().map(|section| (section.name.as_str(), section)).collect();
        for spec in self.plan.tensors().iter().filter(|spec| spec.owner == Owner::Backbone) {
            match kernels.get(spec.name.as_str()) {
                Some(section) if section.owner == Owner::Backbone && section.shape == spec.shape => {}
                Some(section) => {
                    let what = format!("kernel {} of task `{task}`", spec.name);
                    return differ(what, format!("{:?}", spec.shape), format!("{:?}", section.shape));
                }
                None => {
                    let bundle = backbone.name.clone();
                    return Err(Error::MissingTensor { name: spec.name.clone(), bundle });
                }
            }
        }
        Ok(())
    }
}

fn short(id: &[u8; 32]) -> String {
    id.iter().take(8).map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use crate::container::Bundle;
    use crate::container::testing::{tiny_backbone, tiny_task};

    #[test]
    fn a_task_runs_on_its_backbone_and_on_no_other() {
        let manifest = |bytes: Vec<u8>| Bundle::parse(&bytes).unwrap().into_manifest();
        let backbone = manifest(tiny_backbone().finish(&[]).unwrap());
        let task = |id, variant: &str| manifest(tiny_task().backbone(id, variant).finish(&[]).unwrap());
        let id = backbone.backbone.id;
        task(id, "").fits(&backbone).unwrap();
        task(id, "f32").fits(&backbone).unwrap();

        let mut reshaped = backbone.clone();
        reshaped.sections[0].shape = vec![4, 27];
        let mut renamed = backbone.clone();
        renamed.sections[0].name = "conv2.weight".into();
        let mut newer = backbone.clone();
        newer.abi += 1;
        let cases = [
            (task([1; 32], ""), &backbone, "0101010101010101"),
            (task(id, "int8"), &backbone, "int8"),
            (backbone.clone(), &backbone, "backbone on backbone"),
            (task(id, ""), &reshaped, "[4, 27]"),
            (task(id, ""), &renamed, "conv1.weight"),
            (task(id, ""), &newer, "ABI"),
        ];
        for (task, backbone, word) in cases {
            let error = task.fits(backbone).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
            assert_eq!(error.exit_code(), 4);
        }
    }
}
