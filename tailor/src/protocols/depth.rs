//! Backbones of different depths on the same images (the paper's Fig. 5): accuracy over complexity as blocks
//! are dropped.

use super::{
    CURVES, FIGURES, Figure, Findings, GFLOPS, Lab, Network, Point, Table, Task, Trial, caveats, giga,
    millions,
};
use crate::Result;
use crate::draw::{Axis, Mark, Plot, Shape};
use crate::source::Source;
use serde_json::json;

/// Marker shapes of the curves, in turn.
const SHAPES: [Shape; 4] = [Shape::Dot, Shape::Square, Shape::Triangle, Shape::Diamond];

/// One backbone's sweep.
#[derive(Debug, Clone)]
pub struct OfBackbone {
    /// The backbone's name, from its file.
    pub name: String,
    /// Its architecture.
    pub arch: String,
    /// Its sweep.
    pub trial: Trial,
}

/// Tailors backbone `name` to `task` by the task's recipe, which should be a sweep.
///
/// # Errors
/// Any error of [`Lab::trial`].
pub fn on(lab: &Lab<'_>, name: &str, source: &Source, task: &Task) -> Result<OfBackbone> {
    let trial = lab.trial(source, task, &format!("{name}/tailored"), &format!("{name}/teacher"))?;
    Ok(OfBackbone { name: name.into(), arch: source.arch.to_string(), trial })
}

/// The tables, and a plot with one curve per backbone.
pub fn findings(data: &str, all: &[OfBackbone]) -> Findings {
    let columns = [""].into_iter().chain(FIGURES).chain(["blocks"]);
    let mut chosen = Table::new("Teachers and the networks that were kept", columns);
    let mut row = |name: String, network: &Network, blocks: usize| {
        chosen.row([name].into_iter().chain(network.figures()).chain([blocks.to_string()]));
    };
    let mut sweep =
        Table::new("Every number of dropped blocks", ["", "dropped", "validation %", "params M", "GFLOPs"]);
    for OfBackbone { name, trial, .. } in all {
        let mark = if trial.within { "" } else { " *" };
        row(format!("{name}, fine-tune"), &trial.teacher, trial.blocks.1);
        row(format!("{name}, tailored{mark}"), &trial.tailored, trial.blocks.0);
        for point in &trial.candidates {
            let val = format!("{:.1}", 100.0 * point.val);
            let (params, macs) = (millions(point.params), giga(point.macs));
            sweep.row([name.clone(), point.dropped.to_string(), val, params, macs]);
        }
    }
    let results = all.iter().map(|OfBackbone { name, arch, trial }| {
        let mut value = trial.json();
        value["backbone"] = name.as_str().into();
        value["arch"] = arch.as_str().into();
        value
    });
    let mut notes = [GFLOPS, CURVES].map(String::from).to_vec();
    caveats(&mut notes, data, all.iter().map(|of| &of.trial));
    Findings {
        protocol: "depth",
        title: format!("Depth of the backbone, on {data}"),
        tables: vec![chosen, sweep],
        figures: vec![Figure {
            file: "depth.svg",
            caption: "Accuracy over multiply-adds".into(),
            svg: plot(data, all).document(),
        }],
        notes,
        results: json!(results.collect::<Vec<_>>()),
    }
}

/// One curve per backbone, with its teacher and the selected network.
fn plot(data: &str, all: &[OfBackbone]) -> Plot {
    let place = |macs: u64, val: f64| (macs as f64 / 1e6, 100.0 * val);
    let mut marks = Vec::new();
    for (i, OfBackbone { name, trial, .. }) in all.iter().enumerate() {
        let colour = i % 8;
        let points = by_cost(&trial.candidates);
        let line = points.iter().map(|point| place(point.macs, point.val)).collect();
        marks.push(Mark::Line { colour, dashed: false, name: String::new(), points: line });
        let words = |point: &Point| {
            let (x, y) = place(point.macs, point.val);
            (x, y, format!("{name}, {} blocks dropped: {y:.1} %", point.dropped))
        };
        marks.push(Mark::Points {
            colour,
            shape: SHAPES[i % SHAPES.len()],
            name: name.clone(),
            points: points.iter().map(words).collect(),
        });
        let (x, y) = place(trial.teacher.macs, trial.teacher.val.accuracy());
        let words = format!("{name}, fine-tuned: {y:.1} %");
        marks.push(Mark::Points {
            colour,
            shape: Shape::Cross,
            name: format!("{name}, fine-tuned"),
            points: vec![(x, y, words)],
        });
        marks.push(kept(trial, colour, |macs| macs as f64 / 1e6));
    }
    Plot {
        title: format!("{data}: accuracy over complexity"),
        x: Axis::log("millions of multiply-adds"),
        y: Axis::linear("validation accuracy, %"),
        marks,
    }
}

/// Sorted by cost, leanest first.
pub(super) fn by_cost(candidates: &[Point]) -> Vec<Point> {
    let mut points = candidates.to_vec();
    points.sort_by_key(|point| (point.macs, point.dropped));
    points
}

/// A ring around the selected network; `x` maps multiply-adds to the axis.
pub(super) fn kept(trial: &Trial, colour: usize, x: impl Fn(u64) -> f64) -> Mark {
    let (x, y) = (x(trial.tailored.macs), 100.0 * trial.tailored.val.accuracy());
    let words = format!("kept: {} blocks dropped, {y:.1} %", trial.dropped);
    Mark::Points { colour, shape: Shape::Ring, name: "kept".into(), points: vec![(x, y, words)] }
}
