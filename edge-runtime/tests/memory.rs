//! Memory use of many tasks: fifty of them on ResNet-18 at 224 px, in a process that does nothing else.
#![cfg(target_os = "linux")]

#[path = "../benches/peer/mod.rs"]
#[allow(dead_code, reason = "the benches use the rest")]
mod peer;
#[path = "../benches/switch/store.rs"]
mod store;

use edge_runtime::{Backbone, Options, Runtime};
use std::path::Path;
use std::process::Command;

/// Bytes allowed beyond backbone and tasks: code, heap, and the shared workspace.
const BEYOND: usize = 16 << 20;

/// Passes the store's path to the process that opens it.
const STORE: &str = "EDGE_RUNTIME_TEST_STORE";

// The only test in its binary, which it runs once more.
#[test]
fn fifty_resident_tasks_take_hardly_more_than_their_parameters() {
    if let Some(directory) = std::env::var_os(STORE) {
        return hold(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    store::write("resnet18", directory.path());
    // Which thread decodes what varies between runs, and so does what allocators keep: take the minimum of
    // three.
    let beyond = (0..3).map(|_| beyond(directory.path())).min().unwrap();
    assert!(beyond <= BEYOND, "{beyond} bytes beyond backbone and tasks");
}

/// Resident bytes of a process with all tasks, minus those of backbone and tasks.
fn beyond(directory: &Path) -> usize {
    let mut apart = Command::new(std::env::current_exe().unwrap());
    let output = apart.arg("--nocapture").env(STORE, directory).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let line = said.lines().find_map(|line| line.split_once("held: ")).unwrap().1;
    let figures: Vec<usize> = line.split(' ').map(|figure| figure.parse().unwrap()).collect();
    let [rss, backbone, tasks] = figures[..] else { panic!("{line}") };
    assert!(backbone > 50_000_000 && tasks > 50_000_000, "{line}");
    // Untouched pages may be missing, but not many.
    rss.checked_sub(backbone + tasks).unwrap_or_else(|| panic!("{line}"))
}

/// Loads all tasks, runs a frame with the first and the last, and prints bytes: resident, of the backbone, of
/// all tasks.
fn hold(directory: &Path) {
    let [_, packed] = store::backbones(directory);
    let mut runtime = Runtime::new(Backbone::open(packed, &Options::default()).unwrap(), 1);
    let ids: Vec<_> = (0..store::TASKS).map(|i| runtime.load(store::task(directory, i)).unwrap()).collect();
    let input = vec![0.25; 3 * 224 * 224];
    for id in [ids[0], ids[store::TASKS - 1]] {
        runtime.switch(id).unwrap();
        runtime.tensor(&input).unwrap();
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let rss =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    let rss = 1024 * rss.parse::<usize>().unwrap();
    println!("held: {rss} {} {}", runtime.backbone().file_bytes(), runtime.resident_bytes());
}
