//! Evicting tasks within a byte budget.

use super::slots::{ARCH, SIZE, assert_scores, backbone, expected};
use super::store::{self, NAMES};
use edge_runtime::{Error, Runtime, Task};
use std::sync::Arc;

#[test]
fn a_budget_evicts_the_least_recently_used() {
    let packed = store::packed(ARCH, SIZE, 5);
    let backbone = backbone(&packed);
    let load = |i: usize| Task::from_bytes(&backbone, NAMES[i], &packed.tasks[i].1).unwrap();
    let bytes: Vec<usize> = (0..3).map(|i| load(i).resident_bytes()).collect();
    let mut runtime = Runtime::new(Arc::clone(&backbone), 1);
    runtime.set_budget(bytes.iter().sum::<usize>() - 1);
    let ids: Vec<_> = (0..2).map(|i| runtime.insert(load(i)).unwrap()).collect();
    runtime.switch(ids[0]).unwrap();
    runtime.switch(ids[1]).unwrap();
    let third = runtime.insert(load(2)).unwrap();
    let resident: Vec<_> = runtime.resident().map(|(_, task)| task.name()).collect();
    assert_eq!(resident, ["fashion", "signs"]);
    assert!(
        matches!(runtime.switch(ids[0]), Err(Error::NotResident { task: Some(task) }) if task == "digits")
    );
    runtime.switch(third).unwrap();
    assert_eq!(runtime.stats().evictions, 1);

    // The running task is never evicted, and its successor must fit beside it.
    assert!(matches!(runtime.evict(third), Err(Error::Usage { .. })));
    runtime.set_budget(bytes[2] + bytes[0] - 1);
    let before = runtime.resident().count();
    assert!(matches!(runtime.insert(load(0)), Err(Error::TooLarge { .. })));
    assert_eq!(runtime.current().unwrap().1.name(), "signs");
    assert_eq!(runtime.resident().count(), before, "nothing leaves for what does not fit anyway");
    // An evicted task returns to its slot.
    runtime.set_budget(usize::MAX);
    assert_eq!(runtime.insert(load(0)).unwrap(), ids[0]);
    runtime.switch(ids[0]).unwrap();
}

#[test]
fn a_task_that_can_never_fit_is_refused_before_memory_is_taken_for_it() {
    let packed = store::packed(ARCH, SIZE, 53);
    let directory = store::directory(&packed);
    let path = directory.path().join("digits.task");
    // The damage in its last tensor goes unnoticed.
    std::fs::write(&path, store::damaged(&packed.tasks[0].1)).unwrap();
    for stream_from in [0, usize::MAX] {
        let mut runtime = Runtime::new(backbone(&packed), 1);
        runtime.set_stream_from(stream_from);
        runtime.set_budget(64 * 1024);
        assert!(matches!(runtime.load(&path), Err(Error::TooLarge { limit: 65536, .. })));
        assert!(matches!(runtime.stream(&path), Err(Error::TooLarge { .. })));
        assert!(matches!(runtime.load_bytes("digits", &packed.tasks[0].1), Err(Error::TooLarge { .. })));
        runtime.prefetch(&path).unwrap();
        assert!(matches!(runtime.settle(), Err(Error::TooLarge { .. })));
        assert_eq!((runtime.resident().count(), runtime.stats().failed_loads), (0, 4));
        runtime.set_budget(usize::MAX);
        assert!(matches!(runtime.load(&path), Err(Error::Container { .. })));
    }
}

#[test]
fn a_prefetch_that_does_not_fit_leaves_the_task_of_its_name() {
    let packed = store::packed(ARCH, SIZE, 50);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    let mut runtime = Runtime::new(backbone(&packed), 1);
    let digits = runtime.load(path("digits")).unwrap();
    let fashion = runtime.load(path("fashion")).unwrap();
    runtime.switch(digits).unwrap();
    runtime.set_budget(runtime.resident_bytes() - 1);
    std::fs::copy(path("fashion"), path("newer")).unwrap();
    let newer = runtime.prefetch(path("newer")).unwrap();
    assert!(matches!(runtime.settle(), Err(Error::TooLarge { .. })));
    assert!(matches!(runtime.switch(newer), Err(Error::NotResident { .. })));
    runtime.switch(fashion).unwrap();
    assert_scores(&mut runtime, "fashion", &want[1]);

    // It is replaced by one that fits, and takes no room beside it.
    runtime.switch(digits).unwrap();
    runtime.set_budget(runtime.resident_bytes());
    runtime.prefetch(path("newer")).unwrap();
    runtime.settle().unwrap();
    runtime.switch(newer).unwrap();
    assert_scores(&mut runtime, "fashion", &want[1]);
    assert!(matches!(runtime.switch(fashion), Err(Error::NotResident { .. })));
}

#[test]
fn a_refused_task_leaves_the_workspace_as_it_was() {
    let packed = store::packed(ARCH, SIZE, 82);
    let directory = store::directory(&packed);
    let mut runtime = Runtime::new(backbone(&packed), 1);
    let id = runtime.load_bytes("digits", &packed.tasks[0].1).unwrap();
    runtime.switch(id).unwrap();
    runtime.set_budget(runtime.resident_bytes());
    let before = runtime.workspace_bytes();
    let larger = store::resized(&packed, 96);
    assert!(matches!(runtime.load_bytes("signs", &larger.tasks[2].1), Err(Error::TooLarge { .. })));
    assert_eq!(runtime.workspace_bytes(), before);
    runtime.set_budget(1);
    let path = directory.path().join("larger.task");
    std::fs::write(&path, &larger.tasks[2].1).unwrap();
    runtime.prefetch(&path).unwrap();
    assert!(matches!(runtime.settle(), Err(Error::TooLarge { .. })));
    assert_eq!(runtime.workspace_bytes(), before);
    // A frame without a task is counted as failed.
    let mut runtime = Runtime::new(backbone(&packed), 1);
    assert!(super::slots::frame(&mut runtime).is_err());
    assert_eq!(runtime.stats().failed_frames, 1);
}
