//! What a work folder holds for a report: everything available, with a list of what is missing.

use super::pretrain;
use crate::{Error, Result};
use bundles::container::Bundle;
use bundles::plan::Counter;
use serde_json::Value;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Name of tailoring in `compare`, and of its folder.
pub(super) const TAILORED: &str = "tailor";

/// One work folder.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// The path as given.
    pub folder: String,
    /// Name of the task.
    pub name: String,
    /// `report.json`, or the part of it that can be recovered from a bundle; `null` without either.
    pub report: Value,
    /// Every epoch of `metrics.jsonl`.
    pub epochs: Vec<Value>,
    /// `predictions.json`; `null` if there is none.
    pub predictions: Value,
    /// The images of the worst mistakes, as PNG, in the order of `predictions.json`; `None` for missing ones.
    pub mistakes: Vec<Option<Vec<u8>>>,
    /// `architecture.svg`.
    pub drawing: Option<String>,
    /// `result.json` of every method with its own folder.
    pub baselines: Vec<Value>,
    /// `protocol.json` of `tailor protocol`; `null` if there is none.
    pub protocol: Value,
    /// Its figures, as SVG, in order; `None` for missing ones.
    pub figures: Vec<Option<String>>,
    /// Whether it is a trial of a protocol whose `protocol.json` is not there.
    pub lacks_protocol: bool,
    /// Missing files, and what they would have contributed.
    pub missing: Vec<String>,
}

impl Run {
    /// Whether the folder has anything on a tailored task or a pre-training; folders with only baselines appear
    /// in the tables and in other runs' plots.
    pub(super) fn is_fitted(&self) -> bool {
        !self.report.is_null() || !self.epochs.is_empty()
    }

    /// Whether it is a backbone's pre-training.
    pub(super) fn is_pretrained(&self) -> bool {
        self.report["pretrained"].is_object()
    }

    /// Whether the folder has any network; that of a protocol may have them only in its sub-folders.
    pub(super) fn has_networks(&self) -> bool {
        self.is_fitted() || !self.baselines.is_empty()
    }

    /// Whether this candidate is the network that was selected.
    pub(super) fn is_chosen(&self, candidate: &Value) -> bool {
        self.report["chosen"].as_str().is_some_and(|chosen| candidate["stage"] == chosen)
    }

    /// The contents of a folder for one data set; `None` if there are none. The network tailored by `compare`
    /// has its own folder next to those of the other methods.
    pub(super) fn of(folder: &Path) -> Result<Option<Run>> {
        let inner = folder.join(TAILORED);
        if !folder.join("report.json").exists()
            && inner.join("report.json").exists()
            && let Some(tailored) = Run::of_fit(&inner)?
        {
            let (protocol, figures) = protocol(folder)?;
            let (shown, baselines) = (folder.display().to_string(), baselines(folder)?);
            return Ok(Some(Run { folder: shown, baselines, protocol, figures, ..tailored }));
        }
        Run::of_fit(folder)
    }

    fn of_fit(folder: &Path) -> Result<Option<Run>> {
        let mut missing = Vec::new();
        let baselines = baselines(folder)?;
        let mut report = json(&folder.join("report.json"))?;
        let bundle = bundle(folder)?;
        let metrics = text(&folder.join("metrics.jsonl"))?;
        let (protocol, figures) = protocol(folder)?;
        let trained = report.is_some() || bundle.is_some() || metrics.is_some();
        if !trained && baselines.is_empty() && protocol.is_null() {
            return Ok(None);
        }
        let epochs: Vec<Value> = metrics
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        let pretrained = match (&report, &bundle) {
            (None, None) => pretrain::report(folder, &epochs)?,
            _ => None,
        };
        let fitted = trained && pretrained.is_none();
        if report.is_none() && fitted {
            missing.push("report.json (test accuracy, candidates, recipe)".to_string());
            report = bundle.map(|path| from_bundle(&path)).transpose()?;
        }
        let predictions = json(&folder.join("predictions.json"))?.unwrap_or_default();
        let drawing = text(&folder.join("architecture.svg"))?;
        for (there, told) in [
            (!epochs.is_empty(), "metrics.jsonl (training curves)"),
            (!predictions.is_null(), "predictions.json (confusion, mistakes)"),
            (drawing.is_some(), "architecture.svg (drawing)"),
        ] {
            if fitted && !there {
                missing.push(told.to_string());
            }
        }
        let mut mistakes = Vec::new();
        for mistake in predictions["mistakes"].as_array().into_iter().flatten() {
            let file = Path::new("mistakes").join(plain(&mistake["picture"]));
            let picture = bytes(&folder.join(&file))?;
            if picture.is_none() {
                missing.push(format!("{} (picture of a mistake)", file.display()));
            }
            mistakes.push(picture);
        }
        let report = report.or(pretrained).unwrap_or_default();
        let lacks_protocol = report["command"][1] == "protocol" && !is_below_protocol(folder)?;
        let of_folder = || folder.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        let name = report["name"].as_str().map_or_else(of_folder, str::to_string);
        let folder = folder.display().to_string();
        Ok(Some(Run {
            folder,
            name,
            report,
            epochs,
            predictions,
            mistakes,
            drawing,
            baselines,
            protocol,
            figures,
            lacks_protocol,
            missing,
        }))
    }

    /// Results of other methods on the same data and test images with the same backbone, size and seed, as far
    /// as they record these. The tailored network itself is not included.
    pub fn others<'a>(&self, results: impl Iterator<Item = &'a Value>) -> Vec<&'a Value> {
        let report = &self.report;
        let same = |ours: &Value, theirs: &Value| ours.is_null() || theirs.is_null() || ours == theirs;
        let is_other = |result: &&Value| {
            result["data"] == report["data"]
                && same(&report["seed"], &result["seed"])
                && same(&report["backbone"]["arch"], &result["arch"])
                && same(&report["backbone"]["id"], &result["backbone"])
                && same(&report["size"], &result["pixels"])
                && same(&report["test_images"], &result["test_images"])
                && result["method"] != TAILORED
        };
        results.filter(is_other).collect()
    }

    /// Accuracy `key` (`val`, `teacher_test`, …) of the task, and its number of images, 0 if unknown.
    pub fn score(&self, key: &str) -> Option<(f64, usize)> {
        let task = &self.report["task"];
        let n = if key.ends_with("val") { "val_n" } else { "test_n" };
        Some((task[key].as_f64()?, task[n].as_u64().unwrap_or(0) as usize))
    }

    /// Seconds spent training, over the epochs that record it.
    pub fn seconds(&self) -> Option<f64> {
        let told: Vec<f64> = self.epochs.iter().filter_map(|epoch| epoch["seconds"].as_f64()).collect();
        (!told.is_empty()).then(|| told.iter().sum())
    }
}

/// A file name within the folder itself; empty if it would point elsewhere.
fn plain(name: &Value) -> &str {
    name.as_str().filter(|name| !name.contains(['/', '\\'])).unwrap_or_default()
}

fn text(path: &Path) -> Result<Option<String>> {
    Ok(bytes(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

fn json(path: &Path) -> Result<Option<Value>> {
    let Some(text) = text(path)? else { return Ok(None) };
    let broken = |error| {
        Error::data(path.display(), format!("not valid JSON ({error})"), "remove the file or create it again")
    };
    serde_json::from_str(&text).map(Some).map_err(broken)
}

/// Entries of `folder`, sorted by name.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut paths: Vec<PathBuf> =
        entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>().map_err(Error::io(folder))?;
    paths.sort();
    Ok(paths)
}

/// Sub-folders of `folder`, sorted by name.
pub(super) fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// `protocol.json` of `folder`, and its figures.
fn protocol(folder: &Path) -> Result<(Value, Vec<Option<String>>)> {
    let protocol = json(&folder.join("protocol.json"))?.unwrap_or_default();
    let files = protocol["figures"].as_array().into_iter().flatten().map(|figure| plain(&figure["file"]));
    let figures: Vec<Option<String>> = files.map(|file| text(&folder.join(file))).collect::<Result<_>>()?;
    Ok((protocol, figures))
}

/// Whether `folder`, or one of the two above it, holds the results of a protocol.
fn is_below_protocol(folder: &Path) -> Result<bool> {
    let folder = folder.canonicalize().map_err(Error::io(folder))?;
    Ok(folder.ancestors().take(3).any(|above| above.join("protocol.json").exists()))
}

fn baselines(folder: &Path) -> Result<Vec<Value>> {
    let own = std::iter::once(folder.to_path_buf());
    own.chain(folders(folder)?).filter_map(|path| json(&path.join("result.json")).transpose()).collect()
}

fn bundle(folder: &Path) -> Result<Option<PathBuf>> {
    Ok(entries(folder)?.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "task")))
}

/// What can be recovered from the bundle of an older run.
fn from_bundle(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let wrong = |error: bundles::Error| Error::data(path.display(), error.to_string(), "pack the task again");
    let bundle = Bundle::parse(&bytes).map_err(wrong)?;
    let manifest = bundle.manifest();
    let plan = &manifest.plan;
    let number = |key: &str| manifest.fact(key).and_then(|fact| fact.parse::<f64>().ok());
    Ok(serde_json::json!({
        "name": manifest.name,
        "data": manifest.fact("data"),
        "seed": manifest.fact("seed").and_then(|seed| seed.parse::<u64>().ok()),
        "classes": manifest.labels,
        "backbone": { "arch": manifest.fact("arch") },
        "survivors": crate::draw::strip(plan),
        "task": {
            "val": number("validation"),
            "teacher_val": number("teacher-validation"),
            "params": plan.task_params() + plan.backbone_params(),
            "task_params": plan.task_params(),
            "macs": plan.costs(Counter::True)?.total().macs,
            "blocks": plan.blocks(),
            "blocks_total": plan.cells.len(),
            "proxies": plan.proxies(),
            "bundle_bytes": bytes.len(),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_absent_picture_is_reported_missing() {
        let folder = tempfile::tempdir().unwrap();
        let predictions = r#"{"split":"val","labels":[0,1],"answers":[1,0],"mistakes":[
            {"picture":"00.png","label":0,"answer":1},{"picture":"01.png","label":1,"answer":0}]}"#;
        for (file, text) in [
            ("report.json", r#"{"name":"signs","classes":["a","b"]}"#),
            ("predictions.json", predictions),
            ("metrics.jsonl", r#"{"stage":"teach"}"#),
            ("architecture.svg", "<svg/>"),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        fs::create_dir(folder.path().join("mistakes")).unwrap();
        fs::write(folder.path().join("mistakes/01.png"), "png").unwrap();
        let runs = Run::read(folder.path()).unwrap();
        assert_eq!(runs[0].mistakes, [None, Some(b"png".to_vec())]);
        assert_eq!(runs[0].missing, ["mistakes/00.png (picture of a mistake)"]);
        let page = crate::report::page(&runs);
        assert_eq!(
            page.matches("<figcaption>is <b>").count(),
            2,
            "each is shown, with or without its picture"
        );
    }

    #[test]
    fn results_on_other_test_images_are_not_beside_a_run() {
        let others = |ours: Value, theirs: Value| {
            let report = serde_json::json!({ "data": "signs", "seed": 1, "test_images": ours });
            let result = serde_json::json!({ "method": "dan", "data": "signs", "test_images": theirs });
            Run { report, ..Run::default() }.others(std::iter::once(&result)).len()
        };
        assert_eq!(others("0011".into(), "0011".into()), 1);
        assert_eq!(others("0011".into(), "0022".into()), 0);
        // Not recorded: by an earlier version, or because there was no test.
        assert_eq!(others("0011".into(), Value::Null), 1);
        assert_eq!(others(Value::Null, "0011".into()), 1);
    }

    #[test]
    fn a_protocol_is_shown_without_missing_figures() {
        let folder = tempfile::tempdir().unwrap();
        let protocol = r#"{"title":"Depth","figures":[{"file":"a.svg","caption":"by depth"},
            {"file":"../b.svg","caption":"elsewhere"},{"file":"c.svg","caption":"by cost"}]}"#;
        fs::write(folder.path().join("protocol.json"), protocol).unwrap();
        fs::write(folder.path().join("c.svg"), "<svg/>").unwrap();
        let runs = Run::read(folder.path()).unwrap();
        let page = crate::report::page(&runs);
        assert!(page.contains("<h3>by cost</h3>") && !page.contains("<h3>by depth</h3>"));
        assert!(page.contains(": a.svg.</p>") && page.contains(": ../b.svg.</p>"), "{page}");
    }
}
