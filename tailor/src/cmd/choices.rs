//! The options that shape a recipe, for every command that tailors.

use super::training;
use crate::data::{Augment, Counts};
use crate::fit::{Budget, Judge, LatencyTable, Measure, Recipe, Search};
use crate::net::{Formula, Gating};
use crate::train::Schedule;
use crate::{Error, Result};
use bundles::plan::Skips;
use clap::ValueEnum;
use std::path::PathBuf;

/// Choices of the recipe.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Recipe")]
pub(super) struct Choices {
    /// Defaults: this project's for small images, or the paper's recipe (long schedules, frozen norms, local
    /// matching).
    #[arg(long, value_enum, default_value = "small")]
    schedule: Preset,
    /// Epochs of teacher, student, retraining; from the schedule when left out, and then more where a few images make
    /// epochs of few steps.
    #[arg(long, value_name = "N,N,N", value_parser = three)]
    epochs: Option<[usize; 3]>,
    /// Retrains the networks that may be kept once more at the end, this many times as long as candidates, and chooses among
    /// them anew; 0 leaves that out. 4 when left out, 0 with --schedule paper.
    #[arg(long, value_name = "TIMES")]
    finish: Option<usize>,
    /// Images per step of teacher, student, retraining; from the schedule, or all there are, when left out.
    #[arg(long, value_name = "N,N,N", value_parser = three)]
    batch: Option<[usize; 3]>,
    /// Learning-rate schedule of the teacher: one-cycle:PEAK, cosine:RATE or step:RATE,EPOCHS,FACTOR, the last two
    /// with `,warm-up=EPOCHS` if need be.
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
    /// Weight of expected complexity [default: 0.3].
    #[arg(long)]
    gamma1: Option<f64>,
    /// Weight of the distance to the teacher's nodes and logits [default: 1; 10 with --schedule paper]; 0 trains without a
    /// teacher, unless --distill is given.
    #[arg(long)]
    gamma2: Option<f64>,
    /// Weight of distillation: the divergence from the teacher's class probabilities, softened by temperature 4
    /// [default: 1; 0 with --schedule paper].
    #[arg(long, value_name = "WEIGHT")]
    distill: Option<f64>,
    /// Proxies with a smaller gate are pruned [default: 0.05]. Each node keeps its widest one all the same, except in a sweep (--search) and
    /// behind hard-concrete gates.
    #[arg(long)]
    theta: Option<f32>,
    /// Accepted loss on validation, in percentage points of what --judge says.
    #[arg(long, value_name = "POINTS", default_value_t = 0.5)]
    tolerance: f64,
    /// What that loss is measured by: right answers, or the mean probability of the right class, which the same few hundred
    /// images tell about twice as surely [default: probability; answers in a sweep, which is the paper's].
    #[arg(long, value_enum)]
    judge: Option<Judge>,
    /// Standard errors of the difference to the teacher that a network has to keep clear of the tolerance by, because the
    /// leanest of many is one that validation flatters; one that is not behind at all always keeps it. With a few hundred
    /// images 0.5 is much.
    #[arg(long, value_name = "ERRORS", default_value_t = 0.0)]
    caution: f64,
    /// Looks at each validation image when pruned networks are compared with the teacher: as it is, and shifted, mirrored or
    /// coloured as training images are (--crop, --flip, --jitter). 8 tell networks half a point apart better than 1, and are harder to pass.
    #[arg(long, value_name = "N", default_value_t = 1)]
    looks: u64,
    /// What complexity is counted in: multiply-adds, parameters, or time on a device (--table).
    #[arg(long, value_enum, default_value = "macs")]
    cost: CostArg,
    /// Latency table of the device, made there by `edge-runtime bench --blocks FILE`, for --cost latency.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// The most the tailored network may cost: 15M or 100k (multiply-adds or parameters, as --cost says), 1.5ms, or 40%
    /// of the backbone. In place of --gamma1; the most accurate of the networks tried within it is kept (of those of an
    /// iterative search, the first that it comes to).
    #[arg(long, value_name = "AMOUNT")]
    budget: Option<Budget>,
    /// How gate values come from logits: softmax (small ones are cut at --theta), or hard-concrete, which reaches zero.
    #[arg(long, value_enum, default_value = "softmax")]
    gates: GatesArg,
    /// Formula of expected complexity [default: product].
    #[arg(long, value_enum)]
    complexity: Option<ComplexityArg>,
    /// Where matching gradients stop: at their own cell's inputs, or nowhere [default: end-to-end; local with --schedule paper].
    #[arg(long, value_enum)]
    matching: Option<MatchingArg>,
    /// Whether the norms on universal kernels train too (they are task-owned, so this costs no bytes) [default: true; false
    /// with --schedule paper].
    #[arg(long, value_name = "BOOL")]
    free_norms: Option<bool>,
    /// How it is searched which blocks to drop: `sweep` tries every number of the lowest gates (what --schedule paper does);
    /// `bisect` finds the number by halving; `iterative` goes step by step, by the harm their absence does for what it saves, with roll-back (what
    /// --schedule small does). The latter two then leave out half of the proxies at a time of the network that would be kept, or
    /// a quarter where that is too many.
    #[arg(long, value_enum)]
    search: Option<SearchArg>,
    /// Share of train/ held out when there is no val/ [default: 0.15]. Images are drawn by chance, class by class: where many
    /// are of one scene or film, give a val/ of others.
    #[arg(long, value_name = "FRACTION")]
    validation: Option<f64>,
    #[command(flatten)]
    images: training::Images,
    #[command(flatten)]
    care: training::Care,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Preset {
    Small,
    Paper,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ComplexityArg {
    Product,
    Paper,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MatchingArg {
    Local,
    EndToEnd,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SearchArg {
    Sweep,
    Bisect,
    Iterative,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum CostArg {
    Macs,
    Params,
    Latency,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum GatesArg {
    Softmax,
    HardConcrete,
}

impl Choices {
    /// The recipe for `counts` images.
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
        recipe.formula = match self.complexity {
            Some(ComplexityArg::Paper) => Formula::Paper,
            Some(ComplexityArg::Product) | None => Formula::Product,
        };
        recipe.local_matching = match self.matching {
            Some(MatchingArg::Local) => true,
            Some(MatchingArg::EndToEnd) => false,
            None => recipe.local_matching,
        };
        recipe.free_norms = self.free_norms.unwrap_or(recipe.free_norms);
        recipe.search = match self.search {
            Some(SearchArg::Sweep) => Search::Sweep,
            Some(SearchArg::Bisect) => Search::Bisect,
            Some(SearchArg::Iterative) => Search::Iterative,
            None => recipe.search,
        };
        recipe.judge = self.judge.unwrap_or(Judge::of(recipe.search));
        recipe.cost = self.measure()?;
        recipe.budget = self.budget;
        recipe.gating = match self.gates {
            GatesArg::Softmax => Gating::Softmax,
            GatesArg::HardConcrete => Gating::HardConcrete,
        };
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

    /// Has the search be a sweep, because of `what`.
    pub(super) fn sweep(&mut self, what: &str) -> Result<()> {
        match self.search.replace(SearchArg::Sweep) {
            None | Some(SearchArg::Sweep) => Ok(()),
            Some(_) => Err(Error::config("--search", format!("without effect beside {what}"))),
        }
    }

    /// How far back proxies reach, where that was said.
    pub(super) fn skips(&self) -> Option<Skips> {
        self.skips
    }

    /// What is changed in training images: as typed, over `default`.
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
                let want = "--table FILE beside it, made on the device by `edge-runtime bench --blocks FILE`";
                Err(Error::config("--cost latency", want))
            }
            (_, Some(_)) => Err(Error::config("--table", "without effect unless --cost is latency")),
            (CostArg::Macs, None) => Ok(Measure::Macs),
            (CostArg::Params, None) => Ok(Measure::Params),
        }
    }

    /// Refuses what was asked for and would have no effect.
    fn check_against(&self, recipe: &Recipe) -> Result<()> {
        let idle = |option: &str, weight: &str| {
            let want = format!("without effect where --{weight} is 0: leave one of them out");
            Err(Error::config(format!("--{option}"), want))
        };
        if self.matching.is_some() && recipe.gamma2 == 0.0 {
            return idle("matching", "gamma2");
        }
        if self.budget.is_some() && self.gamma1.is_some() {
            return Err(Error::config("--gamma1", "without effect where --budget takes its place"));
        }
        if self.theta.is_some() && self.gates == GatesArg::HardConcrete {
            return Err(Error::config(
                "--theta",
                "without effect on hard-concrete gates, which close by themselves",
            ));
        }
        if self.complexity.is_some() && recipe.gamma1 == 0.0 {
            return idle("complexity", "gamma1");
        }
        Ok(())
    }

    /// Refuses looks that would all be the same.
    pub(super) fn check_looks(&self, recipe: &Recipe) -> Result<()> {
        let Augment { crop_pad, flip, jitter, .. } = recipe.augment;
        if self.looks > 1 && crop_pad == 0 && !flip && jitter == 0.0 {
            let want = "without effect unless --crop, --flip or --jitter says how looks at an image differ";
            return Err(Error::config(format!("--looks {}", self.looks), want));
        }
        Ok(())
    }

    /// Refuses what does not fit the images, before any of them is decoded.
    pub(super) fn check_data(&self, recipe: &Recipe, counts: Counts) -> Result<()> {
        if let Some(fraction) = self.validation.filter(|_| counts.val > 0) {
            let want = "the data has a val/ of its own: leave the option out, or that folder";
            return Err(Error::config(format!("--validation {fraction}"), want));
        }
        let mut batches = self.batch.into_iter().flatten();
        batches.try_for_each(|batch| counts.check_batch(batch, recipe.validation))
    }
}

/// Three numbers with commas between them.
fn three(text: &str) -> Result<[usize; 3], String> {
    let numbers: Option<Vec<usize>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
    numbers
        .and_then(|n| n.try_into().ok())
        .ok_or_else(|| "three numbers are needed, for example 12,15,8".into())
}
