//! Tasks, names, memory and requests while the loader is blocked, as by a slow disk.
#![cfg(unix)]

use super::gate::Gate;
use super::slots::{ARCH, SIZE, backbone, frame};
use super::store;
use edge_runtime::{Error, Runtime};
use std::time::Duration;

#[test]
fn a_whole_task_whose_load_was_given_up_outlives_a_broken_successor_and_a_bad_image() {
    let packed = store::packed(ARCH, SIZE, 61);
    let directory = store::directory(&packed);
    let path = directory.path().join("digits.task");
    let mut runtime = Runtime::new(backbone(&packed), 1);
    runtime.set_stream_from(0);
    let gate = Gate::before(&mut runtime, directory.path());
    let digits = runtime.stream(&path).unwrap();
    runtime.switch(digits).unwrap();
    // The frame builds all of it; the loader has not reached it.
    frame(&mut runtime).unwrap();
    std::fs::write(&path, store::damaged(&packed.tasks[0].1)).unwrap();
    assert_eq!(runtime.stream(&path).unwrap(), digits);
    gate.open(&mut runtime);
    frame(&mut runtime).unwrap();
    assert!(matches!(runtime.tensor(&[0.0]), Err(Error::Input { .. })));
    frame(&mut runtime).unwrap();
}

#[test]
fn a_frame_with_a_deadline_gets_there_however_busy_the_loader_is() {
    let packed = store::packed(ARCH, SIZE, 67);
    let directory = store::directory(&packed);
    let mut runtime = Runtime::new(backbone(&packed), 1);
    runtime.set_stream_from(0);
    let gate = Gate::before(&mut runtime, directory.path());
    let id = runtime.stream(directory.path().join("digits.task")).unwrap();
    runtime.switch(id).unwrap();
    runtime.set_deadline(Some(Duration::from_micros(1)));
    // Stem, cells and head: every frame is late from the start, and builds one of them.
    let parts = runtime.current().unwrap().1.blocks().1 + 2;
    let mut late = 0;
    while let Err(error) = frame(&mut runtime) {
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        late += 1;
        assert!(late < parts, "no progress");
    }
    gate.open(&mut runtime);
}

#[test]
fn predecessors_count() {
    let packed = store::packed(ARCH, SIZE, 63);
    let directory = store::directory(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    let mut runtime = Runtime::new(backbone(&packed), 1);
    runtime.set_stream_from(0);
    let ids = store::NAMES.map(|name| runtime.load(path(name)).unwrap());
    runtime.switch(ids[0]).unwrap();
    let [all, largest] =
        [runtime.resident_bytes(), runtime.resident().map(|(_, t)| t.resident_bytes()).max().unwrap()];
    runtime.set_budget(all);
    let gate = Gate::before(&mut runtime, directory.path());
    // Without room for more, idle tasks are evicted when their successors arrive.
    runtime.stream(path(store::NAMES[1])).unwrap();
    assert_eq!(runtime.resident_bytes(), all);
    // The running one stays until its successor is complete, and others are evicted for both; or it stays
    // alone.
    runtime.stream(path(store::NAMES[0])).unwrap();
    assert!(runtime.resident_bytes() <= all && runtime.resident().count() < ids.len());
    runtime.set_budget(largest);
    assert!(matches!(runtime.stream(path(store::NAMES[0])), Err(Error::TooLarge { .. })));
    gate.open(&mut runtime);
    frame(&mut runtime).unwrap();
}

#[test]
fn a_task_that_was_asked_for_is_not_evicted_before_its_turn() {
    let packed = store::packed(ARCH, SIZE, 65);
    let directory = store::directory(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    let mut runtime = Runtime::new(backbone(&packed), 1);
    let ids = store::NAMES.map(|name| runtime.load(path(name)).unwrap());
    runtime.switch(ids[0]).unwrap();
    runtime.set_budget(runtime.resident_bytes() - 1);
    runtime.evict(ids[1]).unwrap();
    runtime.evict(ids[2]).unwrap();
    runtime.set_stream_from(0);
    let gate = Gate::before(&mut runtime, directory.path());
    let asked = runtime.stream(path(store::NAMES[1])).unwrap();
    runtime.switcher().switch(asked);
    frame(&mut runtime).unwrap();
    assert_eq!(runtime.current().unwrap().0, ids[0], "its parts are not there");
    runtime.set_stream_from(usize::MAX);
    assert!(matches!(runtime.load(path(store::NAMES[2])), Err(Error::TooLarge { .. })));
    gate.open(&mut runtime);
    frame(&mut runtime).unwrap();
    assert_eq!(runtime.current().unwrap().0, asked);
}

#[test]
fn a_switch_evicts_others_rather_than_its_own_task() {
    let packed = store::packed(ARCH, SIZE, 66);
    let directory = store::directory(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    for is_requested in [false, true] {
        let mut runtime = Runtime::new(backbone(&packed), 1);
        let ids = store::NAMES.map(|name| runtime.load(path(name)).unwrap());
        runtime.switch(ids[0]).unwrap();
        let all = runtime.resident_bytes();
        for (id, name) in ids.into_iter().zip(store::NAMES).skip(1) {
            runtime.evict(id).unwrap();
            assert_eq!(runtime.prefetch(path(name)).unwrap(), id);
        }
        let gate = Gate::before(&mut runtime, directory.path());
        // Both are loaded but not taken in, and there is room for one of them beside the running task.
        runtime.set_budget(all - 1);
        match is_requested {
            true => runtime.switcher().switch(ids[1]),
            false => runtime.switch(ids[1]).unwrap(),
        }
        frame(&mut runtime).unwrap();
        assert_eq!(runtime.current().unwrap().0, ids[1]);
        assert_eq!(runtime.stats().failed_switches, 0);
        assert!(matches!(runtime.poll(), Err(Error::TooLarge { .. })), "the other one");
        assert!(runtime.resident().all(|(id, _)| id != ids[2]));
        gate.open(&mut runtime);
    }
}

#[test]
fn a_load_outlives_an_older_prefetch_of_the_same_file() {
    let packed = store::packed(ARCH, SIZE, 72);
    let directory = store::directory(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    let mut runtime = Runtime::new(backbone(&packed), 1);
    let running = runtime.load(path("fashion")).unwrap();
    runtime.switch(running).unwrap();
    let digits = runtime.load(path("digits")).unwrap();
    std::fs::copy(path("digits"), path("new")).unwrap();
    let gate = Gate::before(&mut runtime, directory.path());
    runtime.prefetch(path("new")).unwrap();
    assert_eq!(runtime.load(path("new")).unwrap(), digits);
    gate.open(&mut runtime);
    runtime.switch(digits).unwrap();
}

#[test]
fn the_task_to_fall_back_to_is_not_evicted_while_its_successor_arrives() {
    let packed = store::packed(ARCH, SIZE, 43);
    let directory = store::directory(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    std::fs::write(path("damaged"), store::damaged(&packed.tasks[1].1)).unwrap();
    let mut runtime = Runtime::new(backbone(&packed), 1);
    let digits = runtime.load(path("digits")).unwrap();
    runtime.switch(digits).unwrap();
    runtime.set_stream_from(0);
    let gate = Gate::before(&mut runtime, directory.path());
    let id = runtime.stream(path("damaged")).unwrap();
    runtime.switch(id).unwrap();
    // Room for two: a third finds nothing to evict.
    runtime.set_budget(runtime.resident_bytes());
    runtime.set_stream_from(usize::MAX);
    assert!(matches!(runtime.load(path("signs")), Err(Error::TooLarge { .. })));
    assert_eq!(frame(&mut runtime).unwrap_err().exit_code(), 3);
    assert_eq!(runtime.current().unwrap().0, digits);
    gate.open(&mut runtime);
    frame(&mut runtime).unwrap();
}

#[test]
fn a_bad_image_does_not_hide_why_a_streamed_task_failed() {
    let packed = store::packed(ARCH, SIZE, 84);
    let directory = store::directory(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    std::fs::write(path("damaged"), store::damaged(&packed.tasks[1].1)).unwrap();
    let mut runtime = Runtime::new(backbone(&packed), 1);
    runtime.set_stream_from(0);
    let digits = runtime.load(path("digits")).unwrap();
    runtime.switch(digits).unwrap();
    let gate = Gate::before(&mut runtime, directory.path());
    let damaged = runtime.stream(path("damaged")).unwrap();
    runtime.switch(damaged).unwrap();
    drop(gate);
    // At the next gate the loader has found the damage, but the runtime has not yet polled for it.
    let gate = Gate::before(&mut runtime, directory.path());
    assert_eq!(runtime.current().unwrap().0, damaged);
    assert!(matches!(runtime.tensor(&[0.0]), Err(Error::Input { .. })));
    assert_eq!(runtime.current().unwrap().0, digits);
    assert_eq!(runtime.stats().failed_loads, 1);
    let why = runtime.switch(damaged).unwrap_err();
    assert!(why.exit_code() == 3 && why.to_string().contains("fc.bias"), "{why}");
    gate.open(&mut runtime);
    frame(&mut runtime).unwrap();
}
