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

/// Adds notes on trials of one task: confidence intervals of accuracies and gaps, where a search ended, and
/// the meaning of the mark in tables, if it is used.
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
            notes.push(format!("{}: not without {dropped} blocks: {why}.", trial.folder.display()));
        }
        if let Some((dropped, why)) = &trial.over_budget {
            notes.push(format!(
                "{}: over the budget without {dropped} blocks: {why}.",
                trial.folder.display()
            ));
        }
    }
    let mark = "* no network was within tolerance of the teacher in the end: the most accurate one is shown.";
    if trials.into_iter().any(|trial| !trial.within) && notes.iter().all(|note| note != mark) {
        notes.push(mark.into());
    }
}
