//! Mismatched inputs: images of one folder with checkpoints of another, classes of another task, files of the
//! wrong kind.

use super::*;

fn fit<'a>(bench: &'a Bench, work: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["fit", "--backbone", text(&bench.backbone), "--data", text(&bench.images)];
    args.extend(["--work", text(work), "--name", "halves"]);
    args.extend(QUICK);
    args.extend(more);
    args
}

#[test]
fn checkpoints_know_the_images_they_were_made_with() {
    let bench = bench();
    let work = bench.folder.path().join("run");
    let teacher = fit(&bench, &work, &["--until", "teach", "--json"]);
    let said = stdout("tailor", &teacher);
    assert!(
        said.contains("\"stage\":\"teach\"") && (16.0..=18.0).contains(&number(&said, "val_n")),
        "{said}"
    );
    assert_eq!(stdout("tailor", &teacher), said, "done before");
    let (_, why) = failure("tailor", &fit(&bench, &work, &["--until", "teach", "--seed", "2"]));
    assert!(why.contains("another version (seed 1 there, 2 now)"), "{why}");
    // The names of images do not matter, only their contents.
    let renamed = bench.folder.path().join("pictures");
    std::fs::rename(&bench.images, &renamed).unwrap();
    let again: Vec<&str> =
        teacher.iter().map(|&word| if word == text(&bench.images) { text(&renamed) } else { word }).collect();
    assert_eq!(stdout("tailor", &again), said);
    std::fs::rename(&renamed, &bench.images).unwrap();

    // Two images swap places: the same number, in the same classes.
    let place = |class: &str, name: &str| bench.images.join("train").join(class).join(name);
    let exchange = || {
        let (a, b, aside) = (place("above", "3.png"), place("below", "3.png"), bench.folder.path().join("x"));
        std::fs::rename(&a, &aside).unwrap();
        std::fs::rename(&b, &a).unwrap();
        std::fs::rename(&aside, &b).unwrap();
    };
    exchange();
    let (_, why) = failure("tailor", &teacher);
    assert!(why.contains("teach.safetensors") && why.contains("images"), "{why}");
    exchange();
    assert_eq!(stdout("tailor", &teacher), said);

    // The same images with the labels in another order.
    for split in ["train", "test"] {
        let at = bench.images.join(split);
        std::fs::rename(at.join("above"), at.join("under")).unwrap();
    }
    let (_, why) = failure("tailor", &teacher);
    assert!(why.contains("teach.safetensors"), "{why}");
}

#[test]
fn a_task_is_not_measured_on_other_classes() {
    let bench = bench();
    let work = bench.folder.path().join("run");
    stdout("tailor", &fit(&bench, &work, &[]));
    for split in ["train", "test"] {
        let at = bench.images.join(split);
        std::fs::rename(at.join("above"), at.join("under")).unwrap();
    }
    let task = work.join("halves.task");
    let on = ["--backbone", text(&bench.backbone), "--data", text(&bench.images)];
    let small = bench.folder.path().join("small.task");
    let eval = [&["eval", "--task", text(&task)], &on[..]].concat();
    let pack = [&["pack", text(&task), "--precision", "int8", "--out", text(&small)], &on[..]].concat();
    for command in [&eval, &pack] {
        let (_, why) = failure("tailor", command);
        assert!(why.contains("below, under") && why.contains("above, below"), "{why}");
    }
    assert!(!small.exists());
}

#[test]
fn a_backbone_of_another_normalisation_is_another() {
    let bench = bench();
    let work = bench.folder.path().join("run");
    let teacher = fit(&bench, &work, &["--until", "teach"]);
    stdout("tailor", &teacher);
    let weights = samples().join("cifar100-resnet20.safetensors");
    let anew = ["import", text(&weights), "--out", text(&bench.backbone), "--mean", "0.4,0.5,0.5"];
    stdout("tailor", &anew);
    let (_, why) = failure("tailor", &teacher);
    assert!(why.contains("teach.safetensors") && why.contains("other options or images"), "{why}");
}

/// A command that works in the folder `at`.
fn in_it<'a>(bench: &'a Bench, at: &'a Path, command: &[&'a str]) -> Vec<&'a str> {
    let of = ["--backbone", text(&bench.backbone), "--data", text(&bench.images), "--work", text(at)];
    [command, &of, &["--epochs", "1,1,1", "--validation", "0.34"]].concat()
}

/// One of each.
fn all_in_it<'a>(bench: &'a Bench, at: &'a Path) -> [Vec<&'a str>; 6] {
    [
        in_it(bench, at, &["fit"]),
        in_it(bench, at, &["prune", "--drop", "1"]),
        in_it(bench, at, &["compare", "--methods", "fine-tune"]),
        in_it(bench, at, &["protocol", "teacher"]),
        pretrain(bench, at, &[]),
        vec!["demo", "--out", text(at)],
    ]
}

#[test]
fn a_file_is_not_taken_for_a_work_folder() {
    let bench = bench();
    let work = bench.folder.path().join("run");
    std::fs::write(&work, "notes").unwrap();
    // Found before any image is read: a broken one would be reported instead.
    std::fs::write(bench.images.join("train/above/3.png"), "no picture").unwrap();
    let want = format!("tailor: {}: must be a folder; this is a file\n", text(&work));
    for command in all_in_it(&bench, &work) {
        let (code, why) = failure("tailor", &command);
        assert!(code == 2 && why == want, "{command:?}: {code}, {why}");
    }
    assert_eq!(std::fs::read(&work).unwrap(), b"notes");
}

#[test]
fn two_runs_never_share_a_folder() {
    let bench = bench();
    let work = bench.folder.path().join("run");
    std::fs::create_dir(&work).unwrap();
    let other = std::fs::File::create(work.join(".lock")).unwrap();
    other.lock().unwrap();
    for command in all_in_it(&bench, &work) {
        let (_, why) = failure("tailor", &command);
        assert!(why.contains("another run is at work in this folder"), "{command:?}: {why}");
        assert_eq!(std::fs::read_dir(&work).unwrap().count(), 1, "{command:?}: the lock alone");
    }
    // Candidates of a sweep may run concurrently once their common student exists.
    other.unlock().unwrap();
    other.lock_shared().unwrap();
    let (_, why) = failure("tailor", &in_it(&bench, &work, &["prune", "--drop", "1"]));
    assert!(why.contains("another run is at work in this folder"), "{why}");
    other.unlock().unwrap();
    stdout("tailor", &in_it(&bench, &work, &["prune", "--drop", "1"]));
    other.lock_shared().unwrap();
    stdout("tailor", &in_it(&bench, &work, &["prune", "--drop", "0"]));
}

#[test]
fn every_command_gives_the_same_code_for_the_same_mistake() {
    let bench = bench();
    let at = |name: &str| bench.folder.path().join(name);
    let (task, junk, out, work) = (at("source.task"), at("junk"), at("out"), at("run"));
    std::fs::write(&task, source_task(&bench)).unwrap();
    std::fs::write(&junk, "nothing at all").unwrap();
    let (net, task, junk, images) = (text(&bench.backbone), text(&task), text(&junk), text(&bench.images));
    let (out, work) = (text(&out), text(&work));
    let both = |backbone, task| {
        [
            vec!["classify", "--backbone", backbone, "--task", task, "nowhere.png"],
            vec!["eval", "--backbone", backbone, "--task", task, "--data", images],
            vec!["export", "--backbone", backbone, "--task", task, "--onnx", out],
            vec!["pack", task, "--precision", "f16", "--backbone", backbone, "--data", images, "--out", out],
        ]
    };
    let alone = |backbone| {
        let words = ["--backbone", backbone, "--data", images, "--work", work];
        let train = |command: &[&'static str]| [command, &words].concat();
        [
            train(&["fit"]),
            train(&["prune", "--drop", "0"]),
            train(&["compare"]),
            train(&["protocol", "skips"]),
            vec!["eval", "--backbone", backbone, "--data", images],
            vec!["export", "--backbone", backbone, "--onnx", out],
        ]
    };
    let wrong_kind = both(task, task).into_iter().chain(alone(task)).chain(both(net, net));
    let no_bundle = both(junk, task).into_iter().chain(both(net, junk)).chain(alone(junk)).chain([
        vec!["inspect", junk],
        vec!["verify", junk],
        vec!["sign", junk, "--remove", "0123456789abcdef"],
    ]);
    let wrong_kind = wrong_kind.map(|command| (command, 2, [task, net]));
    for (command, want, blamed) in wrong_kind.chain(no_bundle.map(|command| (command, 3, [junk; 2]))) {
        let (code, why) = failure("tailor", &command);
        assert!(code == want && blamed.iter().any(|file| why.contains(file)), "{command:?}: {code}, {why}");
    }
}

#[test]
fn wrong_inputs_are_refused_with_a_hint() {
    let bench = bench();
    let at = |name: &str| bench.folder.path().join(name);
    let (work, packed) = (at("run"), at("packed.backbone"));
    let target = ["pack", text(&bench.backbone), "--target", "jetson-orin-nano", "--out", text(&packed)];
    stdout("tailor", &target);
    let weights = samples().join("cifar100-resnet20.safetensors");
    let eval = |backbone, more: &[&'static str]| {
        let words = ["eval", "--data", text(&bench.images), "--backbone", text(backbone)];
        [&words[..], more].concat()
    };
    let prune = fit(&bench, &work, &["--drop", "0", "--until", "teach"]);
    let backbone_as_task = [&eval(&bench.backbone, &["--task"])[..], &[text(&bench.backbone)]].concat();
    let cases = [
        (eval(&packed, &[]), "neon"),
        (eval(&weights, &[]), "tailor import"),
        (eval(&bench.backbone, &["--size", "0"]), "--size 0"),
        (backbone_as_task, "a task"),
        ([&["prune"], &prune[1..]].concat(), "--until"),
        (vec!["verify", text(&packed), "--key", text(&packed)], "key: wrong first line"),
        (vec!["sign", text(&packed), "--key", text(&packed)], "key: wrong first line"),
        (vec!["import", text(&weights), "--mean", "125,123,114"], "from 0 to 1"),
    ];
    for (command, hint) in cases {
        let (code, why) = failure("tailor", &command);
        assert!(why.contains(hint) && code != 101, "{command:?}: {why}");
    }

    // A bad file among several is reported, and the others are checked.
    let bad = at("bad.task");
    std::fs::write(&bad, b"nothing").unwrap();
    let output = run("tailor", &["verify", text(&bad), text(&bench.backbone), "--json"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(!output.status.success());
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines[0].contains("bad.task") && lines[0].contains("\"error\":"), "{lines:?}");
    assert!(lines[1].contains("net.backbone") && lines[1].contains("\"sections\":"), "{lines:?}");
}
