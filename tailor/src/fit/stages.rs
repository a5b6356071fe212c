//! The stages of tailoring, each a function of the one before and of the recipe.

use super::{Measure, Recipe, Stage, Work};
use crate::Result;
use crate::data::{Loader, Split};
use crate::net::{Complexity, Net, Params};
use crate::progress::Progress;
use crate::train::{Course, Objective, Score, Train, evaluate, student_loss, teacher_loss};
use bundles::plan::{Arch, Cost, Counter, Plan};
use candle_core::Device;

/// Images per batch when nothing is trained.
pub(crate) const EVAL_BATCH: usize = 100;

/// Name of the student's stage.
pub(super) const STUDENT: &str = "train";

/// Everything a run reads.
pub struct Tailoring<'a> {
    /// Architecture of the backbone.
    pub arch: Arch,
    /// The backbone's kernels and norms, frozen.
    pub backbone: &'a Params,
    /// Mean of each channel, of pixels scaled to 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel.
    pub std: [f32; 3],
    /// Number of classes of the task.
    pub classes: usize,
    /// Images to train on.
    pub train: &'a Split,
    /// Images to select by.
    pub val: &'a Split,
    /// Every choice.
    pub recipe: &'a Recipe,
    /// Where the run lives.
    pub work: &'a Work,
    /// Facts that belong to the run's identity beside the recipe: backbone id, data, image size.
    pub identity: &'a str,
    /// Where numbers are computed.
    pub device: &'a Device,
    /// Candidates that are retrained at the same time.
    pub jobs: usize,
    /// What a person sees.
    pub progress: &'a Progress,
}

/// The fine-tuned network.
pub struct Teacher {
    /// The backbone's plan with the task's classifier.
    pub plan: Plan,
    /// Trained numbers.
    pub params: Params,
    /// Accuracy on validation.
    pub validation: Score,
}

/// The gated network before pruning.
pub struct Student {
    /// Backbone plan with proxies.
    pub plan: Plan,
    /// Trained numbers.
    pub params: Params,
    /// Accuracy on validation.
    pub validation: Score,
}

impl Tailoring<'_> {
    /// The plain backbone with this task's classifier.
    ///
    /// # Errors
    /// When the image size does not suit the architecture.
    pub fn backbone_plan(&self) -> Result<Plan> {
        Ok(self.arch.plan(self.train.images.size().height, self.train.images.size().width, self.classes)?)
    }

    /// Fine-tunes every weight of the backbone on the task.
    ///
    /// # Errors
    /// Whatever training reports.
    pub fn teach(&self) -> Result<Teacher> {
        let plan = self.backbone_plan()?;
        let mut params = Params::teacher(&plan, self.backbone, self.recipe.seed, self.device)?;
        let loss = |params: &Params, batch: &_| teacher_loss(&plan, params, batch, 0.0);
        let fingerprint = self.recipe.teacher_fingerprint();
        let validation = self.run("teach", &fingerprint, &self.recipe.teach, &plan, &mut params, &loss)?;
        Ok(Teacher { plan, params, validation })
    }

    /// Trains proxies and gates beside the frozen blocks.
    ///
    /// # Errors
    /// Whatever training reports.
    pub fn train(&self, teacher: &Teacher) -> Result<Student> {
        let backbone = self.backbone_plan()?;
        let plan = backbone.with_proxies(self.recipe.skips, self.arch.proxy_form())?;
        let recipe = self.recipe;
        let (norms, gating) = (recipe.free_norms, recipe.gating);
        let mut params = Params::student(&plan, self.backbone, norms, gating, recipe.seed, self.device)?;
        let charge = Charge::new(&plan, &backbone, recipe)?;
        let objective = self.objective(teacher, Some(&charge));
        let loss = |params: &Params, batch: &_| student_loss(&plan, params, batch, &objective);
        let fingerprint = recipe.student_fingerprint();
        let validation = self.run(STUDENT, &fingerprint, &recipe.train, &plan, &mut params, &loss)?;
        Ok(Student { plan, params, validation })
    }

    /// Accuracy of a network on a split.
    ///
    /// # Errors
    /// When the split does not fit the network.
    pub fn score(&self, plan: &Plan, params: &Params, split: &Split) -> Result<Score> {
        let batches = self.loader(split, EVAL_BATCH)?.eval();
        evaluate(&Net { plan, params }, self.progress.interrupt().watch(batches))
    }

    pub(crate) fn loader(&self, split: &Split, batch: usize) -> Result<Loader> {
        Loader::new(split, self.mean, self.std, batch, self.device)
    }

    /// What is minimised beside cross-entropy: the distance to the teacher, and while gates are trained, `charge`.
    pub(super) fn objective<'t>(&self, teacher: &'t Teacher, charge: Option<&'t Charge>) -> Objective<'t> {
        Objective {
            teacher: self
                .recipe
                .has_teacher()
                .then_some(Net { plan: &teacher.plan, params: &teacher.params }),
            complexity: charge.map(|charge| &charge.complexity),
            gamma1: charge.map_or(0.0, |charge| charge.weight),
            allowance: charge.map_or(0.0, |charge| charge.allowance),
            seed: self.recipe.seed,
            gamma2: self.recipe.gamma2,
            distill: self.recipe.distill,
            local: self.recipe.local_matching,
            label_smoothing: 0.0,
        }
    }

    pub(super) fn run(
        &self,
        stage: &str,
        fingerprint: &str,
        how: &Stage,
        plan: &Plan,
        params: &mut Params,
        loss: &dyn Fn(&Params, &crate::data::Batch) -> Result<crate::train::StepLoss>,
    ) -> Result<Score> {
        self.course(stage, fingerprint, how, params, loss, &|params| self.score(plan, params, self.val))
    }

    /// Trains `params` by `loss` as `how` says, with the recipe's optimiser and augmentation.
    ///
    /// # Errors
    /// Whatever training reports.
    pub(crate) fn course(
        &self,
        stage: &str,
        fingerprint: &str,
        how: &Stage,
        params: &mut Params,
        loss: &dyn Fn(&Params, &crate::data::Batch) -> Result<crate::train::StepLoss>,
        validate: &dyn Fn(&Params) -> Result<Score>,
    ) -> Result<Score> {
        let recipe = self.recipe;
        let seed = recipe.seed;
        // A few dozen images are a normal case: then an epoch is one step over all of them.
        let loader = self.loader(self.train, how.batch.min(self.train.len()))?.balanced(recipe.balance);
        let train = Train {
            steps: loader.steps(),
            batches: &|epoch| loader.train(seed, epoch as u64, recipe.augment),
            loss,
            validate,
        };
        let course = Course {
            stage,
            fingerprint: &format!("{} | {fingerprint}", self.identity),
            epochs: how.epochs,
            schedule: how.schedule,
            momentum: recipe.momentum,
            decay: recipe.decay,
            clip: recipe.clip,
            // Validation says nothing of gates, which need their whole schedule.
            patience: recipe.patience.filter(|_| stage != STUDENT),
            checkpoint: Some(&self.work.checkpoint(stage)),
            log: Some(&self.work.log()),
            progress: self.progress,
        };
        course.run(params, &train)
    }
}

/// Weight of what exceeds a budget: large beside the other terms (cross-entropy starts at the logarithm of the number of
/// classes), so that training ends within it. What is deployed is held against the budget itself.
const EXCESS: f64 = 10.0;

/// How complexity is charged while gates are trained.
pub(super) struct Charge {
    complexity: Complexity,
    weight: f64,
    /// Relative complexity that costs nothing.
    allowance: f64,
}

impl Charge {
    /// Cost of every gate over the whole backbone's (stem and blocks).
    fn new(plan: &Plan, backbone: &Plan, recipe: &Recipe) -> Result<Charge> {
        let budget = recipe.budget.map(|budget| budget.resolve(&recipe.cost, backbone)).transpose()?;
        let (per_gate, whole) = match (&recipe.cost, budget) {
            (Measure::Macs, None) => {
                let costs = plan.costs(Counter::Paper)?;
                let macs = |gates: &Vec<Cost>| gates.iter().map(|cost| cost.macs as f64).collect();
                let whole = backbone.costs(Counter::Paper)?.without_head().macs as f64;
                (costs.gates.iter().map(macs).collect(), whole)
            }
            // A budget is about what the device will pay.
            (measure, _) => (measure.gates(plan)?, measure.total(backbone)?),
        };
        let (weight, allowance) = match budget {
            Some(budget) => (EXCESS, (budget - recipe.cost.fixed(backbone)?) / whole),
            None => (recipe.gamma1, 0.0),
        };
        Ok(Charge { complexity: Complexity::new(plan, per_gate, whole, recipe.formula)?, weight, allowance })
    }
}
