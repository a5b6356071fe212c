//! `tailor compare` as a user runs it: every method, stored results, several tasks, and refusals.

use super::*;

/// Options for brief training.
const BRIEF: [&str; 8] = ["--epochs", "9,4,2", "--batch", "8,16,16", "--size", "16", "--validation", "0.34"];

fn compare<'a>(bench: &'a Bench, data: &[&'a Path], work: &'a Path, extra: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["compare", "--backbone", text(&bench.backbone), "--work", text(work), "--data"];
    args.extend(data.iter().map(|path| text(path)));
    args.extend(BRIEF);
    args.extend(extra);
    args
}

/// The part of a JSON report that belongs to one method.
fn of<'a>(report: &'a str, method: &str) -> &'a str {
    let key = format!("\"method\":\"{method}\"");
    let results = report.split("{\"arch\":").skip(1);
    results
        .into_iter()
        .find(|result| result.contains(&key))
        .unwrap_or_else(|| panic!("no {method} in {report}"))
}

#[test]
fn every_method_is_trained_once_and_counted() {
    let bench = bench();
    let work = bench.folder.path().join("compared");
    let args = compare(
        &bench,
        &[&bench.images],
        &work,
        &["--search", "bisect", "--rate", "lwf=one-cycle:0.01", "--json"],
    );
    let report = stdout("tailor", &args);
    assert_eq!(report.lines().count(), 1);
    let figure = |method: &str, key: &str| number(of(&report, method), key);
    let others =
        ["features", "packnet-50", "packnet-75", "piggyback", "dan", "adapters-series", "adapters-parallel"];
    for method in others.iter().chain(&["fine-tune", "lwf", "tailor"]) {
        let result = std::fs::read_to_string(work.join(method).join("result.json")).unwrap();
        for key in ["test", "val", "params", "macs", "swap_bytes", "seconds"] {
            assert_eq!(number(&result, key), figure(method, key), "{method}: {key}");
        }
        // Bright above or below: any method that trains at all gets this right. (A student would need more
        // steps.)
        assert!(figure(method, "test") > 0.7 || *method == "tailor", "{method}: {report}");
        assert_eq!((figure(method, "test_n"), figure(method, "val_n")), (12.0, 16.0));
        assert!(figure(method, "task_params") <= figure(method, "params"), "{method}");
    }
    let everything = figure("fine-tune", "params");
    assert_eq!(figure("fine-tune", "swap_bytes"), 4.0 * everything);
    assert_eq!(figure("lwf", "task_params"), everything);
    for method in others {
        assert!(figure(method, "swap_bytes") < 0.3 * figure("fine-tune", "swap_bytes"), "{method}");
        assert!(figure(method, "params") >= everything, "{method}");
    }
    assert_eq!(figure("features", "task_params"), 2.0 * 65.0);
    assert!(figure("adapters-series", "macs") > figure("dan", "macs"));
    assert_eq!(figure("piggyback", "macs"), figure("fine-tune", "macs"));
    // The baselines see images of the same size: fine-tuning costs as much, except for its classifier.
    let (backbone, _) = report.split_once("\"results\"").unwrap();
    assert_eq!(number(backbone, "macs") + 2.0 * 64.0, figure("fine-tune", "macs"));
    let fitted = std::fs::read_to_string(work.join("tailor/report.json")).unwrap();
    let (_, of_fit) = fitted.split_once("\"backbone\":").unwrap();
    assert_eq!(number(of_fit, "macs"), number(backbone, "macs"));
    // The teacher is the fine-tuned network, and is trained once.
    let teacher = |method: &str| std::fs::read(work.join(method).join("teach.safetensors")).unwrap();
    assert!(teacher("fine-tune") == teacher("tailor"));
    // Its metrics, with the images a second of each epoch, are copied, too.
    let metrics = |method: &str| std::fs::read_to_string(work.join(method).join("metrics.csv")).unwrap();
    assert!(metrics("tailor").starts_with(&metrics("fine-tune")), "{}", metrics("tailor"));

    // The second time, everything is read back, nothing trained, and the table has a line for each.
    let kept = std::fs::metadata(work.join("dan/dan.safetensors")).unwrap().modified().unwrap();
    assert_eq!(stdout("tailor", &args), report);
    let output = program("tailor").args(&args[..args.len() - 1]).output().unwrap();
    let (table, told) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(
        output.status.success()
            && told.contains("tailor: the 16 validation images of images tell the gap to the teacher"),
        "{told}"
    );
    assert!(table.lines().any(|line| line.starts_with("images") && line.ends_with("bytes per switch")));
    assert!(table.lines().any(|line| line.starts_with("adapters-parallel")), "{table}");
    // Below it, what differs from each paper, as in the help.
    let help = stdout("tailor", &["compare", "--help"]);
    for text in ["packnet-50, packnet-75: Mallya", "piggyback: Mallya", "dan: Rosenfeld", "tailor: Morgado"] {
        assert!(table.contains(text) && help.contains(text), "{text}");
    }
    assert_eq!(std::fs::metadata(work.join("dan/dan.safetensors")).unwrap().modified().unwrap(), kept);
    let (_, why) = failure("tailor", &[&args[..], &["--seed", "2"]].concat());
    assert!(
        why.contains("fine-tune") && why.contains("result.json") && why.contains("other options"),
        "{why}"
    );

    // The teacher of other options is not borrowed: tailoring trains its own.
    std::fs::remove_dir_all(work.join("tailor")).unwrap();
    let other = compare(
        &bench,
        &[&bench.images],
        &work,
        &["--methods", "tailor", "--search", "bisect", "--seed", "2", "--json"],
    );
    stdout("tailor", &other);
    assert!(teacher("fine-tune") != teacher("tailor"));
}

#[test]
fn tasks_in_sequence_share_one_network_and_are_averaged() {
    let bench = bench();
    let at = |name: &str| bench.folder.path().join(name);
    // The same pictures under another name: a second task.
    let copied = Command::new("cp").args(["-r", text(&bench.images), text(&at("again"))]).status().unwrap();
    assert!(copied.success());
    let (work, second) = (at("compared"), at("again"));
    let methods = ["--methods", "packnet-50,features", "--without-test"];
    let args = compare(&bench, &[&bench.images, &second], &work, &methods);
    let table = stdout("tailor", &args);
    assert!(table.contains("average of 2 tasks"), "{table}");
    // Features come first, as in every table, and no test image was used.
    let order: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(order[..3], ["images", "features", "packnet-50"]);
    // Notes come once, below the last table, on these methods only.
    let (_, last) = table.split_once("average of 2 tasks").unwrap();
    for (note, times) in [("Bytes per switch are", 1), ("packnet-50: Mallya", 1), ("piggyback: Mallya", 0)] {
        assert_eq!([table.as_str(), last].map(|text| text.matches(note).count()), [times; 2], "{note}");
    }
    let result =
        |data: &str| std::fs::read_to_string(work.join(data).join("packnet-50/result.json")).unwrap();
    assert!(result("images").contains("\"test\":null"));
    // The first task keeps a quarter of the free weights and, as the first one, the norms; the last one keeps all
    // that are left.
    let own = |data: &str| number(&result(data), "task_params");
    assert!(own("again") > 2.0 * own("images"), "{table}");

    let report = stdout("tailor", &[&args[..args.len() - 1], &["--json"]].concat());
    assert!(!report.contains("\"test\":null"), "a test that had been left out: {report}");

    // Other test images are evaluated again, with the networks already trained.
    let trained = |method: &str| {
        let log = std::fs::read_to_string(work.join("images").join(method).join("metrics.csv")).unwrap();
        log.lines().count()
    };
    let before = trained("features");
    std::fs::remove_file(bench.images.join("test/above/0.png")).unwrap();
    let again = stdout("tailor", &[&args[..args.len() - 1], &["--json"]].concat());
    let tested: Vec<f64> = again.split("\"test_n\":").skip(1).map(|n| n[..2].parse().unwrap()).collect();
    assert_eq!(tested, [11.0, 11.0, 12.0, 12.0], "{again}");
    assert_eq!(trained("features"), before);

    // The same folder is not for a single data set.
    let (code, why) = failure("tailor", &compare(&bench, &[&second], &work, &["--methods", "features"]));
    assert!(code == 1 && why.contains("holds networks for several data sets"), "{code} {why}");

    // With a third task, the second one has to leave room, and is trained again.
    let (third, kept) = (at("third"), (own("images"), own("again")));
    let copied = Command::new("cp").args(["-r", text(&bench.images), text(&third)]).status().unwrap();
    assert!(copied.success());
    let methods = ["--methods", "packnet-50", "--json"];
    stdout("tailor", &compare(&bench, &[&bench.images, &second, &third], &work, &methods));
    assert_eq!(own("images"), kept.0);
    assert!(own("again") < own("images") && own("third") < kept.1, "{kept:?}");
}

#[test]
fn a_failing_method_does_not_hide_the_finished_ones() {
    let bench = bench();
    let at = |name: &str| bench.folder.path().join(name);
    let work = at("all/again");
    let args = compare(&bench, &[&bench.images], &work, &["--methods", "features,dan"]);
    std::fs::create_dir_all(work.join("dan")).unwrap();
    std::fs::write(work.join("dan/dan.safetensors"), "not a checkpoint").unwrap();
    let output = run("tailor", &args);
    let [table, why] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(output.status.code(), Some(1), "{why}");
    assert!(why.contains("dan.safetensors"), "{why}");
    let rows: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(rows[..2], ["images", "features"]);
    assert!(table.contains("features: Donahue") && !table.contains("dan: "), "{table}");

    // Its result is of other options than those of a second data set, which the first does not wait for.
    let again = at("again");
    let copied = Command::new("cp").args(["-r", text(&bench.images), text(&again)]).status().unwrap();
    assert!(copied.success());
    let all = at("all");
    let methods = ["--methods", "fine-tune,features", "--seed", "2"];
    let (_, why) = failure("tailor", &compare(&bench, &[&bench.images, &again], &all, &methods));
    assert!(why.contains("again/features/result.json") && why.contains("seed 1 there, 2 now"), "{why}");
    assert!(!all.join("images").exists());
}

#[test]
fn impossible_comparisons_are_refused_before_any_work() {
    let bench = bench();
    let work = bench.folder.path().join("compared");
    let refused = |data: &[&Path], extra: &[&str]| failure("tailor", &compare(&bench, data, &work, extra));
    let cases: [(&[&str], &str); 8] = [
        (&["--methods", "dan", "--looks", "2"], "--looks: has no effect: tailor is not in --methods"),
        // Nine epochs are six and three.
        (&["--rate", "packnet-50=step:0.1,5,0.1"], "in 3 epochs it never drops"),
        (&["--methods", "pigyback"], "one of fine-tune, features, packnet-50"),
        (&["--methods", "dan", "--rate", "piggyback=one-cycle:0.1"], "piggyback is not in --methods"),
        (&["--rate", "fine-tune=one-cycle:0.1"], "--teach-rate"),
        (&["--rate", "dan:one-cycle"], "METHOD=SCHEDULE"),
        (&["--rate", "dan=step:0.1,9,0.1"], "--rate dan= step:0.1,9,0.1"),
        (&["--crop", "17"], "--crop 17"),
    ];
    for (options, named) in cases {
        let (code, why) = refused(&[&bench.images], options);
        assert!(code == 2 && why.contains(named), "{options:?}: {code}, {why}");
    }
    let (code, why) = refused(&[&bench.images, &bench.images], &[]);
    assert!(code == 2 && why.contains("a name of its own"), "{why}");
    let long = bench.folder.path().join("i".repeat(65));
    std::fs::rename(&bench.images, &long).unwrap();
    let (code, why) = refused(&[&long], &[]);
    assert!(code == 2 && why.contains("a name that a bundle can have"), "{why}");
    assert!(!work.exists());
}
