//! `report.json`: a finished run in one document, for `tailor report` and for scripts.

use super::{Attempt, BackboneSize, Recipe, Report, Selection};
use crate::data::Size;
use crate::source::Source;
use crate::startup::command_line;
use bundles::container::hex;
use bundles::plan::Counter;
use serde_json::{Value, json};

/// The contents of the document besides the report itself.
pub(super) struct Record<'a> {
    pub(super) source: &'a Source,
    pub(super) data_name: &'a str,
    pub(super) classes: &'a [String],
    pub(super) size: Size,
    /// Number of training, validation and test images.
    pub(super) images: [usize; 3],
    pub(super) recipe: &'a Recipe,
    pub(super) selection: &'a Selection,
    pub(super) report: &'a Report,
    /// Everything that shaped the run, as text.
    pub(super) run: String,
    /// Digest of the test images.
    pub(super) test_images: Option<String>,
    /// Multiply-adds counted as in the paper, which includes norms that a bundle folds into kernels.
    pub(super) paper_macs: u64,
}

impl Record<'_> {
    /// The document.
    ///
    /// # Errors
    /// Any error of the backbone's plan.
    pub(super) fn json(&self) -> crate::Result<Value> {
        let attempts: Vec<Value> =
            self.selection.attempts.iter().map(|attempt| attempt.json(self.recipe.cost.unit())).collect();
        let mut backbone = BackboneSize::of(self.source, self.size)?.json();
        backbone["arch"] = self.source.arch.to_string().into();
        backbone["id"] = hex(&self.source.id).into();
        let teacher = self.source.arch.plan(self.size.height, self.size.width, self.classes.len())?;
        let [train, val, test] = self.images;
        Ok(json!({
            "version": 2,
            "program": concat!("tailor ", env!("CARGO_PKG_VERSION")),
            "command": command_line(),
            "name": self.report.name,
            "data": self.data_name,
            "seed": self.recipe.seed,
            "run": self.run,
            "test_images": self.test_images,
            "paper_macs": self.paper_macs,
            // Without the seed: runs that differ only in it have the same recipe.
            "recipe": self.recipe.options(),
            "classes": self.classes,
            "size": [self.size.height, self.size.width],
            "images": { "train": train, "val": val, "test": test },
            "backbone": backbone,
            "teacher": {
                "params": teacher.task_params() + teacher.backbone_params(),
                "macs": teacher.costs(Counter::True)?.total().macs,
            },
            "task": self.report.json(),
            "survivors": self.report.strip,
            "candidates": attempts,
            "chosen": self.selection.winner().map(|won| won.stage.as_str()),
        }))
    }
}

impl Attempt {
    /// As JSON; costs are in `unit`.
    pub(crate) fn json(&self, unit: &str) -> Value {
        match self {
            Attempt::Trained(candidate) => json!({
                "dropped": candidate.dropped,
                "stage": candidate.stage,
                "finished": candidate.finished,
                "cost": candidate.cost,
                "cost_unit": unit,
                "val": candidate.validation.accuracy(),
                "behind": candidate.behind.gap,
                "behind_error": candidate.behind.error,
                "lost": candidate.behind.lost,
                "won": candidate.behind.won,
                "macs": candidate.macs,
                "params": candidate.params,
                "proxies": candidate.proxies,
            }),
            Attempt::Refused { dropped, why } => json!({ "dropped": dropped, "refused": why }),
            Attempt::Diverged { dropped, why } => json!({ "dropped": dropped, "diverged": why }),
            Attempt::Over { dropped, cost, why } => {
                json!({ "dropped": dropped, "over_budget": why, "cost": cost, "cost_unit": unit })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_without_a_network_say_why() {
        let why = "0.300 ms of 0.200 ms".to_string();
        let over = Attempt::Over { dropped: 2, cost: 300.0, why: why.clone() }.json("us");
        assert_eq!(over, json!({ "dropped": 2, "over_budget": why, "cost": 300.0, "cost_unit": "us" }));
        let refused = Attempt::Refused { dropped: 3, why: why.clone() }.json("us");
        assert_eq!(refused, json!({ "dropped": 3, "refused": why }));
        let diverged = Attempt::Diverged { dropped: 4, why: why.clone() }.json("us");
        assert_eq!(diverged, json!({ "dropped": 4, "diverged": why }));
    }
}
