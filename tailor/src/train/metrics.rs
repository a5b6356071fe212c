//! Training metrics: one record per epoch in `metrics.csv`, `metrics.jsonl` and TensorBoard's event files.

use super::tensorboard;
use crate::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Means over one epoch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// `teach`, `train`, `prune-3`, ...
    pub stage: String,
    /// Counted from 1.
    pub epoch: usize,
    /// Learning rate of the last step.
    pub rate: f64,
    /// Weighted sum of the terms.
    pub loss: f64,
    /// Cross-entropy.
    pub classification: f64,
    /// Expected relative complexity.
    pub complexity: Option<f64>,
    /// Distance to the teacher.
    pub matching: Option<f64>,
    /// Kullback-Leibler divergence from another network's class probabilities.
    pub distillation: Option<f64>,
    /// Fraction of correct answers on training batches, as seen during the epoch.
    pub train_accuracy: f64,
    /// Accuracy on the validation split after the epoch; `None` without validation.
    pub val_accuracy: Option<f64>,
    /// Training images per second.
    pub images_per_second: f64,
    /// Seconds spent in the epoch's steps.
    pub seconds: f64,
}

impl Record {
    /// The record's numbers: name, TensorBoard tag, value, and value as text.
    fn fields(&self) -> [(&'static str, &'static str, Option<f64>, String); 9] {
        let plain = |x: Option<f64>| x.map_or(String::new(), |x| format!("{x:.6}"));
        let field = |name, tag, x: Option<f64>| (name, tag, x, plain(x));
        [
            ("rate", "rate", Some(self.rate), format!("{:.6e}", self.rate)),
            field("loss", "loss/total", Some(self.loss)),
            field("classification", "loss/classification", Some(self.classification)),
            field("complexity", "loss/complexity", self.complexity),
            field("matching", "loss/matching", self.matching),
            field("distillation", "loss/distillation", self.distillation),
            field("train_accuracy", "accuracy/train", Some(self.train_accuracy)),
            field("val_accuracy", "accuracy/validation", self.val_accuracy),
            (
                "images_per_second",
                "images per second",
                Some(self.images_per_second),
                format!("{:.1}", self.images_per_second),
            ),
        ]
    }

    fn header(&self) -> String {
        let names = self.fields().map(|(name, ..)| name);
        format!("stage,epoch,{}\n", names.join(","))
    }

    fn csv(&self) -> String {
        let values = self.fields().map(|(.., text)| text);
        format!("{},{},{}\n", self.stage, self.epoch, values.join(","))
    }

    /// One object per line. Missing numbers are `null`; `seconds` is the training time, `time` is in seconds
    /// since 1970.
    fn json(&self, time: f64) -> String {
        let mut object = serde_json::Map::new();
        object.insert("stage".into(), self.stage.clone().into());
        object.insert("epoch".into(), self.epoch.into());
        for (name, _, value, _) in self.fields() {
            object.insert(name.into(), value.into());
        }
        object.insert("seconds".into(), self.seconds.into());
        object.insert("time".into(), time.into());
        format!("{}\n", serde_json::Value::Object(object))
    }

    fn scalars(&self) -> Vec<(&'static str, f64)> {
        self.fields().into_iter().filter_map(|(_, tag, value, _)| Some((tag, value?))).collect()
    }
}

/// The metrics of one work folder: a .csv file, a .jsonl file of the same name, and next to them a folder
/// `tensorboard` with one TensorBoard run per stage.
#[derive(Debug, Clone)]
pub struct Log {
    path: PathBuf,
}

impl Log {
    /// Appends to `path` (`…/metrics.csv`) and the files next to it, creating them if needed.
    pub fn new(path: impl Into<PathBuf>) -> Log {
        Log { path: path.into() }
    }

    /// The .csv file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn json_lines(&self) -> PathBuf {
        self.path.with_extension("jsonl")
    }

    fn events(&self, stage: &str) -> PathBuf {
        // TensorBoard recognises its files by this word; a fixed name lets a resumed run append.
        self.path.with_file_name("tensorboard").join(stage).join("events.out.tfevents.0.tailor")
    }

    /// Locks out other threads and processes that write to the same folder, such as the jobs of one sweep.
    fn lock(&self) -> Result<(MutexGuard<'static, ()>, File)> {
        static THREADS: Mutex<()> = Mutex::new(());
        let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path.with_extension("lock");
        let file = File::create(&path).map_err(Error::io(&path))?;
        // Some network file systems have no locks; then only other processes are not locked out.
        while file.lock().is_err_and(|error| error.kind() == ErrorKind::Interrupted) {}
        Ok((threads, file))
    }

    /// Removes what an interrupted run recorded of `stage` after `epoch` epochs, and any incomplete last
    /// line.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn rewind(&self, stage: &str, epoch: usize) -> Result<()> {
        let in_csv = |line: &str| {
            let mut fields = line.split(',');
            (fields.next() == Some(stage)).then(|| fields.next()?.parse().ok()).flatten()
        };
        let in_json = |line: &str| {
            let object: serde_json::Value = serde_json::from_str(line).ok()?;
            (object["stage"] == stage).then(|| object["epoch"].as_u64().map(|e| e as usize)).flatten()
        };
        let _held = self.lock()?;
        rewind_lines(&self.path, epoch, &in_csv)?;
        rewind_lines(&self.json_lines(), epoch, &in_json)?;
        let events = self.events(stage);
        let Some(bytes) = read(&events)? else { return Ok(()) };
        let kept = tensorboard::rewound(&bytes, epoch);
        if kept.len() < bytes.len() {
            bundles::container::write_atomically(&events, kept)?;
        }
        Ok(())
    }

    /// Seconds spent in training steps, over all stages and invocations.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn seconds(&self) -> Result<f64> {
        let bytes = read(&self.json_lines())?.unwrap_or_default();
        let of_line = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["seconds"].as_f64();
        Ok(String::from_utf8_lossy(&bytes).lines().filter_map(of_line).sum())
    }

    /// Whether any stage other than `stage` was recorded.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn has_other_than(&self, stage: &str) -> Result<bool> {
        let bytes = read(&self.path)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().skip(1).any(|line| line.split(',').next() != Some(stage)))
    }

    /// Appends one record.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn append(&self, record: &Record) -> Result<()> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let _held = self.lock()?;
        append(&self.path, record.header().as_bytes(), record.csv().as_bytes())?;
        append(&self.json_lines(), b"", record.json(time).as_bytes())?;
        let events = self.events(&record.stage);
        if let Some(folder) = events.parent() {
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let scalars = tensorboard::scalars(time, record.epoch, &record.scalars());
        append(&events, &tensorboard::opening(time), &scalars)
    }
}

/// The file's bytes, or `None` if it does not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path)(error)),
    }
}

/// Keeps complete lines whose epoch (`epoch_of`; `None` for other stages) is at most `epoch`.
fn rewind_lines(path: &Path, epoch: usize, epoch_of: &dyn Fn(&str) -> Option<usize>) -> Result<()> {
    let Some(bytes) = read(path)? else { return Ok(()) };
    let text = String::from_utf8_lossy(&bytes);
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n') && epoch_of(line.trim_end()).is_none_or(|at| at <= epoch))
        .collect();
    if kept.len() < bytes.len() {
        bundles::container::write_atomically(path, kept.as_bytes())?;
    }
    Ok(())
}

/// Appends `bytes` to a file that starts with `opening`.
fn append(path: &Path, opening: &[u8], bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(Error::io(path))?;
    let empty = file.metadata().map_err(Error::io(path))?.len() == 0;
    let all = if empty { [opening, bytes].concat() } else { bytes.to_vec() };
    file.write_all(&all).map_err(Error::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stage: &str, epoch: usize) -> Record {
        Record {
            stage: stage.into(),
            epoch,
            rate: 0.05,
            loss: 1.5,
            seconds: 0.25,
            matching: (stage == "train").then_some(0.25),
            val_accuracy: Some(0.5),
            ..Record::default()
        }
    }

    fn texts(folder: &Path) -> [Vec<String>; 2] {
        ["metrics.csv", "metrics.jsonl"]
            .map(|name| fs::read_to_string(folder.join(name)).unwrap().lines().map(str::to_owned).collect())
    }

    #[test]
    fn every_epoch_is_in_every_file_and_can_be_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::new(folder.path().join("metrics.csv"));
        for (stage, epoch) in [("teach", 1), ("teach", 2), ("train", 1), ("train", 2)] {
            log.append(&record(stage, epoch)).unwrap();
        }
        let [csv, json] = texts(folder.path());
        assert_eq!((csv.len(), json.len()), (5, 4));
        assert_eq!(log.seconds().unwrap(), 1.0);
        assert_eq!(csv[0].split(',').count(), csv[1].split(',').count());
        assert_eq!(csv[3], "train,1,5.000000e-2,1.500000,0.000000,,0.250000,,0.000000,0.500000,0.0");
        let object: serde_json::Value = serde_json::from_str(&json[1]).unwrap();
        assert_eq!((&object["stage"], &object["epoch"]), (&"teach".into(), &2.into()));
        assert_eq!((&object["matching"], &object["loss"]), (&serde_json::Value::Null, &1.5.into()));
        for (name, ..) in record("teach", 1).fields() {
            assert!(object.get(name).is_some() && csv[0].contains(name), "{name}");
        }

        // The machine went down in the middle of a line, after an epoch whose checkpoint was not written.
        for name in ["metrics.csv", "metrics.jsonl"] {
            append(&folder.path().join(name), b"", b"train,3,0.1").unwrap();
        }
        let events = log.events("train");
        let whole = fs::read(&events).unwrap();
        append(&events, b"", &whole[..30]).unwrap();
        log.rewind("train", 1).unwrap();
        let [kept_csv, kept_json] = texts(folder.path());
        assert_eq!((&kept_csv[..], &kept_json[..]), (&csv[..4], &json[..3]));
        let kept = fs::read(&events).unwrap();
        assert!(kept.len() < whole.len() && whole.starts_with(&kept));
        log.append(&record("train", 2)).unwrap();
        assert_eq!(fs::read(&events).unwrap().len(), whole.len());
        log.rewind("teach", 0).unwrap();
        assert_eq!(texts(folder.path())[0].len(), 3);
    }
}
