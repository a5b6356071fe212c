//! The decathlon's tables, score and results file.

use super::{EVENTS, Entry, Event, SIZE, Tree};
use crate::Result;
use crate::protocols::{Findings, Table, Trial, caveats, giga, maybe_percent, millions, percent};
use crate::source::Source;
use serde_json::{Value, json};
use std::path::Path;

/// Published results for all ten tasks on the 26-layer wide ResNet: score, mean accuracy and, where
/// published, millions of parameters and billions of multiply-adds per network.
const PUBLISHED: [(&str, &str, &str, &str, &str); 5] = [
    ("published: NetTailor", "3744", "79.64", "3.67", "0.61"),
    ("published: parallel residual adapters", "3412", "78.07", "6.44", "0.96"),
    ("published: DAN", "2851", "-", "-", "-"),
    ("published: Piggyback", "2838", "-", "-", "-"),
    ("published: LwF", "2515", "-", "-", "-"),
];

/// Writes all predictions that have annotations to `results.json` in the work folder, and makes the tables.
///
/// # Errors
/// If annotations do not fit the images, or a file cannot be written.
pub fn findings(work: &Path, tree: &Tree, source: &Source, entries: &[Entry]) -> Result<Findings> {
    let (results, missing) = results(tree, entries)?;
    let mut notes = notes(source, entries);
    if !results.is_empty() {
        let path = work.join("results.json");
        bundles::container::write_atomically(&path, json!(results).to_string().as_bytes())?;
        notes.push(format!("{} answers for the challenge's server: {}", results.len(), path.display()));
    }
    if !missing.is_empty() {
        notes.push(format!(
            "No annotations of {}: their answers are in TASK/answers.json but not in results.json, which needs the \
             image ids from the development kit (--annotations).",
            missing.join(", ")
        ));
    }
    let mut table = Table::new(
        "Tasks",
        [
            "",
            "test %",
            "validation %",
            "teacher %",
            "points",
            "params M",
            "task-owned M",
            "GFLOPs",
            "paper's GFLOPs",
            "blocks",
        ],
    );
    for entry in entries {
        let network = &entry.network;
        let mark = if entry.trial.as_ref().is_none_or(|trial| trial.within) { "" } else { " *" };
        table.row([
            format!("{}{mark}", entry.event),
            maybe_percent(network.test),
            percent(network.val),
            maybe_percent(entry.trial.as_ref().map(|trial| trial.teacher.shown())),
            format!("{:.0}", entry.points()),
            millions(network.params),
            millions(network.own),
            giga(network.macs),
            giga(network.paper),
            entry.blocks.to_string(),
        ]);
    }
    let total = Total::of(source, entries);
    let mut score = Table::new(
        format!("Decathlon, {} of {} tasks", entries.len(), EVENTS.len()),
        ["", "score", "mean %", "params M, a network", "GFLOPs", "params M, all tasks"],
    );
    score.row([
        source.arch.to_string(),
        format!("{:.0}", total.score),
        format!("{:.2}", 100.0 * total.mean),
        millions(total.params),
        giga(total.macs),
        millions(total.together),
    ]);
    if entries.len() == EVENTS.len() {
        for (name, points, mean, params, macs) in PUBLISHED {
            score.row([name, points, mean, params, macs, "-"]);
        }
    }
    let tasks = entries.iter().map(|entry| {
        json!({
            "task": entry.event.name,
            "points": entry.points(),
            "network": entry.network.json(),
            "blocks": entry.blocks,
            "trial": entry.trial.as_ref().map(Trial::json),
            "answers": entry.answers.as_ref().map(|answers| answers.files.len()),
        })
    });
    Ok(Findings {
        protocol: "decathlon",
        title: format!("Visual decathlon on one {}", source.arch),
        tables: vec![table, score],
        figures: Vec::new(),
        notes,
        results: json!({
            "score": total.score,
            "mean": total.mean,
            "params": total.params,
            "params_together": total.together,
            "macs": total.macs,
            "tasks": tasks.collect::<Vec<_>>(),
        }),
    })
}

/// All tasks combined.
struct Total {
    score: f64,
    /// Mean accuracy.
    mean: f64,
    /// Means per network.
    params: u64,
    macs: u64,
    /// Parameters of all networks, with the backbone's kernels counted once.
    together: u64,
}

impl Total {
    fn of(source: &Source, entries: &[Entry]) -> Total {
        let n = entries.len().max(1);
        let mean = |figure: fn(&Entry) -> u64| entries.iter().map(figure).sum::<u64>() / n as u64;
        Total {
            score: entries.iter().map(Entry::points).sum(),
            mean: entries.iter().map(|entry| entry.network.shown().accuracy()).sum::<f64>() / n as f64,
            params: mean(|entry| entry.network.params),
            macs: mean(|entry| entry.network.macs),
            together: source.plan.backbone_params()
                + entries.iter().map(|entry| entry.network.own).sum::<u64>(),
        }
    }
}

/// Results in the challenge's format, and the tasks whose predictions have no annotations.
fn results<'a>(tree: &Tree, entries: &'a [Entry]) -> Result<(Vec<Value>, Vec<&'a str>)> {
    let (mut results, mut missing) = (Vec::new(), Vec::new());
    for entry in entries {
        let Some(answers) = &entry.answers else { continue };
        match tree.annotations(entry.event, &answers.classes)? {
            Some(annotations) => results.extend(answers.results(entry.event, &annotations)?),
            None => missing.push(entry.event.name),
        }
    }
    Ok((results, missing))
}

fn notes(source: &Source, entries: &[Entry]) -> Vec<String> {
    let mut notes = vec![
        "Points and mean use test accuracy where test images have labels, otherwise validation accuracy, by which networks were \
         selected. GFLOPs are multiply-adds per image; \"all tasks\" counts the shared kernels once and in full."
            .to_string(),
    ];
    let names = |of: &dyn Fn(&Event) -> bool| -> Vec<&str> {
        EVENTS.iter().filter(|event| of(event)).map(|event| event.name).collect()
    };
    let run = |event: &Event| entries.iter().any(|entry| entry.event == event);
    let absent = names(&|event| !run(event));
    if !absent.is_empty() {
        notes.push(format!("Without {}: the score cannot be compared with others.", absent.join(", ")));
    }
    let size = source.plan.input;
    if (size.h, size.w) != (SIZE, SIZE) {
        notes.push(format!("The backbone was trained for images of {}x{} pixels.", size.w, size.h));
    }
    for entry in entries {
        caveats(&mut notes, entry.event.name, entry.trial.iter());
    }
    notes
}
