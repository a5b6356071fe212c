//! The two programs as a user runs them: import, fit, inspect, verify, and run on the device side.

mod classify;
mod compare;
mod files;
mod images;
mod method;
mod mixed_up;
mod protocol;
mod release;
mod report;
mod training;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

/// A program of this workspace, built in the profile of the tests.
fn program(name: &str) -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.ancestors().nth(2).unwrap().to_path_buf();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--workspace", "--bins"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        build.env("CARGO_TARGET_DIR", folder.parent().unwrap());
        build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        assert!(build.status().unwrap().success(), "the programs do not build");
        folder
    });
    Command::new(folder.join(name))
}

fn run(name: &str, args: &[&str]) -> Output {
    program(name).args(args).output().unwrap()
}

fn stdout(name: &str, args: &[&str]) -> String {
    let output = run(name, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// (exit code, stderr) of a command that must fail.
fn failure(name: &str, args: &[&str]) -> (i32, String) {
    let output = run(name, args);
    assert!(!output.status.success(), "{name} {args:?} succeeded");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../bundles/samples")
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A number in a flat JSON object, by its key.
fn number(json: &str, key: &str) -> f64 {
    let (_, rest) = json.split_once(&format!("\"{key}\":")).unwrap_or_else(|| panic!("no {key} in {json}"));
    let end = rest.find([',', '}', ']']).unwrap();
    rest[..end].trim().parse().unwrap_or_else(|_| panic!("{key} in {json}"))
}

/// A backbone and a few small images of two clearly distinct classes: bright above, bright below.
struct Bench {
    folder: tempfile::TempDir,
    backbone: PathBuf,
    images: PathBuf,
}

/// One of them, made darker by `darker`.
fn picture(class: &str, i: u32, darker: u8) -> image::GrayImage {
    image::GrayImage::from_fn(12, 12, |x, y| {
        let bright = (y < 6) == (class == "above");
        let noise = (x * 31 + y * 17 + i * 13) % 40;
        image::Luma([if bright { 180 + noise as u8 - darker } else { 20 + noise as u8 }])
    })
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let backbone = folder.path().join("net.backbone");
    let weights = samples().join("cifar100-resnet20.safetensors");
    stdout("tailor", &["import", text(&weights), "--out", text(&backbone)]);
    let images = folder.path().join("images");
    for (split, count) in [("train", 24), ("test", 6)] {
        for class in ["above", "below"] {
            let place = images.join(split).join(class);
            std::fs::create_dir_all(&place).unwrap();
            for i in 0..count {
                picture(class, i, 0).save(place.join(format!("{i}.png"))).unwrap();
            }
        }
    }
    Bench { folder, backbone, images }
}

/// The source network of `bench` as a task bundle, which takes no training.
fn source_task(bench: &Bench) -> Vec<u8> {
    let backbone = tailor::precision::Loaded::read(&bench.backbone).unwrap();
    tailor::precision::source_task(backbone.file()).unwrap().unwrap()
}

const QUICK: [&str; 8] =
    ["--epochs", "2,2,1", "--search", "bisect", "--validation", "0.34", "--teach-rate", "one-cycle:0.02"];

#[test]
fn a_folder_of_images_becomes_a_task_that_the_runtime_answers() {
    let bench = bench();
    let work = bench.folder.path().join("run");
    let mut args = vec!["fit", "--backbone", text(&bench.backbone), "--data", text(&bench.images)];
    args.extend(["--work", text(&work), "--name", "halves", "--json"]);
    args.extend(QUICK);
    let report = stdout("tailor", &args);
    assert_eq!(number(&report, "classes"), 2.0);
    assert!(number(&report, "blocks") <= 9.0);
    let task = work.join("halves.task");
    assert!(report.contains(&format!("\"file\":\"{}\"", text(&task))), "{report}");
    assert_eq!(number(&report, "bundle_bytes"), std::fs::metadata(&task).unwrap().len() as f64);
    let drawing = std::fs::read_to_string(work.join("architecture.svg")).unwrap();
    assert!(drawing.starts_with("<svg") && drawing.contains("halves"));

    // The second time, everything is there, nothing is trained, and the result is byte-identical.
    let packed = std::fs::read(&task).unwrap();
    let metrics = std::fs::read(work.join("metrics.csv")).unwrap();
    assert_eq!(stdout("tailor", &args), report);
    assert_eq!(std::fs::read(&task).unwrap(), packed);
    assert_eq!(std::fs::read(work.join("metrics.csv")).unwrap(), metrics);
    // Other options must not silently continue a run begun with these.
    let mut other = args.clone();
    other.extend(["--seed", "2"]);
    let (_, why) = failure("tailor", &other);
    assert!(why.contains("other options or images") && why.contains("teach.safetensors"), "{why}");

    // All images are grey, so the device must show the network no colour.
    assert!(stdout("tailor", &["inspect", text(&task), "--json"]).contains("\"grey\":true"));
    let on_host = ["eval", "--backbone", text(&bench.backbone), "--task", text(&task), "--data"];
    let on_host = stdout("tailor", &[&on_host[..], &[text(&bench.images), "--json"]].concat());
    assert_eq!(number(&on_host, "n"), 12.0);
    assert!((number(&on_host, "accuracy") - number(&report, "test")).abs() < 1e-9);

    let device = ["--backbone", text(&bench.backbone), "--task", text(&task)];
    let tested = stdout("edge-runtime", &[&["self-test"], &device[..]].concat());
    assert!(tested.contains("halves"), "{tested}");
    let pictures: Vec<PathBuf> = (0..6).map(|i| bench.images.join(format!("test/above/{i}.png"))).collect();
    let mut frames = vec!["run", "--json"];
    frames.extend(device);
    frames.extend(pictures.iter().map(|p| text(p)));
    let answers = stdout("edge-runtime", &frames);
    assert_eq!(answers.lines().count(), 6);
    assert!(answers.lines().all(|line| line.contains("\"task\":\"halves\"") && line.contains("\"label\"")));

    let shown = stdout("tailor", &["inspect", text(&task)]);
    assert!(shown.contains("above, below") && shown.contains("development key"), "{shown}");
}

#[test]
fn a_task_in_fewer_bits_keeps_its_accuracy_or_is_not_packed() {
    let bench = bench();
    let at = |name: &str| bench.folder.path().join(name);
    let work = at("run");
    let mut args = vec!["fit", "--backbone", text(&bench.backbone), "--data", text(&bench.images)];
    args.extend(["--work", text(&work), "--name", "halves", "--json"]);
    args.extend(QUICK);
    stdout("tailor", &args);
    let task = work.join("halves.task");
    for (precision, smaller) in [("f16", 1.9), ("int8", 3.4)] {
        let (backbone, out) = (at(&format!("{precision}.backbone")), at(&format!("{precision}.task")));
        let pack = ["pack", text(&bench.backbone), "--precision", precision, "--json", "--out"];
        let packed = stdout("tailor", &[&pack[..], &[text(&backbone)]].concat());
        let ratio = |report: &str| number(report, "bytes_before") / number(report, "bytes");
        assert!(ratio(&packed) > smaller, "{precision}: {packed}");

        let mut pack =
            vec!["pack", text(&task), "--precision", precision, "--backbone", text(&bench.backbone)];
        pack.extend(["--data", text(&bench.images), "--json", "--out", text(&out)]);
        let report = stdout("tailor", &[&pack[..], &["--max-drop", "100"]].concat());
        // A task with a few thousand parameters: its manifest, which stays, is as large.
        assert!(ratio(&report) > 1.3, "{precision}: {report}");
        assert_eq!(number(&report, "n"), 12.0);
        assert!(report.contains("\"split\":\"test\""), "{report}");
        assert!(number(&report, "drop_points") <= 10.0, "{precision}: {report}");
        let again = std::fs::read(&out).unwrap();
        if precision == "int8" {
            // The fewest bits tried when any loss is accepted; more on request.
            assert_eq!(number(&report, "bits"), 6.0);
            let fine = stdout("tailor", &[&pack[..], &["--max-drop", "100", "--bits", "8"]].concat());
            assert!(number(&fine, "bytes") > number(&report, "bytes"), "{fine}");
        } else {
            let (_, why) = failure("tailor", &[&pack[..], &["--bits", "7"]].concat());
            assert!(why.contains("--precision int8"), "{why}");
        }
        stdout("tailor", &[&pack[..], &["--max-drop", "100"]].concat());
        assert_eq!(std::fs::read(&out).unwrap(), again, "{precision}: the same input gives the same bytes");

        let device = ["self-test", "--backbone", text(&backbone), "--task", text(&out)];
        let tested = stdout("edge-runtime", &device);
        assert!(tested.contains("halves"), "{tested}");

        // No gain can be this large.
        std::fs::remove_file(&out).unwrap();
        let (code, why) = failure("tailor", &[&pack[..], &["--max-drop=-100"]].concat());
        assert_eq!(code, 1, "{why}");
        assert!(
            why.contains("not packed") && why.contains("--max-drop") && why.contains("12 images"),
            "{why}"
        );
        assert!(!out.exists(), "a refused packing writes nothing");
    }
    let backbone = at("int8.backbone");
    let plain = ["self-test", "--backbone", text(&backbone), "--task", text(&task)];
    let (code, why) = failure("edge-runtime", &plain);
    assert_eq!(code, 4, "{why}");
    assert!(why.contains("holds no scales of int8 maps"), "{why}");
    let whole = ["pack", text(&bench.backbone), "--precision", "int8", "--bits", "7", "--out", "x"];
    assert!(failure("tailor", &whole).1.contains("--bits 7: only applies to tasks"));
    let (_, why) = failure("tailor", &["pack", text(&task), "--precision", "int8", "--out", "x"]);
    assert!(why.contains("--backbone"), "{why}");
}

/// Trains a small backbone on the images of `bench`.
fn pretrain<'a>(bench: &'a Bench, work: &'a Path, extra: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["pretrain", "--data", text(&bench.images), "--work", text(work), "--size", "16"];
    args.extend(["--arch", "cifar-resnet8-b", "--batch", "8", "--validation", "0.25", "--json"]);
    args.extend(extra);
    args
}

#[test]
fn a_backbone_is_exported_whole_or_not_at_all() {
    let bench = bench();
    let model = bench.folder.path().join("net.onnx");
    let export = ["export", "--backbone", text(&bench.backbone), "--onnx", text(&model)];
    let shown = stdout("tailor", &export);
    assert!(shown.contains("image (1x3x32x32) to scores (1x100)"), "{shown}");
    let bytes = std::fs::read(&model).unwrap();
    let shown = stdout("tailor", &[&export[..], &["--json"]].concat());
    assert_eq!((number(&shown, "bytes"), number(&shown, "opset")), (bytes.len() as f64, 13.0));
    assert!(shown.contains("\"shape\":[1,3,32,32]"), "{shown}");
    assert_eq!(std::fs::read(&model).unwrap(), bytes);
    let shown = stdout("tailor", &[&export[..], &["--dynamic-batch", "--with-preprocessing"]].concat());
    assert!(shown.contains("pixels (batchx3x32x32) to scores (batchx100)"), "{shown}");

    // A failed export leaves an existing file in place.
    let bytes = std::fs::read(&model).unwrap();
    let packed = bench.folder.path().join("packed.backbone");
    let pack = ["pack", text(&bench.backbone), "--target", "jetson-orin-nano", "--out", text(&packed)];
    stdout("tailor", &pack);
    let (code, why) = failure("tailor", &["export", "--backbone", text(&packed), "--onnx", text(&model)]);
    assert_eq!(code, 4, "{why}");
    assert!(why.contains("packed.backbone: export: needs f32 files, as `tailor import`"), "{why}");
    assert!(why.contains("packed for neon\n"), "{why}");
    // With a task, too, the file at fault is named: not the task's.
    let student = bench.folder.path().join("student.task");
    std::fs::write(&student, source_task(&bench)).unwrap();
    let both = ["export", "--backbone", text(&packed), "--task", text(&student), "--onnx", text(&model)];
    let (code, why) = failure("tailor", &both);
    assert!(code == 4 && why.contains("packed.backbone: export") && !why.contains("student"), "{why}");
    assert_eq!(std::fs::read(&model).unwrap(), bytes);
}

#[test]
fn bad_data_and_bad_options_are_reported_before_any_work() {
    let bench = bench();
    let work = bench.folder.path().join("run");
    let fit = |extra: &[&str]| {
        let mut args = vec!["fit", "--backbone", text(&bench.backbone), "--data", text(&bench.images)];
        args.extend(["--work", text(&work)]);
        args.extend(extra);
        failure("tailor", &args)
    };
    // None of these reads an image: a broken one would be reported instead.
    let spoilt = bench.images.join("train/above/3.png");
    let picture = std::fs::read(&spoilt).unwrap();
    std::fs::write(&spoilt, b"not a picture").unwrap();
    let cases: [(&[&str], &str); 19] = [
        (&["--looks", "8", "--erase", "0.25"], "--looks 8: has no effect unless --crop"),
        (&["--padding", "reflect"], "--padding reflect: has no effect without --crop"),
        (&["--validation", "0.9"], "--validation 0.9"),
        (&["--epochs", "0,1,1"], "--epochs 0 (teach)"),
        (&["--teach-rate", "linear:1"], "one-cycle:PEAK"),
        (&["--teach-rate", "one-cycle:0.1,warm-up=3"], "one-cycle:PEAK"),
        (&["--schedule", "paper", "--epochs", "50,20,60"], "--train-rate step:0.1,20,0.1"),
        (&["--retrain-rate", "cosine:0.1,warm-up=8"], "--retrain-rate cosine:0.1,warm-up=8"),
        (&["--matching", "local", "--gamma2", "0"], "--gamma2 is 0"),
        (&["--complexity", "paper", "--gamma1", "0"], "--gamma1 is 0"),
        (&["--crop", "17"], "--crop 17"),
        (&["--jitter", "2"], "--jitter 2"),
        (&["--augment", "randaugment:2"], "randaugment:N,M"),
        (&["--patience", "0"], "--patience 0"),
        (&["--clip", "0"], "--clip 0"),
        (&["--batch", "8,8,64"], "--batch 64"),
        (&["--tolerance", "101"], "--tolerance 101"),
        (&["--name", "a/b"], "--name"),
        (&["--name", ".hidden"], "--name"),
    ];
    for (options, named) in cases {
        let (code, why) = fit(options);
        assert!(code == 2 && why.contains(named), "{options:?}: {code}, {why}");
    }
    for class in ["above", "below"] {
        std::fs::create_dir_all(bench.images.join("val").join(class)).unwrap();
        std::fs::write(bench.images.join("val").join(class).join("0.png"), b"not a picture").unwrap();
    }
    // This program was built without GPU support; `auto` falls back to the CPU, and its images are found
    // broken.
    for device in ["cuda", "cuda:1"] {
        let (code, why) = fit(&["--device", device]);
        assert!(code == 4 && why.contains("without GPU support") && why.contains("--device cpu"), "{why}");
    }
    let (code, why) = fit(&["--device", "auto"]);
    assert!(code == 1 && why.contains("computing on the CPU") && why.contains("cannot be decoded"), "{why}");
    assert_eq!(fit(&["--device", "gpu"]).0, 2);
    let (code, why) = fit(&["--validation", "0.2"]);
    assert!(code == 2 && why.contains("val/ of its own"), "{why}");
    std::fs::remove_dir_all(bench.images.join("val")).unwrap();
    for options in [["--epochs", "0"], ["--std", "1,1,1"], ["--rate", "step:0.1,15,0.1"], ["--crop", "9"]] {
        let (code, why) = failure("tailor", &pretrain(&bench, &work, &options));
        let blamed = why.starts_with(&format!("tailor: {}", options[0]));
        assert!(code == 2 && blamed, "{options:?}: {code}, {why}");
    }
    let bare = ["pretrain", "--data", text(&bench.images), "--work", text(&work)];
    let (code, why) = failure("tailor", &[&bare[..], &["--batch", "64"]].concat());
    assert!(code == 2 && why.starts_with("tailor: --batch 64: at most 43"), "{why}");
    let (_, why) = failure("tailor", &[&bare[..], &["--arch", "resnet18", "--size", "0"]].concat());
    assert!(why.starts_with("tailor: --size 0: "), "{why}");
    assert!(!work.exists());
    std::fs::write(&spoilt, picture).unwrap();
    let (_, why) =
        failure("tailor", &["eval", "--backbone", "nowhere.backbone", "--data", text(&bench.images)]);
    assert_eq!((why.matches("nowhere.backbone").count(), why.matches("os error").count()), (1, 1), "{why}");

    let broken = bench.images.join("train/above/3.png");
    std::fs::write(&broken, b"not a picture").unwrap();
    let (_, why) = fit(&[]);
    assert!(why.contains("3.png"), "{why}");
    std::fs::remove_file(&broken).unwrap();
    std::fs::rename(bench.images.join("test/below"), bench.images.join("test/under")).unwrap();
    let (_, why) = fit(&[]);
    assert!(why.contains("under"), "{why}");
}

#[test]
fn a_closed_pipe_ends_the_program_silently() {
    let mut running = program("tailor")
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(running.stdout.take());
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn closed_output_neither_stops_training_nor_hides_a_failure() {
    let bench = bench();
    let work = bench.folder.path().join("run");
    let start = |args: &[&str]| {
        program("tailor").args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut verifying = start(&["verify", text(&bench.backbone), "nowhere.task", "--json"]);
    drop(verifying.stdout.take());
    assert_eq!(verifying.wait().unwrap().code(), Some(1));

    let mut fit = vec!["fit", "--backbone", text(&bench.backbone), "--data", text(&bench.images)];
    fit.extend(["--work", text(&work), "--name", "halves"]);
    fit.extend(QUICK);
    let mut training = start(&fit);
    drop((training.stdout.take(), training.stderr.take()));
    assert!(training.wait().unwrap().success() && work.join("halves.task").exists());

    if cfg!(target_os = "linux") {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = program("tailor").arg("targets").stdout(full).output().unwrap();
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(1) && why.starts_with("tailor: standard output: No space"),
            "{why}"
        );
    }
}
