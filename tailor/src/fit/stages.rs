//! The stages of tailoring, each a function of the one before and of the recipe.

use super::select::{Attempt, Candidate, Selection, search};
use super::{Recipe, Stage, Work};
use crate::Result;
use crate::data::{Loader, Split};
use crate::net::{Complexity, Net, Params, alphas};
use crate::progress::Progress;
use crate::train::{Course, Objective, Score, Train, evaluate, student_loss, teacher_loss};
use bundles::plan::{Arch, Counter, Plan};
use candle_core::Device;

/// Images per batch when nothing is trained.
pub(crate) const EVAL_BATCH: usize = 100;

/// Name of the student's stage.
const STUDENT: &str = "train";

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

/// The network that goes to the device.
pub struct Pruned {
    /// What survived.
    pub plan: Plan,
    /// Retrained numbers.
    pub params: Params,
    /// Accuracy on validation.
    pub validation: Score,
    /// How it was chosen.
    pub selection: Selection,
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
        let mut params = Params::student(&plan, self.backbone, recipe.free_norms, recipe.seed, self.device)?;
        let complexity = relative_complexity(&plan, &backbone, recipe)?;
        let objective = self.objective(teacher, Some(&complexity));
        let loss = |params: &Params, batch: &_| student_loss(&plan, params, batch, &objective);
        let fingerprint = recipe.student_fingerprint();
        let validation = self.run(STUDENT, &fingerprint, &recipe.train, &plan, &mut params, &loss)?;
        Ok(Student { plan, params, validation })
    }

    /// Prunes and retrains for as many numbers of dropped blocks as the search asks for, and keeps the
    /// leanest network within tolerance of the teacher's validation accuracy.
    ///
    /// # Errors
    /// Whatever training reports.
    pub fn prune(&self, teacher: &Teacher, student: &Student) -> Result<Pruned> {
        let floor = teacher.validation.accuracy() - self.recipe.tolerance;
        let mut kept: Vec<(usize, Plan, Params, Score)> = Vec::new();
        let selection = search(self.recipe.search, student.plan.blocks(), floor, |dropped| {
            let (plan, mut params) = match self.cut(student, dropped) {
                Ok(cut) => cut,
                Err(crate::Error::Bundle(why @ bundles::Error::Disconnected { .. })) => {
                    return Ok(Attempt::Refused { dropped, why: why.to_string() });
                }
                Err(other) => return Err(other),
            };
            let validation = self.retrain(dropped, &plan, &mut params, teacher)?;
            let (folded, _) = crate::pack::deploy(&plan, &params)?;
            let cost = folded.costs(Counter::True)?.total();
            let params_total = folded.task_params() + folded.backbone_params();
            kept.push((dropped, plan, params, validation));
            Ok(Attempt::Trained(Candidate { dropped, validation, macs: cost.macs, params: params_total }))
        })?;
        let winner = kept.into_iter().find(|(dropped, ..)| *dropped == selection.dropped);
        let Some((_, plan, params, validation)) = winner else {
            return Err(crate::Error::training(
                "prune",
                "no number of dropped blocks leaves a connected network",
                "train longer or lower --theta",
            ));
        };
        Ok(Pruned { plan, params, validation, selection })
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

    fn cut(&self, student: &Student, dropped: usize) -> Result<(Plan, Params)> {
        let gates: Vec<Vec<f32>> = alphas(&student.plan, &student.params)?
            .iter()
            .map(|alpha| alpha.as_ref().map_or(Ok(Vec::new()), |a| a.to_vec1()))
            .collect::<candle_core::Result<_>>()?;
        let plan = student.plan.pruned(&gates, dropped, self.recipe.theta)?;
        let survivors: Vec<Vec<usize>> = student
            .plan
            .cells
            .iter()
            .zip(&plan.cells)
            .map(|(before, after)| {
                (0..before.gates.len()).filter(|&g| after.gates.contains(&before.gates[g])).collect()
            })
            .collect();
        let params = student.params.pruned(&plan, &survivors)?;
        Ok((plan, params))
    }

    fn retrain(&self, dropped: usize, plan: &Plan, params: &mut Params, teacher: &Teacher) -> Result<Score> {
        let objective = self.objective(teacher, None);
        let loss = |params: &Params, batch: &_| student_loss(plan, params, batch, &objective);
        let fingerprint = self.recipe.candidate_fingerprint(dropped);
        self.run(&format!("prune-{dropped}"), &fingerprint, &self.recipe.retrain, plan, params, &loss)
    }

    fn objective<'t>(&self, teacher: &'t Teacher, complexity: Option<&'t Complexity>) -> Objective<'t> {
        Objective {
            teacher: (self.recipe.gamma2 > 0.0)
                .then_some(Net { plan: &teacher.plan, params: &teacher.params }),
            complexity,
            gamma1: self.recipe.gamma1,
            gamma2: self.recipe.gamma2,
            local: self.recipe.local_matching,
            label_smoothing: 0.0,
        }
    }

    fn run(
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

/// Cost of every gate over the whole backbone's (stem and blocks), in multiply-adds.
fn relative_complexity(plan: &Plan, backbone: &Plan, recipe: &Recipe) -> Result<Complexity> {
    let costs = plan.costs(Counter::Paper)?;
    let per_gate = costs.gates.iter().map(|gates| gates.iter().map(|c| c.macs as f64).collect()).collect();
    let whole = backbone.costs(Counter::Paper)?.without_head().macs as f64;
    Complexity::new(plan, per_gate, whole, recipe.formula)
}
