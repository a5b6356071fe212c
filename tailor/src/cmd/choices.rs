//! Recipe options shared by every command that tailors.

use super::training;
use crate::data::{Augment, Counts, Jitter};
use crate::fit::{Budget, Judge, LatencyTable, Measure, Recipe, Search};
use crate::net::{Formula, Gating};
use crate::train::Schedule;
use crate::{Error, Result};
use bundles::plan::Skips;
use clap::ValueEnum;
use std::path::PathBuf;

/// Default of `--tolerance`, in percentage points.
const TOLERANCE: f64 = 0.5;

/// Choices of the recipe.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Recipe")]
pub(super) struct Choices {
    /// Set of defaults: `small` is tuned for small images, `paper` is the published recipe (long schedules,
    /// frozen norms, local matching, a single-shot sweep), but for its equation 9 (see --complexity).
    #[arg(long, value_enum, default_value = "small")]
    schedule: Preset,
    /// Epochs of teacher, student and retraining [default: from --schedule, and more when few images make
    /// epochs of few steps].
    #[arg(long, value_name = "N,N,N", value_parser = three)]
    epochs: Option<[usize; 3]>,
    /// Fine-tunes the most promising candidates again, this many times as long as each was retrained, and selects
    /// among those; 0 skips this [default: 4; 0 with --schedule paper].
    #[arg(long, value_name = "TIMES")]
    finish: Option<usize>,
    /// Images per step of teacher, student and retraining [default: from --schedule; all images when there
    /// are fewer].
    #[arg(long, value_name = "N,N,N", value_parser = three)]
    batch: Option<[usize; 3]>,
    /// Learning-rate schedule of the teacher: one-cycle:PEAK, cosine:RATE or step:RATE,EPOCHS,FACTOR; the
    /// last two accept `,warm-up=EPOCHS`.
    #[arg(long, value_name = "SCHEDULE")]
    teach_rate: Option<Schedule>,
    /// Learning-rate schedule of the student.
    #[arg(long, value_name = "SCHEDULE")]
    train_rate: Option<Schedule>,
    /// Learning-rate schedule of retraining after pruning.
    #[arg(long, value_name = "SCHEDULE")]
    retrain_rate: Option<Schedule>,
    /// How far back proxies reach: 1, 3, 5, … or `dense` [default: 3].
    #[arg(long)]
    skips: Option<Skips>,
    /// Weight of the expected complexity in the loss [default: 0.3].
    #[arg(long)]
    gamma1: Option<f64>,
    /// Weight of matching the teacher's nodes and logits in the loss [default: 1; 10 with --schedule paper];
    /// 0 trains without a teacher unless --distill is given.
    #[arg(long)]
    gamma2: Option<f64>,
    /// Weight of knowledge distillation: KL divergence from the teacher's class probabilities at temperature
    /// 4 [default: 1; 0 with --schedule paper].
    #[arg(long, value_name = "WEIGHT")]
    distill: Option<f64>,
    /// Prunes proxies whose gate is below this value [default: 0.05]. The most open proxy of each node is
    /// kept regardless, except in a sweep (--search) and with hard-concrete gates.
    #[arg(long)]
    theta: Option<f32>,
    /// Largest accepted loss relative to the teacher on validation, in percentage points of the --judge
    /// metric.
    #[arg(long, value_name = "POINTS", default_value_t = TOLERANCE)]
    tolerance: f64,
    /// Metric that compares a pruned network with its teacher: accuracy (`answers`), or the mean probability
    /// of the correct class (`probability`), which has about half the sampling error on the same few hundred
    /// images, but also depends on how sure a network is [default: probability; answers in a sweep, as in the
    /// paper].
    #[arg(long, value_enum)]
    judge: Option<Judge>,
    /// Safety margin, in standard errors of the difference from the teacher: a network must stay this far
    /// inside the tolerance, because validation flatters the leanest of many candidates. Networks that are
    /// not behind the teacher always pass. With a few hundred images, 0.5 is already a large margin.
    #[arg(long, value_name = "ERRORS", default_value_t = 0.0)]
    caution: f64,
    /// Views of each validation image when candidates are compared (test-time augmentation): the image
    /// itself, and copies shifted, mirrored or coloured as in training (--crop, --flip, --jitter). 8 views
    /// tell networks half a point apart better than 1, and are harder to pass.
    #[arg(long, value_name = "N", default_value_t = 1)]
    looks: u64,
    /// Unit of complexity: multiply-adds, parameters, or latency on a device (needs --table).
    #[arg(long, value_enum, default_value = "macs")]
    cost: CostArg,
    /// Latency table for --cost latency, written on the device by `edge-runtime bench --blocks FILE`.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Upper bound on the cost of the tailored network: 15M or 100k (multiply-adds or parameters, see
    /// --cost), 1.5ms, or 40% of the backbone. Replaces --gamma1. The most accurate network within the budget
    /// is kept, finished (--finish) or not; the iterative search goes no further than the first one it reaches.
    #[arg(long, value_name = "AMOUNT")]
    budget: Option<Budget>,
    /// How gate values follow from their logits.
    #[arg(long, value_enum, default_value = "softmax")]
    gates: Gating,
    /// Probability that a path runs, in the expected complexity; `paper` is equation 9 as printed, which can be
    /// negative [default: product].
    #[arg(long, value_enum)]
    complexity: Option<Formula>,
    /// Where gradients of the matching loss stop: at their own cell's inputs (local), or nowhere [default:
    /// end-to-end; local with --schedule paper].
    #[arg(long, value_enum)]
    matching: Option<MatchingArg>,
    /// Trains the norms behind universal kernels too; the task owns them anyway, so this costs no bytes
    /// [default: true; false with --schedule paper].
    #[arg(long, value_name = "BOOL")]
    free_norms: Option<bool>,
    /// Strategy for dropping blocks [default: iterative; sweep with --schedule paper].
    #[arg(long, value_enum)]
    search: Option<Search>,
    /// Fraction of train/ held out when there is no val/ [default: 0.15]. Images are drawn at random per
    /// class: if many come from one scene or video, provide a val/ from others.
    #[arg(long, value_name = "FRACTION")]
    validation: Option<f64>,
    #[command(flatten)]
    images: training::Images,
    #[command(flatten)]
    care: training::Care,
    /// Random seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Preset {
    Small,
    Paper,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MatchingArg {
    Local,
    EndToEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum CostArg {
    Macs,
    Params,
    Latency,
}

impl Choices {
    /// The recipe for a data set with these `counts`.
    pub(super) fn recipe_for(&self, counts: Counts) -> Result<Recipe> {
        let mut recipe = self.recipe()?;
        if self.epochs.is_none() && matches!(self.schedule, Preset::Small) {
            recipe.lengthen(counts.left_to_train(recipe.validation));
        }
        Ok(recipe)
    }

    pub(super) fn recipe(&self) -> Result<Recipe> {
        let mut recipe = match self.schedule {
            Preset::Small => Recipe::small(),
            Preset::Paper => Recipe::paper(),
        };
        if let Some([teach, train, retrain]) = self.epochs {
            (recipe.teach.epochs, recipe.train.epochs, recipe.retrain.epochs) = (teach, train, retrain);
        }
        recipe.finish = self.finish.unwrap_or(recipe.finish);
        if let Some([teach, train, retrain]) = self.batch {
            (recipe.teach.batch, recipe.train.batch, recipe.retrain.batch) = (teach, train, retrain);
        }
        let rates = [self.teach_rate, self.train_rate, self.retrain_rate];
        for (stage, rate) in
            [&mut recipe.teach, &mut recipe.train, &mut recipe.retrain].into_iter().zip(rates)
        {
            stage.schedule = rate.unwrap_or(stage.schedule);
        }
        recipe.skips = self.skips.unwrap_or(recipe.skips);
        recipe.gamma1 = self.gamma1.unwrap_or(recipe.gamma1);
        recipe.gamma2 = self.gamma2.unwrap_or(recipe.gamma2);
        let without = recipe.gamma2 == 0.0;
        recipe.distill = self.distill.unwrap_or(if without { 0.0 } else { recipe.distill });
        recipe.theta = self.theta.unwrap_or(recipe.theta);
        recipe.tolerance = self.tolerance / 100.0;
        recipe.caution = self.caution;
        recipe.looks = self.looks;
        recipe.formula = self.complexity.unwrap_or(recipe.formula);
        recipe.local_matching = match self.matching {
            Some(MatchingArg::Local) => true,
            Some(MatchingArg::EndToEnd) => false,
            None => recipe.local_matching,
        };
        recipe.free_norms = self.free_norms.unwrap_or(recipe.free_norms);
        recipe.search = self.search.unwrap_or(recipe.search);
        recipe.judge = self.judge.unwrap_or(Judge::of(recipe.search));
        recipe.cost = self.measure()?;
        recipe.budget = self.budget;
        recipe.gating = self.gates;
        recipe.validation = self.validation.unwrap_or(recipe.validation);
        self.care.check()?;
        recipe.augment = self.images.augment(recipe.augment);
        recipe.balance = self.images.balance;
        recipe.patience = self.care.patience;
        recipe.clip = self.care.clip;
        recipe.seed = self.seed;
        recipe.check()?;
        self.check_against(&recipe)?;
        Ok(recipe)
    }

    /// Switches the search to a sweep, as `what` requires.
    pub(super) fn sweep(&mut self, what: &str) -> Result<()> {
        match self.search.replace(Search::Sweep) {
            None | Some(Search::Sweep) => Ok(()),
            Some(_) => Err(Error::config("--search", format!("has no effect with {what}"))),
        }
    }

    /// How far back proxies reach, if given.
    pub(super) fn skips(&self) -> Option<Skips> {
        self.skips
    }

    /// Augmentation of training images: the options given, over `default`.
    pub(super) fn augment(&self, default: Augment) -> Augment {
        self.images.augment(default)
    }

    /// Accepted loss of validation accuracy, in percentage points.
    pub(super) fn tolerance(&self) -> f64 {
        self.tolerance
    }

    fn measure(&self) -> Result<Measure> {
        match (self.cost, &self.table) {
            (CostArg::Latency, Some(table)) => Ok(Measure::Latency(LatencyTable::read(table)?)),
            (CostArg::Latency, None) => {
                let want = "needs --table FILE, written on the device by `edge-runtime bench --blocks FILE`";
                Err(Error::config("--cost latency", want))
            }
            (_, Some(_)) => Err(Error::config("--table", "only applies to --cost latency")),
            (CostArg::Macs, None) => Ok(Measure::Macs),
            (CostArg::Params, None) => Ok(Measure::Params),
        }
    }

    /// The first option given that only matters to tailoring, for commands that may train other methods alone.
    pub(super) fn of_tailoring(&self) -> Option<&'static str> {
        let given = [
            ("--finish", self.finish.is_some()),
            ("--train-rate", self.train_rate.is_some()),
            ("--retrain-rate", self.retrain_rate.is_some()),
            ("--skips", self.skips.is_some()),
            ("--gamma1", self.gamma1.is_some()),
            ("--gamma2", self.gamma2.is_some()),
            ("--distill", self.distill.is_some()),
            ("--theta", self.theta.is_some()),
            ("--tolerance", self.tolerance != TOLERANCE),
            ("--judge", self.judge.is_some()),
            ("--caution", self.caution != 0.0),
            ("--looks", self.looks != 1),
            ("--cost", self.cost != CostArg::Macs),
            ("--table", self.table.is_some()),
            ("--budget", self.budget.is_some()),
            ("--gates", self.gates != Gating::Softmax),
            ("--complexity", self.complexity.is_some()),
            ("--matching", self.matching.is_some()),
            ("--free-norms", self.free_norms.is_some()),
            ("--search", self.search.is_some()),
        ];
        given.into_iter().find_map(|(option, is_given)| is_given.then_some(option))
    }

    /// Rejects options that would have no effect.
    fn check_against(&self, recipe: &Recipe) -> Result<()> {
        let idle = |option: &str, weight: &str| {
            let want = format!("has no effect when --{weight} is 0: omit one of them");
            Err(Error::config(format!("--{option}"), want))
        };
        if self.matching.is_some() && recipe.gamma2 == 0.0 {
            return idle("matching", "gamma2");
        }
        if self.budget.is_some() && self.gamma1.is_some() {
            return Err(Error::config("--gamma1", "has no effect with --budget, which replaces it"));
        }
        if self.theta.is_some() && self.gates == Gating::HardConcrete {
            return Err(Error::config(
                "--theta",
                "has no effect on hard-concrete gates, which reach zero by themselves",
            ));
        }
        if self.budget.is_some() && self.caution > 0.0 {
            let want = "has no effect with --budget, within which the most accurate network is kept";
            return Err(Error::config(format!("--caution {}", self.caution), want));
        }
        if self.complexity.is_some() && recipe.gamma1 == 0.0 {
            return idle("complexity", "gamma1");
        }
        Ok(())
    }

    /// Rejects a border without shifts, and several looks that would all be the same.
    pub(super) fn check_augment(&self, recipe: &Recipe) -> Result<()> {
        self.images.check(recipe.augment)?;
        let Augment { crop_pad, flip, jitter, .. } = recipe.augment;
        if self.looks > 1 && crop_pad == 0 && !flip && jitter == Jitter::NONE {
            let want = "has no effect unless --crop, --flip or --jitter makes the looks differ";
            return Err(Error::config(format!("--looks {}", self.looks), want));
        }
        Ok(())
    }

    /// Rejects options that do not suit the images, before any image is decoded.
    pub(super) fn check_data(&self, recipe: &Recipe, counts: Counts) -> Result<()> {
        if let Some(fraction) = self.validation.filter(|_| counts.val > 0) {
            let want = "the data has a val/ of its own: remove either that folder or the option";
            return Err(Error::config(format!("--validation {fraction}"), want));
        }
        counts.check_division(recipe.validation)?;
        let mut batches = self.batch.into_iter().flatten();
        batches.try_for_each(|batch| counts.check_batch(batch, recipe.validation))
    }
}

/// Three comma-separated numbers.
fn three(text: &str) -> Result<[usize; 3], String> {
    let numbers: Option<Vec<usize>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
    numbers
        .and_then(|n| n.try_into().ok())
        .ok_or_else(|| "three numbers are needed, for example 12,15,8".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::Value;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        choices: Choices,
    }

    fn recipe(words: &[String]) -> Recipe {
        let line = std::iter::once("tailor".to_owned()).chain(words.iter().cloned());
        Line::try_parse_from(line).unwrap().choices.recipe().unwrap()
    }

    /// A command line that says again what is in this document.
    fn words(options: &Value) -> Vec<String> {
        let mut words = Vec::new();
        for (name, value) in options.as_object().unwrap() {
            let value = match (name.as_str(), value) {
                ("momentum" | "decay", _) | (_, Value::Null) => continue,
                ("flip" | "balance", Value::Bool(false)) => continue,
                ("flip" | "balance", _) => None,
                (_, Value::String(text)) => Some(text.clone()),
                (_, Value::Array(values)) => {
                    Some(values.iter().map(Value::to_string).collect::<Vec<_>>().join(","))
                }
                (_, other) => Some(other.to_string()),
            };
            words.push(match value {
                Some(value) => format!("--{name}={value}"),
                None => format!("--{name}"),
            });
        }
        words
    }

    #[test]
    fn a_margin_within_a_budget_is_refused() {
        let line = ["tailor", "--budget", "40%", "--caution", "0.5"];
        let error = Line::try_parse_from(line).unwrap().choices.recipe().unwrap_err().to_string();
        assert!(error.contains("--caution 0.5: has no effect with --budget"), "{error}");
    }

    #[test]
    fn a_recorded_recipe_is_a_command_line() {
        let lines = [
            "",
            "--schedule paper",
            "--epochs 3,4,5 --batch 8,9,10 --finish 2 --teach-rate cosine:0.02,warm-up=1 \
             --train-rate one-cycle:0.3 --retrain-rate step:0.1,2,0.5 --skips dense \
             --gamma1 0.1 --gamma2 2 --distill 0.3 --theta 0.07 --tolerance 0.7 --judge answers --caution 0.5 \
             --looks 3 --cost params --complexity paper --matching local --free-norms false --search bisect \
             --validation 0.2 --crop 3 --padding reflect --flip --augment randaugment:2,9 --jitter 0.5,0.2,0.3 --erase 0.25 --balance \
             --patience 4 --clip 5",
            "--budget 1.5k --gates hard-concrete",
            "--gamma1 0 --gamma2 0 --distill 0.5",
        ];
        for line in lines {
            let line: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let recipe_of_line = recipe(&line);
            assert_eq!(recipe(&words(&recipe_of_line.options())), recipe_of_line, "{line:?}");
        }
    }
}
