//! The runs that a named folder stands for: its own, or those of its sub-folders.

use super::run::{Run, folders};
use crate::baselines::Method;
use crate::{Error, Result};
use std::path::Path;

/// Levels of sub-folders that are read: data sets, and the trials of a protocol on each.
const LEVELS: usize = 2;

impl Run {
    /// Reads a work folder of `fit` or `pretrain`; of `compare`, which has one sub-folder per data set if there
    /// are several; or of `protocol`, finished or not. A folder's own results come before those of its
    /// sub-folders, which are sorted by name.
    ///
    /// # Errors
    /// [`Error::Data`] if it is not a work folder or a file in it is malformed; [`Error::Io`].
    pub fn read(folder: &Path) -> Result<Vec<Run>> {
        if !folder.is_dir() {
            let found = if folder.exists() { "a file, not a folder" } else { "no such folder" };
            return Err(no_work(folder, found));
        }
        let mut runs = Vec::new();
        collect(folder, LEVELS, false, &mut runs)?;
        match runs.is_empty() {
            true => Err(no_work(
                folder,
                "neither it nor a folder up to two levels below it contains a report.json (of fit), a task \
                 bundle, a metrics.jsonl, a METHOD/result.json (of compare) or a protocol.json (of protocol)",
            )),
            false => Ok(without_lent_teachers(runs)),
        }
    }
}

/// Adds the run of a folder and those of its sub-folders, down to `levels` below it. Those of a protocol are
/// read to the last level wherever it is found, unless it is itself `within` one.
fn collect(folder: &Path, levels: usize, within: bool, runs: &mut Vec<Run>) -> Result<()> {
    let run = Run::of(folder)?;
    let is_protocol = run.as_ref().is_some_and(|run| !run.protocol.is_null());
    let has_networks = run.as_ref().is_some_and(Run::has_networks);
    let levels = if is_protocol && !within { LEVELS } else { levels };
    runs.extend(run);
    if levels > 0 {
        for inner in folders(folder)? {
            // The networks of other methods are part of the folder's own run.
            if !(has_networks && is_method(&inner)) {
                collect(&inner, levels - 1, within || is_protocol, runs)?;
            }
        }
    }
    Ok(())
}

/// Whether a folder is that of one method of `compare`.
fn is_method(folder: &Path) -> bool {
    folder.join("result.json").exists() || Method::ALL.iter().any(|method| folder.ends_with(method.name()))
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
    let want = "give a work folder of `tailor fit`, `tailor pretrain`, `tailor compare` or `tailor protocol`";
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

    /// The folders of `runs` within `work`.
    fn places(runs: &[Run], work: &Path) -> Vec<String> {
        let at = |run: &Run| Path::new(&run.folder).strip_prefix(work).unwrap().display().to_string();
        runs.iter().map(at).collect()
    }

    #[test]
    fn the_networks_of_a_folder_do_not_hide_those_below_it() {
        let folder = tempfile::tempdir().unwrap();
        leave(
            folder.path(),
            &[
                ("dan/result.json", RESULT),
                ("tailor/metrics.jsonl", TAUGHT),
                ("digits/dan/result.json", RESULT),
                ("digits/tailor/report.json", REPORT),
                ("later/signs/report.json", REPORT),
            ],
        );
        let runs = Run::read(folder.path()).unwrap();
        assert_eq!(places(&runs, folder.path()), ["", "digits", "later/signs"]);
        let page = page(&runs);
        let rows = |method: &str| page.matches(&format!(">{method}<br/>")).count();
        assert_eq!((rows("dan"), rows("tailored")), (2, 2), "{page}");
    }

    #[test]
    fn the_finished_networks_of_an_unfinished_protocol_are_shown_and_it_is_said() {
        let trial = r#"{"name":"signs","data":"signs","command":["tailor","protocol","skips"]}"#;
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path();
        leave(work, &[("signs/skips-1/report.json", trial), ("signs/notes/words.txt", "")]);
        let (data, trial) = (work.join("signs"), work.join("signs/skips-1"));
        let all = [work, data.as_path(), trial.as_path()];
        for named in all {
            let runs = Run::read(named).unwrap();
            assert_eq!(places(&runs, work), ["signs/skips-1"]);
            let said = format!("when it has finished. Its trials so far: {}.</p>", trial.display());
            assert!(page(&runs).contains(&said), "{}", named.display());
        }
        leave(work, &[("protocol.json", r#"{"title":"Tasks"}"#)]);
        for named in all {
            let page = page(&Run::read(named).unwrap());
            assert!(page.contains(">tailored<br/>") && !page.contains("Its trials so far"), "{page}");
        }
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
                assert_eq!(places(&runs, &work), want);
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
