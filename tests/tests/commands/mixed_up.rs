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

#[test]
fn two_runs_never_share_a_folder() {
    let bench = bench();
    let work = bench.folder.path().join("run");
    std::fs::create_dir(&work).unwrap();
    let (backbone, images, at) = (text(&bench.backbone), text(&bench.images), text(&work));
    let in_it = |command: &[&'static str]| {
        let of = ["--backbone", backbone, "--data", images, "--work", at, "--epochs", "1,1,1"];
        [command, &of, &["--validation", "0.34"]].concat()
    };
    let commands = [
        in_it(&["fit"]),
        in_it(&["prune", "--drop", "1"]),
        in_it(&["compare", "--methods", "fine-tune"]),
        in_it(&["protocol", "teacher"]),
        vec![
            "pretrain",
            "--data",
            images,
            "--work",
            at,
            "--arch",
            "cifar-resnet8-b",
            "--size",
            "12",
            "--batch",
            "8",
        ],
        vec!["demo", "--out", at],
    ];
    let other = std::fs::File::create(work.join(".lock")).unwrap();
    other.lock().unwrap();
    for command in commands {
        let (_, why) = failure("tailor", &command);
        assert!(why.contains("another run is at work in this folder"), "{command:?}: {why}");
        assert_eq!(std::fs::read_dir(&work).unwrap().count(), 1, "{command:?}: the lock alone");
    }
    // Candidates of a sweep may run concurrently once their common student exists.
    other.unlock().unwrap();
    other.lock_shared().unwrap();
    let (_, why) = failure("tailor", &in_it(&["prune", "--drop", "1"]));
    assert!(why.contains("another run is at work in this folder"), "{why}");
    other.unlock().unwrap();
    stdout("tailor", &in_it(&["prune", "--drop", "1"]));
    other.lock_shared().unwrap();
    stdout("tailor", &in_it(&["prune", "--drop", "0"]));
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
