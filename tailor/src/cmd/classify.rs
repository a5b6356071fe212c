//! `tailor classify`: classifies new photographs exactly as the device will.

use crate::data::{self, Photo, Tally};
use crate::output::{self, note, out};
use anyhow::Context;
use edge_runtime::{Backbone, Frame, Options, Runtime};
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Classifies new images with the device's engine and the bundle's preprocessing.
///
/// Images are PNG or JPEG, of any size. Bundles may be f32, f16 or int8; a backbone packed for a device runs
/// here if this machine has the same instructions. Prints one line per image: file, class and probability,
/// separated by tabs.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: tailor classify --backbone net.backbone --task cats.task --top 3 new/ one.jpg\n\n\
                  Other commands take labelled images (--data): folders by class, a .zip or IDX files. This one \
                  takes image files, and folders with image files at any depth."
)]
pub struct Classify {
    /// Backbone file the task was made for. f32 and f16 tasks run on f32 and f16 backbones, int8 tasks on int8
    /// ones.
    #[arg(long, value_name = "FILE")]
    backbone: PathBuf,
    /// Task bundle.
    #[arg(long, value_name = "FILE")]
    task: PathBuf,
    /// Number of classes to print, most probable first.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Print one JSON object per image instead of text: file, label, probability, top; or file, error.
    #[arg(long)]
    json: bool,
    /// Images, or folders of images.
    #[arg(required = true, value_name = "FILE|FOLDER")]
    files: Vec<PathBuf>,
}

/// The task loaded into the device's runtime, and the output options.
struct Classifier<'a> {
    options: &'a Classify,
    runtime: Runtime,
    labels: Vec<String>,
    /// The first error, returned when all images are done.
    failed: Option<anyhow::Error>,
}

impl Classify {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut classifier = Classifier::open(&self)?;
        let mut images = Vec::new();
        for path in &self.files {
            match images_at(path) {
                Ok(found) => images.extend(found),
                Err(error) => classifier.refuse(path, error),
            }
        }
        // Decoded images are large: hold only as many as are decoded in parallel.
        for images in images.chunks(rayon::current_num_threads()) {
            if output::is_closed() {
                break;
            }
            let photos: Vec<_> = images.par_iter().map(|path| data::read_photo(path)).collect();
            for (path, photo) in images.iter().zip(photos) {
                let answered =
                    photo.map_err(anyhow::Error::from).and_then(|photo| classifier.answer(path, &photo));
                if let Err(error) = answered {
                    classifier.refuse(path, error);
                }
            }
        }
        classifier.failed.map_or(Ok(()), Err)
    }
}

/// The image files at `path`.
fn images_at(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let (images, passed_over) = data::photos_in(path)?;
    if let Some(Tally { count, first }) = passed_over {
        note!("tailor: {}: {}", path.display(), data::passed_over(count, &first));
    }
    if images.is_empty() {
        return Err(crate::Error::data(
            path.display(),
            "a folder without images",
            "only PNG and JPEG are read",
        )
        .into());
    }
    Ok(images)
}

impl Classifier<'_> {
    fn open(options: &Classify) -> anyhow::Result<Classifier<'_>> {
        let backbone = Backbone::open(&options.backbone, &Options::default())?;
        let mut runtime = Runtime::new(backbone, rayon::current_num_threads());
        let task = runtime.load(&options.task)?;
        runtime.switch(task)?;
        let labels = runtime.current().map_or(Vec::new(), |(_, task)| task.labels().to_vec());
        Ok(Classifier { options, runtime, labels, failed: None })
    }

    /// Classifies `photo` and prints the answer.
    fn answer(&mut self, path: &Path, photo: &Photo) -> anyhow::Result<()> {
        let Photo { size, channels, pixels } = photo;
        let frame = Frame { width: size.width, height: size.height, channels: *channels, pixels };
        let scores = self.runtime.frame(frame).with_context(|| path.display().to_string())?;
        let top: Vec<(String, f32)> = probabilities(scores.logits)
            .into_iter()
            .take(self.options.top as usize)
            .map(|(class, probability)| {
                // Bundles may lack class names.
                let label = self.labels.get(class).cloned().unwrap_or_else(|| class.to_string());
                (label, probability)
            })
            .collect();
        let file = path.display();
        if self.options.json {
            let (label, probability) = top.first().cloned().unwrap_or_default();
            let top: Vec<_> = top
                .iter()
                .map(|(label, probability)| serde_json::json!({ "label": label, "probability": probability }))
                .collect();
            let file = file.to_string();
            out!(
                "{}",
                serde_json::json!({ "file": file, "label": label, "probability": probability, "top": top })
            );
        } else {
            let answers: Vec<String> =
                top.iter().map(|(label, probability)| format!("{label}\t{probability:.4}")).collect();
            out!("{file}\t{}", answers.join("\t"));
        }
        Ok(())
    }

    /// Reports an error with `path`; other images are still processed.
    fn refuse(&mut self, path: &Path, error: anyhow::Error) {
        if self.options.json {
            let file = path.display().to_string();
            out!("{}", serde_json::json!({ "file": file, "error": format!("{error:#}") }));
        }
        match &self.failed {
            None => self.failed = Some(error),
            Some(_) => note!("tailor: {error:#}"),
        }
    }
}

/// Softmax of `logits` as (class, probability), most probable first; ties go to the first class, as on the
/// device.
fn probabilities(logits: &[f32]) -> Vec<(usize, f32)> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = logits.iter().map(|logit| (logit - top).exp()).sum();
    let mut classes: Vec<(usize, f32)> =
        logits.iter().map(|logit| (logit - top).exp() / total).enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_sorted_by_probability_and_ties_by_index() {
        let sorted = probabilities(&[1.0, 3.0, -100.0, 3.0]);
        let order: Vec<usize> = sorted.iter().map(|(class, _)| *class).collect();
        assert_eq!(order, [1, 3, 0, 2]);
        assert!((sorted.iter().map(|(_, p)| p).sum::<f32>() - 1.0).abs() < 1e-6);
        // Softmax terms 1, 1 and e^-2.
        assert!((sorted[0].1 - 1.0 / (2.0 + (-2f32).exp())).abs() < 1e-6);
    }
}
