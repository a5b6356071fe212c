//! `bench --blocks`: the latency table that `tailor --cost latency` reads.

use super::args::Args;
use super::{json, usage};
use bundles::container::golden_input;
use bundles::plan::{Arch, Plan, Role, Skips};
use edge_runtime::kernels::int8::Grid;
use edge_runtime::{Backbone, Error, Layer, Result, Session, Task, Tensors};
use std::sync::Arc;

/// Frames per median.
const FRAMES: usize = 101;

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

/// The calls of the student with these proxies, and the median time of each in microseconds.
fn timed(
    backbone: &Arc<Backbone>,
    session: &mut Session,
    plan: &Plan,
    skips: Skips,
) -> Result<Vec<(Layer, f64)>> {
    let failed = |source| Error::Container { file: plan.arch.clone(), source };
    let arch: Arch = plan.arch.parse().map_err(failed)?;
    let student = plan.with_proxies(skips, arch.proxy_form()).map_err(failed)?.folded();
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
    let mut timed = Vec::new();
    for (layer, time) in task.layers().into_iter().zip(times) {
        timed.push((layer, time.as_secs_f64() * 1e6));
    }
    Ok(timed)
}

/// Multiply-adds and time of the call that ends the only proxy of `node`.
fn lone(student: &[(Layer, f64)], node: usize) -> Option<(u64, f64)> {
    let is_lone = |layer: &Layer| {
        layer.node == node && layer.macs > 0 && matches!(layer.gates[..], [(Role::Proxy, ..)])
    };
    student.iter().rev().find(|(layer, _)| is_lone(layer)).map(|(layer, us)| (layer.macs, *us))
}

/// Node, source, role, microseconds.
type Row = (usize, Option<usize>, &'static str, f64);

/// The table of the student `all`, by node. What a call of several proxies takes, however many there are, is
/// told apart with the help of the student `one`, which has one proxy per node.
fn table(all: &[(Layer, f64)], one: &[(Layer, f64)], last: usize) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut add = |node, source, role, us| {
        // A list: a map would noticeably increase the size of the program.
        match rows.iter_mut().find(|row| (row.0, row.1, row.2) == (node, source, role)) {
            Some(row) => row.3 += us,
            None => rows.push((node, source, role, us)),
        }
    };
    for &(ref layer, us) in all {
        let node = layer.node;
        match layer.gates[..] {
            [] if node == 0 => add(node, None, "stem", us),
            [] if node == last => add(node, None, "head", us),
            [] => add(node, None, "sum", us),
            [(Role::Block, source, _)] => add(node, Some(source), "block", us),
            // A pool is computed once for all nodes of that size that read this source.
            [(_, source, 0)] => add(node, Some(source), "pool", us),
            [(_, source, _)] => add(node, Some(source), "proxy", us),
            ref gates => {
                let call = lone(one, node).map_or(0.0, |lone| call_alone((layer.macs, us), lone));
                add(node, None, "proxies", call);
                for &(_, source, macs) in gates {
                    add(node, Some(source), "proxy", (us - call) * macs as f64 / layer.macs.max(1) as f64);
                }
            }
        }
    }
    rows
}

/// The part of a call's time that does not depend on its multiply-adds, from two calls `(multiply-adds, time)`
/// that write the same map.
fn call_alone((macs, us): (u64, f64), (fewer, less): (u64, f64)) -> f64 {
    let slope = (us - less) / macs.saturating_sub(fewer).max(1) as f64;
    // Two noisy times can give more than either, or less than nothing.
    (less - slope * fewer as f64).min(less).min(us).max(0.0)
}

/// Measures every block and proxy of the backbone's student and writes the table to `place`.
///
/// One row per gate: `node`, `source`, `role` (`block` or `proxy`), microseconds. What gates share has rows of
/// its own: `pool` for a source that is pooled for the proxies of one or more nodes (`node` is the first),
/// `proxies` for the call that computes a node's proxies, whatever their number, and `sum` for adding up a
/// node. Like `stem` and `head`, the last two have no source.
///
/// # Errors
/// [`Error::Usage`] for `--skips`; [`Error::Container`] if the backbone's architecture is unknown;
/// [`Error::File`].
pub fn write(args: &Args, backbone: &Arc<Backbone>, session: &mut Session, place: &str) -> Result<()> {
    let Some(manifest) = backbone.manifest() else {
        return Err(Error::Internal { what: "a backbone without a manifest".into() });
    };
    let skips = args.value("--skips").unwrap_or("3");
    let skips: Skips =
        skips.parse().map_err(|_| usage(format!("--skips {skips}"), "a number from 1, or `dense`"))?;
    let all = timed(backbone, session, &manifest.plan, skips)?;
    let one = timed(backbone, session, &manifest.plan, Skips::Nearest(1))?;
    let mut lines = Vec::new();
    for (node, source, role, us) in table(&all, &one, manifest.plan.cells.len() + 1) {
        // No number is null.
        let source = source.map_or(f64::NAN, |source| source as f64);
        let mut object = json::Object::new();
        object.number("node", node as f64).number("source", source);
        lines.push(object.text("role", role).number("us", (us * 1000.0).round() / 1000.0).end());
    }
    let precision = match (backbone.is_int8(), backbone.isa().is_half()) {
        (true, _) => "int8",
        (_, true) => "f16",
        _ => "f32",
    };
    let mut object = json::Object::new();
    object
        .text("arch", &manifest.plan.arch)
        .raw("size", &format!("[{},{}]", manifest.plan.input.h, manifest.plan.input.w))
        .text("isa", backbone.isa().name())
        .text("precision", precision)
        .number("threads", session.threads() as f64)
        .raw("rows", &json::array(&lines));
    std::fs::write(place, object.line()).map_err(Error::file(place, "write"))?;
    eprintln!("{place}: {} rows for {} on {}", lines.len(), manifest.plan.arch, backbone.isa());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_call_takes_whatever_it_computes_is_told_from_two_calls() {
        // 4 us, and 2 us per thousand multiply-adds.
        assert!((call_alone((3000, 10.0), (1000, 6.0)) - 4.0).abs() < 1e-9);
        for (noisy, want) in [((3000, 5.0), 5.0), ((3000, 60.0), 0.0), ((1000, 6.0), 6.0)] {
            assert_eq!(call_alone(noisy, (1000, 6.0)), want, "{noisy:?}");
        }
    }
}
