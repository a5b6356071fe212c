//! The C ABI from C: a program is compiled against the header, linked with the archive, and run.

#[path = "runtime/naive.rs"]
mod naive;
#[path = "runtime/random.rs"]
#[allow(dead_code, reason = "the tests in `runtime` use the rest")]
mod random;
#[path = "runtime/store.rs"]
#[allow(dead_code, reason = "the tests in `runtime` use the rest")]
mod store;

use bundles::container::{Manifest, SigningKey, TrustedKey, sign};
use edge_runtime::{Backbone, Frame, Options, Runtime};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The answers a Rust program gets for the same frame.
fn answers(directory: &Path, names: &[&str]) -> String {
    let backbone = Backbone::open(directory.join("net.backbone"), &Options::default()).unwrap();
    let mut runtime = Runtime::new(backbone, 2);
    let pixels: Vec<u8> = (0..20 * 10 * 3).map(|i| (i * 7) as u8).collect();
    let mut text = String::new();
    for name in names {
        let id = runtime.load(directory.join(name).with_extension("task")).unwrap();
        runtime.switch(id).unwrap();
        let scores = runtime.frame(Frame { width: 20, height: 10, channels: 3, pixels: &pixels }).unwrap();
        let (label, class, logits) = (scores.label, scores.class, scores.logits);
        text += &format!("{label} {class} {} {:.4}\n", logits.len(), logits[0]);
    }
    text
}

/// The archive built by Cargo for this test's profile.
fn archive() -> PathBuf {
    let mine = std::env::current_exe().unwrap();
    let newest = |folder: &Path| {
        let files = std::fs::read_dir(folder).unwrap().filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?.to_owned();
            let ours = name.starts_with("libedge_runtime") && name.ends_with(".a");
            ours.then_some((path.metadata().ok()?.modified().ok()?, path))
        });
        files.max().map(|(_, path)| path)
    };
    newest(mine.parent().unwrap())
        .expect("libedge_runtime*.a beside the tests: [lib] crate-type has staticlib")
}

#[test]
fn a_c_program_loads_switches_streams_evicts_and_gets_the_same_answers() {
    let packed = store::packed("cifar-resnet20-b", 12, 31);
    let directory = store::directory(&packed);
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("damaged.task"), store::damaged(&packed.tasks[1].1)).unwrap();

    let key = SigningKey::from_seed([6; 32]);
    std::fs::write(at("key.pub"), TrustedKey { name: "fleet".into(), key: key.public() }.to_text()).unwrap();
    std::fs::write(at("signed.backbone"), sign(&packed.backbone, &key).unwrap()).unwrap();
    std::fs::write(at("signed.task"), sign(&packed.tasks[0].1, &key).unwrap()).unwrap();

    let wrong = |manifest: &mut Manifest| {
        manifest.name = "wrong".into();
        manifest.golden[0].scores[0] += 1.0;
    };
    std::fs::write(at("wrong.task"), store::changed(&packed.tasks[0].1, wrong)).unwrap();
    std::fs::write(at("untold.task"), store::constant(&packed, "untold", &packed.tasks[0].2)).unwrap();

    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = std::fs::read_to_string(here.join("include/edge_runtime.h")).unwrap();
    let version = format!("#define EDGE_RUNTIME_VERSION \"{}\"\n", env!("CARGO_PKG_VERSION"));
    assert!(header.contains(&version), "the header does not say {version}");

    let program = at("tasks");
    let compiled = Command::new(std::env::var("CC").unwrap_or("cc".into()))
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-D_POSIX_C_SOURCE=200809L"])
        .arg("-I")
        .arg(here.join("include"))
        .arg(here.join("tests/c/tasks.c"))
        .arg(archive())
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));

    let files = ["net.backbone", "digits.task", "fashion.task", "signs.task", "damaged.task"];
    let signed = ["key.pub", "signed.backbone", "signed.task"];
    let golden = ["wrong.task", "untold.task"];
    let ran =
        Command::new(program).args([&files[..], &signed, &golden].concat().into_iter().map(at)).output();
    let ran = ran.unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{:?}: {errors}", ran.status);
    let want =
        answers(directory.path(), &["digits", "fashion", "signs", "signs", "digits", "digits", "digits"]);
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), want, "{errors}");
}
