//! One tailoring of a protocol, run once in its own folder, with a teacher that several trials may share.

use crate::data::Dataset;
use crate::fit::{Claim, Job, Recipe, Work, margin_of_gap};
use crate::progress::Progress;
use crate::source::Source;
use crate::train::Score;
use crate::{Error, Result};
use bundles::plan::{Counter, Plan};
use candle_core::Device;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The environment of trials.
pub struct Lab<'a> {
    /// Work folder of the protocol.
    pub work: &'a Path,
    /// The device to compute on.
    pub device: &'a Device,
    /// Number of candidates a sweep retrains at the same time. Default: one per core; on a GPU, one.
    pub jobs: Option<usize>,
    /// Progress shown to the user.
    pub progress: &'a Progress,
    /// Lock that keeps other runs out of `work`.
    pub claim: Claim,
}

/// A task to tailor to.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// Its images.
    pub dataset: Dataset,
    /// Its recipe.
    pub recipe: Recipe,
}

/// Accuracy and cost of one network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Network {
    /// On validation.
    pub val: Score,
    /// On test, if there is a test split.
    pub test: Option<Score>,
    /// Parameters it reads, shared and task-owned.
    pub params: u64,
    /// Task-owned parameters.
    pub own: u64,
    /// Multiply-adds per image.
    pub macs: u64,
    /// Multiply-adds by the paper's conventions ([`Counter::Paper`]).
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
    /// Parameters, shared and task-owned.
    pub params: u64,
}

/// A finished trial.
#[derive(Debug, Clone)]
pub struct Trial {
    /// Its work folder.
    pub folder: PathBuf,
    /// The fine-tuned backbone.
    pub teacher: Network,
    /// The selected network.
    pub tailored: Network,
    /// Whether the selected network is within tolerance of the teacher.
    pub within: bool,
    /// Half-width of the 95 % confidence interval of the gap to the teacher on validation, a fraction.
    pub gap_margin: f64,
    /// Universal blocks kept, and in total.
    pub blocks: (usize, usize),
    /// Proxies kept.
    pub proxies: usize,
    /// All candidates without the long fine-tuning, sorted by blocks dropped.
    pub candidates: Vec<Point>,
    /// Blocks dropped by choice from the selected network.
    pub dropped: usize,
    /// The smallest number of blocks that pruning refused to drop, and the reason.
    pub refused: Option<(usize, String)>,
    /// The largest number of blocks dropped without meeting the budget, and the cost of what was left.
    pub over_budget: Option<(usize, String)>,
}

impl Lab<'_> {
    /// Tailors `source` to `task` in folder `at` of the work folder, unless that has been done. Where the test
    /// images have changed or gone since, the networks are only evaluated and reported again. The teacher is
    /// trained in folder `teacher` of the work folder, which is another one, unless it exists: trials that name the
    /// same folder share it. While one works in these folders, other runs are kept out of them.
    ///
    /// # Errors
    /// [`Error::Training`] if the folder holds a run of other options, or if another run is at work in one of them;
    /// any error of a stage.
    pub fn trial(&self, source: &Source, task: &Task, at: &str, teacher: &str) -> Result<Trial> {
        let folder = self.work.join(at);
        let (_mine, work) = (Claim::alone(&folder)?, Work::open(folder)?);
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
            let folder = self.work.join(teacher);
            let (_lent, taught) = (Claim::alone(&folder)?, Work::open(folder)?);
            let teaching = self.progress.for_task(&format!("{teacher}:"));
            job(&taught, &teaching).begin(false)?;
            job(&work, &progress).run_after(taught.folder())?;
        }
        let size = task.dataset.train.images.size();
        let backbone = source.arch.plan(size.height, size.width, task.dataset.classes.len())?;
        Trial::read(&work, &backbone)
    }
}

impl Trial {
    /// Reads the results of a finished run in `work`; `backbone` is the teacher's plan.
    fn read(work: &Work, backbone: &Plan) -> Result<Trial> {
        let path = work.report();
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        let broken = || Error::data(path.display(), "not the report of a finished run", "remove the file");
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
                gap_margin: margin_of_gap(task["behind_error"].as_f64()?, count(&task["val_n"])?),
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

    /// The drawing of the surviving architecture.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn drawing(&self) -> Result<String> {
        let path = self.folder.join("architecture.svg");
        std::fs::read_to_string(&path).map_err(Error::io(&path))
    }

    /// The bundle of the task `name`.
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

    /// Accuracy on test or, without a test split, on validation.
    pub fn shown(&self) -> Score {
        self.test.unwrap_or(self.val)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::testing;

    #[test]
    fn folders_in_which_another_run_is_at_work_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let progress = Progress::hidden();
        let claim = Claim::alone(folder.path()).unwrap();
        let lab =
            Lab { work: folder.path(), device: &Device::Cpu, jobs: Some(1), progress: &progress, claim };
        let ground = testing::ground(1, false);
        let dataset = Dataset {
            place: "images".into(),
            classes: ground.classes,
            train: ground.train,
            val: Some(ground.val),
            test: None,
        };
        let task = Task { name: "images".into(), dataset, recipe: Recipe::small() };
        let folders = ["images/tailored", "images/teacher"];
        let [at, teacher] = folders;
        for busy in folders {
            let other = Claim::alone(&folder.path().join(busy)).unwrap();
            let refused = lab.trial(&ground.source, &task, at, teacher).unwrap_err().to_string();
            let words = [busy, "another run is at work in this folder"];
            assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
            drop(other);
            // What was claimed is free again.
            for free in folders {
                Claim::alone(&folder.path().join(free)).unwrap();
            }
        }
    }
}
