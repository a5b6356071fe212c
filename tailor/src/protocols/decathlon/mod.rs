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
mod document;
mod events;
mod kept;
mod results;
mod source_task;
mod table;
mod tree;

pub use answers::{Answers, Hidden, ask};
pub use events::{EVENTS, Event, SIZE};
pub use source_task::{SourceTask, check_source, of_source};
pub use table::findings;
pub use tree::{Annotations, Tests, Tree};

use super::{Lab, Network, Task, Trial};
use crate::data::{Images, Size, statistics};
use crate::pack::PackedTask;
use crate::source::Source;
use crate::{Error, Result};
use bundles::container::{Bundle, hex};

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

/// What all tasks of one submission share, in words: the backbone, and the size of its images.
fn setting(source: &Source, Size { height, width }: Size) -> String {
    format!("backbone {} on images of {width}x{height} pixels", hex(&source.id[..8]))
}

/// Tailors to one task in its folder of the work folder, and classifies `hidden`, the unlabelled test images,
/// unless an earlier run did both.
///
/// # Errors
/// Any error of [`Lab::trial`].
pub fn tailored(
    lab: &Lab<'_>,
    source: &Source,
    event: &'static Event,
    task: Task,
    hidden: Option<Hidden<'_>>,
) -> Result<Entry> {
    let source = normalised(source, &task.dataset.train.images);
    let trial = lab.trial(&source, &task, &format!("{event}/tailored"), &format!("{event}/teacher"))?;
    let setting = setting(&source, task.dataset.train.images.size());
    let (bundle, classes) = (trial.bundle(&task.name), task.dataset.classes.clone());
    // Its images and the hidden ones need not be in memory at the same time.
    drop(task);
    let answers = match hidden {
        None => None,
        Some(Hidden { files, digest, read }) => {
            let bytes = std::fs::read(&bundle).map_err(Error::io(&bundle))?;
            let from = format!("bundle {} images {digest}", blake3::hash(&bytes).to_hex());
            let ask = || {
                let packed = PackedTask::read(&Bundle::parse(&bytes)?, &source)?;
                let classify = |images: &_| packed.classify(images);
                ask(lab, &source, (files, read()?), &classes, packed.preprocess.grey, classify)
            };
            Some(Answers::kept_or(&Answers::path(lab.work, event), &setting, &from, ask)?)
        }
    };
    let (network, blocks) = (trial.tailored, trial.blocks.0);
    Ok(Entry { event, network, trial: Some(trial), blocks, answers })
}
