//! Checkpoints of a training run: parameters, optimiser state and progress.

use crate::net::Params;
use crate::train::best::Best;
use crate::train::{Score, Sgd, Sums};
use crate::{Error, Result};
use candle_core::Tensor;
use safetensors::tensor::{SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A checkpoint's metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Stage of the pipeline (`teach`, `train`, `prune-3`).
    pub stage: String,
    /// Everything that shapes the run, as text; a checkpoint with a different fingerprint is not resumed.
    pub fingerprint: String,
    /// Epochs done.
    pub epoch: usize,
    /// Running sums of the current epoch; empty if the checkpoint was written between two epochs.
    pub sums: Sums,
    /// Epochs of the whole run.
    pub epochs: usize,
    /// Correct answers and number of images of the last validation.
    pub validation: (usize, usize),
    /// State of early stopping: epochs done at the last improvement, and its correct answers and number of
    /// images.
    pub best: Option<(usize, usize, usize)>,
}

const PARAM: &str = "param/";
const VELOCITY: &str = "velocity/";
const BEST: &str = "best/";

impl Checkpoint {
    /// Whether the run has ended.
    pub fn is_complete(&self) -> bool {
        self.epoch >= self.epochs
    }

    /// Writes the checkpoint atomically: the file at `path` is always either the old or the new one.
    ///
    /// # Errors
    /// [`Error::Io`], or if a tensor cannot be read from its device.
    pub(super) fn write(&self, path: &Path, params: &Params, sgd: &Sgd, best: Option<&Best>) -> Result<()> {
        let numbers = params.iter().map(|(name, t)| (format!("{PARAM}{name}"), t));
        let velocity = sgd.velocity().iter().map(|(name, t)| (format!("{VELOCITY}{name}"), t));
        let kept = best.iter().flat_map(|best| &best.numbers).map(|(name, t)| (format!("{BEST}{name}"), t));
        let mut held = Vec::new();
        for (name, tensor) in numbers.chain(velocity).chain(kept) {
            let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            held.push((name, tensor.dims().to_vec(), bytes));
        }
        let views: Vec<(&str, TensorView<'_>)> = held
            .iter()
            .map(|(name, shape, bytes)| {
                let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
                view.map(|view| (name.as_str(), view)).map_err(|e| unreadable(path, &e))
            })
            .collect::<Result<_>>()?;
        let facts: HashMap<String, String> = [
            ("stage", self.stage.clone()),
            ("fingerprint", self.fingerprint.clone()),
            ("epoch", self.epoch.to_string()),
            ("sums", self.sums.to_string()),
            ("epochs", self.epochs.to_string()),
            ("right", self.validation.0.to_string()),
            ("validated", self.validation.1.to_string()),
        ]
        .into_iter()
        .chain(self.best.map(|(epoch, right, n)| ("best", format!("{epoch} {right} {n}"))))
        .map(|(key, value)| (key.to_string(), value))
        .collect();
        let bytes = safetensors::serialize(views, Some(facts)).map_err(|e| unreadable(path, &e))?;
        bundles::container::write_atomically(path, &bytes)?;
        Ok(())
    }

    /// Reads the metadata; `None` if there is no file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Training`] if the file is not a checkpoint.
    pub fn peek(path: &Path) -> Result<Option<Checkpoint>> {
        Ok(load(path)?.map(|(checkpoint, _)| checkpoint))
    }

    /// Restores tensors (those that `params` has) and optimiser velocities, on the device of `params`
    /// regardless of the device they were saved from. Returns the best epoch so far if early stopping keeps
    /// one.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Training`]; or if a tensor does not fit `params`.
    pub(super) fn restore(path: &Path, params: &mut Params, sgd: &mut Sgd) -> Result<Option<Best>> {
        let device = params.device();
        let missing = || unreadable(path, &"it does not exist");
        let (checkpoint, bytes) = load(path)?.ok_or_else(missing)?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| unreadable(path, &e))?;
        let (mut velocity, mut numbers) = (BTreeMap::new(), BTreeMap::new());
        for (name, view) in tensors.iter() {
            let values: Vec<f32> =
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            let tensor = Tensor::from_vec(values, view.shape(), &device)?;
            if let Some(name) = name.strip_prefix(PARAM) {
                params.set(name, &tensor)?;
            } else if let Some(name) = name.strip_prefix(VELOCITY) {
                velocity.insert(name.to_string(), tensor);
            } else if let Some(name) = name.strip_prefix(BEST) {
                numbers.insert(name.to_string(), tensor);
            }
        }
        sgd.set_velocity(velocity);
        let best = |(improved, right, n)| Best { improved, score: Score { right, n }, numbers };
        Ok(checkpoint.best.map(best))
    }

    /// Rejects this checkpoint, which lies at `path`, if its run is about something other than `about` or by
    /// another `recipe`. Training itself checks that the images match.
    ///
    /// # Errors
    /// [`Error::Training`] naming the checkpoint.
    pub(crate) fn check(&self, path: &Path, about: &str, recipe: &str) -> Result<()> {
        let (begun, by) = self.fingerprint.split_once(" | ").unwrap_or_default();
        if begun.starts_with(about) && by == recipe {
            return Ok(());
        }
        // This run's images have not been read: those of the checkpoint stand for them.
        let images = images_of(&self.fingerprint, about);
        Err(Checkpoint::of_other_options(path, &self.fingerprint, &format!("{about}{images} | {recipe}")))
    }

    /// The error for a checkpoint at `path` of a run with other options, given both runs' fingerprints.
    pub(crate) fn of_other_options(path: &Path, there: &str, here: &str) -> Error {
        Error::training(
            path.display(),
            format!(
                "this run was started with other options or images, or by another version{}",
                differences(there, here)
            ),
            "repeat its options with its images, remove the file, or choose another work folder",
        )
    }
}

/// What the identity of a run says between `about`, with which it begins, and its options: its images.
pub(crate) fn images_of<'a>(run: &'a str, about: &str) -> &'a str {
    run.split_once(" | ").and_then(|(begun, _)| begun.get(about.len()..)).unwrap_or_default()
}

/// Maximum number of differences to list.
const TOLD: usize = 3;

/// The first words that differ, each after the word before it, which names the option. Empty if the texts
/// have different numbers of words, or none differ.
pub(crate) fn differences(there: &str, here: &str) -> String {
    let [one, other] = [there, here].map(|text| text.split_whitespace().collect::<Vec<_>>());
    let differ: Vec<usize> = (0..one.len().min(other.len())).filter(|&i| one[i] != other[i]).collect();
    if one.len() != other.len() || differ.is_empty() {
        return String::new();
    }
    let bare = |word: &str| word.trim_matches([',', '{', '}', ':', '(', ')']).to_owned();
    let told = differ.iter().take(TOLD).map(|&i| {
        let before = i.checked_sub(1).map(|before| bare(one[before])).filter(|word| word != "|");
        let what = before.map_or(String::new(), |word| format!("{word} "));
        format!("{what}{} there, {} now", bare(one[i]), bare(other[i]))
    });
    let more = if differ.len() > TOLD { ", and more" } else { "" };
    format!(" ({}{more})", told.collect::<Vec<_>>().join("; "))
}

fn unreadable(path: &Path, why: &dyn std::fmt::Display) -> Error {
    Error::training(
        path.display(),
        format!("not a checkpoint that can be continued ({why})"),
        "remove it or choose another work folder",
    )
}

fn load(path: &Path) -> Result<Option<(Checkpoint, Vec<u8>)>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path: path.into(), source }),
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| unreadable(path, &e))?;
    let facts = header.metadata().clone().unwrap_or_default();
    let text =
        |key: &str| facts.get(key).cloned().ok_or_else(|| unreadable(path, &format!("it has no `{key}`")));
    let number = |key: &str| {
        text(key)?.parse::<usize>().map_err(|_| unreadable(path, &format!("`{key}` is not a number")))
    };
    let checkpoint = Checkpoint {
        stage: text("stage")?,
        fingerprint: text("fingerprint")?,
        epoch: number("epoch")?,
        sums: text("sums")?.parse().map_err(|()| unreadable(path, &"`sums` is malformed"))?,
        epochs: number("epochs")?,
        validation: (number("right")?, number("validated")?),
        best: facts
            .get("best")
            .map(|best| three(best).ok_or_else(|| unreadable(path, &"`best` is malformed")))
            .transpose()?,
    };
    Ok(Some((checkpoint, bytes)))
}

fn three(text: &str) -> Option<(usize, usize, usize)> {
    let numbers: Option<Vec<usize>> = text.split(' ').map(|n| n.parse().ok()).collect();
    match numbers?[..] {
        [a, b, c] => Some((a, b, c)),
        _ => None,
    }
}
