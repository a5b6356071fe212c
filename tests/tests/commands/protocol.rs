//! The paper's experiments as a user runs them: training, tables, stored results and refusals.

mod decathlon;

use super::{Bench, bench, failure, picture, run, stdout, text};
use bundles::plan::Arch;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Options for brief training.
const BRIEF: [&str; 8] = ["--epochs", "2,2,1", "--size", "16", "--validation", "0.34", "--batch", "8,16,16"];

fn protocol<'a>(name: &'a str, bench: &'a Bench, work: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["protocol", name, "--backbone", text(&bench.backbone), "--work", text(work)];
    args.extend(["--data", text(&bench.images)]);
    args.extend(BRIEF);
    args.extend(more);
    args
}

fn findings(args: &[&str]) -> Value {
    let found: Value = serde_json::from_str(&stdout("tailor", &[args, &["--json"]].concat())).unwrap();
    // A way of counting that readers need not know is explained wherever it is used.
    let [used, explained] = ["tables", "notes"].map(|key| found[key].to_string().contains("paper's GFLOPs"));
    assert_eq!(used, explained, "{found}");
    found
}

/// A cell of a table, by row and column name.
fn cell<'a>(found: &'a Value, table: usize, row: &str, column: &str) -> &'a str {
    let table = &found["tables"][table];
    let columns = table["columns"].as_array().unwrap();
    let at = columns.iter().position(|c| c == column).unwrap_or_else(|| panic!("no {column} in {table}"));
    let rows = table["rows"].as_array().unwrap();
    let row = rows.iter().find(|r| r[0] == row).unwrap_or_else(|| panic!("no {row} in {table}"));
    row[at].as_str().unwrap()
}

fn pretrained(bench: &Bench, arch: &str, images: &Path) -> PathBuf {
    let work = bench.folder.path().join(format!("{arch}-source"));
    let out = bench.folder.path().join(format!("{arch}.backbone"));
    let mut args = vec!["pretrain", "--data", text(images), "--work", text(&work), "--arch", arch];
    args.extend(["--size", "16", "--epochs", "6", "--batch", "8", "--out", text(&out)]);
    // A share of train/ is held out only if there is no val/; giving both is refused.
    if !images.join("val").is_dir() {
        args.extend(["--validation", "0.25"]);
    }
    stdout("tailor", &args);
    out
}

/// The pairs (stage, value of `column` in metrics.csv) of every epoch.
fn metrics(work: &Path, column: &str) -> Vec<(String, String)> {
    let csv = fs::read_to_string(work.join("metrics.csv")).unwrap();
    let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let at = |name: &str| header.iter().position(|h| *h == name).unwrap_or_else(|| panic!("{header:?}"));
    let (stage, column) = (at("stage"), at(column));
    lines.map(|line| (line[stage].to_string(), line[column].to_string())).collect()
}

#[test]
fn skips_differ_in_their_reach_alone_and_share_a_teacher() {
    let bench = bench();
    let work = bench.folder.path().join("skips");
    let options = ["--search", "bisect", "--reach", "dense,1"];
    let args = protocol("skips", &bench, &work, &options);
    let found = findings(&args);
    let trials = found["results"].as_array().unwrap();
    assert_eq!(trials.iter().map(|t| t["skips"].as_str().unwrap()).collect::<Vec<_>>(), ["1", "dense"]);

    let plan = "cifar-resnet20-b".parse::<Arch>().unwrap().plan(16, 16, 2).unwrap();
    let whole = plan.task_params() + plan.backbone_params();
    let folder = |reach: &str| work.join("images").join(reach);
    let teacher = |at: &str| fs::read(folder(at).join("teach.safetensors")).unwrap();
    // Nine blocks: a proxy each at k = 1, and 1 + 2 + … + 9 of them when all nodes are linked.
    for (trial, (reach, proxies)) in trials.iter().zip([("skips-1", 9), ("skips-dense", 45)]) {
        let drawing = fs::read_to_string(folder(reach).join("architecture.svg")).unwrap();
        let arcs = |class: &str| drawing.matches(&format!("class=\"{class}\"")).count();
        assert_eq!(arcs("proxy") + arcs("gone"), proxies, "{reach}");
        assert_eq!(arcs("proxy") as u64, trial["proxies"].as_u64().unwrap(), "{reach}");
        assert!(teacher(reach) == teacher("teacher"), "{reach} has a teacher of its own");
        assert_eq!(
            (trial["teacher"]["params"].as_u64(), trial["blocks_total"].as_u64()),
            (Some(whole), Some(9))
        );
    }
    let millions = |n: &Value| n.as_f64().unwrap() / 1e6;
    let shown: f64 = cell(&found, 0, "images, fine-tune", "params M").parse().unwrap();
    assert!((shown - whole as f64 / 1e6).abs() < 0.001, "{shown}");
    let row = trials[1]["within_tolerance"] == true;
    let name = if row { "images, dense" } else { "images, dense *" };
    let shown: f64 = cell(&found, 0, name, "params M").parse().unwrap();
    assert!((shown / millions(&trials[1]["tailored"]["params"]) - 1.0).abs() < 0.01, "{shown}");
    assert_eq!(cell(&found, 0, name, "blocks"), trials[1]["blocks"].to_string());
    // The paper counts norms twice.
    let macs = |key: &str| trials[1]["teacher"][key].as_u64().unwrap();
    assert!(macs("macs_paper") > macs("macs"));
    let sheet = fs::read_to_string(work.join("architectures.svg")).unwrap();
    assert!(sheet.contains("images, 1 skip") && sheet.contains("images, dense"), "{sheet}");
    assert_eq!(sheet.matches("<svg").count(), 3);

    // The second time, everything is read back.
    let kept = |at: &str| fs::metadata(folder(at).join("train.safetensors")).unwrap().modified().unwrap();
    let before = [kept("skips-1"), kept("skips-dense")];
    assert_eq!(findings(&args)["results"], found["results"]);
    assert_eq!([kept("skips-1"), kept("skips-dense")], before);
    let (_, why) = failure("tailor", &[&args[..], &["--gamma1", "0.1"]].concat());
    assert!(why.contains("skips-1/report.json") && why.contains("other options"), "{why}");

    let page = bench.folder.path().join("page.html");
    stdout("tailor", &["report", text(&work), "-o", text(&page)]);
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("images, fine-tune</th>") && html.contains("data:image/svg+xml"), "{html}");
    let headed = |at: &str| html.matches(&format!("<small>{}</small></h2>", text(&folder(at)))).count();
    assert_eq!(["skips-1", "skips-dense", "teacher"].map(headed), [1, 1, 0], "the teacher was borrowed");
    assert!(html.contains("Every network of every folder") && !html.contains("Missing in"), "{html}");

    let (code, why) = failure("tailor", &[&args[..], &["--jobs", "2"]].concat());
    assert!(code == 2 && why.contains("--jobs 2: has no effect unless --search sweep"), "{why}");
    // Once the test images are gone, no accuracy on them is reported, and nothing is trained for that.
    let document = |reach: &str, name: &str| -> Value {
        serde_json::from_slice(&fs::read(folder(reach).join(name)).unwrap()).unwrap()
    };
    let trained = || ["skips-1", "skips-dense"].map(|reach| metrics(&folder(reach), "matching"));
    let before = trained();
    assert_ne!(cell(&found, 0, "images, fine-tune", "test %"), "-");
    let (test, aside) = (bench.images.join("test"), bench.folder.path().join("aside"));
    fs::rename(&test, &aside).unwrap();
    let untested = findings(&args);
    assert_eq!(cell(&untested, 0, "images, fine-tune", "test %"), "-");
    assert_eq!(trained(), before);
    for reach in ["skips-1", "skips-dense"] {
        let report = document(reach, "report.json");
        let figures = ["teacher_test", "test", "test_n"].map(|key| &report["task"][key]);
        assert!(figures.into_iter().chain([&report["test_images"]]).all(Value::is_null), "{report}");
        assert_eq!(report["images"]["test"], 0);
        assert_eq!(document(reach, "predictions.json")["split"], "val");
    }
    for (trial, before) in untested["results"].as_array().unwrap().iter().zip(trials) {
        for network in ["teacher", "tailored"] {
            assert!(trial[network]["test"].is_null() && !before[network]["test"].is_null(), "{trial}");
            assert_eq!(trial[network]["val"], before[network]["val"]);
        }
    }
    // When they are back, it is the same as before.
    fs::rename(&aside, &test).unwrap();
    let tested = findings(&args);
    for (trial, before) in tested["results"].as_array().unwrap().iter().zip(trials) {
        for network in ["teacher", "tailored"] {
            assert_eq!(trial[network]["test"], before[network]["test"]);
        }
    }
}

#[test]
fn without_a_teacher_nothing_is_matched_and_both_sweeps_are_shown() {
    let bench = bench();
    let small = Bench { backbone: pretrained(&bench, "cifar-resnet8-b", &bench.images), ..bench };
    let work = small.folder.path().join("teacher");
    let args = protocol("teacher", &small, &work, &["--theta", "0.01"]);
    let found = findings(&args);
    for (folder, is_matched) in [("with", true), ("without", false)] {
        for term in ["matching", "distillation"] {
            let all = metrics(&work.join(folder), term);
            let trained: Vec<_> = all.iter().filter(|(stage, _)| stage != "teach").collect();
            assert!(trained.iter().any(|(stage, _)| stage == "train") && trained.len() > 4, "{trained:?}");
            for (stage, value) in trained {
                let value: Option<f64> = value.parse().ok();
                assert_eq!(value.is_some_and(|v| v > 0.0), is_matched, "{folder}, {stage}: {term} {value:?}");
            }
        }
        // Three blocks: at most four networks, with as many rows and points.
        let candidates = found["results"][folder]["candidates"].as_array().unwrap();
        assert!((2..=4).contains(&candidates.len()), "{candidates:?}");
        // If the sweep ended early, the reason is given.
        let notes = found["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap());
        let why =
            format!("{}: not without {} blocks: no path", work.join(folder).display(), candidates.len());
        assert_eq!(notes.filter(|note| note.starts_with(&why)).count(), usize::from(candidates.len() < 4));
    }
    let (with, without) = (&found["results"]["with"], &found["results"]["without"]);
    assert_eq!(with["teacher"], without["teacher"]);
    assert_ne!(with["candidates"], without["candidates"]);
    for dropped in 0..2 {
        let val =
            |trial: &Value| format!("{:.1}", 100.0 * trial["candidates"][dropped]["val"].as_f64().unwrap());
        let row = dropped.to_string();
        assert_eq!(cell(&found, 1, &row, "with, validation %"), val(with));
        assert_eq!(cell(&found, 1, &row, "without, validation %"), val(without));
    }
    let svg = fs::read_to_string(work.join("teacher.svg")).unwrap();
    let points = |folder: &str| found["results"][folder]["candidates"].as_array().unwrap().len();
    // Dots in the plot, and one in the legend.
    assert_eq!(svg.matches("<circle class=\"f0\"").count(), points("with") + 1);
    assert_eq!(svg.matches("<path class=\"f1\"").count(), points("without") + 1);

    for (more, named) in [(["--gamma2", "0"], "--gamma2 0"), (["--search", "bisect"], "--search")] {
        let nowhere = small.folder.path().join("nowhere");
        let (code, why) = failure("tailor", &protocol("teacher", &small, &nowhere, &more));
        assert!(code == 2 && why.contains(named) && !nowhere.exists(), "{why}");
    }
}

#[test]
fn every_backbone_has_a_curve_of_its_own() {
    let bench = bench();
    let shallow = pretrained(&bench, "cifar-resnet8-b", &bench.images);
    let deep = pretrained(&bench, "cifar-resnet14-a", &bench.images);
    let work = bench.folder.path().join("depth");
    let both = Bench { backbone: shallow.clone(), ..bench };
    let args = protocol("depth", &both, &work, &["--backbone", text(&deep), "--theta", "0.01"]);
    let found = findings(&args);
    let of = |i: usize| &found["results"][i];
    assert_eq!([&of(0)["arch"], &of(1)["arch"]], ["cifar-resnet8-b", "cifar-resnet14-a"]);
    assert_eq!([of(0)["blocks_total"].as_u64(), of(1)["blocks_total"].as_u64()], [Some(3), Some(6)]);
    let macs = |i: usize| of(i)["teacher"]["macs"].as_u64().unwrap();
    assert!(macs(0) < macs(1));
    let candidates = |i: usize| of(i)["candidates"].as_array().unwrap();
    let rows = found["tables"][1]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), candidates(0).len() + candidates(1).len());
    // Ever smaller, relative to its own backbone.
    for i in 0..2 {
        let macs: Vec<u64> = candidates(i).iter().map(|c| c["macs"].as_u64().unwrap()).collect();
        assert!(macs.is_sorted_by(|a, b| a > b) && macs.len() > 1, "{macs:?}");
    }
    let svg = fs::read_to_string(work.join("depth.svg")).unwrap();
    // A point for each network and one in the legend.
    assert_eq!(svg.matches("<circle class=\"f0\"").count(), candidates(0).len() + 1);
    assert_eq!(svg.matches("<path class=\"f1\"").count(), candidates(1).len() + 1);
    for (colour, name) in [("s0", "cifar-resnet8-b"), ("s1", "cifar-resnet14-a")] {
        assert!(svg.contains(&format!("<path class=\"{colour}\" d=\"M")) && svg.contains(name), "{svg}");
    }
    let (code, why) = failure("tailor", &[&args[..], &["--backbone", text(&shallow)]].concat());
    assert!(code == 2 && why.contains("a name of its own"), "{why}");
}

#[test]
fn several_data_sets_count_the_backbone_once() {
    let bench = bench();
    let (work, again) = (bench.folder.path().join("datasets"), bench.folder.path().join("again"));
    for split in ["train", "test"] {
        for class in ["above", "below", "neither"] {
            let place = again.join(split).join(class);
            fs::create_dir_all(&place).unwrap();
            for i in 0..9 {
                picture(class, i, if class == "neither" { 90 } else { 0 })
                    .save(place.join(format!("{i}.png")))
                    .unwrap();
            }
        }
    }
    // Nearly half of the twins are held out of one class and kept in the other.
    for (images, count) in [(&bench.images, 24), (&again, 9)] {
        for i in 0..count {
            let twin = images.join(format!("train/below/twin-{i}.png"));
            fs::copy(images.join(format!("train/above/{i}.png")), twin).unwrap();
        }
    }
    let more = [text(&again), "--methods", "fine-tune,features,tailor", "--search", "bisect"];
    // `--data` takes several values: the other one directly follows the first.
    let mut args = protocol("datasets", &bench, &work, &[]);
    let at = args.iter().position(|arg| *arg == "--data").unwrap();
    args.splice(at + 2..at + 2, more);
    let found = findings(&args);
    let methods = found["results"]["methods"].as_array().unwrap();
    let plan = "cifar-resnet20-b".parse::<Arch>().unwrap().plan(16, 16, 2).unwrap();
    let (kernels, norms) = (plan.backbone_params(), plan.task_params() - 2 * 65);
    for method in methods {
        let tasks = method["tasks"].as_array().unwrap();
        let sum = |key: &str| tasks.iter().map(|task| task[key].as_u64().unwrap()).sum::<u64>();
        let mean = tasks.iter().map(|task| task["test"].as_f64().unwrap()).sum::<f64>() / 2.0;
        assert_eq!(tasks.len(), 2);
        assert!((method["average"].as_f64().unwrap() - mean).abs() < 1e-9, "{method}");
        let name = method["method"].as_str().unwrap();
        let want = match name {
            "fine-tune" => 2 * (kernels + norms) + 5 * 65,
            "features" => kernels + norms + 5 * 65,
            _ => kernels + sum("task_params"),
        };
        assert_eq!(method["params_together"].as_u64(), Some(want), "{name}");
        assert_eq!(cell(&found, 0, name, "average %"), format!("{:.2}", 100.0 * mean));
        let shown: f64 = cell(&found, 0, name, "params M, all tasks").parse().unwrap();
        assert!((shown * 1e6 / want as f64 - 1.0).abs() < 0.01, "{name}: {shown}");
        let test = tasks[1]["test"].as_f64().unwrap();
        assert_eq!(cell(&found, 0, name, "again %"), format!("{:.1}", 100.0 * test));
    }
    assert_eq!(methods.len(), 3);
    let result = fs::read_to_string(work.join("protocol.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&result).unwrap()["results"], found["results"]);

    // Read back, and each set's own twins are named.
    let output = run("tailor", &args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    for images in [&bench.images, &again] {
        let of = format!("tailor: {}: ", text(images));
        let is_named = |line: &&str| line.starts_with(&of) && line.contains("of the held-out part of train");
        assert_eq!(said.lines().filter(is_named).count(), 1, "{of}{said}");
    }

    let page = bench.folder.path().join("page.html");
    stdout("tailor", &["report", text(&work), "-o", text(&page)]);
    let html = fs::read_to_string(&page).unwrap();
    for at in [work.clone(), work.join("images"), work.join("again")] {
        let heading = format!("<small>{}</small></h2>", text(&at));
        assert_eq!(html.matches(&heading).count(), 1, "{heading}");
    }
}
