//! `results.json`: the answers for all tasks, as the challenge's server takes them.

use super::{Answers, EVENTS, Entry, Event, Tree};
use crate::{Error, Result};
use bundles::container::write_atomically;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::Path;

/// Writes `results.json`: the predictions of `entries` and, for the other tasks, those that earlier runs kept in the
/// same `setting`. Removes the file if there are none. Returns what readers need to know about it, including what is
/// wrong with answers of earlier runs, which are then left out.
///
/// # Errors
/// If annotations do not fit the images of `entries`, or the file cannot be written.
pub(super) fn submit(work: &Path, tree: &Tree, setting: &str, entries: &[Entry]) -> Result<Vec<String>> {
    let (mut results, mut left_out) = (Vec::new(), Vec::new());
    let (mut without, mut unannotated, mut earlier) = (Vec::new(), Vec::new(), Vec::new());
    for event in &EVENTS {
        let entry = entries.iter().find(|entry| entry.event == event);
        let form = match entry {
            Some(entry) => Form::of(entry.answers.as_ref(), event, tree)?,
            None => {
                let kept = Answers::read(&Answers::path(work, event), setting);
                kept.and_then(|answers| Form::of(answers.as_ref(), event, tree)).unwrap_or_else(|error| {
                    left_out.push(format!("Left out of results.json, from an earlier run: {error}."));
                    Form::Absent
                })
            }
        };
        match form {
            Form::Results(list) => {
                results.extend(list);
                if entry.is_none() {
                    earlier.push(event.name);
                }
            }
            Form::Absent => without.push(event.name),
            Form::Unannotated => {
                without.push(event.name);
                unannotated.push(event.name);
            }
        }
    }
    let (path, mut notes) = (work.join("results.json"), Vec::new());
    if results.is_empty() {
        if remove(&path)? {
            let path = path.display();
            notes.push(format!("Removed {path}, of an earlier run: no answers belong there now."));
        }
    } else {
        write_atomically(&path, json!(results).to_string().as_bytes())?;
        notes.push(format!("{} answers for the challenge's server: {}", results.len(), path.display()));
        if !earlier.is_empty() {
            notes.push(format!("Its answers for {} come from earlier runs.", earlier.join(", ")));
        }
        if !without.is_empty() {
            let missing = without.join(", ");
            notes.push(format!("results.json has no answers for {missing}; the server wants all ten tasks."));
        }
    }
    notes.extend(left_out);
    if !unannotated.is_empty() {
        notes.push(format!(
            "No annotations of {}: their answers are in TASK/answers.json but not in results.json, which needs the \
             image ids from the development kit (--annotations).",
            unannotated.join(", ")
        ));
    }
    Ok(notes)
}

/// A task's answers in the challenge's format.
enum Form {
    /// These.
    Results(Vec<Value>),
    /// There are no answers.
    Absent,
    /// There are, but no annotations with the ids of images and classes.
    Unannotated,
}

impl Form {
    fn of(answers: Option<&Answers>, event: &Event, tree: &Tree) -> Result<Form> {
        let Some(answers) = answers else { return Ok(Form::Absent) };
        match tree.annotations(event, &answers.classes)? {
            Some(annotations) => answers.results(event, &annotations).map(Form::Results),
            None => Ok(Form::Unannotated),
        }
    }
}

/// Removes the file `path`. False if there is none.
fn remove(path: &Path) -> Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::Network;
    use crate::train::Score;
    use std::fs;
    use std::path::PathBuf;

    /// A work folder, and annotations of gtsrb and svhn: one test image each, and the class `stop`.
    struct Bench {
        _folder: tempfile::TempDir,
        work: PathBuf,
        tree: Tree,
    }

    impl Bench {
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let (root, work) = (folder.path().join("root"), folder.path().join("run"));
            let annotations = root.join("annotations");
            fs::create_dir_all(&annotations).unwrap();
            fs::create_dir(&work).unwrap();
            for (task, id) in [("gtsrb", 7), ("svhn", 8)] {
                let image =
                    |id: u64, file: &str| json!({ "id": id, "file_name": format!("data/{task}/{file}") });
                let tests = json!({ "images": [image(id, "test/1.png")] });
                let labelled = [json!({ "image_id": 1, "category_id": 100 * id })];
                let val = json!({ "images": [image(1, "val/stop/1.png")], "annotations": labelled });
                for (split, json) in [("test_stripped", tests), ("val", val)] {
                    fs::write(annotations.join(format!("{task}_{split}.json")), json.to_string()).unwrap();
                }
            }
            Bench { tree: Tree::open(&root, None).unwrap(), work, _folder: folder }
        }

        /// Leaves answers for gtsrb as an earlier run in `setting` does.
        fn keep(&self, setting: &str, answers: Answers) {
            let path = self.kept();
            let _ = fs::remove_file(&path);
            Answers::kept_or(&path, setting, "a bundle", || Ok(answers)).unwrap();
        }

        fn kept(&self) -> PathBuf {
            Answers::path(&self.work, Event::named("gtsrb").unwrap())
        }

        /// The ids of the images in the file, and the notes, after a run of one task in the setting `here`.
        fn submitted(&self, task: &str, answers: Option<Answers>) -> (Vec<u64>, String) {
            let val = Score { right: 1, n: 1 };
            let network = Network { val, test: None, params: 0, own: 0, macs: 0, paper: 0 };
            let entry =
                Entry { event: Event::named(task).unwrap(), network, trial: None, blocks: 0, answers };
            let notes = submit(&self.work, &self.tree, "here", &[entry]).unwrap().join(" ");
            let results = fs::read(self.work.join("results.json")).unwrap_or_else(|_| b"[]".to_vec());
            let results: Vec<Value> = serde_json::from_slice(&results).unwrap();
            (results.iter().map(|result| result["image_id"].as_u64().unwrap()).collect(), notes)
        }
    }

    fn answers(file: &str, class: &str) -> Answers {
        Answers { files: vec![file.into()], classes: vec![class.into()] }
    }

    #[test]
    fn answers_of_earlier_runs_are_submitted_too_and_none_leave_no_file() {
        let bench = Bench::new();
        let good = || answers("test/1.png", "stop");
        bench.keep("here", good());
        let (ids, notes) = bench.submitted("svhn", Some(good()));
        assert_eq!(ids, [7, 8]);
        assert!(notes.contains("Its answers for gtsrb come from earlier runs."), "{notes}");
        let missing = "imagenet12, aircraft, cifar100, daimlerpedcls, dtd, vgg-flowers, omniglot, ucf101";
        assert!(notes.contains(&format!("no answers for {missing}; ")), "{notes}");
        // Answers without annotations are no part of it.
        let (ids, notes) = bench.submitted("dtd", Some(good()));
        assert_eq!(ids, [7]);
        let words = ["No annotations of dtd:", "daimlerpedcls, dtd, vgg-flowers, omniglot, svhn, ucf101; "];
        assert!(words.iter().all(|word| notes.contains(word)), "{notes}");
        // This time, gtsrb has no unlabelled test.
        let path = bench.work.join("results.json");
        let (ids, notes) = bench.submitted("gtsrb", None);
        assert!(ids.is_empty() && !path.exists(), "{notes}");
        let removed = format!("Removed {}, of an earlier run: no answers belong there now.", path.display());
        assert_eq!(notes, removed);
        let (_, notes) = bench.submitted("gtsrb", None);
        assert!(notes.is_empty(), "there was nothing to remove: {notes}");
    }

    #[test]
    fn answers_of_earlier_runs_that_do_not_belong_to_this_one_are_left_out_and_named() {
        let bench = Bench::new();
        let good = || answers("test/1.png", "stop");
        let submitted = |named: &str| {
            let (ids, notes) = bench.submitted("svhn", Some(good()));
            let is_said = notes.contains("Left out of results.json") && notes.contains(named);
            assert!(ids == [8] && is_said && !notes.contains("come from"), "{named}: {notes}");
            assert!(notes.contains("daimlerpedcls, dtd, gtsrb, "), "{notes}");
        };
        bench.keep("elsewhere", good());
        submitted("gtsrb/answers.json: answers of elsewhere; run the task with here");
        for (kept, named) in [
            // As earlier versions left them.
            (r#"[{ "file": "test/1.png", "class": "stop" }]"#, "a backbone that is not recorded"),
            (r#"{ "answers": [{ "file": "test/1.png", "class": "stop" }], "from": "it" }"#, "not recorded"),
            ("{", "gtsrb/answers.json: not valid JSON"),
            (
                r#"{ "answers": 1, "from": { "setting": "here" } }"#,
                "gtsrb/answers.json: not as an earlier run",
            ),
        ] {
            fs::write(bench.kept(), kept).unwrap();
            submitted(named);
        }
        bench.keep("here", answers("test/2.png", "stop"));
        submitted("gtsrb: image `test/2.png` is not in");
        bench.keep("here", answers("test/1.png", "go"));
        submitted("no image of class `go`");
    }
}
