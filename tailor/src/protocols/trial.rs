//! One tailoring of a protocol: run once in a folder of its own, with a teacher it may share with others.

use crate::baselines::borrow_teacher;
use crate::data::Dataset;
use crate::fit::{Claim, Job, Recipe, Work};
use crate::progress::Progress;
use crate::source::Source;
use crate::train::Score;
use crate::{Error, Result};
use bundles::plan::{Counter, Plan};
use candle_core::Device;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Where trials are run.
pub struct Lab<'a> {
    /// Work folder of the protocol.
    pub work: &'a Path,
    /// Where numbers are computed.
    pub device: &'a Device,
    /// Candidates of a sweep that are retrained at the same time; one per core, on a GPU one, when left out.
    pub jobs: Option<usize>,
    /// What a person sees.
    pub progress: &'a Progress,
    /// Keeps other runs out of `work`.
    pub claim: Claim,
}

/// A task to be tailored to.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its images.
    pub dataset: Dataset,
    /// How it is tailored to.
    pub recipe: Recipe,
}

/// Accuracy and cost of one network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Network {
    /// On validation.
    pub val: Score,
    /// On test, where there is one.
    pub test: Option<Score>,
    /// Numbers it reads, shared and its own.
    pub params: u64,
    /// Numbers that belong to the task.
    pub own: u64,
    /// Multiply-adds of one image as they are.
    pub macs: u64,
    /// The same by the paper's conventions ([`Counter::Paper`]).
    pub paper: u64,
}

/// One candidate of a sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Blocks dropped by choice.
    pub dropped: usize,
    /// Accuracy on validation, a fraction.
    pub val: f64,
    /// Multiply-adds.
    pub macs: u64,
    /// Parameters, shared and its own.
    pub params: u64,
}

/// A finished trial.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Its work folder.
    pub folder: PathBuf,
    /// The fine-tuned backbone.
    pub teacher: Network,
    /// The network that was kept.
    pub tailored: Network,
    /// Whether that keeps within tolerance of the teacher.
    pub within: bool,
    /// Universal blocks kept, and of how many.
    pub blocks: (usize, usize),
    /// Proxies kept.
    pub proxies: usize,
    /// Every candidate, retrained as long as all others, by blocks dropped.
    pub candidates: Vec<Point>,
    /// Blocks dropped by choice from the network that was kept.
    pub dropped: usize,
    /// The fewest blocks that were not to be dropped, and why not.
    pub refused: Option<(usize, String)>,
    /// The most blocks that were dropped without reaching the budget, and what was left took.
    pub over_budget: Option<(usize, String)>,
}

impl Lab<'_> {
    /// Tailors `source` to `task` in folder `at` of the work folder, unless that was done before. The teacher is trained in
    /// folder `teacher` of the work folder, unless it is there already: trials that name the same folder share it.
    ///
    /// # Errors
    /// [`Error::Training`] when the folder holds a run of other options, or whatever a stage reports.
    pub fn trial(&self, source: &Source, task: &Task, at: &str, teacher: &str) -> Result<Trial> {
        let work = Work::open(self.work.join(at))?;
        let job = |work, progress| Job {
            name: &task.name,
            source: source.clone(),
            data_name: &task.name,
            dataset: task.dataset.clone(),
            recipe: &task.recipe,
            work,
            signers: &[],
            device: self.device,
            jobs: self.jobs,
            progress,
        };
        let progress = self.progress.for_task(&format!("{at}:"));
        if !job(&work, &progress).is_finished()? {
            let taught = Work::open(self.work.join(teacher))?;
            let teaching = self.progress.for_task(&format!("{teacher}:"));
            job(&taught, &teaching).begin(false)?;
            borrow_teacher(taught.folder(), &work)?;
            job(&work, &progress).run()?;
        }
        let size = task.dataset.train.images.size();
        let backbone = source.arch.plan(size.height, size.width, task.dataset.classes.len())?;
        Trial::read(&work, &backbone)
    }
}

impl Trial {
    /// What a finished run left in `work`; `backbone` is the teacher's plan.
    fn read(work: &Work, backbone: &Plan) -> Result<Trial> {
        let path = work.report();
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let broken = || Error::data(path.display(), "no report of a finished run", "remove the file");
        let report: Value = serde_json::from_str(&text).map_err(|_| broken())?;
        let whole = backbone.costs(Counter::Paper)?.total().macs;
        let teacher_macs = backbone.costs(Counter::True)?.total().macs;
        let teacher_params = backbone.task_params() + backbone.backbone_params();

        let read = || -> Option<Trial> {
            let task = &report["task"];
            let count = |value: &Value| value.as_u64().map(|n| n as usize);
            let score = |key: &str, n: &str| -> Option<Score> {
                let n = count(&task[n])?;
                Some(Score { right: (task[key].as_f64()? * n as f64).round() as usize, n })
            };
            let teacher = Network {
                val: score("teacher_val", "val_n")?,
                test: score("teacher_test", "test_n"),
                params: teacher_params,
                own: teacher_params,
                macs: teacher_macs,
                paper: whole,
            };
            let tailored = Network {
                val: score("val", "val_n")?,
                test: score("test", "test_n"),
                params: task["params"].as_u64()?,
                own: task["task_params"].as_u64()?,
                macs: task["macs"].as_u64()?,
                paper: report["paper_macs"].as_u64()?,
            };
            let candidates = report["candidates"].as_array()?;
            let point = |candidate: &Value| {
                Some(Point {
                    dropped: count(&candidate["dropped"])?,
                    val: candidate["val"].as_f64()?,
                    macs: candidate["macs"].as_u64()?,
                    params: candidate["params"].as_u64()?,
                })
            };
            let without = |why: &str| {
                let of = |c: &Value| Some((count(&c["dropped"])?, c[why].as_str()?.to_string()));
                candidates.iter().filter_map(of).collect::<Vec<_>>()
            };
            let chosen = candidates.iter().find(|c| c["stage"] == report["chosen"])?;
            let brief = candidates.iter().filter(|c| c["finished"] != true);
            let mut points: Vec<Point> = brief.filter_map(point).collect();
            points.sort_by_key(|point| point.dropped);
            Some(Trial {
                folder: work.folder().to_path_buf(),
                teacher,
                tailored,
                within: task["within_tolerance"].as_bool()?,
                blocks: (count(&task["blocks"])?, count(&task["blocks_total"])?),
                proxies: count(&task["proxies"])?,
                candidates: points,
                dropped: count(&chosen["dropped"])?,
                refused: without("refused").into_iter().min(),
                over_budget: without("over_budget").into_iter().max(),
            })
        };
        read().ok_or_else(broken)
    }

    /// The drawing of what survived.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn drawing(&self) -> Result<String> {
        let path = self.folder.join("architecture.svg");
        std::fs::read_to_string(&path).map_err(Error::io(&path))
    }

    /// The bundle it was packed into.
    pub fn bundle(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.task"))
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let points = self
            .candidates
            .iter()
            .map(|p| json!({ "dropped": p.dropped, "val": p.val, "macs": p.macs, "params": p.params }));
        json!({
            "folder": self.folder.display().to_string(),
            "teacher": self.teacher.json(),
            "tailored": self.tailored.json(),
            "within_tolerance": self.within,
            "blocks": self.blocks.0,
            "blocks_total": self.blocks.1,
            "proxies": self.proxies,
            "dropped": self.dropped,
            "candidates": points.collect::<Vec<_>>(),
        })
    }
}

impl Network {
    /// As JSON, accuracies as fractions.
    pub fn json(&self) -> Value {
        json!({
            "val": self.val.accuracy(),
            "val_n": self.val.n,
            "test": self.test.map(|score| score.accuracy()),
            "test_n": self.test.map(|score| score.n),
            "params": self.params,
            "task_params": self.own,
            "macs": self.macs,
            "macs_paper": self.paper,
        })
    }

    /// Accuracy on test, or on validation where there is none.
    pub fn shown(&self) -> Score {
        self.test.unwrap_or(self.val)
    }
}
