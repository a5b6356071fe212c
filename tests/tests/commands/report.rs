//! The page about work folders: well-formed, consistent with `report.json`, and safe against markup in class
//! names.

use super::{Bench, QUICK, bench, failure, number, pretrain, program, stdout, text};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A class name that careless escaping would turn into a tag.
const CLASS: &str = "<b>&\"'";
const ESCAPED: &str = "&lt;b&gt;&amp;&quot;&#39;";

/// Fits with the options for few images and returns stderr.
fn fit(bench: &Bench, work: &Path, seed: &str) -> String {
    let mut fit = program("tailor");
    fit.args([
        "fit",
        "--backbone",
        text(&bench.backbone),
        "--data",
        text(&bench.images),
        "--work",
        text(work),
    ]);
    fit.args(["--name", CLASS, "--seed", seed, "--balance", "--patience", "1", "--jitter", "0.2"]);
    fit.args(["--augment", "randaugment:1,5", "--erase", "0.25", "--clip", "5", "--judge", "answers"])
        .args(QUICK);
    let output = fit.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    errors
}

/// Fails unless every opening tag is closed, in order.
#[track_caller]
fn assert_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let body = page.strip_prefix("<!DOCTYPE html>").expect("a document type");
    for piece in body.split('<').skip(1) {
        let (tag, after) = piece.split_once('>').unwrap_or_else(|| panic!("`<{piece}` does not end"));
        assert!(!after.contains('>') || open.last() == Some(&"style"), "a stray > after <{tag}>");
        assert!(tag.matches('"').count() % 2 == 0, "<{tag}>");
        assert!(
            !tag.split(' ').any(|word| word.starts_with("on") && word.contains("=\"")),
            "a handler: <{tag}>"
        );
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}>");
        } else if !tag.ends_with('/') {
            open.push(tag.split([' ', '\n']).next().unwrap());
        }
    }
    assert!(open.is_empty(), "{open:?} do not close");
    // Every ampersand must begin an entity.
    for rest in page.split('&').skip(1) {
        let entity = rest.split(';').next().unwrap();
        assert!(["amp", "lt", "gt", "quot", "#39"].contains(&entity), "&{entity}");
    }
}

#[test]
fn work_folders_become_a_page_that_says_what_their_reports_say() {
    let bench = bench();
    for split in ["train", "test"] {
        fs::rename(bench.images.join(split).join("above"), bench.images.join(split).join(CLASS)).unwrap();
    }
    // These cannot be told apart: at least one of each pair is a mistake.
    for i in 0..6 {
        let twin = bench.images.join("test").join("below").join(format!("{i}.png"));
        fs::copy(twin, bench.images.join("test").join(CLASS).join(format!("twin-{i}.png"))).unwrap();
    }
    let at = |name: &str| bench.folder.path().join(name);
    let (one, two, page) = (at("one"), at("two"), at("page.html"));
    let errors = fit(&bench, &one, "1");
    assert_eq!(errors.matches("which would need about").count(), 1, "{errors}");
    fit(&bench, &two, "2");
    let result = r#"{"method":"<i>tuned","data":"images","seed":1,"val":0.75,"val_n":16,"test":0.625,"test_n":18,
        "params":123456,"task_params":1000,"macs":30000000,"swap_bytes":2048,"seconds":75}"#;
    fs::create_dir(one.join("tuned")).unwrap();
    fs::write(one.join("tuned").join("result.json"), result).unwrap();

    stdout("tailor", &["report", text(&one), text(&two), "-o", text(&page)]);
    let html = fs::read_to_string(&page).unwrap();
    assert_well_formed(&html);
    assert!(html.contains(ESCAPED) && !html.contains(CLASS) && !html.contains("<i>"));
    assert!(html.contains("&lt;i&gt;tuned") && html.contains("75.0 % (") && html.contains("123.5 k"));
    assert!(!html.contains("<script") && !html.contains("@import"));
    for (attribute, allowed) in [("src=\"", "data:image/"), ("href=\"", "#run-"), ("url(", "data:")] {
        assert!(html.split(attribute).skip(1).all(|rest| rest.starts_with(allowed)), "{attribute}");
    }
    for work in [&one, &two] {
        let document = fs::read_to_string(work.join("report.json")).unwrap();
        let (_, task) = document.split_once("\"task\":{").unwrap();
        for key in ["teacher_val", "teacher_test", "val", "test"] {
            let shown = format!("<td>{:.1} % (", 100.0 * number(task, key));
            assert!(html.contains(&shown), "{key}: {shown}");
        }
        assert_eq!((number(task, "val_n"), number(task, "test_n")), (16.0, 18.0));
        // The classifier has 64 weights and a bias for each of two classes.
        let (_, backbone) = document.split_once("\"backbone\":{").unwrap();
        let (_, teacher) = document.split_once("\"teacher\":{").unwrap();
        let added = |key: &str| number(teacher, key) - number(backbone, key);
        assert_eq!((added("params"), added("macs")), (130.0, 128.0));
        let macs = format!("{:.2} M", number(task, "macs") / 1e6);
        let bytes = format!("<td>{:.1} KiB</td>", 4.0 * number(task, "task_params") / 1024.0);
        let bundle =
            format!("<dt>Bundle</dt><dd>{:.1} KiB, compressed</dd>", number(task, "bundle_bytes") / 1024.0);
        assert!(html.contains(&macs) && html.contains(&bytes) && html.contains(&bundle), "{macs}, {bytes}");

        // Every answer is there, and the number of wrong ones matches the accuracy.
        let wrong = (18.0 * (1.0 - number(task, "test"))).round() as usize;
        let pictures = fs::read_dir(work.join("mistakes")).unwrap().count();
        assert_eq!(pictures, wrong);
        assert!(wrong >= 6 && html.contains(&format!("{wrong} images of the test split")), "{wrong}");
    }
    let reports = [&one, &two].map(|work| fs::read_to_string(work.join("report.json")).unwrap());
    let has_words = reports.iter().filter(|report| report.contains("\"finished\":true")).count();
    let headed = html.matches("class=\"words\">Without, in turn</th>").count();
    assert_eq!(headed, has_words, "over words that stand left, and not over nothing");
    assert_eq!(html.matches(">Blocks dropped by choice</th>").count(), 2);
    let (_, means) = html.split_once("Mean ± standard deviation").unwrap();
    assert!(means.contains("<td>2</td>"), "two seeds of the same");
    assert_eq!(html.matches("role=\"img\"").count(), 8, "four plots of each");

    // A folder of `compare`: the tailored network is shown once, beside the other methods.
    let both = at("both");
    fs::create_dir_all(both.join("tuned")).unwrap();
    assert!(
        Command::new("cp").args(["-r", text(&one), text(&both.join("tailor"))]).status().unwrap().success()
    );
    fs::write(both.join("tuned").join("result.json"), result).unwrap();
    fs::write(both.join("tailor").join("result.json"), result.replace("<i>tuned", "tailor")).unwrap();
    stdout("tailor", &["report", text(&both), "-o", text(&page)]);
    let html = fs::read_to_string(&page).unwrap();
    assert_well_formed(&html);
    let network = |name: &str| html.matches(&format!("<th scope=\"row\">{name}<br/>")).count();
    assert_eq!((network("&lt;i&gt;tuned"), network("tailored"), network("tailor")), (1, 1, 0));
    assert!(html.contains("Architecture</h3>") && !html.contains("Missing in"));

    // An older folder: what is left is shown, and what is missing is reported.
    for gone in ["report.json", "predictions.json"] {
        fs::remove_file(two.join(gone)).unwrap();
    }
    stdout("tailor", &["report", text(&two), "-o", text(&page)]);
    let html = fs::read_to_string(&page).unwrap();
    assert_well_formed(&html);
    assert!(
        html.contains("Missing in")
            && html.contains("report.json (test accuracy")
            && html.contains("Training</h3>")
    );

    let (code, why) = failure("tailor", &["report", text(&one), text(&bench.images), "-o", text(&page)]);
    assert!(code == 1 && why.contains(&format!("{}: not a work folder", text(&bench.images))), "{why}");
    let nowhere = at("gone").join("page.html");
    let (code, why) = failure("tailor", &["report", text(&one), "-o", text(&nowhere)]);
    assert!(
        code == 2
            && why.contains(text(&nowhere))
            && why.contains(&format!("{} is not one", text(&at("gone")))),
        "{why}"
    );
    // Only a page is replaced, or an empty file.
    let is_bundle = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "task");
    let bundle = fs::read_dir(&one).unwrap().map(|entry| entry.unwrap().path()).find(is_bundle).unwrap();
    let others = ["report.json", "tuned/result.json", "architecture.svg", "metrics.jsonl"];
    for file in others.map(|name| one.join(name)).into_iter().chain([bundle]) {
        let before = fs::read(&file).unwrap();
        let (code, why) = failure("tailor", &["report", text(&one), text(&two), "-o", text(&file)]);
        assert!(code == 2 && why.contains(text(&file)) && why.contains("remove it first"), "{why}");
        assert!(fs::read(&file).unwrap() == before, "{}", file.display());
    }
    fs::write(&page, "").unwrap();
    for _ in 0..2 {
        stdout("tailor", &["report", text(&one), "-o", text(&page)]);
        assert_well_formed(&fs::read_to_string(&page).unwrap());
    }

    fs::write(one.join("report.json"), "{").unwrap();
    let (_, why) = failure("tailor", &["report", text(&one)]);
    assert!(why.contains("report.json: not valid JSON"), "{why}");

    // Other options are refused before an image is read: the broken one would be reported instead.
    fs::write(bench.images.join("train/below/0.png"), b"not a picture").unwrap();
    let mut other = vec!["fit", "--backbone", text(&bench.backbone), "--data", text(&bench.images)];
    other.extend(["--work", text(&one), "--name", CLASS]);
    let (_, why) = failure("tailor", &other);
    assert!(why.contains("other options") && why.contains("teach.safetensors"), "{why}");
}

#[test]
fn a_pretrained_backbone_is_shown_without_what_only_a_task_has() {
    let bench = bench();
    let (work, page) = (bench.folder.path().join("source"), bench.folder.path().join("page.html"));
    let report = stdout("tailor", &pretrain(&bench, &work, &["--epochs", "2"]));
    let val = format!("{:.1} %", 100.0 * number(&report, "val"));
    let show = || {
        stdout("tailor", &["report", text(&work), "-o", text(&page)]);
        let html = fs::read_to_string(&page).unwrap();
        assert_well_formed(&html);
        assert!(html.contains(">pre-trained<br/>") && html.contains(&format!("<td>{val}</td>")), "{html}");
        assert!(html.contains(&format!("<dt>Validation</dt><dd>{val}</dd>")), "{html}");
        assert!(html.contains("<dt>Epochs</dt><dd>2</dd>") && html.contains("Training</h3>"), "{html}");
        assert!(!html.contains("Missing") && !html.contains(">tailored<br/>"), "{html}");
        html
    };
    let test = format!("<dt>Test</dt><dd>{:.1} %</dd>", 100.0 * number(&report, "test"));
    let html = show();
    assert!(html.contains(&test) && html.contains("<dt>Backbone</dt><dd>cifar-resnet8-b</dd>"), "{html}");
    // As with `--out` elsewhere: the metrics alone are there.
    fs::remove_file(work.join("images.backbone")).unwrap();
    assert!(!show().contains(&test));
}
