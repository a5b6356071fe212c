//! The result of one method on one task: a row of the table, and a file that later runs read back.

use super::{Method, Size};
use crate::fit::{Judge, made_otherwise};
use crate::train::Score;
use crate::{Error, Result};
use bundles::container::write_atomically;
use serde_json::{Value, json};
use std::path::Path;

/// How certain the gap to the teacher is by which a network was selected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gap {
    /// The metric in which it is measured.
    pub judge: Judge,
    /// Its standard error on validation, as a fraction.
    pub error: f64,
}

/// The result of one method on one task.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The method.
    pub method: Method,
    /// The data's name.
    pub data: String,
    /// The backbone's architecture.
    pub arch: String,
    /// The backbone's id, in hexadecimal.
    pub backbone: String,
    /// Height and width of the images.
    pub pixels: [usize; 2],
    /// Seed of all random choices.
    pub seed: u64,
    /// Accuracy on validation.
    pub val: Score,
    /// What selected it, if it was selected by comparison with a teacher.
    pub gap: Option<Gap>,
    /// Accuracy on test; `None` if it was left out or there is no test split.
    pub test: Option<Score>,
    /// Digest of the test images.
    pub test_images: Option<String>,
    /// Costs.
    pub size: Size,
    /// Seconds in training steps, including those of its teacher, if it has one.
    pub seconds: f64,
    /// Everything that shaped the run, as text.
    pub run: String,
}

impl Outcome {
    /// As JSON, accuracies as fractions.
    pub fn json(&self) -> Value {
        let test = self.test.map(|score| score.accuracy());
        // Rounded to milliseconds and ten-thousandths of a point, so that values read back print the same.
        let seconds = (1e3 * self.seconds).round() / 1e3;
        let error = self.gap.map(|gap| (1e6 * gap.error).round() / 1e6);
        json!({
            "method": self.method.name(),
            "data": self.data,
            "arch": self.arch,
            "backbone": self.backbone,
            "pixels": self.pixels,
            "seed": self.seed,
            "val": self.val.accuracy(),
            "val_n": self.val.n,
            "judge": self.gap.map(|gap| gap.judge.name()),
            "behind_error": error,
            "test": test,
            "test_n": self.test.map_or(0, |score| score.n),
            "test_images": self.test_images,
            "params": self.size.params,
            "task_params": self.size.task_params,
            "macs": self.size.macs,
            "swap_bytes": self.size.swap_bytes,
            "seconds": seconds,
            "run": self.run,
        })
    }

    /// Writes the result to `path`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(write_atomically(path, format!("{}\n", self.json()).as_bytes())?)
    }

    /// Refuses this result, which lies at `path`, if it is not that of `run`.
    ///
    /// # Errors
    /// [`Error::Training`] naming the differences.
    pub fn check(&self, path: &Path, run: &str) -> Result<()> {
        if self.run == run { Ok(()) } else { Err(made_otherwise(path, &self.run, run)) }
    }

    /// Reads the result at `path`; `None` if there is no file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Training`] if the file is not a result.
    pub fn read(path: &Path) -> Result<Option<Outcome>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { path: path.into(), source }),
        };
        let read = || -> Option<Outcome> {
            let json: Value = serde_json::from_str(&text).ok()?;
            let number = |key: &str| json[key].as_u64();
            let string = |key: &str| json[key].as_str().map(str::to_string);
            let score = |key: &str| -> Option<Score> {
                let n = number(&format!("{key}_n"))? as usize;
                Some(Score { right: (json[key].as_f64()? * n as f64).round() as usize, n })
            };
            Some(Outcome {
                method: json["method"].as_str()?.parse().ok()?,
                data: string("data")?,
                arch: string("arch")?,
                // Missing in files of earlier versions.
                backbone: string("backbone").unwrap_or_default(),
                pixels: serde_json::from_value(json["pixels"].clone()).unwrap_or_default(),
                seed: number("seed")?,
                val: score("val")?,
                // Missing too, and for all methods that do not select.
                gap: string("judge").and_then(|judge| {
                    let judge = clap::ValueEnum::from_str(&judge, false).ok()?;
                    Some(Gap { judge, error: json["behind_error"].as_f64()? })
                }),
                test: score("test"),
                test_images: string("test_images"),
                size: Size {
                    params: number("params")?,
                    task_params: number("task_params")?,
                    macs: number("macs")?,
                    swap_bytes: number("swap_bytes")?,
                },
                seconds: json["seconds"].as_f64()?,
                run: string("run")?,
            })
        };
        let wrong = || Error::training(path.display(), "not a result of `tailor compare`", "remove the file");
        read().ok_or_else(wrong).map(Some)
    }
}
