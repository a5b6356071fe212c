//! The task that the backbone was trained on: its own classifier is evaluated, and nothing is tailored.

use super::kept::{kept_or, malformed};
use super::{Answers, Entry, Event, Hidden, ask, setting};
use crate::data::{Loader, Size, Split};
use crate::fit::{EVAL_BATCH, about};
use crate::net::{Net, Pass};
use crate::protocols::{Lab, Network};
use crate::source::Source;
use crate::train::{Score, evaluate};
use crate::{Error, Result};
use bundles::plan::{Counter, Plan};
use serde_json::{Value, json};

/// Images of the task that the backbone was trained on, which are decoded only if they have to be classified.
pub struct SourceTask<'a> {
    /// Its classes.
    pub classes: Vec<String>,
    /// Height and width of its images.
    pub size: Size,
    /// A digest of its files of `val/` and `test/`, by which an earlier run's scores are known to be on these
    /// images.
    pub digest: Option<String>,
    /// Decodes `val/` and, if it has labels, `test/`.
    pub read: Box<dyn FnOnce() -> Result<(Split, Option<Split>)> + 'a>,
}

/// Evaluates the backbone's own classifier on the task it was trained on, and classifies its unlabelled test
/// images, unless an earlier run did.
///
/// # Errors
/// [`Error::Config`] if the backbone has no classifier, [`Error::Data`] if its classes differ.
pub fn of_source(
    lab: &Lab<'_>,
    source: &Source,
    event: &'static Event,
    task: SourceTask<'_>,
    hidden: Option<Hidden<'_>>,
) -> Result<Entry> {
    let SourceTask { classes, size, digest, read } = task;
    check_source(source, event, &classes)?;
    let plan = source.arch.plan(size.height, size.width, classes.len())?;
    let net = Net { plan: &plan, params: &source.params };
    let measure = || -> Result<Value> {
        let (val, test) = read()?;
        let score = |split: &Split| -> Result<Value> {
            let batches = Loader::new(split, source.mean, source.std, EVAL_BATCH, lab.device)?.eval();
            let Score { right, n } = evaluate(&net, lab.progress.interrupt().watch(batches))?;
            Ok(json!({ "right": right, "n": n }))
        };
        Ok(json!({ "val": score(&val)?, "test": test.as_ref().map(score).transpose()? }))
    };
    let by = about(source, size, &classes);
    let path = lab.work.join(event.name).join("scores.json");
    let scores = match digest {
        Some(digest) => kept_or(&path, format!("{by} images {digest}"), measure)?,
        None => measure()?,
    };
    let score = |value: &Value| -> Option<Score> {
        let number = |key: &str| value[key].as_u64().map(|n| n as usize);
        Some(Score { right: number("right")?, n: number("n")? })
    };
    let val = score(&scores["val"]).ok_or_else(|| malformed(&path))?;
    let answers = match hidden {
        None => None,
        Some(Hidden { files, digest, read }) => {
            let path = Answers::path(lab.work, event);
            let classify = |images: &_| Ok(net.forward(images, Pass::Infer)?.logits);
            let ask = || ask(lab, source, (files, read()?), &classes, false, classify);
            let (setting, from) = (setting(source, size), format!("{by} images {digest}"));
            Some(Answers::kept_or(&path, &setting, &from, ask)?)
        }
    };
    let network = whole(&plan, val, score(&scores["test"]))?;
    Ok(Entry { event, network, trial: None, blocks: plan.blocks(), answers })
}

/// Refuses a source task whose classes are not those of the backbone's classifier.
///
/// # Errors
/// [`Error::Config`] or [`Error::Data`].
pub fn check_source(source: &Source, event: &Event, classes: &[String]) -> Result<()> {
    if !source.classifier {
        let want = "the backbone has no source classifier: import one that has it, or tailor to the task \
                    with --source-task none, which reads all of its images (see --memory)";
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
