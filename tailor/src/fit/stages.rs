//! The stages of tailoring, each a function of the previous one and the recipe.

use super::{Losses, Measure, Recipe, Stage, Work};
use crate::Result;
use crate::data::{Loader, Split};
use crate::net::{Complexity, Net, Params};
use crate::progress::Progress;
use crate::train::{Course, Objective, Score, Train, Verdict, evaluate, student_loss, teacher_loss};
use bundles::plan::{Arch, Cost, Counter, Plan};
use candle_core::Device;
use std::sync::OnceLock;

/// Images per batch outside training.
pub(crate) const EVAL_BATCH: usize = 100;

/// Name of the stage that fine-tunes the teacher.
pub(super) const TEACHER: &str = "teach";

/// Name of the stage that trains the student.
pub(super) const STUDENT: &str = "train";

/// The inputs of a run.
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
    /// Images for model selection.
    pub val: &'a Split,
    /// All options.
    pub recipe: &'a Recipe,
    /// The run's work folder.
    pub work: &'a Work,
    /// What identifies the run besides the recipe: backbone, image size, classes and images.
    pub identity: &'a str,
    /// The device to compute on.
    pub device: &'a Device,
    /// Number of candidates to retrain at the same time.
    pub jobs: usize,
    /// Validation losses measured so far.
    pub losses: Losses,
    /// Progress shown to the user.
    pub progress: &'a Progress,
}

/// The fine-tuned network.
pub struct Teacher {
    /// The backbone's plan with the task's classifier.
    pub plan: Plan,
    /// Trained parameters.
    pub params: Params,
    /// Accuracy on validation.
    pub validation: Score,
    /// Its verdicts on validation, computed on first use and shared by all comparisons with pruned networks.
    pub(super) verdicts: OnceLock<Vec<Vec<Verdict>>>,
}

/// The gated network before pruning.
pub struct Student {
    /// Backbone plan with proxies.
    pub plan: Plan,
    /// Trained parameters.
    pub params: Params,
    /// Accuracy on validation.
    pub validation: Score,
}

impl Tailoring<'_> {
    /// The plain backbone with this task's classifier.
    ///
    /// # Errors
    /// If the image size does not suit the architecture.
    pub fn backbone_plan(&self) -> Result<Plan> {
        Ok(self.arch.plan(self.train.images.size().height, self.train.images.size().width, self.classes)?)
    }

    /// Fine-tunes every weight of the backbone on the task.
    ///
    /// # Errors
    /// Any error of training.
    pub fn teach(&self) -> Result<Teacher> {
        let plan = self.backbone_plan()?;
        let mut params = Params::teacher(&plan, self.backbone, self.recipe.seed, self.device)?;
        let loss = |params: &Params, batch: &_| teacher_loss(&plan, params, batch, 0.0);
        let fingerprint = self.recipe.teacher_fingerprint();
        let validation = self.run(TEACHER, &fingerprint, &self.recipe.teach, &plan, &mut params, &loss)?;
        Ok(Teacher { plan, params, validation, verdicts: OnceLock::new() })
    }

    /// Trains proxies and gates next to the frozen blocks.
    ///
    /// # Errors
    /// Any error of training.
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
    /// If the split does not fit the network.
    pub fn score(&self, plan: &Plan, params: &Params, split: &Split) -> Result<Score> {
        let batches = self.loader(split, EVAL_BATCH)?.eval();
        evaluate(&Net { plan, params }, self.progress.interrupt().watch(batches))
    }

    pub(crate) fn loader(&self, split: &Split, batch: usize) -> Result<Loader> {
        Loader::new(split, self.mean, self.std, batch, self.device)
    }

    /// The loss terms besides cross-entropy: the distance to the teacher and, while gates are trained, the
    /// complexity penalty `charge`.
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

    /// Trains `params` on `loss` by the stage `how`, with the recipe's optimiser and augmentation.
    ///
    /// # Errors
    /// Any error of training.
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
        // A few dozen images are common; an epoch is then a single step over all of them.
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
            // Validation accuracy says nothing about gates, which need their whole schedule.
            patience: recipe.patience.filter(|_| stage != STUDENT),
            checkpoint: Some(&self.work.checkpoint(stage)),
            log: Some(&self.work.log()),
            progress: self.progress,
        };
        course.run(params, &train)
    }
}

/// Weight of the cost above a budget. It is large compared with the other terms (cross-entropy starts at the
/// logarithm of the number of classes), so that training ends within the budget. The deployed network is
/// checked against the budget itself.
const EXCESS: f64 = 10.0;

/// The complexity penalty while gates are trained.
pub(super) struct Charge {
    complexity: Complexity,
    weight: f64,
    /// Relative complexity that is free of charge.
    allowance: f64,
}

impl Charge {
    /// Relates the cost of every gate to that of the whole backbone: for multiply-adds, as in the paper, of
    /// stem and blocks; for other measures and budgets, with its classifier. What a budget leaves for gates is
    /// what stem, head and what gates share do not take.
    fn new(plan: &Plan, backbone: &Plan, recipe: &Recipe) -> Result<Charge> {
        let budget = recipe.budget.map(|budget| budget.resolve(&recipe.cost, backbone)).transpose()?;
        let (per_gate, whole) = match (&recipe.cost, budget) {
            (Measure::Macs, None) => {
                let costs = plan.costs(Counter::Paper)?;
                let macs = |gates: &Vec<Cost>| gates.iter().map(|cost| cost.macs as f64).collect();
                let whole = backbone.costs(Counter::Paper)?.without_head().macs as f64;
                (costs.gates.iter().map(macs).collect(), whole)
            }
            // A budget limits what the device will pay.
            (measure, _) => (measure.gates(plan)?, measure.total(backbone)?),
        };
        let (weight, allowance) = match budget {
            Some(budget) => {
                let certain = recipe.cost.fixed(backbone)? + recipe.cost.shared(plan);
                (EXCESS, (budget - certain) / whole)
            }
            None => (recipe.gamma1, 0.0),
        };
        Ok(Charge { complexity: Complexity::new(plan, per_gate, whole, recipe.formula)?, weight, allowance })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{Budget, LatencyTable, testing};
    use crate::net::{Formula, Gating};
    use crate::progress::Progress;
    use crate::train::Schedule;
    use bundles::plan::{Role, Skips};
    use candle_core::Tensor;

    /// A student of a small backbone, and that backbone.
    fn plans() -> (Plan, Plan) {
        let (backbone, _) = testing::backbone(testing::CLASSES);
        let arch: Arch = backbone.arch.parse().unwrap();
        (backbone.with_proxies(Skips::Nearest(1), arch.proxy_form()).unwrap(), backbone)
    }

    /// Weight, allowance and value of a recipe's penalty for gates of 0.7 on blocks and 0.2 on proxies.
    fn charged(recipe: &Recipe) -> (f64, f64, f64) {
        let (student, backbone) = plans();
        let charge = Charge::new(&student, &backbone, recipe).unwrap();
        let alpha = |role| if role == Role::Block { 0.7f32 } else { 0.2 };
        let alphas: Vec<Option<Tensor>> = student
            .cells
            .iter()
            .map(|cell| {
                let alphas: Vec<f32> = cell.gates.iter().map(|gate| alpha(gate.role)).collect();
                Some(Tensor::new(alphas, &Device::Cpu).unwrap())
            })
            .collect();
        let value = charge.complexity.expected(&alphas).unwrap().to_scalar::<f32>().unwrap();
        (charge.weight, charge.allowance, f64::from(value))
    }

    /// The same computed by hand from the costs of each node's gates. Each node is fed by the previous one
    /// alone, so it is cut off with (1 - 0.7) (1 - 0.2), except the first, which has no node before it, and
    /// the last, which has none after.
    fn by_hand(costs: &[Vec<f64>], whole: f64, formula: Formula) -> f64 {
        let shut = 0.3 * 0.8;
        let of_gate = |l: usize, g: usize, cost: f64| {
            let alpha = if g == 0 { 0.7 } else { 0.2 };
            let before = if l == 0 { 0.0 } else { shut };
            let after = if l + 1 == costs.len() { 0.0 } else { shut };
            let runs = match formula {
                Formula::Product => alpha * (1.0 - before) * (1.0 - after),
                Formula::Paper => alpha - before - after,
            };
            cost * runs / whole
        };
        let nodes = costs.iter().enumerate();
        nodes.flat_map(|(l, costs)| costs.iter().enumerate().map(move |(g, &c)| of_gate(l, g, c))).sum()
    }

    #[test]
    fn complexity_is_charged_by_the_recipes_measure_formula_and_budget() {
        let (student, backbone) = plans();
        let paper: Vec<Vec<f64>> = student
            .costs(Counter::Paper)
            .unwrap()
            .gates
            .iter()
            .map(|gates| gates.iter().map(|cost| cost.macs as f64).collect())
            .collect();
        let paper_whole = backbone.costs(Counter::Paper).unwrap().without_head().macs as f64;
        let mut rows = vec![(0, None, "stem", 50.0), (4, None, "head", 10.0)];
        for node in 1..=3 {
            let source = Some(node - 1);
            rows.extend([(node, source, "block", 100.0 * node as f64), (node, source, "proxy", 7.0)]);
            rows.push((node, None, "sum", 3.0));
        }
        let table = Measure::Latency(LatencyTable::of(&rows));
        let base = Recipe { gamma1: 0.4, skips: Skips::Nearest(1), ..Recipe::small() };
        for formula in [Formula::Product, Formula::Paper] {
            let recipe = Recipe { formula, ..base.clone() };
            let (weight, allowance, value) = charged(&recipe);
            assert_eq!((weight, allowance), (0.4, 0.0));
            assert!((value - by_hand(&paper, paper_whole, formula)).abs() < 1e-6, "{formula:?}: {value}");
            for cost in [Measure::Params, table.clone()] {
                let (gates, whole) = (cost.gates(&student).unwrap(), cost.total(&backbone).unwrap());
                let (_, _, value) = charged(&Recipe { cost, ..recipe.clone() });
                assert!((value - by_hand(&gates, whole, formula)).abs() < 1e-6, "{formula:?}: {value}");
            }
        }
        // A budget is in the measure's own unit and replaces the weight.
        for cost in [Measure::Macs, Measure::Params, table] {
            let (gates, whole) = (cost.gates(&student).unwrap(), cost.total(&backbone).unwrap());
            let sums = if matches!(cost, Measure::Latency(_)) { 9.0 } else { 0.0 };
            let fixed = cost.fixed(&backbone).unwrap() + sums;
            let budget: Budget = "60%".parse().unwrap();
            let (weight, allowance, value) = charged(&Recipe { cost, budget: Some(budget), ..base.clone() });
            assert_eq!(weight, EXCESS);
            assert!((allowance - (0.6 * whole - fixed) / whole).abs() < 1e-9, "{allowance}");
            assert!((value - by_hand(&gates, whole, Formula::Product)).abs() < 1e-6, "{value}");
        }
    }

    #[test]
    fn training_closes_hard_concrete_gates_for_good_if_complexity_is_dear() {
        let ground = testing::ground(1, true);
        let zeros = |gating, gamma1| {
            let folder = tempfile::tempdir().unwrap();
            let (work, progress) = (Work::open(folder.path()).unwrap(), Progress::hidden());
            let mut recipe = Recipe { gating, gamma1, gamma2: 0.0, distill: 0.0, ..Recipe::small() };
            (recipe.teach.epochs, recipe.teach.batch) = (1, 12);
            (recipe.train.epochs, recipe.train.batch) = (24, 12);
            recipe.train.schedule = Schedule::OneCycle { peak: 0.2 };
            let tailoring = ground.tailoring(&recipe, &work, &Device::Cpu, &progress);
            let student = tailoring.train(&tailoring.teach().unwrap()).unwrap();
            let gates = crate::net::alphas(&student.plan, &student.params).unwrap();
            let gates = gates.iter().flatten().flat_map(|gates| gates.to_vec1::<f32>().unwrap());
            (gates.filter(|&gate| gate == 0.0).count(), tailoring.closed_blocks(&student).unwrap())
        };
        let (closed, blocks) = zeros(Gating::HardConcrete, 30.0);
        assert!(closed > 0 && blocks > 0, "{closed} gates, {blocks} blocks");
        let (free, _) = zeros(Gating::HardConcrete, 0.0);
        assert!(free < closed / 2, "{free} without a charge, {closed} with one");
        assert_eq!(zeros(Gating::Softmax, 30.0), (0, 0), "a softmax never reaches zero");
    }

    #[test]
    fn students_are_held_to_what_the_recipe_says() {
        let ground = testing::ground(1, true);
        let folder = tempfile::tempdir().unwrap();
        let work = Work::open(folder.path()).unwrap();
        let progress = Progress::hidden();
        let (student, backbone) = plans();
        let of = |recipe: &Recipe| {
            let tailoring = ground.tailoring(recipe, &work, &Device::Cpu, &progress);
            let (plan, params) = testing::backbone(testing::CLASSES);
            let teacher = Teacher { plan, params, validation: Score::default(), verdicts: OnceLock::new() };
            let charge = Charge::new(&student, &backbone, recipe).unwrap();
            let [training, retraining] = [Some(&charge), None].map(|charge| {
                let objective = tailoring.objective(&teacher, charge);
                let Objective { gamma1, gamma2, distill, local, allowance, .. } = objective;
                (objective.teacher.is_some(), gamma1, gamma2, distill, local, allowance)
            });
            (training, retraining)
        };
        let small = Recipe { gamma1: 0.4, gamma2: 3.0, distill: 0.5, ..Recipe::small() };
        assert_eq!(of(&small), ((true, 0.4, 3.0, 0.5, false, 0.0), (true, 0.0, 3.0, 0.5, false, 0.0)));
        let paper = Recipe::paper();
        assert_eq!(of(&paper), ((true, 0.3, 10.0, 0.0, true, 0.0), (true, 0.0, 10.0, 0.0, true, 0.0)));
        let (training, _) = of(&Recipe { gamma2: 0.0, distill: 0.0, ..small });
        assert_eq!(training, (false, 0.4, 0.0, 0.0, false, 0.0));
    }
}
