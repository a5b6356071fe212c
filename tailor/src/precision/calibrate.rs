//! Calibrates the grids of an int8 task's maps on real images.

use super::File;
use crate::data::{Loader, Split, spread};
use crate::net::{Net, alphas};
use crate::pack::PackedTask;
use crate::source::Source;
use crate::{Error, Result, ops};
use bundles::plan::{Op, Place, fused, is_term};
use candle_core::{Device, Tensor};
use edge_runtime::kernels::int8::Grid;
use std::collections::HashMap;

/// Images per batch.
const BATCH: usize = 32;

/// Number of histogram bins per map.
const BINS: usize = 2048;

/// Number of ranges tried per map, from a quarter of the full range up.
const TRIES: usize = 60;

/// Computes a grid for every map of `net`'s plan, in the plan's order, from batches of normalised images `(n,
/// c, h, w)`.
///
/// Two passes: one for each map's extent, one for its histogram. The chosen range has the least expected
/// squared error: a narrower one rounds most values better but clamps a few. Zero is always on the grid,
/// because padding needs it.
///
/// # Errors
/// [`Error::Config`] without images; missing tensors or mismatched shapes.
pub fn calibrate(net: &Net<'_>, batches: &[Tensor]) -> Result<Vec<Grid>> {
    let mut extents: HashMap<Place, (f32, f32)> = HashMap::new();
    for images in batches {
        walk(net, images, &mut |place, values| {
            let extent = extents.entry(place).or_insert((0.0, 0.0));
            for &x in values {
                *extent = (extent.0.min(x), extent.1.max(x));
            }
        })?;
    }
    let mut counts: HashMap<Place, Vec<u64>> = HashMap::new();
    for images in batches {
        walk(net, images, &mut |place, values| {
            let (low, high) = extents.get(&place).copied().unwrap_or_default();
            let counts = counts.entry(place).or_insert_with(|| vec![0; BINS]);
            let per_bin = BINS as f32 / (high - low).max(f32::MIN_POSITIVE);
            for &x in values {
                counts[(((x - low) * per_bin) as usize).min(BINS - 1)] += 1;
            }
        })?;
    }
    let maps = net.plan.maps().into_iter();
    maps.map(|map| match (extents.get(&map.place), counts.get(&map.place)) {
        (Some(&extent), Some(counts)) => Ok(best(extent, counts)),
        _ => Err(Error::config("--calibrate", "at least one image to calibrate on")),
    })
    .collect()
}

/// As [`calibrate`], for the task `file` on its imported backbone, on `images` of `split`.
///
/// # Errors
/// As [`calibrate`]; errors in the file.
pub fn calibrate_on(file: File<'_>, source: &Source, split: &Split, images: usize) -> Result<Vec<Grid>> {
    let task = PackedTask::read(&file.parse()?, source)?;
    let p = task.preprocess;
    let grey = p.grey.then(|| split.in_grey());
    let loader = Loader::new(grey.as_ref().unwrap_or(split), p.mean, p.std, BATCH, &Device::Cpu)?;
    let chosen = spread(loader.len(), images);
    let batches: Vec<Tensor> =
        loader.of(chosen).map(|batch| batch.map(|batch| batch.images)).collect::<Result<_>>()?;
    calibrate(&Net { plan: &task.plan, params: task.params() }, &batches)
}

/// The grid with the least expected squared error for values between `low <= 0` and `high >= 0`.
fn best((low, high): (f32, f32), counts: &[u64]) -> Grid {
    if high - low < 1e-30 {
        return Grid { scale: 1.0, zero: 0 };
    }
    let width = f64::from(high - low) / BINS as f64;
    let tries = (TRIES / 4..=TRIES).map(|i| {
        let grid = grid(low, high, i as f32 / TRIES as f32);
        let scale = f64::from(grid.scale);
        let (from, to) = (-scale * f64::from(grid.zero), scale * f64::from(255 - grid.zero));
        let error: f64 = counts
            .iter()
            .enumerate()
            .map(|(bin, &n)| {
                let x = f64::from(low) + (bin as f64 + 0.5) * width;
                let beyond = (from - x).max(x - to).max(0.0);
                n as f64 * (scale * scale / 12.0 + beyond * beyond)
            })
            .sum();
        (error, grid)
    });
    tries.min_by(|a, b| a.0.total_cmp(&b.0)).map_or_else(|| grid(low, high, 1.0), |(_, grid)| grid)
}

/// The grid over the given share of a range.
fn grid(low: f32, high: f32, share: f32) -> Grid {
    let scale = (high - low) * share / 255.0;
    Grid { scale, zero: (-low * share / scale).round().clamp(0.0, 255.0) as u8 }
}

/// Runs `net` and passes every map of [`Plan::maps`](bundles::plan::Plan::maps) to `see`.
fn walk(net: &Net<'_>, images: &Tensor, see: &mut dyn FnMut(Place, &[f32])) -> Result<()> {
    let plan = net.plan;
    show(Place::Input, images, see)?;
    let alphas = alphas(plan, net.params)?;
    let stem = line(net, &plan.stem, images, false, &|op| Place::Stem { op }, see)?;
    let mut nodes = vec![Some(stem)];
    for (i, (cell, alpha)) in plan.cells.iter().zip(&alphas).enumerate() {
        if cell.is_dead() {
            nodes.push(None);
            continue;
        }
        let node = i + 1;
        let (mut terms, mut gate_of, mut scaled) = (Vec::new(), Vec::new(), 0);
        for (g, gate) in cell.gates.iter().enumerate() {
            let weighed = gate.scaled.then_some(scaled);
            scaled += usize::from(gate.scaled);
            let source = nodes.get(gate.source).and_then(Option::as_ref);
            let source =
                source.ok_or(Error::Bundle(bundles::Error::BadSource { cell: node, source: gate.source }))?;
            for (p, path) in gate.paths.iter().enumerate() {
                let place = |op| Place::Path { node, gate: g, path: p, op };
                terms.push(line(net, &path.ops, source, true, &place, see)?);
                gate_of.push(weighed);
            }
        }
        let y = ops::gated_sum(&terms, &gate_of, alpha.as_ref(), cell.relu)?;
        show(Place::Node { node }, &y, see)?;
        nodes.push(Some(y));
    }
    let Some(Some(last)) = nodes.pop() else { return Ok(()) };
    let end = plan.head.iter().position(|op| matches!(op, Op::GlobalAvgPool | Op::Linear(_)));
    let front = &plan.head[..end.unwrap_or(plan.head.len())];
    line(net, front, &last, false, &|op| Place::Head { op }, see)?;
    Ok(())
}

fn line(
    net: &Net<'_>,
    ops: &[Op],
    x: &Tensor,
    path: bool,
    place: &dyn Fn(usize) -> Place,
    see: &mut dyn FnMut(Place, &[f32]),
) -> Result<Tensor> {
    let mut x = x.clone();
    for range in fused(ops) {
        let group = &ops[range.clone()];
        x = net.segment(group, &x)?;
        let term = path && range.end == ops.len() && is_term(group);
        if !term && !group[0].keeps_scale() {
            show(place(range.end - 1), &x, see)?;
        }
    }
    Ok(x)
}

fn show(place: Place, x: &Tensor, see: &mut dyn FnMut(Place, &[f32])) -> Result<()> {
    see(place, &x.flatten_all()?.to_vec1::<f32>()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_holds_zero_and_ignores_a_lone_outlier() {
        // All values near zero but one in a million: most of the range is not worth the rounding error.
        let mut counts = vec![0; BINS];
        counts[..BINS / 4].fill(10_000);
        counts[BINS - 1] = 1;
        let narrow = best((0.0, 8.0), &counts);
        assert_eq!(narrow.zero, 0);
        assert!(narrow.scale * 255.0 < 3.0, "{narrow:?}");
        // Uniform values: nothing is clamped.
        let wide = best((-2.0, 6.0), &[100; BINS]);
        assert!(wide.scale * 255.0 > 7.8, "{wide:?}");
        assert_eq!(wide.zero, 64);
        assert_eq!(best((0.0, 0.0), &[0; BINS]), Grid { scale: 1.0, zero: 0 });
    }
}
