//! The cases of `fixtures/steps.py` as this project builds and trains them.

use crate::device::device;
use crate::networks::{self, CLASSES, Way};
use bundles::plan::{Arch, Counter, Plan, Skips};
use candle_core::backprop::GradStore;
use tailor::data::Batch;
use tailor::net::{Complexity, Formula, Gating, Net, Params};
use tailor::train::{Objective, Sgd, StepLoss, student_loss, teacher_loss};

/// Learning rate of each of the three steps.
pub const RATES: [f64; 3] = [0.05, 0.02, 0.04];
const MOMENTUM: f64 = 0.9;
const DECAY: f64 = 0.02;
const GAMMA_COMPLEXITY: f64 = 2.0;
const GAMMA_MATCHING: f64 = 0.5;

/// What is trained, and how.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// All weights on the labels alone.
    Teacher,
    /// Gates and proxies, towards a teacher.
    Student { free_norms: bool, local: bool, formula: Formula, cut: &'static [(usize, Way)] },
}

/// One training to repeat.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Architecture, and the share of its channels that is kept.
    pub arch: &'static str,
    pub width: (usize, usize),
    /// Height and width of the images.
    pub size: usize,
    pub smoothing: f64,
    pub kind: Kind,
}

/// A network under training.
pub struct Training {
    pub plan: Plan,
    pub params: Params,
    teacher: (Plan, Params),
    complexity: Option<Complexity>,
    sgd: Sgd,
    case: Case,
}

impl Case {
    /// Plans and numbers before the first step.
    pub fn start(self) -> Training {
        let (num, den) = self.width;
        let arch: Arch = self.arch.parse().unwrap();
        let backbone = networks::slim(&arch.plan(self.size, self.size, CLASSES).unwrap(), num, den);
        let teacher = (backbone.clone(), networks::backbone("teacher", &backbone));
        let sgd = Sgd::new(MOMENTUM, DECAY);
        let device = device();
        let Kind::Student { free_norms, formula, cut, .. } = self.kind else {
            let mut params =
                Params::teacher(&backbone, &networks::backbone("student", &backbone), 1, device).unwrap();
            networks::restart("student", &mut params);
            return Training { plan: backbone, params, teacher, complexity: None, sgd, case: self };
        };
        let mut plan = backbone.with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap();
        let numbers = networks::backbone("student", &plan);
        let mut params = Params::student(&plan, &numbers, free_norms, Gating::Softmax, 1, device).unwrap();
        networks::restart("student", &mut params);
        if !cut.is_empty() {
            (plan, params) = networks::prune(&plan, &params, cut);
        }
        let costs = plan.costs(Counter::Paper).unwrap();
        let per_gate = costs.gates.iter().map(|g| g.iter().map(|c| c.macs as f64).collect()).collect();
        let whole = backbone.costs(Counter::Paper).unwrap().without_head().macs as f64;
        let complexity = Some(Complexity::new(&plan, per_gate, whole, formula).unwrap());
        Training { plan, params, teacher, complexity, sgd, case: self }
    }
}

impl Training {
    /// Losses of one batch.
    pub fn loss(&self, batch: &Batch) -> StepLoss {
        let smoothing = self.case.smoothing;
        let Kind::Student { local, .. } = self.case.kind else {
            return teacher_loss(&self.plan, &self.params, batch, smoothing).unwrap();
        };
        let objective = Objective {
            teacher: Some(Net { plan: &self.teacher.0, params: &self.teacher.1 }),
            complexity: self.complexity.as_ref(),
            gamma1: GAMMA_COMPLEXITY,
            allowance: 0.0,
            seed: 0,
            gamma2: GAMMA_MATCHING,
            distill: 0.0,
            local,
            label_smoothing: smoothing,
        };
        student_loss(&self.plan, &self.params, batch, &objective).unwrap()
    }

    /// Moves what is trained, and the running statistics, as the epoch loop does.
    pub fn update(&mut self, loss: StepLoss, grads: &GradStore, rate: f64) {
        self.sgd.step(&self.params, grads, rate).unwrap();
        for stat in loss.stats {
            self.params.track(&stat.norm, &stat.mean, &stat.var).unwrap();
        }
    }
}
