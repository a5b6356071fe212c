//! The decathlon's tables, score and results file.

use super::{Answers, EVENTS, Entry, Event, SIZE, Tree};
use crate::protocols::{Findings, GFLOPS, Table, Trial, caveats, giga, maybe_percent, millions, percent};
use crate::source::Source;
use crate::{Error, Result};
use bundles::container::write_atomically;
use serde_json::json;
use std::io::ErrorKind;
use std::path::Path;

/// Published results for all ten tasks on the 26-layer wide ResNet: score, mean accuracy and, where
/// published, millions of parameters and billions of multiply-adds per network, by the paper's counter on
/// images of [`PUBLISHED_SIZE`].
const PUBLISHED: [(&str, &str, &str, &str, &str); 5] = [
    ("published: NetTailor", "3744", "79.64", "3.67", "0.61"),
    ("published: parallel residual adapters", "3412", "78.07", "6.44", "0.96"),
    ("published: DAN", "2851", "-", "-", "-"),
    ("published: Piggyback", "2838", "-", "-", "-"),
    ("published: LwF", "2515", "-", "-", "-"),
];

/// Height and width of the images for which the published multiply-adds were counted: a test in
/// `bundles::plan` finds those of the adapters there.
const PUBLISHED_SIZE: usize = 64;

/// Multiply-adds of a network on images of [`PUBLISHED_SIZE`], given those on images of `size`. Kernels and
/// norms work in proportion to the number of pixels; the classifier, which does not, hardly counts.
fn at_published_size(macs: u64, size: usize) -> u64 {
    let ratio = PUBLISHED_SIZE as f64 / size as f64;
    (macs as f64 * ratio * ratio).round() as u64
}

/// Writes all predictions that have annotations to `results.json` in the work folder, those of earlier runs too,
/// and makes the tables. Networks were run on images of height and width `size`.
///
/// # Errors
/// If annotations do not fit the images, or a file cannot be written.
pub fn findings(
    work: &Path,
    tree: &Tree,
    source: &Source,
    size: usize,
    entries: &[Entry],
) -> Result<Findings> {
    let mut notes = notes(source, size, entries);
    notes.extend(submit(work, tree, entries)?);
    let mut table = Table::new(
        "Tasks",
        [
            "",
            "test %",
            "validation %",
            "teacher %",
            "points",
            "params M",
            "task-owned M",
            "GFLOPs",
            "paper's GFLOPs",
            "blocks",
        ],
    );
    for entry in entries {
        let network = &entry.network;
        let mark = if entry.trial.as_ref().is_none_or(|trial| trial.within) { "" } else { " *" };
        table.row([
            format!("{}{mark}", entry.event),
            maybe_percent(network.test),
            percent(network.val),
            maybe_percent(entry.trial.as_ref().map(|trial| trial.teacher.shown())),
            format!("{:.0}", entry.points()),
            millions(network.params),
            millions(network.own),
            giga(network.macs),
            giga(network.paper),
            entry.blocks.to_string(),
        ]);
    }
    let total = Total::of(source, size, entries);
    let macs = format!("paper's GFLOPs, {PUBLISHED_SIZE} px");
    let mut score = Table::new(
        format!("Decathlon, {} of {} tasks", entries.len(), EVENTS.len()),
        ["", "score", "mean %", "params M, a network", &macs, "params M, all tasks"],
    );
    score.row([
        source.arch.to_string(),
        format!("{:.0}", total.score),
        format!("{:.2}", 100.0 * total.mean),
        millions(total.params),
        giga(total.paper),
        millions(total.together),
    ]);
    if entries.len() == EVENTS.len() {
        for (name, points, mean, params, macs) in PUBLISHED {
            score.row([name, points, mean, params, macs, "-"]);
        }
    }
    let tasks = entries.iter().map(|entry| {
        json!({
            "task": entry.event.name,
            "points": entry.points(),
            "network": entry.network.json(),
            "blocks": entry.blocks,
            "trial": entry.trial.as_ref().map(Trial::json),
            "answers": entry.answers.as_ref().map(|answers| answers.files.len()),
        })
    });
    Ok(Findings {
        protocol: "decathlon",
        title: format!("Visual decathlon on one {}", source.arch),
        tables: vec![table, score],
        figures: Vec::new(),
        notes,
        results: json!({
            "score": total.score,
            "mean": total.mean,
            "params": total.params,
            "params_together": total.together,
            "macs": total.macs,
            "macs_paper_64px": total.paper,
            "tasks": tasks.collect::<Vec<_>>(),
        }),
    })
}

/// All tasks combined.
struct Total {
    score: f64,
    /// Mean accuracy.
    mean: f64,
    /// Means per network.
    params: u64,
    macs: u64,
    /// By the paper's counter, on images of [`PUBLISHED_SIZE`].
    paper: u64,
    /// Parameters of all networks, with the backbone's kernels counted once.
    together: u64,
}

impl Total {
    fn of(source: &Source, size: usize, entries: &[Entry]) -> Total {
        let n = entries.len().max(1);
        let mean = |figure: fn(&Entry) -> u64| entries.iter().map(figure).sum::<u64>() / n as u64;
        Total {
            score: entries.iter().map(Entry::points).sum(),
            mean: entries.iter().map(|entry| entry.network.shown().accuracy()).sum::<f64>() / n as f64,
            params: mean(|entry| entry.network.params),
            macs: mean(|entry| entry.network.macs),
            paper: at_published_size(mean(|entry| entry.network.paper), size),
            together: source.plan.backbone_params()
                + entries.iter().map(|entry| entry.network.own).sum::<u64>(),
        }
    }
}

/// Writes `results.json` in the challenge's format: the predictions of `entries` and, for the other tasks, those
/// that earlier runs kept. Removes the file if there are none. Returns what readers need to know about it.
fn submit(work: &Path, tree: &Tree, entries: &[Entry]) -> Result<Vec<String>> {
    let (mut results, mut without, mut unannotated) = (Vec::new(), Vec::new(), Vec::new());
    for event in &EVENTS {
        let answers = match entries.iter().find(|entry| entry.event == event) {
            Some(entry) => entry.answers.clone(),
            None => Answers::read(&Answers::path(work, event))?,
        };
        let Some(answers) = answers else {
            without.push(event.name);
            continue;
        };
        match tree.annotations(event, &answers.classes)? {
            Some(annotations) => results.extend(answers.results(event, &annotations)?),
            None => {
                without.push(event.name);
                unannotated.push(event.name);
            }
        }
    }
    let (path, mut notes) = (work.join("results.json"), Vec::new());
    if results.is_empty() {
        remove(&path)?;
    } else {
        write_atomically(&path, json!(results).to_string().as_bytes())?;
        notes.push(format!("{} answers for the challenge's server: {}", results.len(), path.display()));
        if !without.is_empty() {
            let missing = without.join(", ");
            notes.push(format!("results.json has no answers for {missing}; the server wants all ten tasks."));
        }
    }
    if !unannotated.is_empty() {
        notes.push(format!(
            "No annotations of {}: their answers are in TASK/answers.json but not in results.json, which needs the \
             image ids from the development kit (--annotations).",
            unannotated.join(", ")
        ));
    }
    Ok(notes)
}

/// Removes the file `path`, if there is one.
fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path)(error)),
        _ => Ok(()),
    }
}

fn notes(source: &Source, size: usize, entries: &[Entry]) -> Vec<String> {
    let mut notes = vec![
        "Points and mean use test accuracy where test images have labels, otherwise validation accuracy, by which networks were \
         selected. \"All tasks\" counts the shared kernels once and in full."
            .to_string(),
        GFLOPS.to_string(),
    ];
    if size != PUBLISHED_SIZE {
        notes.push(format!(
            "Published GFLOPs are of {PUBLISHED_SIZE}-pixel images; this run's beside them are scaled from {size} \
             pixels."
        ));
    }
    let names = |of: &dyn Fn(&Event) -> bool| -> Vec<&str> {
        EVENTS.iter().filter(|event| of(event)).map(|event| event.name).collect()
    };
    let run = |event: &Event| entries.iter().any(|entry| entry.event == event);
    let absent = names(&|event| !run(event));
    if !absent.is_empty() {
        notes.push(format!("Without {}: the score cannot be compared with others.", absent.join(", ")));
    }
    let trained = source.plan.input;
    if (trained.h, trained.w) != (SIZE, SIZE) {
        notes.push(format!("The backbone was trained for images of {}x{} pixels.", trained.w, trained.h));
    }
    for entry in entries {
        caveats(&mut notes, entry.event.name, entry.trial.iter());
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocols::Network;
    use crate::train::Score;
    use bundles::plan::{Arch, Counter, Skips};
    use serde_json::Value;

    #[test]
    fn answers_of_earlier_runs_are_submitted_too_and_none_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let (root, work) = (folder.path().join("root"), folder.path().join("run"));
        let annotations = root.join("annotations");
        std::fs::create_dir_all(&annotations).unwrap();
        for (task, id) in [("gtsrb", 7), ("svhn", 8)] {
            let image = |id: u64, file: &str| json!({ "id": id, "file_name": format!("data/{task}/{file}") });
            let tests = json!({ "images": [image(id, "test/1.png")] });
            let labelled = [json!({ "image_id": 1, "category_id": 100 * id })];
            let val = json!({ "images": [image(1, "val/stop/1.png")], "annotations": labelled });
            for (split, json) in [("test_stripped", tests), ("val", val)] {
                std::fs::write(annotations.join(format!("{task}_{split}.json")), json.to_string()).unwrap();
            }
        }
        let tree = Tree::open(&root, None).unwrap();
        let answers = Answers { files: vec!["test/1.png".into()], classes: vec!["stop".into()] };
        let entry = |task: &str, answers: Option<Answers>| {
            let val = Score { right: 1, n: 1 };
            let network = Network { val, test: None, params: 0, own: 0, macs: 0, paper: 0 };
            Entry { event: Event::named(task).unwrap(), network, trial: None, blocks: 0, answers }
        };
        // The ids of the images in the file, and the notes.
        let submitted = |entries: &[Entry]| -> (Vec<u64>, String) {
            let notes = submit(&work, &tree, entries).unwrap().join(" ");
            let results = std::fs::read(work.join("results.json")).unwrap_or_else(|_| b"[]".to_vec());
            let results: Vec<Value> = serde_json::from_slice(&results).unwrap();
            (results.iter().map(|result| result["image_id"].as_u64().unwrap()).collect(), notes)
        };
        let gtsrb = Answers::path(&work, Event::named("gtsrb").unwrap());
        Answers::kept_or(&gtsrb, "a bundle", || Ok(answers.clone())).unwrap();
        let (ids, notes) = submitted(&[entry("svhn", Some(answers.clone()))]);
        assert_eq!(ids, [7, 8]);
        let missing = "imagenet12, aircraft, cifar100, daimlerpedcls, dtd, vgg-flowers, omniglot, ucf101";
        assert!(notes.contains(&format!("no answers for {missing}; ")), "{notes}");
        // Answers without annotations are no part of it.
        let (ids, notes) = submitted(&[entry("dtd", Some(answers))]);
        assert_eq!(ids, [7]);
        let words = ["No annotations of dtd:", "daimlerpedcls, dtd, vgg-flowers, omniglot, svhn, ucf101; "];
        assert!(words.iter().all(|word| notes.contains(word)), "{notes}");
        // This time, gtsrb has no unlabelled test.
        let (ids, notes) = submitted(&[entry("gtsrb", None)]);
        assert!(ids.is_empty() && notes.is_empty() && !work.join("results.json").exists(), "{notes}");
    }

    #[test]
    fn multiply_adds_are_scaled_to_those_of_the_published_size() {
        let arch = Arch::DecathlonWrn;
        let macs = |size: usize| {
            let backbone = arch.plan(size, size, 100).unwrap();
            let student = backbone.with_proxies(Skips::Nearest(3), arch.proxy_form()).unwrap();
            student.costs(Counter::Paper).unwrap().total().macs
        };
        let (scaled, want) = (at_published_size(macs(SIZE), SIZE), macs(PUBLISHED_SIZE));
        assert!(scaled.abs_diff(want) < want / 10_000, "{scaled}, not {want}");
        assert_eq!(at_published_size(want, PUBLISHED_SIZE), want);
    }
}
