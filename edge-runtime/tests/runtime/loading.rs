//! Loads beside a running task: cancelled, overtaken, replaced, requested from other threads.

use super::slots::{ARCH, SIZE, assert_scores, backbone, expected};
use super::store;
use edge_runtime::{Error, Runtime, Stats};
use std::sync::Barrier;
use std::time::Duration;

#[test]
fn a_cancelled_load_never_arrives_and_leaves_the_running_task() {
    let packed = store::packed(ARCH, SIZE, 41);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    for stream in [false, true] {
        let mut runtime = Runtime::new(backbone(&packed), 1);
        runtime.set_stream_from(0);
        let id = runtime.load(path("digits")).unwrap();
        runtime.switch(id).unwrap();
        let begin = |runtime: &mut Runtime, name| match stream {
            true => runtime.stream(path(name)).unwrap(),
            false => runtime.prefetch(path(name)).unwrap(),
        };
        let cancelled = begin(&mut runtime, "fashion");
        runtime.evict(cancelled).unwrap();
        // Whatever the loader was doing, it has finished once a later load has.
        let other = begin(&mut runtime, "signs");
        runtime.settle().unwrap();
        assert!(runtime.resident().all(|(resident, _)| resident != cancelled), "stream: {stream}");
        assert!(matches!(runtime.switch(cancelled), Err(Error::NotResident { .. })));
        assert_eq!(runtime.stats().cancelled_loads, 1);
        assert_scores(&mut runtime, "digits", &want[0]);
        runtime.switch(other).unwrap();
        assert_scores(&mut runtime, "signs", &want[2]);

        // It can be loaded again, into the same slot.
        assert_eq!(begin(&mut runtime, "fashion"), cancelled);
        runtime.settle().unwrap();
        runtime.switch(cancelled).unwrap();
        assert_scores(&mut runtime, "fashion", &want[1]);
    }
}

#[test]
fn a_broken_successor_leaves_the_task_it_was_to_replace() {
    let packed = store::packed(ARCH, SIZE, 42);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    let path = directory.path().join("digits.task");
    let damaged = store::damaged(&packed.tasks[0].1);
    // The slot's own task runs, or another one does.
    for running in ["digits", "fashion"] {
        std::fs::write(&path, &packed.tasks[0].1).unwrap();
        let mut runtime = Runtime::new(backbone(&packed), 1);
        runtime.set_stream_from(0);
        let digits = runtime.load(&path).unwrap();
        let fashion = runtime.load(directory.path().join("fashion.task")).unwrap();
        runtime.switch(if running == "digits" { digits } else { fashion }).unwrap();
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(runtime.stream(&path).unwrap(), digits);
        let failed = match running {
            "digits" => super::slots::frame(&mut runtime),
            _ => runtime.settle(),
        };
        assert_eq!(failed.unwrap_err().exit_code(), 3);
        runtime.switch(digits).unwrap();
        assert_scores(&mut runtime, "digits", &want[0]);
        // A valid one replaces it.
        std::fs::write(&path, &packed.tasks[0].1).unwrap();
        assert_eq!(runtime.stream(&path).unwrap(), digits);
        assert_scores(&mut runtime, "digits", &want[0]);
        runtime.settle().unwrap();
        assert_scores(&mut runtime, "digits", &want[0]);
    }
}

#[test]
fn small_bundles_are_loaded_instead_of_streamed() {
    let packed = store::packed(ARCH, SIZE, 44);
    let directory = store::directory(&packed);
    let path = directory.path().join("digits.task");
    let len = std::fs::metadata(&path).unwrap().len() as usize;
    for (from, streamed) in [(len + 1, false), (len, true)] {
        let mut runtime = Runtime::new(backbone(&packed), 1);
        runtime.set_stream_from(from);
        let id = runtime.stream(&path).unwrap();
        // Loaded: there is nothing to wait for, and no loader thread was started.
        assert_eq!(runtime.is_loading(id), streamed);
        runtime.settle().unwrap();
        assert!(runtime.resident().all(|(_, task)| task.is_complete()));
    }
}

#[test]
fn switches_requested_by_other_threads_happen_between_frames() {
    let packed = store::packed(ARCH, SIZE, 45);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    let mut runtime = Runtime::new(backbone(&packed), 1);
    let ids: Vec<_> = store::NAMES
        .iter()
        .map(|name| runtime.load(directory.path().join(name).with_extension("task")).unwrap())
        .collect();
    runtime.switch(ids[0]).unwrap();
    let switcher = runtime.switcher();
    let turn = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20 {
                turn.wait();
                switcher.switch(ids[(round + 1) % 3]);
                // The latest request wins.
                switcher.switch(ids[round % 3]);
                turn.wait();
            }
        });
        for round in 0..20 {
            turn.wait();
            turn.wait();
            assert_scores(&mut runtime, store::NAMES[round % 3], &want[round % 3]);
        }
    });

    // A task that is not resident: the running one stays, and the refusal is reported once.
    runtime.evict(ids[0]).unwrap();
    switcher.switch(ids[0]);
    assert_scores(&mut runtime, store::NAMES[1], &want[1]);
    assert_eq!(runtime.stats().failed_switches, 1);
    assert!(
        matches!(runtime.poll(), Err(Error::NotResident { task: Some(task) }) if task == store::NAMES[0])
    );
    assert!(runtime.poll().is_ok());

    // A task still loading: the running one answers until it has arrived.
    runtime.prefetch(directory.path().join("digits.task")).unwrap();
    switcher.switch(ids[0]);
    let answers = |runtime: &mut Runtime| super::slots::frame(runtime).map(|()| runtime.current().unwrap().0);
    let first = answers(&mut runtime).unwrap();
    assert!(first == ids[1] || first == ids[0]);
    runtime.settle().unwrap();
    assert_eq!(answers(&mut runtime).unwrap(), ids[0]);
    assert_scores(&mut runtime, store::NAMES[0], &want[0]);
    let Stats { failed_switches, .. } = *runtime.stats();
    assert_eq!(failed_switches, 1);
}

#[test]
fn files_are_identified_by_path_and_tasks_by_name() {
    let packed = store::packed(ARCH, SIZE, 46);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    let copy = |from: usize, to: &str| {
        let path = directory.path().join(to);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &packed.tasks[from].1).unwrap();
        path
    };
    let mut runtime = Runtime::new(backbone(&packed), 1);
    let digits = runtime.prefetch(copy(0, "a/model.task")).unwrap();
    let fashion = runtime.prefetch(copy(1, "b/model.task")).unwrap();
    assert_ne!(digits, fashion);
    runtime.settle().unwrap();
    runtime.switch(fashion).unwrap();
    assert_scores(&mut runtime, "fashion", &want[1]);
    assert_eq!(runtime.prefetch(directory.path().join("a/model.task")).unwrap(), digits, "known by its path");

    // A file of another name with the same task replaces the idle one, and the running one once another task
    // runs.
    let again = runtime.prefetch(copy(0, "c/newer.task")).unwrap();
    runtime.settle().unwrap();
    assert_eq!(runtime.find("digits"), Some(again));
    assert!(matches!(runtime.switch(digits), Err(Error::NotResident { .. })));
    runtime.switch(again).unwrap();
    let third = runtime.prefetch(copy(0, "d/newest.task")).unwrap();
    runtime.settle().unwrap();
    assert_scores(&mut runtime, "digits", &want[0]);
    runtime.switch(third).unwrap();
    assert_scores(&mut runtime, "digits", &want[0]);
    assert_eq!(runtime.find("digits"), Some(third));
    // Loaded from elsewhere, it stays in its slot, which takes over that path.
    let path = copy(0, "e/loaded.task");
    assert_eq!(runtime.load(&path).unwrap(), third);
    assert_eq!(runtime.prefetch(&path).unwrap(), third);
}

#[test]
fn two_broken_tasks_in_a_row_leave_the_one_that_ran() {
    let packed = store::packed(ARCH, SIZE, 47);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    for (name, bytes, ..) in &packed.tasks[1..] {
        let damaged = store::damaged(bytes);
        std::fs::write(directory.path().join(name).with_extension("task"), damaged).unwrap();
    }
    let mut runtime = Runtime::new(backbone(&packed), 1);
    runtime.set_stream_from(0);
    let digits = runtime.load(directory.path().join("digits.task")).unwrap();
    runtime.switch(digits).unwrap();
    // The loader is kept busy with others, so that frames find the damage.
    let busy = store::constant(&packed, "busy", &packed.tasks[2].2);
    for i in 0..100 {
        let path = directory.path().join(format!("{i}.task"));
        std::fs::write(&path, &busy).unwrap();
        runtime.prefetch(path).unwrap();
    }
    let mut told = None;
    for name in ["fashion", "signs"] {
        let id = runtime.stream(directory.path().join(name).with_extension("task")).unwrap();
        // If this thread was preempted in between, the loader was faster after all.
        told = runtime.switch(id).err().or(told);
    }
    let error = super::slots::frame(&mut runtime).err().or(told).expect("the damage is told of");
    assert_eq!(error.exit_code(), 3, "{error}");
    assert_scores(&mut runtime, "digits", &want[0]);
    let _ = runtime.settle();
    assert_eq!(runtime.stats().failed_loads, 2);
}

#[test]
fn an_unreachable_deadline_is_no_deadline() {
    let packed = store::packed(ARCH, SIZE, 49);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    let mut runtime = Runtime::new(backbone(&packed), 1);
    runtime.set_stream_from(0);
    runtime.set_deadline(Some(Duration::MAX));
    let id = runtime.stream(directory.path().join("digits.task")).unwrap();
    runtime.switch(id).unwrap();
    assert_scores(&mut runtime, "digits", &want[0]);
}

#[test]
fn a_request_for_a_task_that_is_being_streamed_waits_for_all_of_it() {
    let packed = store::packed(ARCH, SIZE, 51);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    let mut runtime = Runtime::new(backbone(&packed), 1);
    runtime.set_stream_from(0);
    let digits = runtime.load(path("digits")).unwrap();
    runtime.switch(digits).unwrap();
    let switcher = runtime.switcher();
    for _ in 0..20 {
        let fashion = runtime.stream(path("fashion")).unwrap();
        switcher.switch(fashion);
        // A frame of a task with missing parts would build them, or give up.
        runtime.set_deadline(Some(Duration::ZERO));
        let mut turned = false;
        while !turned {
            super::slots::frame(&mut runtime).unwrap();
            turned = runtime.current().unwrap().0 == fashion;
            assert!(runtime.current().unwrap().1.is_complete());
        }
        runtime.set_deadline(None);
        assert_scores(&mut runtime, "fashion", &want[1]);
        runtime.settle().unwrap();
        runtime.switch(digits).unwrap();
        runtime.evict(fashion).unwrap();
    }
}

#[test]
fn a_frame_gives_up_at_its_deadline_rather_than_wait_for_its_task() {
    let packed = store::packed(ARCH, SIZE, 52);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    let mut runtime = Runtime::new(backbone(&packed), 1);
    runtime.set_stream_from(0);
    let digits = runtime.load(path("digits")).unwrap();
    // The loader may be faster than a frame, but rarely.
    let mut given_up = 0;
    for _ in 0..50 {
        runtime.switch(digits).unwrap();
        let fashion = runtime.stream(path("fashion")).unwrap();
        runtime.switch(fashion).unwrap();
        runtime.set_deadline(Some(Duration::ZERO));
        let missed = runtime.stats().missed_deadlines;
        match super::slots::frame(&mut runtime) {
            Err(Error::Deadline { task }) => {
                assert_eq!(task, "fashion");
                given_up += 1;
            }
            outcome => outcome.unwrap(),
        }
        assert_eq!(runtime.stats().missed_deadlines, missed + 1);
        // It stays the running task, and answers once it has arrived.
        runtime.set_deadline(None);
        assert_scores(&mut runtime, "fashion", &want[1]);
        runtime.settle().unwrap();
        runtime.switch(digits).unwrap();
        runtime.evict(fashion).unwrap();
    }
    assert!(given_up > 0);
}

#[test]
fn errors_of_a_streamed_task_are_reported_even_without_a_frame() {
    let packed = store::packed(ARCH, SIZE, 53);
    let directory = store::directory(&packed);
    let want = expected(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    let damaged = store::damaged(&packed.tasks[1].1);
    std::fs::write(path("damaged"), &damaged).unwrap();
    for _ in 0..20 {
        let mut runtime = Runtime::new(backbone(&packed), 1);
        runtime.set_stream_from(0);
        let digits = runtime.load(path("digits")).unwrap();
        runtime.switch(digits).unwrap();
        let id = runtime.stream(path("damaged")).unwrap();
        let found = match runtime.switch(id) {
            Ok(()) => runtime.settle(),
            found => found,
        };
        assert_eq!(found.unwrap_err().exit_code(), 3);
        // Nothing of it is left, and the previous task runs.
        let resident: Vec<_> = runtime.resident().map(|(id, _)| id).collect();
        assert_eq!(resident, [digits]);
        assert_scores(&mut runtime, "digits", &want[0]);
        assert!(matches!(runtime.switch(id), Err(Error::NotResident { .. })));
        assert_eq!(runtime.stats().failed_loads, 1);
    }
}

#[test]
fn a_task_that_returns_keeps_its_own_name() {
    let packed = store::packed(ARCH, SIZE, 81);
    let directory = store::directory(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    let mut runtime = Runtime::new(backbone(&packed), 1);
    runtime.set_stream_from(0);
    std::fs::write(path("model"), &packed.tasks[0].1).unwrap();
    let digits = runtime.load(path("model")).unwrap();
    runtime.switch(digits).unwrap();
    // The file now holds another task, damaged.
    std::fs::write(path("model"), store::damaged(&packed.tasks[1].1)).unwrap();
    assert_eq!(runtime.stream(path("model")).unwrap(), digits);
    assert!(runtime.settle().is_err());
    assert_eq!((runtime.find(store::NAMES[0]), runtime.find(store::NAMES[1])), (Some(digits), None));
    // A valid one from elsewhere stays idle: nobody switched.
    assert_ne!(runtime.load(path(store::NAMES[1])).unwrap(), digits);
    assert_eq!(runtime.current().unwrap().1.name(), store::NAMES[0]);
}

#[test]
fn idle_tasks_are_replaced_by_the_next_of_their_name() {
    let packed = store::packed(ARCH, SIZE, 62);
    let directory = store::directory(&packed);
    let mut runtime = Runtime::new(backbone(&packed), 1);
    let digits = runtime.load(directory.path().join("digits.task")).unwrap();
    for i in 0..4 {
        runtime.switch(digits).unwrap();
        let path = directory.path().join(format!("v{i}.task"));
        std::fs::write(&path, &packed.tasks[0].1).unwrap();
        runtime.prefetch(&path).unwrap();
        runtime.settle().unwrap();
        assert_eq!(runtime.resident().count(), 2, "the running one and the newest");
    }
}
