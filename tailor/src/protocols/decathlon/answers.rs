//! Predictions for unlabelled test images, and the file for the challenge's server.

use super::tree::BELONGING;
use super::{Annotations, Event};
use crate::data::{Images, Loader, Split};
use crate::protocols::Lab;
use crate::source::Source;
use crate::{Error, Result};
use bundles::container::write_atomically;
use candle_core::{D, Tensor};
use serde_json::{Value, json};
use std::path::Path;

/// Images per batch.
const BATCH: usize = 100;

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
    /// Writes the predictions to `path`, with classes by name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn leave(&self, path: &Path) -> Result<()> {
        let answers = self.files.iter().zip(&self.classes);
        let list: Vec<Value> = answers.map(|(file, class)| json!({ "file": file, "class": class })).collect();
        Ok(write_atomically(path, format!("{}\n", json!(list)).as_bytes())?)
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
