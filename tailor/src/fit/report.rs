//! The result of one tailored task: its table row and its JSON.

use super::measure::{MICROSECONDS, in_words};
use super::{Behind, Judge, points};
use crate::data::Size;
use crate::draw::strip;
use crate::source::Source;
use crate::train::Score;
use bundles::plan::{Counter, Plan};

/// One tailored task.
#[derive(Debug, Clone)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Number of classes.
    pub classes: usize,
    /// Teacher on validation.
    pub teacher_val: Score,
    /// Teacher on test, if there is a test split.
    pub teacher_test: Option<Score>,
    /// Tailored network on validation.
    pub val: Score,
    /// Tailored network on test, if there is a test split.
    pub test: Option<Score>,
    /// Accuracy gap to the teacher on validation.
    pub behind: Behind,
    /// The metric in which the gap is measured.
    pub judge: Judge,
    /// Whether the gap is within tolerance.
    pub within_tolerance: bool,
    /// Live universal blocks.
    pub blocks: usize,
    /// Universal blocks of the backbone.
    pub blocks_total: usize,
    /// Live proxies.
    pub proxies: usize,
    /// Parameters the network reads, shared and task-owned.
    pub params: u64,
    /// Task-owned parameters.
    pub task_params: u64,
    /// Multiply-adds of one image, `true` counter.
    pub macs: u64,
    /// Cost in `cost_unit`.
    pub cost: f64,
    /// Unit of cost and budget: `macs`, `params` or `us`.
    pub cost_unit: &'static str,
    /// The budget, if there is one.
    pub budget: Option<f64>,
    /// Size of the packed bundle in bytes.
    pub bundle_bytes: u64,
    /// The surviving blocks and proxies in one line.
    pub strip: String,
}

/// Number of classes for plans whose head is not counted.
const ANY_CLASSES: usize = 2;

/// Parameters, multiply-adds and bytes of the backbone, the baseline for every task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackboneSize {
    /// Parameters of stem and blocks: kernels and norms.
    pub params: u64,
    /// Multiply-adds of stem and blocks, `true` counter.
    pub macs: u64,
    /// Bytes of the backbone file.
    pub bytes: u64,
}

impl BackboneSize {
    /// Measures a backbone on images of `size`, which may differ from the size it was pre-trained on.
    ///
    /// # Errors
    /// If the size does not suit the architecture.
    pub fn of(source: &Source, size: Size) -> crate::Result<BackboneSize> {
        let plan = source.arch.plan(size.height, size.width, ANY_CLASSES)?;
        let cost = plan.costs(Counter::True)?.without_head();
        Ok(BackboneSize { params: cost.params, macs: cost.macs, bytes: source.bytes })
    }

    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "params": self.params, "macs": self.macs, "bytes": self.bytes })
    }
}

impl Report {
    /// Fills in the figures that follow from the deployed plan.
    ///
    /// # Errors
    /// If the costs of the plan cannot be counted.
    pub fn measure(&mut self, deployed: &Plan) -> crate::Result<()> {
        self.blocks = deployed.blocks();
        self.blocks_total = deployed.cells.len();
        self.proxies = deployed.proxies();
        self.task_params = deployed.task_params();
        self.params = self.task_params + deployed.backbone_params();
        self.macs = deployed.costs(Counter::True)?.total().macs;
        self.strip = strip(deployed);
        Ok(())
    }

    /// As JSON, accuracies as fractions.
    pub fn json(&self) -> serde_json::Value {
        let fraction = |score: &Option<Score>| score.map(|s| s.accuracy());
        serde_json::json!({
            "name": self.name,
            "classes": self.classes,
            "teacher_val": self.teacher_val.accuracy(),
            "teacher_test": fraction(&self.teacher_test),
            "val": self.val.accuracy(),
            "test": fraction(&self.test),
            "val_n": self.val.n,
            "test_n": self.test.map(|s| s.n),
            "behind": self.behind.gap,
            "behind_error": self.behind.error,
            "judge": self.judge.name(),
            "within_tolerance": self.within_tolerance,
            "blocks": self.blocks,
            "blocks_total": self.blocks_total,
            "proxies": self.proxies,
            "params": self.params,
            "task_params": self.task_params,
            "macs": self.macs,
            "cost": self.cost,
            "cost_unit": self.cost_unit,
            "budget": self.budget,
            "bundle_bytes": self.bundle_bytes,
        })
    }

    /// Rows of the table, each with the name of the quantity first.
    pub fn rows(&self, backbone: &BackboneSize) -> Vec<(&'static str, String)> {
        let percent = |score: Score| score.percent(1);
        let optional = |score: Option<Score>| score.map_or_else(|| "-".into(), percent);
        let of = |n: u64, whole: u64| format!("{:.0} %", 100.0 * n as f64 / whole.max(1) as f64);
        let mut rows = vec![
            ("classes", self.classes.to_string()),
            ("teacher, validation", percent(self.teacher_val)),
            ("tailored, validation", percent(self.val)),
            ("points behind", points(self.behind.gap, self.behind.error, self.val.n, self.judge.name())),
            ("within tolerance", if self.within_tolerance { "yes".into() } else { "NO".into() }),
            ("teacher, test", optional(self.teacher_test)),
            ("tailored, test", optional(self.test)),
            ("blocks kept", format!("{} of {}", self.blocks, self.blocks_total)),
            ("proxies", self.proxies.to_string()),
            ("parameters", format!("{} ({})", count(self.params), of(self.params, backbone.params))),
            (
                "of them task-owned",
                format!("{} ({})", count(self.task_params), of(self.task_params, backbone.params)),
            ),
            ("multiply-adds", format!("{} ({})", count(self.macs), of(self.macs, backbone.macs))),
        ];
        rows.extend(paid(self.cost, self.cost_unit, self.budget).map(|words| ("cost", words)));
        rows.push(("bundle", format!("{:.1} KiB", self.bundle_bytes as f64 / 1024.0)));
        rows
    }
}

/// Formats a cost next to its budget. `None` without a budget, unless the cost is a time: multiply-adds and
/// parameters are always reported anyway.
pub(crate) fn paid(cost: f64, unit: &str, budget: Option<f64>) -> Option<String> {
    let words = in_words(cost, unit);
    match budget {
        Some(budget) => Some(format!("{words} (budget {})", in_words(budget, unit))),
        None => (unit == MICROSECONDS).then_some(words),
    }
}

/// `1234567` as `1.23 M`.
pub fn count(n: u64) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", n as f64 / 1e6),
        _ => format!("{:.2} G", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_shown_with_their_budget_and_unit() {
        for (cost, unit, budget, want) in [
            (183.4, "us", Some(200.0), Some("0.183 ms (budget 0.200 ms)")),
            (183.4, "us", None, Some("0.183 ms")),
            (1.2e7, "macs", Some(1.5e7), Some("12.00 M multiply-adds (budget 15.00 M multiply-adds)")),
            (9e4, "params", Some(1e5), Some("90.0 k parameters (budget 100.0 k parameters)")),
            (9e4, "params", None, None),
        ] {
            assert_eq!(paid(cost, unit, budget).as_deref(), want, "{cost} {unit}");
        }
    }
}
