//! The paper's experiments on the user's own backbone and images, each producing a table and, where the paper has
//! one, a figure like the paper's.
//!
//! | protocol | of the paper (Morgado & Vasconcelos, CVPR 2019) | question |
//! |---|---|---|
//! | [`skips`] | Table 1, Fig. 4 | how far back should proxies reach? |
//! | [`depth`] | Fig. 5 | what does a deeper backbone give for the same cost? |
//! | [`teacher`] | Fig. 6 | what does the teacher add? |
//! | [`datasets`] | Table 2 | what do several tasks cost together, by each method? |
//! | [`decathlon`] | Table 3 | how does one backbone do on the visual decathlon? |
//!
//! A protocol consists of trials ([`Lab::trial`]): ordinary tailorings, each in a sub-folder of the work
//! folder that `tailor report` and `fit` can read, run once and read back afterwards. The results of a
//! protocol ([`Findings`]) are written to the work folder too: figures as SVG, everything as `protocol.json`.

pub mod datasets;
pub mod decathlon;
pub mod depth;
mod findings;
pub mod skips;
mod table;
pub mod teacher;
mod trial;

pub use findings::{Figure, Findings};
pub use table::Table;
pub use trial::{Lab, Network, Point, Task, Trial};

use crate::plural::counted;
use crate::train::Score;

/// An accuracy in percent, such as `97.3`.
fn percent(score: Score) -> String {
    format!("{:.1}", 100.0 * score.accuracy())
}

/// An accuracy in percent, or `-`.
fn maybe_percent(score: Option<Score>) -> String {
    score.map_or_else(|| "-".into(), percent)
}

/// `n` in units of `unit` with three digits: `0.0412`, `3.58`, `21.3`.
fn in_units(n: u64, unit: f64) -> String {
    let value = n as f64 / unit;
    let digits = if value > 0.0 { (2.0 - value.log10().floor()).clamp(0.0, 6.0) } else { 0.0 };
    format!("{value:.*}", digits as usize)
}

/// Parameters in millions.
fn millions(n: u64) -> String {
    in_units(n, 1e6)
}

/// Multiply-adds in billions.
fn giga(n: u64) -> String {
    in_units(n, 1e9)
}

/// Note on plots of sweeps.
const CURVES: &str = "Curves show validation accuracy, by which networks are selected; test was evaluated once, for teachers \
                      and selected networks.";

/// Headings of [`Network::figures`].
const FIGURES: [&str; 5] = ["test %", "validation %", "params M", "GFLOPs", "paper's GFLOPs"];

/// Note on the last two of them.
const GFLOPS: &str = "GFLOPs are multiply-adds per image; the paper's GFLOPs follow its conventions (norms \
                      count twice, the stem at node 0's resolution).";

impl Network {
    /// Accuracies and costs as table cells.
    fn figures(&self) -> [String; 5] {
        let (params, macs, paper) = (millions(self.params), giga(self.macs), giga(self.paper));
        [maybe_percent(self.test), percent(self.val), params, macs, paper]
    }
}

/// A note on the confidence interval of an accuracy.
fn known(task: &str, what: &str, val: Score, test: Option<Score>) -> String {
    let known = |split: &str, score: Score| {
        let [low, high] = score.interval().map(|end| 100.0 * end);
        format!("{split} {} images, {low:.1} to {high:.1} %", score.n)
    };
    let mut splits = vec![known("validation", val)];
    splits.extend(test.map(|test| known("test", test)));
    format!("{task}: {} (95 % interval of {what}).", splits.join("; "))
}

/// Which blocks a network lacks, by their number.
fn without(dropped: usize) -> String {
    match dropped {
        0 => "with all blocks".into(),
        _ => format!("without {}", counted(dropped as u64, "block", "blocks")),
    }
}

/// Adds notes on trials of one task: confidence intervals of accuracies and gaps, where a search ended and
/// how it can go on, and the meaning of the mark in tables, if it is used.
fn caveats<'a>(notes: &mut Vec<String>, task: &str, trials: impl Iterator<Item = &'a Trial> + Clone) {
    if let Some(Trial { teacher, .. }) = trials.clone().next() {
        notes.push(known(task, "the teacher's accuracy", teacher.val, teacher.test));
        let widest = trials.clone().map(|trial| trial.gap_margin).fold(0.0, f64::max);
        notes.push(format!(
            "{task}: validation tells how far the networks are behind the teacher to within {:.1} points.",
            100.0 * widest
        ));
    }
    for trial in trials.clone() {
        if let Some((dropped, why)) = &trial.refused {
            notes.push(format!("{}: not {}: {why}.", trial.folder.display(), without(*dropped)));
        }
        if let Some((dropped, why)) = &trial.over_budget {
            notes.push(format!("{}: over the budget {}: {why}.", trial.folder.display(), without(*dropped)));
        }
    }
    let remedy = "No path is left where too few proxies stay open: train longer or lower --theta; with hard-concrete \
                  gates, lower --gamma1.";
    if trials.clone().any(|trial| trial.refused.is_some()) && notes.iter().all(|note| note != remedy) {
        notes.push(remedy.into());
    }
    let mark = "* no network was within tolerance of the teacher in the end: the most accurate one is shown.";
    if trials.into_iter().any(|trial| !trial.within) && notes.iter().all(|note| note != mark) {
        notes.push(mark.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    #[test]
    fn notes_say_where_a_search_ended_and_how_it_can_go_on() {
        let val = Score { right: 1, n: 2 };
        let network = Network { val, test: None, params: 0, own: 0, macs: 0, paper: 0 };
        let trial = |dropped: Option<usize>| Trial {
            folder: PathBuf::from("run"),
            teacher: network,
            tailored: network,
            within: true,
            gap_margin: 0.0,
            blocks: (3, 3),
            proxies: 0,
            candidates: Vec::new(),
            dropped: 0,
            refused: dropped.map(|dropped| (dropped, "no path".into())),
            over_budget: dropped.map(|dropped| (dropped - 1, "9 of 8".into())),
        };
        let said = |trials: &[Trial]| {
            let mut notes = Vec::new();
            caveats(&mut notes, "images", trials.iter());
            notes
        };
        let notes = said(&[trial(Some(1)), trial(Some(3))]);
        for note in [
            "run: not without 1 block: no path.",
            "run: over the budget with all blocks: 9 of 8.",
            "run: not without 3 blocks: no path.",
            "run: over the budget without 2 blocks: 9 of 8.",
        ] {
            assert!(notes.iter().any(|said| said == note), "{note} {notes:?}");
        }
        assert_eq!(notes.iter().filter(|note| note.contains("lower --theta")).count(), 1, "{notes:?}");
        assert!(said(&[trial(None)]).iter().all(|note| !note.contains("--theta")));
    }
}
