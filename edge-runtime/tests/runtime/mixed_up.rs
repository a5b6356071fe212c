//! The `edge-runtime` command given one thing for another: an input as output, a folder as file, a task by either
//! of its names; and what it says of frames that are late, or no images.

use super::command::{edge_runtime, ok, text};
use super::store;
use bundles::container::{SigningKey, TrustedKey, sign};

const FRAME: &[u8] = b"P6 1 1 255\nabc";

#[test]
fn what_a_command_reads_is_not_written_over() {
    let directory = store::directory(&store::packed("cifar-resnet20-b", 12, 91));
    let at = directory.path().to_str().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let key = SigningKey::from_seed([5; 32]);
    for name in ["net.backbone", "digits.task"] {
        let bytes = std::fs::read(path(name)).unwrap();
        std::fs::write(path(name), sign(&bytes, &key).unwrap()).unwrap();
    }
    let trusted = TrustedKey { name: "fleet".into(), key: key.public() };
    std::fs::write(path("fleet.pub"), trusted.to_text()).unwrap();
    std::fs::write(path("x.ppm"), FRAME).unwrap();
    let (fleet, image) = (path("fleet.pub"), path("x.ppm"));
    std::os::unix::fs::symlink(&image, path("link.ppm")).unwrap();
    let files = ["--store", at, "--task", "digits", "--trust", &*fleet];
    let run = [&["run"], &files[..], &[&*image, "--metrics"]].concat();
    let bench = [&["bench"], &files[..], &["--frames", "1", "--blocks"]].concat();
    // Not only the chosen task of the store.
    let bundles = ["net.backbone", "digits.task", "signs.task"];
    let cases = [
        (&run, [&bundles[..], &["x.ppm", "link.ppm", "fleet.pub"]].concat()),
        (&bench, [&bundles[..], &["fleet.pub"]].concat()),
    ];
    for (words, names) in cases {
        for place in names.into_iter().map(path) {
            let before = std::fs::read(&place).unwrap();
            let output = edge_runtime(&[&words[..], &[&*place]].concat(), b"");
            let (out, err) = text(&output);
            assert_eq!(output.status.code(), Some(2), "{words:?} {place}: {err}");
            let option = words.last().unwrap();
            assert!(out.is_empty() && err.contains(&format!("{option} {place}, which is")), "{out}{err}");
            assert!(std::fs::read(&place).unwrap() == before, "{words:?} {place}");
        }
    }
    // Earlier metrics are replaced.
    let own = path("m.prom");
    for _ in 0..2 {
        ok(&[&run[..], &[&*own]].concat(), b"");
        assert!(std::fs::read_to_string(&own).unwrap().contains("edge_runtime_frames_total 1\n"));
    }
}

#[test]
fn a_task_goes_by_its_own_name_and_its_files() {
    let directory = store::directory(&store::packed("cifar-resnet20-b", 12, 92));
    let at = directory.path().to_str().unwrap();
    let path = |name: &str| directory.path().join(name);
    let frames = FRAME.repeat(2);
    let run = |words: &[&str]| edge_runtime(&[&["run", "--store", at], words, &["-"]].concat(), &frames);
    let answers = |words: &[&str]| -> Vec<String> {
        let (out, err) = text(&run(words));
        assert!(err.lines().all(|line| !line.starts_with("error[")), "{err}");
        out.lines().map(|line| line.split('\t').nth(1).unwrap_or_default().to_owned()).collect()
    };
    let refused = |words: &[&str], files: [&str; 2]| {
        let (out, err) = text(&run(words));
        assert!(out.is_empty() && err.contains("error[usage]: "), "{out}{err}");
        assert!(files.iter().all(|file| err.contains(file)), "{err}");
    };
    std::fs::rename(path("digits.task"), path("animals.task")).unwrap();
    for name in ["digits", "animals"] {
        assert_eq!(answers(&["--task", name]), ["digits", "digits"]);
        assert_eq!(answers(&["--script", &format!("{name},signs")]), ["digits", "signs"]);
    }
    // The file's name goes first.
    std::fs::rename(path("fashion.task"), path("digits.task")).unwrap();
    assert_eq!(answers(&["--task", "digits"]), ["fashion", "fashion"]);
    assert_eq!(answers(&["--script", "digits,animals"]), ["fashion", "digits"]);
    // Two files with that task, and two of that name.
    std::fs::remove_file(path("digits.task")).unwrap();
    std::fs::copy(path("animals.task"), path("pets.task")).unwrap();
    assert_eq!(answers(&["--task", "pets"]), ["digits", "digits"]);
    refused(&["--task", "digits"], ["animals.task", "pets.task"]);
    std::fs::create_dir(path("more")).unwrap();
    std::fs::copy(path("signs.task"), path("more/pets.task")).unwrap();
    let other = path("more/pets.task");
    let both = ["--task", "pets", "--task", other.to_str().unwrap(), "--script"];
    refused(&[&both[..], &["pets"]].concat(), [&format!("{at}/pets.task"), "more/pets.task"]);
    assert_eq!(answers(&[&both[..], &["signs,digits"]].concat()), ["signs", "digits"]);
}

#[test]
fn late_frames_are_marked_in_words_too() {
    let directory = store::directory(&store::packed("cifar-resnet20-b", 12, 93));
    let run = ["run", "--store", directory.path().to_str().unwrap(), "-"];
    for (deadline, end) in [("0.0001", " us late"), ("100000", " us")] {
        let out = ok(&[&run[..], &["--deadline-ms", deadline]].concat(), &FRAME.repeat(2));
        assert!(out.lines().count() == 2 && out.lines().all(|line| line.ends_with(end)), "{out}");
    }
    let help = ok(&["run", "--help"], b"");
    assert!(help.contains("`late`") && help.contains("edge_runtime_missed_deadlines_total"), "{help}");
}

#[test]
fn folders_are_told_from_files() {
    let directory = store::directory(&store::packed("cifar-resnet20-b", 12, 94));
    let at = directory.path().to_str().unwrap();
    let [empty, slashed, task] = ["empty", "empty/", "digits.task"].map(|name| format!("{at}/{name}"));
    std::fs::create_dir(&empty).unwrap();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["run", "--store", at, &slashed], 2, "empty/ is a directory; expected image files, such as /"),
        (&["run", "--store", at, &empty], 2, "empty/*.png"),
        (&["run", "--backbone", &empty, "--task", &task, "-"], 1, "empty: cannot read it: is a directory"),
        (&["tasks", "--json", &empty], 0, "empty: no *.task file there"),
    ];
    for (words, code, hint) in cases {
        let output = edge_runtime(words, FRAME);
        let (out, err) = text(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {err}");
        assert!(out.is_empty() && err.contains(hint), "{words:?}: {out}{err}");
    }
}

#[test]
fn what_has_no_end_is_not_read_to_it() {
    let directory = store::directory(&store::packed("cifar-resnet20-b", 12, 96));
    let at = directory.path().to_str().unwrap();
    std::os::unix::fs::symlink("/dev/zero", directory.path().join("zero.task")).unwrap();
    let pipe = directory.path().join("pipe.task");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    ok(&["run", "--store", at, "-"], FRAME);
    assert_eq!(ok(&["tasks", "--store", at], b"").lines().count(), 4);
    std::os::unix::fs::symlink("nowhere", directory.path().join("broken.task")).unwrap();
    std::fs::create_dir(directory.path().join("folder.task")).unwrap();
    let cases: [(&[&str], i32, &str); 4] = [
        (&["tasks", "/dev/zero"], 3, "/dev/zero: not a bundle"),
        (&["tasks", "/dev/zero", "--trust", "/dev/zero"], 3, "/dev/zero: key"),
        (&["run", "--store", at, "-"], 1, "broken.task: cannot open it: "),
        (&["tasks", "--store", at], 1, "folder.task: cannot read it: is a directory"),
    ];
    for (words, code, hint) in cases {
        let output = edge_runtime(words, FRAME);
        let err = text(&output).1;
        assert_eq!(output.status.code(), Some(code), "{words:?}: {err}");
        assert!(err.contains(hint), "{words:?}: {err}");
    }
}

#[test]
fn the_help_names_the_code_of_a_file_that_is_no_image() {
    let directory = store::directory(&store::packed("cifar-resnet20-b", 12, 95));
    let at = directory.path().to_str().unwrap();
    let output = edge_runtime(&["run", "--store", at, "-"], b"GIF89a");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output).1);
    assert!(ok(&["--help"], b"").contains("2 usage or unreadable image"));
}
