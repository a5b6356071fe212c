//! The tables at the top: all networks of all folders, and means over seeds.

use super::html::{cell, head, table};
use super::run::{Run, TAILORED};
use crate::draw::escape;
use crate::fit::count;
use crate::progress::duration;
use crate::train::Score;
use serde_json::Value;
use std::collections::BTreeMap;

/// Bytes per task-owned number.
const BYTES: f64 = 4.0;

/// One network of one folder. Unknown values are `None`.
struct Row {
    folder: String,
    method: String,
    data: String,
    seed: Option<u64>,
    /// Shared by runs that differ only in their seed.
    group: Option<String>,
    val: Option<(f64, usize)>,
    test: Option<(f64, usize)>,
    params: Option<f64>,
    task_params: Option<f64>,
    macs: Option<f64>,
    bytes: Option<f64>,
    seconds: Option<f64>,
    /// Parameters and multiply-adds of the backbone's stem and blocks.
    backbone: (Option<f64>, Option<f64>),
}

/// Both tables.
pub(super) fn tables(runs: &[Run]) -> String {
    let rows: Vec<Row> = runs.iter().flat_map(rows).collect();
    let columns = [
        "Network",
        "Seed",
        "Validation",
        "Test",
        "Parameters",
        "of them task-owned",
        "Multiply-adds",
        "Bytes to switch",
        "Training",
    ];
    let body = rows.iter().map(|row| {
        let (params, macs) = row.backbone;
        let cells = [
            row.seed.map_or_else(unknown, |seed| seed.to_string()),
            row.val.map_or_else(unknown, accuracy),
            row.test.map_or_else(unknown, accuracy),
            amount(row.params, params),
            amount(row.task_params, params),
            amount(row.macs, macs),
            row.bytes.map_or_else(unknown, kib),
            row.seconds.map_or_else(unknown, duration),
        ];
        let name = format!("{}<br/><small>{}</small>", escape(&row.method), escape(&row.folder));
        head(&name) + &cells.map(|c| cell(&c)).concat()
    });
    let mut out = table("Every network of every folder", &columns, &[], body);
    out += &means(&rows);
    out
}

fn rows(run: &Run) -> Vec<Row> {
    let report = &run.report;
    let number = |value: &Value| value.as_f64();
    let backbone = (number(&report["backbone"]["params"]), number(&report["backbone"]["macs"]));
    let data = report["data"].as_str().unwrap_or(&run.name).to_string();
    let seed = report["seed"].as_u64();
    let group = |method: &str| {
        let (backbone, size, classes) = (&report["backbone"]["id"], &report["size"], &report["classes"]);
        let recipe = &report["recipe"];
        // Without them, as in what a bundle alone tells, nobody knows whether only the seed differs.
        let is_known = [backbone, size, recipe].iter().all(|value| !value.is_null());
        let images = images(report);
        is_known.then(|| format!("{method}\n{data}\n{backbone}\n{size}\n{classes}\n{recipe}\n{images}"))
    };
    let mut rows = Vec::new();
    let is_shown = !report.is_null() && !run.is_pretrained();
    if run.is_pretrained() {
        // The number of images is not recorded.
        let score = |key: &str| Some((number(&report["pretrained"][key])?, 0));
        rows.push(Row {
            folder: run.folder.clone(),
            method: "pre-trained".into(),
            data: data.clone(),
            seed,
            group: None,
            val: score("val"),
            test: score("test"),
            params: backbone.0,
            task_params: None,
            macs: backbone.1,
            bytes: None,
            seconds: run.seconds(),
            backbone,
        });
    }
    if is_shown {
        let task = &report["task"];
        // Reports of earlier versions have only the backbone's figures, without a classifier.
        let of_teacher = |key: &str| number(&report["teacher"][key]).or(number(&report["backbone"][key]));
        rows.push(Row {
            folder: run.folder.clone(),
            method: "teacher".into(),
            data: data.clone(),
            seed,
            group: group("teacher"),
            val: run.score("teacher_val"),
            test: run.score("teacher_test"),
            params: of_teacher("params"),
            task_params: of_teacher("params"),
            macs: of_teacher("macs"),
            bytes: None,
            seconds: None,
            backbone,
        });
        rows.push(Row {
            folder: run.folder.clone(),
            method: "tailored".into(),
            data: data.clone(),
            seed,
            group: group("tailored"),
            val: run.score("val"),
            test: run.score("test"),
            params: number(&task["params"]),
            task_params: number(&task["task_params"]),
            macs: number(&task["macs"]),
            // Counted as by `compare`: before compression.
            bytes: number(&task["task_params"]).map(|numbers| BYTES * numbers),
            seconds: run.seconds(),
            backbone,
        });
    }
    let others = run.baselines.iter().filter(|result| !(is_shown && result["method"] == TAILORED));
    rows.extend(others.map(|result| {
        let score = |key: &str| {
            Some((result[key].as_f64()?, result[format!("{key}_n")].as_u64().unwrap_or(0) as usize))
        };
        let method = result["method"].as_str().unwrap_or("unnamed method").to_string();
        let data = result["data"].as_str().unwrap_or_default().to_string();
        Row {
            folder: run.folder.clone(),
            seed: result["seed"].as_u64(),
            group: Some(format!(
                "{method}\n{data}\n{}\n{}\n{}",
                result["arch"],
                setting(&result["run"]),
                result["test_images"]
            )),
            val: score("val"),
            test: score("test"),
            params: number(&result["params"]),
            task_params: number(&result["task_params"]),
            macs: number(&result["macs"]),
            bytes: number(&result["swap_bytes"]),
            seconds: number(&result["seconds"]),
            backbone,
            method,
            data,
        }
    }));
    rows
}

/// What a run's images have in common with those of other seeds, as far as it is recorded: their number, not how
/// it is divided into training and validation, which may depend on the seed; and which images the test has.
fn images(report: &Value) -> String {
    let count = |split: &str| report["images"][split].as_u64();
    let chosen_by = count("train").zip(count("val")).map(|(train, val)| train + val);
    format!("{chosen_by:?} {:?} {}", count("test"), report["test_images"])
}

/// What a result of `compare` shares with those of other seeds: everything that shaped it, except the seed
/// and the digests of the images, because the seed decides which of them are held out. The digest of the
/// class names and of a latency table are kept.
fn setting(run: &Value) -> String {
    let (mut after_seed, mut after_name) = (false, false);
    let is_kept = |word: &&str| {
        let bare = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_named = std::mem::replace(&mut after_name, ["classes", "table"].contains(&bare));
        let is_digest = !is_named && bare.len() == 12 && bare.bytes().all(|b| b.is_ascii_hexdigit());
        let is_seed = std::mem::replace(&mut after_seed, bare == "seed");
        !is_digest && !is_seed
    };
    run.as_str().unwrap_or_default().split_whitespace().filter(is_kept).collect::<Vec<_>>().join(" ")
}

/// Means over runs that differ only in their seed, if there are several seeds of any.
fn means(rows: &[Row]) -> String {
    let mut groups: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        let Some(group) = &row.group else { continue };
        let group = groups.entry(group).or_default();
        // Repeating the same seed says nothing about the spread.
        if group.iter().all(|other| other.seed != row.seed) {
            group.push(row);
        }
    }
    groups.retain(|_, rows| rows.len() > 1);
    if groups.is_empty() {
        return String::new();
    }
    let body = groups.into_values().map(|rows| {
        let of = |value: &dyn Fn(&Row) -> Option<f64>, show: &dyn Fn(f64) -> String| {
            let values: Option<Vec<f64>> = rows.iter().map(|row| value(row)).collect();
            values.map_or_else(unknown, |values| spread(&values, show))
        };
        let percent = |x: f64| format!("{:.2}", 100.0 * x);
        let whole = |x: f64| count(x.round() as u64);
        let cells = [
            rows.len().to_string(),
            of(&|row| row.val.map(|v| v.0), &percent),
            of(&|row| row.test.map(|v| v.0), &percent),
            of(&|row| row.params, &whole),
            of(&|row| row.task_params, &whole),
            of(&|row| row.macs, &whole),
        ];
        let name = format!("{}<br/><small>{}</small>", escape(&rows[0].method), escape(&rows[0].data));
        head(&name) + &cells.map(|c| cell(&c)).concat()
    });
    let columns =
        ["Network", "Seeds", "Validation, %", "Test, %", "Parameters", "of them task-owned", "Multiply-adds"];
    table("Mean ± standard deviation over folders that differ only in their seed", &columns, &[], body)
}

/// `mean ± standard deviation` (of the sample).
fn spread(values: &[f64], show: &dyn Fn(f64) -> String) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    format!("{} ± {}", show(mean), show(variance.sqrt()))
}

fn unknown() -> String {
    "–".into()
}

/// An accuracy over `n` images with its interval; without one if `n` is 0, for unknown.
fn accuracy((accuracy, n): (f64, usize)) -> String {
    match n {
        0 => format!("{:.1} %", 100.0 * accuracy),
        n => Score { right: (accuracy * n as f64).round() as usize, n }.percent(1),
    }
}

fn amount(value: Option<f64>, whole: Option<f64>) -> String {
    let Some(value) = value else { return unknown() };
    let share = whole.filter(|whole| *whole > 0.0).map(|whole| format!(" ({:.0} %)", 100.0 * value / whole));
    count(value as u64) + &share.unwrap_or_default()
}

pub(super) fn kib(bytes: f64) -> String {
    format!("{:.1} KiB", bytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::Recipe;

    /// A folder of `compare` with one result.
    fn compared(arch: &str, test: f64, recipe: Recipe) -> Run {
        compared_on("00112233aabb", arch, test, recipe)
    }

    fn compared_on(classes: &str, arch: &str, test: f64, recipe: Recipe) -> Run {
        let (seed, how) = (recipe.seed, recipe.teacher_fingerprint());
        let images = format!("850 images {seed:012x} {:012x}", seed + 7);
        let run =
            format!("dan on backbone 0123456789abcdef data signs 32x32 3 classes {classes} {images} | {how}");
        let result = serde_json::json!({
            "method": "dan", "data": "signs", "arch": arch, "seed": seed, "val": test, "test": test, "run": run,
        });
        Run { baselines: vec![result], ..Run::default() }
    }

    #[test]
    fn means_are_of_results_that_differ_in_their_seed_alone() {
        let seeded = |seed| Recipe { seed, ..Recipe::small() };
        let means = |runs: &[Run]| means(&runs.iter().flat_map(rows).collect::<Vec<_>>());
        let (first, second) = (compared("resnet20", 0.5, seeded(1)), compared("resnet20", 0.75, seeded(12)));
        let both = means(&[first.clone(), second]);
        assert!(both.contains("<td>2</td>") && both.contains("62.50 ± 17.68"), "{both}");
        for other in [
            compared("resnet56", 0.75, seeded(2)),
            compared("resnet20", 0.75, Recipe { balance: true, ..seeded(2) }),
            compared("resnet20", 0.75, seeded(1)),
            compared_on("0011223344cc", "resnet20", 0.75, seeded(2)),
        ] {
            assert_eq!(means(&[first.clone(), other.clone()]), "", "{other:?}");
        }
    }

    #[test]
    fn what_only_bundles_tell_is_not_averaged() {
        let run = |seed: u64, more: Value| {
            let mut report = serde_json::json!({
                "data": "signs", "seed": seed, "classes": ["a", "b"], "backbone": { "arch": "resnet20" },
                "task": { "val": 0.5 },
            });
            if let Some(more) = more.as_object() {
                report.as_object_mut().unwrap().extend(more.clone());
            }
            Run { report, ..Run::default() }
        };
        let of = |more: &Value| {
            let runs = [run(1, more.clone()), run(2, more.clone())];
            means(&runs.iter().flat_map(rows).collect::<Vec<_>>())
        };
        assert_eq!(of(&Value::Null), "");
        let known = serde_json::json!({
            "size": [32, 32], "backbone": { "id": "00ff" }, "recipe": { "skips": "3" },
        });
        assert!(of(&known).contains("50.00 ± 0.00"), "{}", of(&known));
    }

    #[test]
    fn runs_on_other_images_are_not_averaged() {
        let report = |seed: u64, images: Value, test: Value| {
            let report = serde_json::json!({
                "data": "signs", "seed": seed, "size": [32, 32], "backbone": { "id": "00ff" }, "task": { "val": 0.5 },
                "recipe": { "skips": "3" }, "images": images, "test_images": test,
            });
            Run { report, ..Run::default() }
        };
        let counts = |train: u64, val: u64| serde_json::json!({ "train": train, "val": val, "test": 9 });
        let first = report(1, counts(80, 20), "0011".into());
        let is_averaged = |second: Run| {
            let runs = [first.clone(), second];
            !means(&runs.iter().flat_map(rows).collect::<Vec<_>>()).is_empty()
        };
        assert!(is_averaged(report(2, counts(80, 20), "0011".into())));
        // Copies of an image stay together, so that the number held out depends on the seed.
        assert!(is_averaged(report(2, counts(79, 21), "0011".into())));
        assert!(!is_averaged(report(2, counts(90, 20), "0011".into())));
        assert!(!is_averaged(report(2, counts(80, 20), "0022".into())));
        // A report of an earlier version, which may be of any images.
        assert!(!is_averaged(report(2, Value::Null, Value::Null)));

        let compared = |seed, test: &str| {
            let mut run = compared("resnet20", 0.5, Recipe { seed, ..Recipe::small() });
            run.baselines[0]["test_images"] = test.into();
            run
        };
        let means = |runs: &[Run]| means(&runs.iter().flat_map(rows).collect::<Vec<_>>());
        assert_ne!(means(&[compared(1, "0011"), compared(2, "0011")]), "");
        assert_eq!(means(&[compared(1, "0011"), compared(2, "0022")]), "");
    }

    #[test]
    fn the_teacher_has_a_classifier_and_shares_are_of_the_backbone_without_one() {
        let shown = |teacher: Value| {
            let report = serde_json::json!({
                "backbone": { "params": 1000, "macs": 2000 }, "teacher": teacher, "task": {},
            });
            tables(&[Run { report, ..Run::default() }])
        };
        let recorded = shown(serde_json::json!({ "params": 1130, "macs": 2128 }));
        assert_eq!(recorded.matches("<td>1.1 k (113 %)</td>").count(), 2, "{recorded}");
        assert_eq!(recorded.matches("<td>2.1 k (106 %)</td>").count(), 1, "{recorded}");
        let earlier = shown(Value::Null);
        assert_eq!(earlier.matches("<td>1.0 k (100 %)</td>").count(), 2, "{earlier}");
        assert_eq!(earlier.matches("<td>2.0 k (100 %)</td>").count(), 1, "{earlier}");
    }

    #[test]
    fn a_spread_is_a_samples() {
        let show = |x: f64| format!("{x:.3}");
        assert_eq!(spread(&[1.0, 2.0, 4.0], &show), "2.333 ± 1.528");
        assert_eq!(spread(&[5.0, 5.0], &show), "5.000 ± 0.000");
    }
}
