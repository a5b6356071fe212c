//! Predictions for unlabelled test images, and the form in which the challenge's server takes them.

use super::kept::{kept_or, malformed, read};
use super::tree::BELONGING;
use super::{Annotations, Event};
use crate::data::{Images, Loader, Split};
use crate::protocols::Lab;
use crate::source::Source;
use crate::{Error, Result};
use candle_core::{D, Tensor};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Images per batch.
const BATCH: usize = 100;

/// A task's unlabelled test images, which are decoded only if they have to be classified.
pub struct Hidden<'a> {
    /// Images, as paths below the task's folder.
    pub files: &'a [String],
    /// A digest of these files, by which the predictions of an earlier run are known to be for them.
    pub digest: String,
    /// Decodes them.
    pub read: &'a dyn Fn() -> Result<Images>,
}

/// A network's predictions for a task's test images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// Images, as paths below the task's folder.
    pub files: Vec<String>,
    /// The predicted class of each, as the name of its folder.
    pub classes: Vec<String>,
}

/// Predicts the class of every image in `images` with `classify`, which maps normalised images to scores of
/// `classes`. A network that `is_grey` sees them without colour, as on a device.
///
/// # Errors
/// If the images do not fit the network.
pub fn ask(
    lab: &Lab<'_>,
    source: &Source,
    (files, images): (&[String], Images),
    classes: &[String],
    is_grey: bool,
    classify: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Answers> {
    // The loader requires labels; these are never read.
    let split = Split { labels: vec![0; images.len()], images, files: files.to_vec() };
    let split = if is_grey { split.in_grey() } else { split };
    let batches = Loader::new(&split, source.mean, source.std, BATCH, lab.device)?.eval();
    let mut answers = Vec::with_capacity(files.len());
    for batch in lab.progress.interrupt().watch(batches) {
        let best: Vec<u32> = classify(&batch?.images)?.argmax(D::Minus1)?.to_vec1()?;
        answers.extend(best.into_iter().filter_map(|class| classes.get(class as usize).cloned()));
    }
    Ok(Answers { files: split.files, classes: answers })
}

impl Answers {
    /// Where the predictions for a task are kept in the protocol's work folder.
    pub fn path(work: &Path, event: &Event) -> PathBuf {
        work.join(event.name).join("answers.json")
    }

    /// The predictions kept at `path`, if `from` describes the network and images they were made from, and `setting`
    /// the backbone and image size; otherwise those of `ask`, which are then kept there.
    ///
    /// # Errors
    /// Any error of `ask`, [`Error::Data`] if the file holds something else, [`Error::Io`].
    pub fn kept_or(
        path: &Path,
        setting: &str,
        from: &str,
        ask: impl FnOnce() -> Result<Answers>,
    ) -> Result<Answers> {
        let json = kept_or(path, json!({ "setting": setting, "made": from }), || Ok(ask()?.json()))?;
        Answers::of(&json).ok_or_else(|| malformed(path))
    }

    /// The predictions kept at `path`; `None` if there is no such file.
    ///
    /// # Errors
    /// [`Error::Data`] if they were made in another `setting`, or if the file holds something else; [`Error::Io`].
    pub fn read(path: &Path, setting: &str) -> Result<Option<Answers>> {
        let Some(json) = read(path)? else { return Ok(None) };
        let made_in = json["from"]["setting"].as_str();
        if made_in != Some(setting) {
            let found = format!("answers of {}", made_in.unwrap_or("a backbone that is not recorded"));
            let want = format!("run the task with {setting} to add its answers");
            return Err(Error::data(path.display(), found, want));
        }
        Answers::of(&json).map(Some).ok_or_else(|| malformed(path))
    }

    fn json(&self) -> Value {
        let answers = self.files.iter().zip(&self.classes);
        let list: Vec<Value> = answers.map(|(file, class)| json!({ "file": file, "class": class })).collect();
        json!({ "answers": list })
    }

    fn of(json: &Value) -> Option<Answers> {
        let list = json["answers"].as_array()?;
        let word = |answer: &Value, key: &str| answer[key].as_str().map(str::to_string);
        let answers = list.iter().map(|answer| Some((word(answer, "file")?, word(answer, "class")?)));
        let (files, classes) = answers.collect::<Option<Vec<_>>>()?.into_iter().unzip();
        Some(Answers { files, classes })
    }

    /// The predictions in the challenge's format, `{"image_id": …, "category_id": …}` each.
    ///
    /// # Errors
    /// [`Error::Data`] for an image or class missing in the annotations.
    pub fn results(&self, event: &Event, annotations: &Annotations) -> Result<Vec<Value>> {
        let unknown = |what: &str, name: &str| {
            let found = format!("{what} `{name}` is not in {event}'s annotations");
            Error::data(event, found, BELONGING)
        };
        let result = |(file, class): (&String, &String)| {
            let image = annotations.images.get(file).ok_or_else(|| unknown("image", file))?;
            let category = annotations.categories.get(class).ok_or_else(|| unknown("class", class))?;
            Ok(json!({ "image_id": image, "category_id": category }))
        };
        self.files.iter().zip(&self.classes).map(result).collect()
    }
}
