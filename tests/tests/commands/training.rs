//! Training from scratch, and interrupted training.

use super::*;

#[test]
fn a_backbone_from_scratch_goes_straight_into_eval_fit_and_the_runtime() {
    let bench = bench();
    let (source, task) = (bench.folder.path().join("source"), bench.folder.path().join("run"));
    let report = stdout("tailor", &pretrain(&bench, &source, &["--epochs", "6"]));
    let backbone = source.join("images.backbone");
    assert_eq!(number(&report, "bytes"), std::fs::metadata(&backbone).unwrap().len() as f64);
    assert_eq!((number(&report, "val_n"), number(&report, "test_n")), (12.0, 12.0));
    assert!(number(&report, "test") > 0.9, "{report}");

    let mut eval = vec!["eval", "--backbone", text(&backbone), "--data", text(&bench.images), "--json"];
    let again = stdout("tailor", &eval);
    assert_eq!(number(&again, "accuracy"), number(&report, "test"));
    let shown = stdout("tailor", &["inspect", text(&backbone)]);
    assert!(shown.contains("above, below") && shown.contains("input 3x16x16"), "{shown}");

    // The images' size, normalisation and identity are recorded and need not be repeated.
    let mut fit = vec!["fit", "--backbone", text(&backbone), "--data", text(&bench.images)];
    fit.extend(["--work", text(&task), "--name", "halves", "--json"]);
    fit.extend(QUICK);
    let tailored = stdout("tailor", &fit);
    assert!(number(&tailored, "teacher_val") > 0.9, "{tailored}");
    let bundle = task.join("halves.task");
    let tested =
        stdout("edge-runtime", &["self-test", "--backbone", text(&backbone), "--task", text(&bundle)]);
    assert!(tested.contains("halves"), "{tested}");

    // It is not measured on other classes.
    std::fs::rename(bench.images.join("train/below"), bench.images.join("train/under")).unwrap();
    std::fs::rename(bench.images.join("test/below"), bench.images.join("test/under")).unwrap();
    eval.pop();
    let (_, why) = failure("tailor", &eval);
    assert!(why.contains("above, under") && why.contains("above, below"), "{why}");
}

#[test]
fn few_images_make_one_batch_unless_its_size_is_given() {
    let bench = bench();
    let work = bench.folder.path().join("source");
    let mut args = vec!["pretrain", "--data", text(&bench.images), "--work", text(&work), "--size", "16"];
    args.extend(["--arch", "cifar-resnet8-b", "--validation", "0.25", "--epochs", "2", "--json"]);
    // 36 of them are left to train on.
    let (code, why) = failure("tailor", &[&args[..], &["--batch", "128"]].concat());
    assert!(code == 2 && why.starts_with("tailor: --batch 128: at most 36, "), "{why}");
    assert_eq!(number(&stdout("tailor", &args), "epochs"), 2.0);
    let lines = std::fs::read_to_string(work.join("metrics.csv")).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
}

/// Starts `tailor`, stops it with `stop` once its stderr contains `word`, and returns (exit code, stderr).
fn stopped(args: &[&str], word: &str, stop: &dyn Fn(&mut Child)) -> (Option<i32>, String) {
    let mut child =
        program("tailor").args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut seen = String::new();
    for line in lines.by_ref() {
        let found = line.contains(word);
        seen += &line;
        if found {
            break;
        }
    }
    assert!(seen.contains(word), "it ended before {word}: {seen}");
    stop(&mut child);
    seen.extend(lines);
    (child.wait().unwrap().code(), seen)
}

/// Kills the process without warning.
fn kill(child: &mut Child) {
    child.kill().unwrap();
}

/// Sends Ctrl-C's signal twice, as `timeout` or a shell may do.
fn interrupt(child: &mut Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid, &pid]).status().unwrap().success());
}

/// Every epoch as recorded, without its speed.
fn epochs(work: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(work.join("metrics.csv")).unwrap();
    text.lines().map(|line| line.rsplit_once(',').unwrap().0.to_string()).collect()
}

#[test]
fn a_run_killed_and_interrupted_ends_as_if_nothing_had_happened() {
    let bench = bench();
    let folder = |name: &str| bench.folder.path().join(name);
    let (whole, broken) = (folder("whole"), folder("broken"));
    let many = ["--epochs", "40", "--crop", "2", "--flip"];
    let (args, again) = (pretrain(&bench, &whole, &many), pretrain(&bench, &broken, &many));
    let want = stdout("tailor", &args);
    let (code, _) = stopped(&again, "epoch 1/40", &kill);
    assert_eq!(code, None, "it ended before it was killed");
    let (code, seen) = stopped(&again, "epoch ", &interrupt);
    assert!(code == Some(130) && seen.contains("interrupted; the same command resumes from"), "{seen}");
    assert!(!broken.join("images.backbone").exists());
    let got = stdout("tailor", &again);
    assert_eq!(want.replace("whole", "broken"), got);
    let backbones = [&whole, &broken].map(|work| std::fs::read(work.join("images.backbone")).unwrap());
    assert!(backbones[0] == backbones[1], "the backbones differ");
    assert_eq!(epochs(&whole), epochs(&broken));
    assert_eq!(epochs(&whole).len(), 41);
    // Other options are refused before any image is read: a broken one is not even found.
    let images = folder("unreadable");
    for class in ["down", "up"] {
        let train = images.join("train").join(class);
        std::fs::create_dir_all(&train).unwrap();
        for i in 0..8 {
            std::fs::write(train.join(format!("{i}.png")), "no picture").unwrap();
        }
    }
    let unread =
        ["pretrain", "--data", text(&images), "--work", text(&whole), "--size", "16", "--batch", "8"];
    let (_, why) = failure("tailor", &unread);
    assert!(why.contains("other options") && why.contains("pretrain.safetensors"), "{why}");

    let fit = |work: &'static str| -> Vec<String> {
        let (work, backbone) = (folder(work), whole.join("images.backbone"));
        let args =
            ["fit", "--backbone", text(&backbone), "--data", text(&bench.images), "--work", text(&work)];
        let options = [
            "--name",
            "halves",
            "--epochs",
            "20,20,2",
            "--train-rate",
            "one-cycle:0.01",
            "--search",
            "bisect",
            "--validation",
            "0.34",
        ];
        args.iter().chain(&options).map(|arg| (*arg).to_string()).collect()
    };
    let (args, again) = (fit("fitted"), fit("refitted"));
    let again: Vec<&str> = again.iter().map(String::as_str).collect();
    stdout("tailor", &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(stopped(&again, "teach: epoch 1/20", &interrupt).0, Some(130));
    assert_eq!(stopped(&again, "train: epoch 1/20", &kill).0, None);
    stdout("tailor", &again);
    let tasks = ["fitted", "refitted"].map(|work| std::fs::read(folder(work).join("halves.task")).unwrap());
    assert!(tasks[0] == tasks[1], "the tasks differ");
    assert_eq!(epochs(&folder("fitted")), epochs(&folder("refitted")));
    for stage in ["teach", "train"] {
        let events = ["fitted", "refitted"].map(|work| {
            let file = folder(work).join("tensorboard").join(stage).join("events.out.tfevents.0.tailor");
            std::fs::metadata(file).unwrap().len()
        });
        assert_eq!(events[0], events[1], "{stage}");
    }
}
