//! One task from images to bundle: all stages, then scoring, drawing and packing.

use super::begun::made_otherwise;
use super::record::Record;
use super::stages::TEACHER;
use super::{Attempt, Ground, Recipe, Report, Tailoring, Work, answers, predictions};
use crate::data::{Dataset, Loader, Split};
use crate::draw::{Architecture, architecture};
use crate::net::Net;
use crate::pack::{Label, deploy, task_bundle};
use crate::plural::counted;
use crate::progress::Progress;
use crate::source::Source;
use crate::train::{Checkpoint, Score};
use crate::{Error, Result};
use bundles::container::{Preprocess, Resize, SigningKey, write_atomically};
use bundles::plan::Counter;
use candle_core::Device;
use std::path::Path;

/// Images per batch when the final predictions are computed.
const ANSWERED: usize = 100;

/// Everything one tailored task is made from.
pub struct Job<'a> {
    /// Name of the task and its bundle.
    pub name: &'a str,
    /// The backbone.
    pub source: Source,
    /// Where the images came from; part of the bundle's metadata.
    pub data_name: &'a str,
    /// The images.
    pub dataset: Dataset,
    /// All options.
    pub recipe: &'a Recipe,
    /// The run's work folder.
    pub work: &'a Work,
    /// Signing keys; the development key if empty.
    pub signers: &'a [SigningKey],
    /// The device to compute on.
    pub device: &'a Device,
    /// Number of candidates a sweep retrains at the same time. Default: one per core; on a GPU, one.
    pub jobs: Option<usize>,
    /// Progress shown to the user.
    pub progress: &'a Progress,
}

impl Job<'_> {
    /// Runs or resumes the job and returns its report. Bundle and drawing are written to the work folder.
    ///
    /// # Errors
    /// Any error of any stage.
    pub fn run(self) -> Result<Report> {
        let ground = self.ground()?;
        self.run_on(&ground)
    }

    /// Like [`run`](Self::run), starting from the teacher that the same fine-tuning left in folder `lender`,
    /// with its metrics. If there is none, if it is of other options or images, or if the work folder has one
    /// already, this job trains its own.
    ///
    /// # Errors
    /// Any error of any stage, or an error in the lender's checkpoint.
    pub fn run_after(self, lender: &Path) -> Result<Report> {
        let ground = self.ground()?;
        self.borrow_teacher(&ground, lender)?;
        self.run_on(&ground)
    }

    fn run_on(self, ground: &Ground) -> Result<Report> {
        let tailoring = self.tailoring(ground);
        let teacher = tailoring.teach()?;
        let student = tailoring.train(&teacher)?;
        let pruned = tailoring.prune(&teacher, &student)?;

        let on_test = |plan, params| -> Result<Option<Score>> {
            ground.test.as_ref().map(|test| tailoring.score(plan, params, test)).transpose()
        };
        let teacher_test = on_test(&teacher.plan, &teacher.params)?;
        let test_score = on_test(&pruned.plan, &pruned.params)?;

        let (source, classes, size) = (&ground.source, &ground.classes, ground.train.images.size());
        let mut preprocess =
            Preprocess::new(3, size.width, size.height, Resize::Bilinear, source.mean, source.std);
        preprocess.grey = ground.is_grey;
        let facts = vec![
            ("arch".to_string(), source.arch.to_string()),
            ("data".to_string(), self.data_name.to_string()),
            ("seed".to_string(), self.recipe.seed.to_string()),
            ("validation".to_string(), format!("{:.4}", pruned.validation.accuracy())),
            ("teacher-validation".to_string(), format!("{:.4}", teacher.validation.accuracy())),
        ];
        let label = Label { name: self.name, classes, preprocess, backbone: source.id, facts: &facts };
        let bundle = task_bundle(&pruned.plan, &pruned.params, &label, self.signers)?;
        write_atomically(&self.work.bundle(self.name), &bundle)?;

        let (deployed, _) = deploy(&pruned.plan, &pruned.params)?;
        let backbone = tailoring.backbone_plan()?;
        let budget = self.recipe.budget.map(|b| b.resolve(&self.recipe.cost, &backbone)).transpose()?;
        let mut report = Report {
            name: self.name.into(),
            classes: classes.len(),
            teacher_val: teacher.validation,
            teacher_test,
            val: pruned.validation,
            test: test_score,
            behind: pruned.behind,
            judge: self.recipe.judge,
            within_tolerance: pruned.selection.within,
            blocks: 0,
            blocks_total: 0,
            proxies: 0,
            params: 0,
            task_params: 0,
            macs: 0,
            cost: self.recipe.cost.total(&pruned.plan)?,
            cost_unit: self.recipe.cost.unit(),
            budget,
            bundle_bytes: bundle.len() as u64,
            strip: String::new(),
        };
        report.measure(&deployed)?;
        let gates = tailoring.gates(&pruned.plan, &pruned.params)?;
        let drawing = architecture(Architecture {
            title: &format!("{} on {}", self.name, source.arch),
            subtitle: &format!(
                "{} of {} blocks, {}; validation {:.1} % (teacher {:.1} %)",
                report.blocks,
                report.blocks_total,
                counted(report.proxies as u64, "proxy", "proxies"),
                100.0 * report.val.accuracy(),
                100.0 * report.teacher_val.accuracy()
            ),
            full: &student.plan,
            kept: &pruned.plan,
            alphas: &gates,
        });
        let path = self.work.drawing();
        std::fs::write(&path, drawing).map_err(Error::io(&path))?;

        let (shown, split) = ground.test.as_ref().map_or(("val", &ground.val), |test| ("test", test));
        let batches = Loader::new(split, source.mean, source.std, ANSWERED, self.device)?.eval();
        let net = Net { plan: &pruned.plan, params: &pruned.params };
        let given = answers(&net, self.progress.interrupt().watch(batches))?;
        predictions::leave(self.work, shown, split, &given)?;
        let record = Record {
            source,
            data_name: self.data_name,
            classes,
            size,
            images: [ground.train.len(), ground.val.len(), ground.test.as_ref().map_or(0, Split::len)],
            recipe: self.recipe,
            selection: &pruned.selection,
            report: &report,
            run: self.identity(ground),
            test_images: ground.test.as_ref().map(Split::digest),
            paper_macs: pruned.plan.costs(Counter::Paper)?.total().macs,
        };
        write_atomically(&self.work.report(), record.json()?.to_string().as_bytes())?;
        Ok(report)
    }
}

impl Job<'_> {
    /// Runs or resumes only the first stages: the teacher, and with `student` the student too. Returns their
    /// validation scores.
    ///
    /// # Errors
    /// Any error of any stage.
    pub fn begin(self, student: bool) -> Result<(Score, Option<Score>)> {
        let ground = self.ground()?;
        let tailoring = self.tailoring(&ground);
        let teacher = tailoring.teach()?;
        let student = student.then(|| tailoring.train(&teacher)).transpose()?;
        Ok((teacher.validation, student.map(|student| student.validation)))
    }

    fn borrow_teacher(&self, ground: &Ground, from: &Path) -> Result<()> {
        let (teacher, log) = (self.work.checkpoint(TEACHER), self.work.log());
        let there = |here: &Path| here.file_name().map_or_else(|| from.to_path_buf(), |name| from.join(name));
        if teacher.exists() || log.has_other_than(TEACHER)? {
            return Ok(());
        }
        let Some(lent) = Checkpoint::peek(&there(&teacher))? else { return Ok(()) };
        let fingerprint = format!("{} | {}", ground.identity, self.recipe.teacher_fingerprint());
        if lent.fingerprint != fingerprint {
            return Ok(());
        }
        let lines = log.path().with_extension("jsonl");
        // The checkpoint comes last, so that a copy interrupted before it does not count.
        for to in [log.path(), &lines, &teacher] {
            let from = there(to);
            if from.exists() {
                let bytes = std::fs::read(&from).map_err(Error::io(&from))?;
                write_atomically(to, &bytes)?;
            }
        }
        Ok(())
    }

    /// Runs or resumes one candidate of a sweep, and the stages it depends on if they are not done yet.
    ///
    /// # Errors
    /// Any error of any stage.
    pub fn candidate(self, dropped: usize) -> Result<Attempt> {
        let ground = self.ground()?;
        let tailoring = self.tailoring(&ground);
        let teacher = tailoring.teach()?;
        let student = tailoring.train(&teacher)?;
        tailoring.candidate(&teacher, &student, dropped)
    }

    /// Whether this same job has already been finished in the work folder, with the same test images or, as now,
    /// without any.
    ///
    /// # Errors
    /// [`Error::Training`] if a different job has been; [`Error::Io`].
    pub fn is_finished(&self) -> Result<bool> {
        let path = self.work.report();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::io(&path)(error)),
        };
        let unreadable = |error: serde_json::Error| {
            let what = format!("not valid JSON ({error})");
            Error::training(path.display(), what, "remove the file, or choose another work folder")
        };
        let found: serde_json::Value = serde_json::from_str(&text).map_err(unreadable)?;
        let ground = self.ground()?;
        let run = self.identity(&ground);
        if found["run"] != run {
            return Err(made_otherwise(&path, found["run"].as_str().unwrap_or_default(), &run));
        }
        // No training used the test images: with different ones or none, the existing networks are only evaluated
        // again.
        let test = ground.test.as_ref().map(Split::digest);
        let is_same_test = found["test_images"].as_str() == test.as_deref();
        Ok(is_same_test && self.work.bundle(self.name).exists())
    }

    /// Everything that shapes the result, as text.
    fn identity(&self, ground: &Ground) -> String {
        format!("{} | {}", ground.identity, self.recipe.identity())
    }

    fn ground(&self) -> Result<Ground> {
        let (source, dataset) = (self.source.clone(), self.dataset.clone());
        Ground::prepare(source, dataset, self.recipe, self.device)
    }

    fn tailoring<'a>(&'a self, ground: &'a Ground) -> Tailoring<'a> {
        let tailoring = ground.tailoring(self.recipe, self.work, self.device, self.progress);
        Tailoring { jobs: self.jobs.unwrap_or(tailoring.jobs), ..tailoring }
    }
}
