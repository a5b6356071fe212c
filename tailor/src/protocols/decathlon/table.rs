//! The decathlon's tables and score.

use super::results::submit;
use super::{EVENTS, Entry, Event, SIZE, Tree, setting};
use crate::Result;
use crate::data::Size;
use crate::protocols::{Findings, GFLOPS, Table, Trial, caveats, giga, maybe_percent, millions, percent};
use crate::source::Source;
use serde_json::json;
use std::path::Path;

/// Published results for all ten tasks on the 26-layer wide ResNet: score, mean accuracy and, where
/// published, millions of parameters and billions of multiply-adds per network, by the paper's counter on
/// images of [`PUBLISHED_SIZE`].
const PUBLISHED: [(&str, &str, &str, &str, &str); 5] = [
    ("published: NetTailor", "3744", "79.64", "3.67", "0.61"),
    ("published: parallel residual adapters", "3412", "78.07", "6.44", "0.96"),
    ("published: DAN", "2851", "-", "-", "-"),
    ("published: Piggyback", "2838", "-", "-", "-"),
    ("published: LwF", "2515", "-", "-", "-"),
];

/// Height and width of the images for which the published multiply-adds were counted: a test in
/// `bundles::plan` finds those of the adapters there.
const PUBLISHED_SIZE: usize = 64;

/// Multiply-adds of a network on images of [`PUBLISHED_SIZE`], given those on images of `size`. Kernels and
/// norms work in proportion to the number of pixels; the classifier, which does not, hardly counts.
fn at_published_size(macs: u64, size: usize) -> u64 {
    let ratio = PUBLISHED_SIZE as f64 / size as f64;
    (macs as f64 * ratio * ratio).round() as u64
}

/// Writes all predictions that have annotations to `results.json` in the work folder, those of earlier runs with the
/// same backbone and size too, and makes the tables. Networks were run on images of height and width `size`.
///
/// # Errors
/// If annotations do not fit the images of `entries`, or a file cannot be written.
pub fn findings(
    work: &Path,
    tree: &Tree,
    source: &Source,
    size: usize,
    entries: &[Entry],
) -> Result<Findings> {
    let mut notes = notes(source, size, entries);
    let setting = setting(source, Size { height: size, width: size });
    notes.extend(submit(work, tree, &setting, entries)?);
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
    let total = Total::of(source, size, entries);
    let macs = format!("paper's GFLOPs, {PUBLISHED_SIZE} px");
    let mut score = Table::new(
        format!("Decathlon, {} of {} tasks", entries.len(), EVENTS.len()),
        ["", "score", "mean %", "params M, a network", &macs, "params M, all tasks"],
    );
    score.row([
        source.arch.to_string(),
        format!("{:.0}", total.score),
        format!("{:.2}", 100.0 * total.mean),
        millions(total.params),
        giga(total.paper),
        millions(total.together),
    ]);
    if is_whole(entries) {
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
            "macs_paper_64px": total.paper,
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
    /// By the paper's counter, on images of [`PUBLISHED_SIZE`].
    paper: u64,
    /// Parameters of all networks, with the backbone's kernels counted once.
    together: u64,
}

impl Total {
    fn of(source: &Source, size: usize, entries: &[Entry]) -> Total {
        let n = entries.len().max(1);
        let mean = |figure: fn(&Entry) -> u64| entries.iter().map(figure).sum::<u64>() / n as u64;
        Total {
            score: entries.iter().map(Entry::points).sum(),
            mean: entries.iter().map(|entry| entry.network.shown().accuracy()).sum::<f64>() / n as f64,
            params: mean(|entry| entry.network.params),
            macs: mean(|entry| entry.network.macs),
            paper: at_published_size(mean(|entry| entry.network.paper), size),
            together: source.plan.backbone_params()
                + entries.iter().map(|entry| entry.network.own).sum::<u64>(),
        }
    }
}

/// Whether these are all tasks of the challenge, so that published results can be compared.
fn is_whole(entries: &[Entry]) -> bool {
    entries.len() == EVENTS.len()
}

fn notes(source: &Source, size: usize, entries: &[Entry]) -> Vec<String> {
    let mut notes = vec![
        "Points and mean use test accuracy where test images have labels, otherwise validation accuracy, by which networks were \
         selected. \"All tasks\" counts the shared kernels once and in full."
            .to_string(),
        GFLOPS.to_string(),
    ];
    if size != PUBLISHED_SIZE {
        notes.push(if is_whole(entries) {
            format!(
                "Published GFLOPs are of {PUBLISHED_SIZE}-pixel images; this run's beside them are scaled from \
                 {size} pixels."
            )
        } else {
            format!("GFLOPs at {PUBLISHED_SIZE} px are scaled from {size} pixels.")
        });
    }
    let names = |of: &dyn Fn(&Event) -> bool| -> Vec<&str> {
        EVENTS.iter().filter(|event| of(event)).map(|event| event.name).collect()
    };
    let run = |event: &Event| entries.iter().any(|entry| entry.event == event);
    let absent = names(&|event| !run(event));
    if !absent.is_empty() {
        notes.push(format!("Without {}: the score cannot be compared with others.", absent.join(", ")));
    }
    let trained = source.plan.input;
    if (trained.h, trained.w) != (SIZE, SIZE) {
        notes.push(format!("The backbone was trained for images of {}x{} pixels.", trained.w, trained.h));
    }
    for entry in entries {
        caveats(&mut notes, entry.event.name, entry.trial.iter());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::testing;
    use crate::protocols::Network;
    use crate::train::Score;
    use bundles::plan::{Arch, Counter, Skips};

    #[test]
    fn published_figures_are_explained_only_where_they_are_shown() {
        let source = testing::ground(1, false).source;
        let network =
            Network { val: Score { right: 1, n: 2 }, test: None, params: 0, own: 0, macs: 0, paper: 0 };
        let entry = |event| Entry { event, network, trial: None, blocks: 0, answers: None };
        let entries: Vec<Entry> = EVENTS.iter().map(entry).collect();
        for (shown, is_whole) in [(&entries[..], true), (&entries[1..], false)] {
            let notes = notes(&source, SIZE, shown).join(" ");
            assert_eq!(notes.contains("Published GFLOPs are of 64-pixel images"), is_whole, "{notes}");
            assert!(notes.contains("scaled from 72 pixels."), "{notes}");
        }
    }

    #[test]
    fn multiply_adds_are_scaled_to_those_of_the_published_size() {
        let arch = Arch::DecathlonWrn;
        let macs = |size: usize| {
            let backbone = arch.plan(size, size, 100).unwrap();
            let student = backbone.with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap();
            student.costs(Counter::Paper).unwrap().total().macs
        };
        let (scaled, want) = (at_published_size(macs(SIZE), SIZE), macs(PUBLISHED_SIZE));
        assert!(scaled.abs_diff(want) < want / 10_000, "{scaled}, not {want}");
        assert_eq!(at_published_size(want, PUBLISHED_SIZE), want);
    }
}
