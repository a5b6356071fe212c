//! int8 bundles of random tasks.

use super::store::Packed;
use bundles::container::{Bundle, Dtype, Golden, Kind, Layout, Section, Writer};
use bundles::plan::{Owner, Plan};
use edge_runtime::in_rows;
use edge_runtime::kernels::int8::{Bits, Grid};

/// Grids wide enough for maps near one.
pub fn grids(plan: &Plan) -> Vec<Grid> {
    let wide = |relu| {
        if relu { Grid { scale: 4.0 / 255.0, zero: 0 } } else { Grid { scale: 6.0 / 255.0, zero: 120 } }
    };
    plan.maps().into_iter().map(|map| wide(map.relu)).collect()
}

/// Adds a tensor as raw bytes, which the writer does not check for non-finite values.
fn unchecked(writer: &mut Writer, name: &str, shape: &[usize], numbers: &[f32]) {
    let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    writer.tensor(name, Owner::Task, Dtype::F32, Layout::Canonical, shape, bytes).unwrap();
}

/// Task `which` of `packed`; `change` may modify the scales of one kernel and the grids.
pub fn task(packed: &Packed, which: usize, change: impl Fn(&mut Vec<f32>, &mut Vec<f32>)) -> Vec<u8> {
    let (name, bundle, ..) = &packed.tasks[which];
    let parsed = Bundle::parse(bundle).unwrap();
    let manifest = parsed.manifest();
    let mut writer = Writer::new(Kind::Task, name, manifest.plan.clone(), manifest.preprocess);
    writer.labels(manifest.labels.iter().cloned()).backbone(manifest.backbone.id, "int8");
    writer.golden(Golden { seed: 1, scores: vec![0.0; manifest.plan.classes()], tolerance: 1.0 });
    let mut maps: Vec<f32> =
        grids(&manifest.plan).iter().flat_map(|grid| [grid.scale, f32::from(grid.zero)]).collect();
    for section in &manifest.sections {
        let values = parsed.decode_f32(&section.name).unwrap();
        if section.shape.len() < 2 {
            writer.tensor_f16(&section.name, Owner::Task, &section.shape, &values).unwrap();
            continue;
        }
        let (bytes, mut scales) = in_rows(&section.name, &values, section.shape[0], Bits::ALL).unwrap();
        if section.name == "fc.weight" {
            change(&mut scales, &mut maps);
        }
        unchecked(&mut writer, &Section::scale_name(&section.name), &[scales.len()], &scales);
        let bytes = bytes.iter().map(|&b| b as u8).collect();
        let (dtype, layout) = (Dtype::I8, Layout::Canonical);
        writer.tensor(&section.name, Owner::Task, dtype, layout, &section.shape, bytes).unwrap();
    }
    unchecked(&mut writer, "fc.weight#maps", &[maps.len() / 2, 2], &maps);
    writer.finish(&[]).unwrap_or_default()
}
