//! The runs that a named folder stands for: its own, or those of its sub-folders.

use super::run::{Run, folders};
use crate::{Error, Result};
use std::path::Path;

impl Run {
    /// Reads a work folder of `fit`; of `compare`, which has one sub-folder per data set if there are several;
    /// or of `protocol`, whose own results come before those of its networks. Sub-folders are sorted by name.
    ///
    /// # Errors
    /// [`Error::Data`] if it is not a work folder or a file in it is malformed; [`Error::Io`].
    pub fn read(folder: &Path) -> Result<Vec<Run>> {
        if !folder.is_dir() {
            let found = if folder.exists() { "a file, not a folder" } else { "no such folder" };
            return Err(no_work(folder, found));
        }
        let mut runs = with_networks(folder)?;
        if runs.is_empty() {
            for inner in folders(folder)? {
                runs.extend(with_networks(&inner)?);
            }
        }
        match runs.is_empty() {
            true => Err(no_work(
                folder,
                "neither it nor a folder in it contains a report.json (of fit), a task bundle, a \
                 metrics.jsonl, a METHOD/result.json (of compare) or a protocol.json (of protocol)",
            )),
            false => Ok(without_lent_teachers(runs)),
        }
    }
}

/// The run of a folder. A protocol without networks of its own is followed by those of its sub-folders, which
/// are trials, data sets of a comparison, or folders of trials.
fn with_networks(folder: &Path) -> Result<Vec<Run>> {
    let Some(run) = Run::of(folder)? else { return Ok(Vec::new()) };
    let is_protocol_alone = !run.protocol.is_null() && !run.has_networks();
    let mut runs = vec![run];
    if is_protocol_alone {
        for inner in folders(folder)? {
            match Run::of(&inner)? {
                Some(run) => runs.push(run),
                None => {
                    for trial in folders(&inner)? {
                        runs.extend(Run::of(&trial)?);
                    }
                }
            }
        }
    }
    Ok(runs)
}

/// Leaves out teachers that were trained for others to borrow: the metrics of those begin with a copy of theirs.
fn without_lent_teachers(runs: Vec<Run>) -> Vec<Run> {
    let is_lent = |run: &Run| {
        let borrows =
            |other: &Run| other.epochs.len() > run.epochs.len() && other.epochs.starts_with(&run.epochs);
        let has_epochs_alone = run.report.is_null() && run.baselines.is_empty() && !run.epochs.is_empty();
        has_epochs_alone && runs.iter().any(borrows)
    };
    let lent: Vec<bool> = runs.iter().map(is_lent).collect();
    runs.into_iter().zip(lent).filter(|(_, lent)| !lent).map(|(run, _)| run).collect()
}

fn no_work(folder: &Path, found: &str) -> Error {
    let want = "give a work folder of `tailor fit`, `tailor compare` or `tailor protocol`";
    Error::data(folder.display(), format!("not a work folder: {found}"), want)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::page;
    use std::fs;

    const RESULT: &str = r#"{"method":"dan","data":"signs","seed":1}"#;
    const REPORT: &str = r#"{"name":"signs","data":"signs"}"#;
    const PROTOCOL: &str = r#"{"title":"Tasks","figures":[{"file":"a.svg","caption":"by cost"}]}"#;
    const TAUGHT: &str = r#"{"stage":"teach","epoch":1,"time":1}"#;

    fn leave(folder: &Path, files: &[(&str, &str)]) {
        for (file, text) in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn a_comparison_of_several_data_sets_is_found_one_level_down() {
        let folder = tempfile::tempdir().unwrap();
        leave(folder.path(), &[("digits/dan/result.json", RESULT), ("signs/dan/result.json", RESULT)]);
        fs::create_dir(folder.path().join("notes")).unwrap();
        let names = |runs: Vec<Run>| runs.into_iter().map(|run| run.name).collect::<Vec<_>>();
        assert_eq!(names(Run::read(folder.path()).unwrap()), ["digits", "signs"]);
        assert_eq!(names(Run::read(&folder.path().join("signs")).unwrap()), ["signs"]);
    }

    #[test]
    fn a_protocol_is_read_with_the_networks_below_it_except_teachers_that_these_borrowed() {
        let trained = format!("{TAUGHT}\n{}", TAUGHT.replace("teach", "train"));
        let taught_later = TAUGHT.replace(r#""time":1"#, r#""time":2"#);
        let (trained, taught_later) = (trained.as_str(), taught_later.as_str());
        let datasets = [
            ("signs/dan/result.json", RESULT),
            ("digits/tailor/report.json", REPORT),
            ("digits/dan/result.json", RESULT),
        ];
        let skips = [
            ("signs/skips-1/report.json", REPORT),
            ("signs/skips-1/metrics.jsonl", trained),
            ("signs/skips-dense/report.json", REPORT),
            ("signs/skips-dense/metrics.jsonl", trained),
            ("signs/teacher/metrics.jsonl", TAUGHT),
            ("digits/teacher/metrics.jsonl", taught_later),
        ];
        let teacher = [
            ("teacher/metrics.jsonl", TAUGHT),
            ("with/report.json", REPORT),
            ("with/metrics.jsonl", trained),
            ("without/report.json", REPORT),
            ("without/metrics.jsonl", trained),
        ];
        for (files, want) in [
            (&datasets[..], &["", "digits", "signs"][..]),
            (&skips[..], &["", "digits/teacher", "signs/skips-1", "signs/skips-dense"][..]),
            (&teacher[..], &["", "with", "without"][..]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            // The protocol may be named itself, or the folder that holds it.
            let work = folder.path().join("run");
            leave(&work, files);
            leave(&work, &[("protocol.json", PROTOCOL), ("a.svg", "<svg/>")]);
            for named in [work.as_path(), folder.path()] {
                let runs = Run::read(named).unwrap();
                let at =
                    |run: &Run| Path::new(&run.folder).strip_prefix(&work).unwrap().display().to_string();
                assert_eq!(runs.iter().map(at).collect::<Vec<_>>(), want);
                let page = page(&runs);
                assert_eq!(page.matches("<h3>by cost</h3>").count(), 1, "{want:?}");
                assert!(page.contains("Every network of every folder"), "{want:?}");
                for run in runs.iter().filter(|run| run.is_fitted()) {
                    let heading = format!("<small>{}</small></h2>", run.folder);
                    assert_eq!(page.matches(&heading).count(), 1, "{heading}");
                }
            }
        }
    }

    #[test]
    fn a_protocol_on_one_data_set_is_shown_with_the_tailored_network() {
        let folder = tempfile::tempdir().unwrap();
        leave(
            folder.path(),
            &[
                ("protocol.json", PROTOCOL),
                ("a.svg", "<svg/>"),
                ("dan/result.json", RESULT),
                ("tailor/report.json", REPORT),
            ],
        );
        let runs = Run::read(folder.path()).unwrap();
        assert_eq!(runs.len(), 1);
        let page = page(&runs);
        assert!(page.contains("<h2>Tasks <small>") && page.contains("<h3>by cost</h3>"), "{page}");
        assert!(page.contains(">tailored<br/>") && page.contains(">dan<br/>"), "{page}");
    }

    #[test]
    fn folders_without_results_are_refused_with_what_was_expected() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("page.html");
        fs::write(&file, "").unwrap();
        for (path, found) in [
            (folder.path().to_path_buf(), "METHOD/result.json (of compare)"),
            (file, "a file, not a folder"),
            (folder.path().join("gone"), "no such folder"),
        ] {
            let error = Run::read(&path).unwrap_err().to_string();
            assert!(error.contains("not a work folder") && error.contains(found), "{error}");
        }
    }
}
