//! The reach of proxies (the paper's Table 1), and the surviving architectures (Fig. 4).

use super::{FIGURES, Figure, Findings, GFLOPS, Lab, Network, Table, Task, Trial, caveats};
use crate::Result;
use crate::draw::sheet;
use crate::fit::Recipe;
use crate::source::Source;
use bundles::plan::Skips;
use serde_json::json;

/// The reaches in the paper's table.
pub const REACHES: [Skips; 4] = [Skips::Nearest(1), Skips::Nearest(3), Skips::Nearest(5), Skips::Dense];

/// All reaches on one task.
#[derive(Debug, Clone)]
pub struct OfTask {
    /// The task.
    pub task: String,
    /// Trials, in the order requested.
    pub trials: Vec<(Skips, Trial)>,
}

/// Tailors to `task` with every one of `reaches`; all share one teacher.
///
/// # Errors
/// Any error of [`Lab::trial`].
pub fn on(lab: &Lab<'_>, source: &Source, task: &Task, reaches: &[Skips]) -> Result<OfTask> {
    let name = &task.name;
    let mut trials = Vec::new();
    for &skips in reaches {
        let recipe = Recipe { skips, ..task.recipe.clone() };
        let task = Task { recipe, ..task.clone() };
        let trial = lab.trial(source, &task, &format!("{name}/skips-{skips}"), &format!("{name}/teacher"))?;
        trials.push((skips, trial));
    }
    Ok(OfTask { task: name.clone(), trials })
}

/// The table and the drawings.
///
/// # Errors
/// [`crate::Error::Io`] if a drawing cannot be read.
pub fn findings(source: &Source, all: &[OfTask]) -> Result<Findings> {
    let columns = [""].into_iter().chain(FIGURES).chain(["blocks", "proxies"]);
    let mut table = Table::new("Accuracy and cost by the reach of proxies", columns);
    let mut row = |name: String, network: &Network, kept: [usize; 2]| {
        table.row([name].into_iter().chain(network.figures()).chain(kept.map(|n| n.to_string())));
    };
    for OfTask { task, trials } in all {
        if let Some((_, first)) = trials.first() {
            row(format!("{task}, fine-tune"), &first.teacher, [first.blocks.1, 0]);
        }
        for (skips, trial) in trials {
            let mark = if trial.within { "" } else { " *" };
            let name = format!("{task}, {}{mark}", say(*skips));
            row(name, &trial.tailored, [trial.blocks.0, trial.proxies]);
        }
    }
    // A column per task, a row per reach.
    let reaches = all.iter().map(|of_task| of_task.trials.len()).max().unwrap_or(0);
    let drawn = |reach: usize| {
        let at = all.iter().filter_map(|of_task| Some((&of_task.task, of_task.trials.get(reach)?)));
        at.map(|(task, (skips, trial))| Ok((format!("{task}, {}", say(*skips)), trial.drawing()?))).collect()
    };
    let drawings: Vec<Vec<(String, String)>> = (0..reaches).map(drawn).collect::<Result<_>>()?;
    let title = format!("How far back proxies reach, on {}", source.arch);
    let blocks = "The paper also counts stem and classifier as blocks: 2 more than here.";
    let mut notes = [GFLOPS, blocks].map(String::from).to_vec();
    for OfTask { task, trials } in all {
        caveats(&mut notes, task, trials.iter().map(|(_, trial)| trial));
    }
    let results = all.iter().flat_map(|OfTask { task, trials }| {
        trials.iter().map(move |(skips, trial)| {
            let mut value = trial.json();
            value["data"] = task.as_str().into();
            value["skips"] = skips.to_string().into();
            value
        })
    });
    Ok(Findings {
        protocol: "skips",
        title,
        tables: vec![table],
        figures: vec![Figure {
            file: "architectures.svg",
            caption: "What survived, by reach".into(),
            svg: sheet("What survived, by reach of the proxies", &drawings),
        }],
        notes,
        results: json!(results.collect::<Vec<_>>()),
    })
}

fn say(skips: Skips) -> String {
    match skips {
        Skips::Nearest(1) => "1 skip".into(),
        Skips::Nearest(k) => format!("{k} skips"),
        Skips::Dense => "dense".into(),
    }
}
