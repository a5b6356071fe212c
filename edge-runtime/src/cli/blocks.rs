//! `bench --blocks`: the latency table that `tailor --cost latency` reads.

use super::args::Args;
use super::json;
use bundles::container::golden_input;
use bundles::plan::{Arch, Role, Skips};
use edge_runtime::kernels::int8::Grid;
use edge_runtime::{Backbone, Error, Result, Session, Task, Tensors};
use std::sync::Arc;

/// Frames per median.
const FRAMES: usize = 31;

/// Task-owned parameters without effect: identity norms, small weights. Time does not depend on the values.
struct Neutral;

impl Tensors for Neutral {
    fn name(&self) -> String {
        "neutral parameters".into()
    }

    fn read(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let value = match name.rsplit('.').next() {
            Some("scale" | "alpha") => 1.0,
            Some("weight") => 0.01,
            _ => 0.0,
        };
        out.fill(value);
        Ok(())
    }
}

/// Node, source, role.
type Gate = (usize, Option<usize>, &'static str);

/// Measures every block and proxy of the backbone's student and writes the table to `place`.
///
/// One line per gate: `node`, `source`, `role` (`block` or `proxy`), microseconds; `stem`, `sum` and `head`
/// lines have no source. A max-pool shared by several proxies counts towards the first of them.
///
/// # Errors
/// [`Error::Usage`] if `place` is a container or the backbone's architecture is unknown; [`Error::File`].
pub fn write(args: &Args, backbone: &Arc<Backbone>, session: &mut Session, place: &str) -> Result<()> {
    // Never overwrite a backbone or task by mistake.
    let is_file = std::fs::metadata(place).is_ok_and(|there| there.is_file());
    if is_file && std::fs::read(place).is_ok_and(|there| there.starts_with(b"\x89TLR")) {
        let got = format!("--blocks {place}, which is a backbone or task");
        return Err(Error::Usage { got, want: "a file for the table".into() });
    }
    let Some(manifest) = backbone.manifest() else {
        return Err(Error::Internal { what: "a backbone without a manifest".into() });
    };
    let failed = |source| Error::Container { file: manifest.name.clone(), source };
    let arch: Arch = manifest.plan.arch.parse().map_err(failed)?;
    let skips: Skips = args.value("--skips").unwrap_or("3").parse().map_err(failed)?;
    let student = manifest.plan.with_proxies(skips, arch.proxy_form()).map_err(failed)?.folded();
    let task = if backbone.is_int8() {
        let middle = |relu| if relu { 0 } else { 128 };
        let maps = student.maps().into_iter();
        let grids: Vec<Grid> = maps.map(|map| Grid { scale: 1.0 / 64.0, zero: middle(map.relu) }).collect();
        Task::from_tensors_int8(backbone, "student", &student, &Neutral, &grids)?
    } else {
        Task::from_tensors(backbone, "student", &student, &Neutral)?
    };
    let mut input = vec![0.0; task.input().len()];
    golden_input(1, &mut input);
    let times = session.time_layers(&task, &input, FRAMES)?;

    let last = student.cells.len() + 1;
    // An ordered list: a map would noticeably increase the size of the program.
    let mut rows: Vec<(Gate, f64)> = Vec::new();
    let mut add = |key, us| match rows.binary_search_by(|(known, _)| known.cmp(&key)) {
        Ok(at) => rows[at].1 += us,
        Err(at) => rows.insert(at, (key, us)),
    };
    for (layer, time) in task.layers().iter().zip(times) {
        let us = time.as_secs_f64() * 1e6;
        let outside = match layer.node {
            0 => "stem",
            node if node == last => "head",
            _ => "sum",
        };
        if layer.gates.is_empty() {
            add((layer.node, None, outside), us);
        }
        // Proxies run in one call share its time in proportion to their multiply-adds.
        for &(role, source, macs) in &layer.gates {
            let role = if role == Role::Block { "block" } else { "proxy" };
            let share = if layer.gates.len() == 1 { 1.0 } else { macs as f64 / layer.macs as f64 };
            add((layer.node, Some(source), role), us * share);
        }
    }
    let as_json = std::path::Path::new(place).extension().is_some_and(|extension| extension == "json");
    let mut lines = Vec::new();
    for ((node, source, role), us) in rows {
        let us = (us * 1000.0).round() / 1000.0;
        let from = source.map_or("null".to_owned(), |source| source.to_string());
        lines.push(if as_json {
            let object = json::Object::new().number("node", node as f64).raw("source", &from);
            object.text("role", role).number("us", us).end()
        } else {
            format!("{node}\t{}\t{role}\t{us}\n", source.map_or("-".to_owned(), |_| from))
        });
    }
    let precision = match (backbone.is_int8(), backbone.isa().is_half()) {
        (true, _) => "int8",
        (_, true) => "f16",
        _ => "f32",
    };
    let text = if as_json {
        let object = json::Object::new()
            .text("arch", &manifest.plan.arch)
            .raw("size", &format!("[{},{}]", manifest.plan.input.h, manifest.plan.input.w))
            .text("isa", backbone.isa().name())
            .text("precision", precision)
            .number("threads", session.threads() as f64)
            .raw("rows", &json::array(&lines));
        object.line()
    } else {
        format!("node\tsource\trole\tus\n{}", lines.concat())
    };
    std::fs::write(place, text).map_err(|error| Error::File {
        path: place.into(),
        action: "write",
        kind: error.kind(),
    })?;
    eprintln!("{place}: {} rows for {} on {}", lines.len(), manifest.plan.arch, backbone.isa());
    Ok(())
}
