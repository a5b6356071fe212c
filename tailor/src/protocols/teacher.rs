//! With and without the teacher's loss terms (the paper's Fig. 6): accuracy over multiply-adds, for every
//! number of dropped blocks.

use super::depth::{by_cost, kept};
use super::{
    CURVES, FIGURES, Figure, Findings, GFLOPS, Lab, Network, Point, Table, Task, Trial, caveats, giga,
};
use crate::Result;
use crate::draw::{Axis, Mark, Plot, Shape};
use crate::fit::Recipe;
use crate::source::Source;
use serde_json::json;
use std::collections::BTreeSet;

/// Both sweeps.
#[derive(Debug, Clone)]
pub struct Both {
    /// With the teacher's terms, weighted as in the recipe.
    pub with: Trial,
    /// Without matching and distillation.
    pub without: Trial,
}

/// Tailors to `task` by its recipe, which should be a sweep, with and without the teacher's loss terms. Both
/// share one fine-tuned teacher, against which tolerance is measured.
///
/// # Errors
/// Any error of [`Lab::trial`].
pub fn on(lab: &Lab<'_>, source: &Source, task: &Task) -> Result<Both> {
    let with = lab.trial(source, task, "with", "teacher")?;
    let recipe = Recipe { gamma2: 0.0, distill: 0.0, ..task.recipe.clone() };
    let task = Task { recipe, ..task.clone() };
    let without = lab.trial(source, &task, "without", "teacher")?;
    Ok(Both { with, without })
}

/// The tables and the plot.
pub fn findings(source: &Source, data: &str, both: &Both) -> Findings {
    let Both { with, without } = both;
    let columns = [""].into_iter().chain(FIGURES).chain(["dropped"]);
    let mut chosen = Table::new("The networks that were kept", columns);
    let mut row = |name: &str, network: &Network, dropped: String| {
        chosen.row([name.to_string()].into_iter().chain(network.figures()).chain([dropped]));
    };
    row("teacher (fine-tune)", &with.teacher, "-".into());
    for (name, trial) in [("with teacher", with), ("without teacher", without)] {
        let mark = if trial.within { "" } else { " *" };
        row(&format!("{name}{mark}"), &trial.tailored, trial.dropped.to_string());
    }

    let mut sweep = Table::new(
        "Every number of dropped blocks",
        ["dropped", "with, validation %", "GFLOPs", "without, validation %", "GFLOPs"],
    );
    let dropped: BTreeSet<usize> =
        [with, without].iter().flat_map(|trial| &trial.candidates).map(|point| point.dropped).collect();
    for dropped in dropped {
        let cells = |trial: &Trial| match trial.candidates.iter().find(|point| point.dropped == dropped) {
            Some(point) => [format!("{:.1}", 100.0 * point.val), giga(point.macs)],
            None => ["-".into(), "-".into()],
        };
        sweep.row([dropped.to_string()].into_iter().chain(cells(with)).chain(cells(without)));
    }
    let mut notes = [GFLOPS, CURVES].map(String::from).to_vec();
    caveats(&mut notes, data, [with, without].into_iter());
    Findings {
        protocol: "teacher",
        title: format!("With and without the teacher in the loss, {} on {data}", source.arch),
        tables: vec![chosen, sweep],
        figures: vec![Figure {
            file: "teacher.svg",
            caption: "Accuracy over multiply-adds, with and without the teacher".into(),
            svg: plot(data, both).document(),
        }],
        notes,
        results: json!({ "data": data, "with": with.json(), "without": without.json() }),
    }
}

fn plot(data: &str, Both { with, without }: &Both) -> Plot {
    let whole = with.teacher.macs.max(1) as f64;
    let share = |macs: u64| 100.0 * macs as f64 / whole;
    let val = 100.0 * with.teacher.val.accuracy();
    let mut marks = vec![Mark::Level { colour: 2, name: format!("teacher, {val:.1} %"), y: val }];
    for (colour, name, shape, trial) in
        [(0, "with teacher", Shape::Dot, with), (1, "without teacher", Shape::Square, without)]
    {
        let points = by_cost(&trial.candidates);
        let place = |point: &Point| (share(point.macs), 100.0 * point.val);
        let line = points.iter().map(place).collect();
        marks.push(Mark::Line { colour, dashed: colour > 0, name: String::new(), points: line });
        let words = |point: &Point| {
            let (x, y) = place(point);
            (x, y, format!("{name}, {} blocks dropped: {y:.1} %", point.dropped))
        };
        marks.push(Mark::Points {
            colour,
            shape,
            name: name.into(),
            points: points.iter().map(words).collect(),
        });
        marks.push(kept(trial, colour, share));
    }
    Plot {
        title: format!("{data}: with and without the teacher"),
        x: Axis::linear("multiply-adds, % of the teacher's"),
        y: Axis::linear("validation accuracy, %"),
        marks,
    }
}
