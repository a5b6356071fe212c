//! The visual decathlon (Rebuffi, Bilen & Vedaldi, NeurIPS 2017; the paper's Table 3): ten tasks on one
//! backbone with 72-pixel images, each with its own normalisation and augmentation, combined in one score.
//!
//! What is assumed of the challenge, from its web page, its readers in TensorFlow Datasets and the authors'
//! code: the folders and annotation files described in [`Tree`], results as a list of `image_id` and
//! `category_id`, and the baselines in [`EVENTS`]. Differences from the authors' code: all tasks have one
//! size and are squashed to it, normalisation is
//! measured on the training images instead of read, and networks are selected on `val/` instead of being
//! trained on it too. A score on validation images, which were used for selection, is slightly optimistic:
//! the challenge's server has the labels of the test images.

mod answers;
mod events;
mod table;
mod tree;

pub use answers::{Answers, ask};
pub use events::{EVENTS, Event, SIZE};
pub use table::findings;
pub use tree::{Annotations, Tests, Tree};

use super::{Lab, Network, Task, Trial};
use crate::data::{Images, Loader, Split, statistics};
use crate::net::{Net, Pass};
use crate::pack::PackedTask;
use crate::source::Source;
use crate::train::{Score, evaluate};
use crate::{Error, Result};
use bundles::container::Bundle;
use bundles::plan::{Counter, Plan};

/// The result of one task.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The task.
    pub event: &'static Event,
    /// Accuracy and cost of its network.
    pub network: Network,
    /// Its tailoring; `None` for the task that the backbone was trained on.
    pub trial: Option<Trial>,
    /// Universal blocks in its network.
    pub blocks: usize,
    /// Predictions for unlabelled test images.
    pub answers: Option<Answers>,
}

impl Entry {
    /// Points in the challenge.
    pub fn points(&self) -> f64 {
        self.event.points(100.0 * self.network.shown().accuracy())
    }
}

/// `source` with the normalisation measured on the task's training images.
pub fn normalised(source: &Source, train: &Images) -> Source {
    let (mean, std) = statistics(train);
    Source { mean, std, ..source.clone() }
}

/// Tailors to one task in its folder of the work folder, and classifies `hidden`, the unlabelled test images.
///
/// # Errors
/// Any error of [`Lab::trial`].
pub fn tailored(
    lab: &Lab<'_>,
    source: &Source,
    event: &'static Event,
    task: &Task,
    hidden: Option<(Vec<String>, Images)>,
) -> Result<Entry> {
    let source = normalised(source, &task.dataset.train.images);
    let trial = lab.trial(&source, task, &format!("{event}/tailored"), &format!("{event}/teacher"))?;
    let answers = match hidden {
        None => None,
        Some((files, images)) => {
            let path = trial.bundle(&task.name);
            let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
            let packed = PackedTask::read(&Bundle::parse(&bytes)?, &source)?;
            let classify = |images: &_| packed.classify(images);
            let answers =
                ask(lab, &source, (&files, images), &task.dataset.classes, packed.preprocess.grey, classify)?;
            answers.leave(&lab.work.join(event.name).join("answers.json"))?;
            Some(answers)
        }
    };
    let (network, blocks) = (trial.tailored, trial.blocks.0);
    Ok(Entry { event, network, trial: Some(trial), blocks, answers })
}

/// Images of the task that the backbone was trained on; they are only used for evaluation.
#[derive(Debug, Clone)]
pub struct SourceTask {
    /// Its classes.
    pub classes: Vec<String>,
    /// `val/`.
    pub val: Split,
    /// `test/`, if it has labels.
    pub test: Option<Split>,
}

/// Evaluates the backbone's own classifier on the task it was trained on.
///
/// # Errors
/// [`Error::Config`] if the backbone has no classifier, [`Error::Data`] if its classes differ.
pub fn of_source(
    lab: &Lab<'_>,
    source: &Source,
    event: &'static Event,
    images: SourceTask,
    hidden: Option<(Vec<String>, Images)>,
) -> Result<Entry> {
    let SourceTask { classes, val, test } = images;
    check_source(source, event, &classes)?;
    let size = val.images.size();
    let plan = source.arch.plan(size.height, size.width, classes.len())?;
    let score = |split: &Split| -> Result<Score> {
        let batches = Loader::new(split, source.mean, source.std, crate::fit::EVAL_BATCH, lab.device)?.eval();
        evaluate(&Net { plan: &plan, params: &source.params }, lab.progress.interrupt().watch(batches))
    };
    let (val, test) = (score(&val)?, test.as_ref().map(score).transpose()?);
    let answers = match hidden {
        None => None,
        Some((files, images)) => {
            let net = Net { plan: &plan, params: &source.params };
            let classify = |images: &_| Ok(net.forward(images, Pass::Infer)?.logits);
            let answers = ask(lab, source, (&files, images), &classes, false, classify)?;
            let folder = lab.work.join(event.name);
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
            answers.leave(&folder.join("answers.json"))?;
            Some(answers)
        }
    };
    let network = whole(&plan, val, test)?;
    Ok(Entry { event, network, trial: None, blocks: plan.blocks(), answers })
}

/// Refuses a source task whose classes are not those of the backbone's classifier.
///
/// # Errors
/// [`Error::Config`] or [`Error::Data`].
pub fn check_source(source: &Source, event: &Event, classes: &[String]) -> Result<()> {
    if !source.classifier {
        let want = "the backbone has no source classifier: import one that has it, or tailor to the task \
                    with --source-task none";
        return Err(Error::config(format!("--source-task {event}"), want));
    }
    let known = source.plan.classes();
    if known != classes.len() || (!source.labels.is_empty() && source.labels != classes) {
        let found = format!("its {} classes are not the {known} of the backbone's classifier", classes.len());
        return Err(Error::data(
            event,
            found,
            "name the task the backbone was trained on with --source-task",
        ));
    }
    Ok(())
}

/// The results of a plain network, none of whose kernels are task-owned.
fn whole(plan: &Plan, val: Score, test: Option<Score>) -> Result<Network> {
    let own = plan.task_params();
    Ok(Network {
        val,
        test,
        params: own + plan.backbone_params(),
        own,
        macs: plan.costs(Counter::True)?.total().macs,
        paper: plan.costs(Counter::Paper)?.total().macs,
    })
}
