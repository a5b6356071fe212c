//! The decathlon on a directory tree laid out like the challenge's unpacked archives.

use super::*;
use bundles::container::Bundle;
use serde_json::json;
use std::collections::HashMap;

/// Classes with the numbers used in the annotations, not in name order.
const CLASSES: [(&str, u64); 2] = [("above", 30_000_002), ("below", 30_000_001)];

/// Images of `task` and, if `annotated`, annotations; `tests` says where test images are.
fn task(root: &Path, task: &str, darker: u8, tests: &str, annotated: bool) {
    let folder = root.join("data").join(task);
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for (split, count) in [("train", 24), ("val", 8), ("test", if tests.is_empty() { 0 } else { 7 })] {
        for (class, category) in CLASSES.into_iter().filter(|_| count > 0) {
            let place = match (split, tests) {
                ("test", "flat") => "test".to_string(),
                _ => format!("{split}/{class}"),
            };
            fs::create_dir_all(folder.join(&place)).unwrap();
            for i in 0..count {
                let file = format!("{place}/{class}-{i}.png");
                picture(class, 100 * count + i, darker).save(folder.join(&file)).unwrap();
                let id = 90_000_000 + images.len() as u64;
                images.push(json!({ "id": id, "file_name": format!("data/{task}/{file}") }));
                labels.push(json!({ "image_id": id, "category_id": category }));
            }
        }
    }
    if annotated {
        let of = |split: &str| -> Vec<&Value> {
            let is_of = |image: &&Value| image["file_name"].as_str().unwrap().contains(&format!("/{split}/"));
            images.iter().filter(is_of).collect()
        };
        let folder = root.join("annotations");
        fs::create_dir_all(&folder).unwrap();
        let val = json!({ "images": of("val"), "annotations": labels });
        fs::write(folder.join(format!("{task}_val.json")), val.to_string()).unwrap();
        let stripped = json!({ "images": of("test") });
        fs::write(folder.join(format!("{task}_test_stripped.json")), stripped.to_string()).unwrap();
    }
}

#[test]
fn tasks_are_scored_and_hidden_tests_answered_in_the_challenges_format() {
    let bench = bench();
    let (root, work) = (bench.folder.path().join("decathlon-1.0"), bench.folder.path().join("run"));
    task(&root, "imagenet12", 0, "flat", true);
    task(&root, "gtsrb", 60, "flat", true);
    task(&root, "dtd", 0, "labelled", false);
    task(&root, "svhn", 0, "flat", false);
    let backbone = pretrained(&bench, "cifar-resnet8-b", &root.join("data/imagenet12"));
    let mut args = vec!["protocol", "decathlon", "--backbone", text(&backbone), "--root", text(&root)];
    args.extend(["--work", text(&work), "--size", "16", "--epochs", "6,6,2", "--batch", "8,16,16"]);
    args.extend(["--train-rate", "one-cycle:0.02", "--search", "bisect"]);
    let some = |tasks: &'static str| [&args[..], &["--tasks", tasks]].concat();
    let all = some("svhn,dtd,gtsrb,imagenet12");

    let found = findings(&all);
    let results = &found["results"];
    let tasks = results["tasks"].as_array().unwrap();
    let names: Vec<&str> = tasks.iter().map(|task| task["task"].as_str().unwrap()).collect();
    assert_eq!(names, ["imagenet12", "dtd", "gtsrb", "svhn"]);
    let of = |name: &str| tasks.iter().find(|task| task["task"] == name).unwrap();

    // Points as defined by the challenge, from test images where there are labels.
    let baselines = HashMap::from([("imagenet12", 59.87), ("dtd", 55.53), ("gtsrb", 97.53), ("svhn", 96.55)]);
    let mut score = 0.0;
    for task in tasks {
        let (name, network) = (task["task"].as_str().unwrap(), &task["network"]);
        assert_eq!(network["test"].is_null(), name != "dtd", "{name}");
        let key = if name == "dtd" { "test" } else { "val" };
        let error = 100.0 * (1.0 - network[key].as_f64().unwrap());
        let most = 2.0 * (100.0 - baselines[name]);
        let points = 1000.0 * (f64::max(0.0, most - error) / most).powi(2);
        assert!((task["points"].as_f64().unwrap() - points).abs() < 1e-6, "{name}: {task}");
        score += points;
    }
    assert!((results["score"].as_f64().unwrap() - score).abs() < 1e-6 && score > 0.0);
    assert_eq!(cell(&found, 1, "cifar-resnet8-b", "score"), format!("{score:.0}"));
    // Sixteen times as many pixels as here.
    let mean = tasks.iter().map(|task| task["network"]["macs_paper"].as_f64().unwrap()).sum::<f64>() / 4.0;
    let shown: f64 = cell(&found, 1, "cifar-resnet8-b", "paper's GFLOPs, 64 px").parse().unwrap();
    assert!((shown * 1e9 / mean - 16.0).abs() < 0.1, "{shown}, {mean}");
    assert!(found["notes"].to_string().contains("Without aircraft, cifar100, daimlerpedcls"));
    assert!(!found["notes"].to_string().contains("Published GFLOPs"), "none are shown");

    // The kernels count once, plus what each task owns.
    let kernels = "cifar-resnet8-b".parse::<Arch>().unwrap().plan(16, 16, 2).unwrap().backbone_params();
    let own: u64 = tasks.iter().map(|task| task["network"]["task_params"].as_u64().unwrap()).sum();
    assert_eq!(results["params_together"].as_u64(), Some(kernels + own));
    // The source task is measured, but not tailored to.
    assert!(of("imagenet12")["trial"].is_null() && !work.join("imagenet12/tailored").exists());
    assert!(of("imagenet12")["network"]["val"].as_f64().unwrap() > 0.9, "{results}");

    // Each task has its own normalisation and augmentation.
    let mean = |name: &str| {
        let bytes = fs::read(work.join(name).join("tailored").join(format!("{name}.task"))).unwrap();
        Bundle::parse(&bytes).unwrap().manifest().preprocess.mean
    };
    let measured = |name: &str| {
        let (mut sum, mut n) = (0.0, 0.0);
        for (class, _) in CLASSES {
            for file in fs::read_dir(root.join("data").join(name).join("train").join(class)).unwrap() {
                for pixel in image::open(file.unwrap().path()).unwrap().into_luma8().pixels() {
                    sum += f64::from(pixel[0]) / 255.0;
                    n += 1.0;
                }
            }
        }
        sum / n
    };
    for name in ["gtsrb", "dtd", "svhn"] {
        // Resizing changes it a little.
        let (mean, measured) = (f64::from(mean(name)[0]), measured(name));
        assert!((mean - measured).abs() < 0.01, "{name}: {mean}, {measured}");
        let report = fs::read_to_string(work.join(name).join("tailored/report.json")).unwrap();
        let recipe = serde_json::from_str::<Value>(&report).unwrap()["recipe"].take();
        assert_eq!(recipe["flip"], name == "dtd", "{name}");
        assert_eq!(recipe["jitter"], if name == "gtsrb" { "0.5,0.2,0.2" } else { "0" }, "{name}");
        let padding = if name == "dtd" { Value::Null } else { "reflect".into() };
        assert_eq!(recipe["padding"], padding, "{name}: shifts of dtd are 0");
    }
    assert!(mean("gtsrb")[0] < mean("dtd")[0] - 0.05);

    // Answers for both annotated tasks, each image once, in the challenge's numbers.
    let submitted: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(work.join("results.json")).unwrap()).unwrap();
    assert_eq!(submitted.len(), 2 * 14);
    let numbers = HashMap::from(CLASSES);
    let mut at = submitted.iter();
    // Of 14; by chance, 11 or more are right in 3 of 100 runs.
    for (name, right) in [("imagenet12", 12), ("gtsrb", 11)] {
        let path = root.join(format!("annotations/{name}_test_stripped.json"));
        let stripped: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let kept = fs::read_to_string(work.join(name).join("answers.json")).unwrap();
        let kept: Value = serde_json::from_str(&kept).unwrap();
        let answers = kept["answers"].as_array().unwrap();
        let mut hits = 0;
        for answer in answers {
            let (file, class) = (answer["file"].as_str().unwrap(), answer["class"].as_str().unwrap());
            let result = at.next().unwrap();
            let named =
                stripped["images"].as_array().unwrap().iter().find(|image| image["id"] == result["image_id"]);
            assert_eq!(named.unwrap()["file_name"], format!("data/{name}/{file}"));
            assert_eq!(result["category_id"].as_u64(), Some(numbers[class]));
            hits += usize::from(file.contains(class));
        }
        assert!(hits >= right, "{name}: {hits} of {}", answers.len());
        if name == "gtsrb" {
            let bundle = work.join("gtsrb/tailored/gtsrb.task");
            let same = answers.iter().filter(|answer| {
                let image = root.join("data/gtsrb").join(answer["file"].as_str().unwrap());
                let args =
                    ["run", "--backbone", text(&backbone), "--task", text(&bundle), "--json", text(&image)];
                let said: Value = serde_json::from_str(&stdout("edge-runtime", &args)).unwrap();
                said["label"] == answer["class"]
            });
            // One of them may be a close call.
            assert!(same.count() + 1 >= answers.len(), "the device answers otherwise");
        }
    }
    assert!(found["notes"].to_string().contains("No annotations of svhn"));
    assert!(found["notes"].to_string().contains("no answers for aircraft, cifar100, daimlerpedcls, dtd, "));
    assert!(work.join("svhn/answers.json").exists() && !work.join("dtd/answers.json").exists());

    // The second time, neither unlabelled images nor those of the source task are decoded: these could not be.
    let decoded =
        ["gtsrb/test/above-0.png", "imagenet12/test/above-0.png", "imagenet12/val/above/above-0.png"];
    for image in decoded {
        let image = root.join("data").join(image);
        let length = fs::metadata(&image).unwrap().len();
        fs::write(image, vec![0u8; length as usize]).unwrap();
    }
    assert_eq!(findings(&all)["results"], *results, "read back");
    // Test images without labels are counted, not called missing or ignored: they are answered.
    let output = run("tailor", &some("gtsrb"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !said.contains("ignoring test/"), "{said}");
    assert!(said.contains("; 16 in val/; 14 in test/, without labels\n"), "{said}");
    // A run on some of the tasks leaves the answers for the others in place.
    fs::remove_dir_all(root.join("data/dtd/test")).unwrap();
    let found = findings(&some("dtd"));
    let untested = &found["results"]["tasks"][0];
    let notes = found["notes"].to_string();
    assert!(notes.contains("Its answers for imagenet12, gtsrb come from earlier runs."), "{notes}");
    assert_eq!(fs::read_to_string(work.join("results.json")).unwrap(), json!(submitted).to_string());
    // Without test images, the accuracy on those that there were is not reported any more.
    let network = &untested["network"];
    assert!(network["test"].is_null() && untested["trial"]["teacher"]["test"].is_null(), "{untested}");
    assert_eq!(network["val"], of("dtd")["network"]["val"]);
    let error = 100.0 * (1.0 - network["val"].as_f64().unwrap());
    let most = 2.0 * (100.0 - baselines["dtd"]);
    let points = 1000.0 * (f64::max(0.0, most - error) / most).powi(2);
    assert!((untested["points"].as_f64().unwrap() - points).abs() < 1e-6, "{untested}");
    // Other images are classified anew.
    fs::write(root.join("data/gtsrb/test/above-0.png"), "of another length").unwrap();
    let (_, why) = failure("tailor", &some("gtsrb"));
    assert!(why.contains("gtsrb/test/above-0.png: cannot be decoded"), "{why}");
}

#[test]
fn missing_inputs_are_reported_before_anything_is_trained() {
    let bench = bench();
    let (root, work) = (bench.folder.path().join("root"), bench.folder.path().join("run"));
    task(&root, "gtsrb", 0, "flat", false);
    task(&root, "imagenet12", 0, "", false);
    // One test image more than its annotations list.
    task(&root, "dtd", 0, "flat", true);
    picture("above", 0, 0).save(root.join("data/dtd/test/unlisted.png")).unwrap();
    let refused = |more: &[&str]| {
        let mut args = vec!["protocol", "decathlon", "--backbone", text(&bench.backbone), "--root"];
        args.extend([text(&root), "--work", text(&work), "--size", "16"]);
        args.extend(more);
        failure("tailor", &args)
    };
    let cases: [(&[&str], i32, &str); 10] = [
        (&["--tasks", "mnist"], 2, "vgg-flowers"),
        (&["--tasks", "gtsrb", "--jobs", "2"], 2, "--jobs 2: has no effect unless --search sweep"),
        (
            &["--tasks", "gtsrb", "--padding", "reflect", "--crop", "0"],
            2,
            "--padding reflect: has no effect without --crop",
        ),
        (
            &["--tasks", "gtsrb,dtd"],
            1,
            "dtd: 1 of 15 test images are not in its annotations, first `test/unlisted.png`",
        ),
        (&["--tasks", "gtsrb,svhn"], 1, "data/svhn"),
        (&["--tasks", "gtsrb", "--flip"], 2, "--flip"),
        (&["--tasks", "gtsrb", "--source-task", "nothing"], 2, "--source-task nothing"),
        (&["--tasks", "gtsrb", "--validation", "0.2"], 2, "val/ of its own"),
        (&["--tasks", "gtsrb", "--annotations", "nowhere"], 2, "--annotations nowhere"),
        // A backbone with 100 classes cannot come from these two.
        (&["--tasks", "imagenet12"], 1, "--source-task"),
    ];
    for (more, code, named) in cases {
        let (got, why) = refused(more);
        assert!(got == code && why.contains(named), "{more:?}: {got}, {why}");
    }
    let mut large = vec!["protocol", "decathlon", "--backbone", text(&bench.backbone), "--root", text(&root)];
    large.extend(["--work", text(&work), "--size", "3000", "--memory", "1", "--tasks", "gtsrb"]);
    let (code, why) = failure("tailor", &large);
    let want = "64 images of 3000x3000 pixels take 1647 MiB decoded, more than the 1024 MiB allowed; allow them \
                with --memory 2";
    assert!(code == 1 && why.contains(want), "{code}, {why}");
    assert!(!work.exists());
}
