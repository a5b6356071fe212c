//! All options of a tailoring run, with defaults for small backbones and the paper's settings.

use super::cut::PRUNE;
use super::{Budget, Judge, Measure};
use crate::data::Augment;
use crate::net::{Formula, Gating};
use crate::train::Schedule;
use crate::{Error, Result};
use bundles::plan::{Arch, Skips};

/// One training stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Passes over the training split.
    pub epochs: usize,
    /// Images per step.
    pub batch: usize,
    /// Learning rate.
    pub schedule: Schedule,
}

/// How the number of dropped blocks is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Search {
    /// Every number from 0 until the network is disconnected, lowest gates first, as in the paper.
    Sweep,
    /// Bisection of that number, assuming that dropping more never improves accuracy: far fewer retrainings.
    /// Then half of the proxies at a time, or a quarter where half is too many.
    Bisect,
    /// One block, then two, four and so on, each time those that harm validation least for the cost they
    /// save, starting from the network retrained without the previous ones. A step that ends beyond three
    /// times the tolerance (with --finish 0, beyond the tolerance) is rolled back and shorter ones are taken.
    /// Then half of the proxies at a time, or a quarter where half is too many. With a budget, each step is one
    /// block or half of the proxies, and none is rolled back.
    Iterative,
}

/// Options of a whole run.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Fine-tuning of the teacher.
    pub teach: Stage,
    /// Training of proxies and gates.
    pub train: Stage,
    /// Retraining after pruning, by which candidates are compared.
    pub retrain: Stage,
    /// How many times as long the candidates for selection are then fine-tuned ("finished") before they are
    /// compared again; 0 for never.
    pub finish: usize,
    /// Weight of expected complexity.
    pub gamma1: f64,
    /// Weight of the distance to the teacher's node activations and logits.
    pub gamma2: f64,
    /// Weight of the Kullback-Leibler divergence from the teacher's class probabilities (distillation).
    pub distill: f64,
    /// Optimiser momentum.
    pub momentum: f64,
    /// Weight decay of everything but the gates' alpha logits.
    pub decay: f64,
    /// How far proxies reach back.
    pub skips: Skips,
    /// Proxies with a smaller alpha are dropped. The largest open one of each node is kept regardless, except
    /// in a sweep and with hard-concrete gates.
    pub theta: f32,
    /// Largest accepted loss of validation accuracy against the teacher, as a fraction.
    pub tolerance: f64,
    /// The metric in which that loss is measured.
    pub judge: Judge,
    /// Safety margin: how many standard errors of the gap to the teacher a network has to stay clear of the
    /// tolerance, unless there is no gap at all.
    pub caution: f64,
    /// Views of each validation image when candidates are compared (test-time augmentation): the unchanged
    /// image, then augmented ones. A few hundred images seen once cannot tell networks half a point apart; a
    /// network that is about to fail does so in some views.
    pub looks: u64,
    /// Formula of expected complexity.
    pub formula: Formula,
    /// The quantity in which complexity is measured.
    pub cost: Measure,
    /// Maximum cost of a tailored network. Replaces `gamma1`: only the excess is penalised, and the most
    /// accurate network within the budget is selected.
    pub budget: Option<Budget>,
    /// How gate values are computed from logits.
    pub gating: Gating,
    /// Whether matching gradients stay inside their cell.
    pub local_matching: bool,
    /// Whether the student's norms on universal kernels are trained too.
    pub free_norms: bool,
    /// How the number of dropped blocks is found.
    pub search: Search,
    /// Share of the training split held out for validation when the data has no `val` folder.
    pub validation: f64,
    /// Augmentation of training images.
    pub augment: Augment,
    /// Whether every class is sampled equally often.
    pub balance: bool,
    /// Early stopping: epochs at a low learning rate without better validation accuracy after which training
    /// of the teacher and retraining stop.
    pub patience: Option<usize>,
    /// Maximum gradient norm.
    pub clip: Option<f64>,
    /// Seed of all random choices.
    pub seed: u64,
}

/// Minimum number of steps per epoch that the default schedules are made for.
const LEAST_STEPS: usize = 20;

/// More epochs than anybody trains, and few enough for their steps to be counted.
pub(crate) const MOST_EPOCHS: usize = 1_000_000;

impl Recipe {
    /// Defaults for 32-pixel backbones: few epochs; one-cycle schedules; trained norms on universal kernels
    /// (a task owns them anyway), with end-to-end matching so that they learn from the teacher; a weaker pull
    /// towards the teacher's node activations, which fewer blocks cannot all reproduce; distillation from its
    /// answers; and blocks dropped step by step, which leaves far leaner networks than single-shot pruning
    /// does (BENCHMARKS.md).
    pub fn small() -> Recipe {
        Recipe {
            teach: Stage { epochs: 12, batch: 64, schedule: Schedule::OneCycle { peak: 0.05 } },
            train: Stage { epochs: 15, batch: 32, schedule: Schedule::OneCycle { peak: 0.1 } },
            retrain: Stage { epochs: 8, batch: 32, schedule: Schedule::OneCycle { peak: 0.05 } },
            finish: 4,
            gamma1: 0.3,
            gamma2: 1.0,
            distill: 1.0,
            momentum: 0.9,
            decay: 5e-4,
            skips: Skips::Nearest(3),
            theta: 0.05,
            tolerance: 0.005,
            judge: Judge::of(Search::Iterative),
            caution: 0.0,
            looks: 1,
            formula: Formula::Product,
            cost: Measure::Macs,
            budget: None,
            gating: Gating::Softmax,
            local_matching: false,
            free_norms: true,
            search: Search::Iterative,
            validation: 0.15,
            augment: Augment::default(),
            balance: false,
            patience: None,
            clip: None,
            seed: 1,
        }
    }

    /// The paper's recipe (224 px): step drops every 20 epochs, frozen norms, local matching, single-shot
    /// pruning. Complexity is the product all the same: equation 9 as printed can be negative.
    pub fn paper() -> Recipe {
        let step = |rate| Schedule::Step { rate, every: 20, factor: 0.1, warm_up: 0 };
        Recipe {
            teach: Stage { epochs: 50, batch: 64, schedule: step(0.01) },
            train: Stage { epochs: 50, batch: 32, schedule: step(0.1) },
            retrain: Stage { epochs: 60, batch: 32, schedule: step(0.01) },
            finish: 0,
            gamma2: 10.0,
            distill: 0.0,
            local_matching: true,
            free_norms: false,
            search: Search::Sweep,
            judge: Judge::of(Search::Sweep),
            ..Recipe::small()
        }
    }

    /// Whether students learn from a teacher.
    pub(crate) fn has_teacher(&self) -> bool {
        self.gamma2 > 0.0 || self.distill > 0.0
    }

    /// Gives each stage more epochs if `images` training images make few steps each: the schedules are made
    /// for data sets with at least twenty steps per epoch. With half as many, a teacher ends far from its
    /// best, and a learning rate that rises and falls within a dozen steps diverges. Schedules that drop
    /// after a fixed number of epochs are left as they are.
    pub fn lengthen(&mut self, images: usize) {
        for stage in [&mut self.teach, &mut self.train, &mut self.retrain] {
            if matches!(stage.schedule, Schedule::Step { .. }) {
                continue;
            }
            let steps = (images / stage.batch.min(images).max(1)).max(1);
            stage.epochs *= LEAST_STEPS.div_ceil(steps);
        }
    }

    /// Refuses invalid options and combinations before anything is read.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn check(&self) -> Result<()> {
        let bad =
            |option: &str, got: String, want: &str| Err(Error::config(format!("--{option} {got}"), want));
        for (name, stage) in [("teach", &self.teach), ("train", &self.train), ("retrain", &self.retrain)] {
            if !(1..=MOST_EPOCHS).contains(&stage.epochs) {
                return bad("epochs", format!("{} ({name})", stage.epochs), "from 1 to a million");
            }
            if stage.batch < 2 {
                return bad(
                    "batch",
                    format!("{} ({name})", stage.batch),
                    "at least 2 (batch statistics need more than one image)",
                );
            }
            stage.schedule.check(stage.epochs, &format!("--{name}-rate"))?;
        }
        if !(0.0..=0.5).contains(&self.validation) || self.validation == 0.0 {
            return bad("validation", self.validation.to_string(), "a fraction above 0 and at most 0.5");
        }
        if !(0.0..1.0).contains(&f64::from(self.theta)) {
            return bad("theta", self.theta.to_string(), "a gate value of at least 0 and below 1");
        }
        for (name, value) in [
            ("gamma1", self.gamma1),
            ("gamma2", self.gamma2),
            ("distill", self.distill),
            ("momentum", self.momentum),
            ("decay", self.decay),
            ("caution", self.caution),
        ] {
            if !value.is_finite() || value < 0.0 {
                return bad(name, value.to_string(), "a number of at least 0");
            }
        }
        if self.finish > MOST_EPOCHS {
            return bad("finish", self.finish.to_string(), "at most a million");
        }
        if self.looks == 0 {
            return bad("looks", "0".into(), "at least 1");
        }
        if !(0.0..=1.0).contains(&self.tolerance) {
            let points = (100.0 * self.tolerance).to_string();
            return bad("tolerance", points, "percentage points from 0 to 100");
        }
        Ok(())
    }

    /// Refuses a budget or a latency table that does not suit `arch` at `size` pixels with that many
    /// `classes`, before hours of training are spent on it.
    ///
    /// # Errors
    /// [`Error::Config`] or [`Error::Data`].
    pub fn check_cost(&self, arch: Arch, size: usize, classes: usize) -> Result<()> {
        let backbone = arch.plan(size, size, classes)?;
        let student = backbone.with_proxies(self.skips, arch.proxy_form())?;
        if let Measure::Latency(table) = &self.cost {
            table.check(arch, size)?;
        }
        self.cost.total(&student)?;
        let Some(budget) = self.budget else { return Ok(()) };
        let (allowed, least) = (budget.resolve(&self.cost, &backbone)?, self.cost.least(&student)?);
        if allowed >= least {
            return Ok(());
        }
        let want = format!(
            "at least {}, the cost of the leanest network that pruning can reach with --skips {}: let proxies \
             reach further, or raise the budget",
            self.cost.exactly(least),
            self.skips
        );
        Err(Error::config(format!("--budget {budget}"), want))
    }

    /// The long fine-tuning of candidates for selection; `None` if it is turned off.
    pub(super) fn finishing(&self) -> Option<Stage> {
        let epochs = self.finish * self.retrain.epochs;
        (epochs > 0).then(|| Stage { epochs, ..self.retrain.clone() })
    }

    /// Name of the stage that retrains a student without its `dropped` lowest-ranked blocks.
    pub(super) fn candidate_stage(&self, dropped: usize) -> String {
        format!("{PRUNE}{dropped}{}", if self.keeps_ways_round() { "-round" } else { "" })
    }

    /// Whether each node keeps a proxy that its gates would have closed. Not in a sweep, which follows the
    /// paper, nor with hard-concrete gates, which stay closed once they are.
    pub(super) fn keeps_ways_round(&self) -> bool {
        self.search != Search::Sweep && self.gating == Gating::Softmax
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_images_make_more_epochs_of_schedules_that_stretch() {
        let epochs = |recipe: Recipe, images| {
            let mut recipe = recipe;
            recipe.lengthen(images);
            [recipe.teach.epochs, recipe.train.epochs, recipe.retrain.epochs]
        };
        // Batches of 64, 32 and 32: 40 images make one step each; 320 make five of 64 and ten of 32.
        assert_eq!(epochs(Recipe::small(), 40), [240, 300, 160]);
        assert_eq!(epochs(Recipe::small(), 320), [48, 30, 16]);
        assert_eq!(epochs(Recipe::small(), 640), [24, 15, 8]);
        assert_eq!(epochs(Recipe::small(), 1280), [12, 15, 8]);
        assert_eq!(epochs(Recipe::paper(), 40), [50, 50, 60], "drops are at fixed epochs");
    }

    #[test]
    fn the_papers_recipe_has_the_papers_numbers() {
        let paper = Recipe::paper();
        let stages = [&paper.teach, &paper.train, &paper.retrain].map(|stage| {
            let Schedule::Step { rate, every, factor, warm_up } = stage.schedule else { panic!("{stage:?}") };
            (stage.epochs, rate, every, factor, warm_up)
        });
        assert_eq!(stages, [(50, 0.01, 20, 0.1, 0), (50, 0.1, 20, 0.1, 0), (60, 0.01, 20, 0.1, 0)]);
        assert_eq!((paper.gamma1, paper.gamma2, paper.distill), (0.3, 10.0, 0.0));
        assert_eq!((paper.momentum, paper.decay, paper.theta), (0.9, 5e-4, 0.05));
        assert!(paper.local_matching && !paper.free_norms && paper.finish == 0);
        assert_eq!(paper.formula, Formula::Product);
        assert_eq!((paper.search, paper.judge), (Search::Sweep, Judge::Answers));
    }

    #[test]
    fn invalid_selection_options_are_refused() {
        for (option, recipe) in [
            ("--looks 0", Recipe { looks: 0, ..Recipe::small() }),
            ("--caution -1", Recipe { caution: -1.0, ..Recipe::small() }),
            ("--tolerance -1", Recipe { tolerance: -0.01, ..Recipe::small() }),
            ("--finish 9999999999", Recipe { finish: 9_999_999_999, ..Recipe::small() }),
            (
                "--epochs 1000001 (train)",
                Recipe { train: Stage { epochs: 1_000_001, ..Recipe::small().train }, ..Recipe::small() },
            ),
            (
                "--epochs 0 (teach)",
                Recipe { teach: Stage { epochs: 0, ..Recipe::small().teach }, ..Recipe::small() },
            ),
        ] {
            let error = recipe.check().unwrap_err().to_string();
            assert!(error.contains(option), "{error}");
        }
        Recipe { looks: 8, caution: 0.5, ..Recipe::small() }.check().unwrap();
    }
}
