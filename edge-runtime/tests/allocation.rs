//! Frames and switches between resident tasks do not allocate; ten thousand switches under a tight budget
//! hold no more memory than the first few.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

#[path = "runtime/gate.rs"]
mod gate;
#[path = "runtime/naive.rs"]
mod naive;
#[path = "runtime/random.rs"]
#[allow(dead_code, reason = "the tests in `runtime` use the rest")]
mod random;
#[path = "runtime/rounded.rs"]
mod rounded;
#[path = "runtime/store.rs"]
#[allow(dead_code, reason = "the tests in `runtime` use the rest")]
mod store;

use edge_runtime::kernels::Isa;
use edge_runtime::{Backbone, Frame, Options, Packing, Runtime, TaskId, pack_backbone};
use gate::Gate;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Counts all allocations of the process, and the bytes currently held.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every method passes its arguments on to the system allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `System.alloc` above with this layout, as the caller guarantees.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// The only test in its binary: another one on a second thread would allocate, too.
#[test]
fn frames_and_warm_switches_allocate_nothing_and_memory_does_not_grow() {
    frames_and_warm_switches_allocate_nothing();
    ten_thousand_resident_switches_hold_the_same_bytes();
    loads_and_evictions_hold_no_more_than_the_first_round();
    what_is_prefetched_keeps_to_the_budget_though_nobody_takes_it_in();
    what_left_does_not_pile_up_where_the_loader_is_busy();
    tasks_of_other_sizes_hold_hardly_more_than_is_counted();
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > 100, "nothing was counted at all");
}

/// Resident pages of this process.
fn pages() -> usize {
    std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

/// Returns once the loader is idle, waits for room, or is blocked at a gate: its thread sleeps.
fn loader_waits() {
    let sleeps = |thread: std::io::Result<std::fs::DirEntry>| {
        // A thread that is just exiting no longer has this file.
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
        stat.contains("(edge-loader) S ")
    };
    while !std::fs::read_dir("/proc/self/task").unwrap().any(sleeps) {
        std::thread::yield_now();
    }
}

/// Blocks the loader. What it allocates on its way there would be counted later.
fn gate_before(runtime: &mut Runtime, directory: &Path) -> Gate {
    let gate = Gate::before(runtime, directory);
    loader_waits();
    gate
}

fn ten_thousand_resident_switches_hold_the_same_bytes() {
    let packed = store::packed("cifar-resnet20-b", 12, 6);
    let backbone = Backbone::from_bytes("b", packed.backbone.clone(), &Options::default()).unwrap();
    let mut runtime = Runtime::new(backbone, 1);
    let ids: Vec<_> =
        packed.tasks.iter().map(|(name, bytes, ..)| runtime.load_bytes(name, bytes).unwrap()).collect();
    let input = vec![0.25; 3 * 12 * 12];
    let mut rng = random::Rng::new(8);
    let mut at_start = None;
    for round in 0..10_100 {
        // The first hundred rounds touch all pages that are ever touched.
        if round == 100 {
            at_start = Some((HELD.load(Ordering::Relaxed), ALLOCATIONS.load(Ordering::Relaxed), pages()));
        }
        runtime.switch(ids[rng.below(3)]).unwrap();
        if round % 20 == 0 {
            tensor(&mut runtime, &input);
        }
    }
    let at_end = (HELD.load(Ordering::Relaxed), ALLOCATIONS.load(Ordering::Relaxed), pages());
    // Reading the page count allocates and frees the text of a file.
    let (held, allocations, resident) = at_start.unwrap();
    assert_eq!((at_end.0, at_end.1 - allocations <= 16), (held, true), "{at_end:?} after {at_start:?}");
    assert!(at_end.2 <= resident + 16, "{at_end:?} after {at_start:?}");
    assert!(runtime.stats().switches > 5_000);
}

fn loads_and_evictions_hold_no_more_than_the_first_round() {
    let packed = store::packed("cifar-resnet20-b", 12, 7);
    let directory = store::directory(&packed);
    let backbone = Backbone::from_bytes("b", packed.backbone.clone(), &Options::default()).unwrap();
    let mut runtime = Runtime::new(backbone, 1);
    runtime.set_stream_from(0);
    let paths = store::NAMES.map(|name| directory.path().join(name).with_extension("task"));
    let ids = paths.each_ref().map(|path| runtime.load(path).unwrap());
    // Room for two of three: every round evicts and loads.
    let largest = runtime.resident().map(|(_, task)| task.resident_bytes()).max().unwrap();
    runtime.set_budget(2 * largest + largest / 2);
    let input = vec![0.25; 3 * 12 * 12];
    let mut held = Vec::new();
    for round in 0..240 {
        let next = round % 3;
        match round / 3 % 3 {
            0 => runtime.load(&paths[next]).unwrap(),
            1 => runtime.prefetch(&paths[next]).unwrap(),
            _ => runtime.stream(&paths[next]).unwrap(),
        };
        runtime.settle().unwrap();
        runtime.switch(ids[next]).unwrap();
        tensor(&mut runtime, &input);
        assert!(runtime.resident_bytes() <= 2 * largest + largest / 2);
        held.push(HELD.load(Ordering::Relaxed));
    }
    assert!(runtime.stats().evictions > 30, "{:?}", runtime.stats());
    // It is a matter of chance when this thread and the loader first decode at the same time and need two
    // decoders from then on: hence so many rounds. Memory the loader has yet to free may still be held: two
    // tasks and a file's bytes.
    let most = |held: &[usize]| held.iter().copied().max().unwrap();
    let (early, late) = (most(&held[9..120]), most(&held[120..]));
    assert!(late <= early + 3 * largest, "{early} bytes held at first, {late} in the end");
}

fn what_is_prefetched_keeps_to_the_budget_though_nobody_takes_it_in() {
    let packed = store::packed("cifar-resnet20-b", 12, 9);
    let directory = store::directory(&packed);
    let backbone = Backbone::from_bytes("b", packed.backbone.clone(), &Options::default()).unwrap();
    let mut runtime = Runtime::new(backbone, 1);
    let id = runtime.load(directory.path().join("digits.task")).unwrap();
    runtime.switch(id).unwrap();
    let paths: Vec<_> = (0..40).map(|i| directory.path().join(format!("{i}.task"))).collect();
    for (i, path) in paths.iter().enumerate() {
        std::fs::write(path, store::constant(&packed, &i.to_string(), &packed.tasks[0].2)).unwrap();
    }
    let one = runtime.resident_bytes();
    runtime.set_budget(4 * one + one / 2);
    let before = HELD.load(Ordering::Relaxed);
    for path in &paths {
        runtime.prefetch(path).unwrap();
    }
    loader_waits();
    let held = HELD.load(Ordering::Relaxed);
    // Three beside the running one, one in excess, and the working memory of a load.
    assert!(held - before < 8 * one, "{} bytes, tasks of {one}", held - before);
    assert_eq!(runtime.stats().loads, 1);
    runtime.settle().unwrap();
    assert_eq!((runtime.stats().loads, runtime.stats().evictions), (41, 37));
    assert!(runtime.resident_bytes() <= 4 * one + one / 2);
}

fn tasks_of_other_sizes_hold_hardly_more_than_is_counted() {
    let packed = store::packed("cifar-resnet20-b", 12, 10);
    let backbone = Backbone::from_bytes("b", packed.backbone.clone(), &Options::default()).unwrap();
    let mut runtime = Runtime::new(backbone, 1);
    let smaller = |i: usize| {
        let mut plan = packed.tasks[0].2.clone();
        if let Some(bundles::plan::Op::Linear(linear)) = plan.head.last_mut() {
            linear.c_out = 600;
        }
        store::constant(&packed, &format!("{i}"), &plan)
    };
    let mut plan = packed.tasks[0].2.clone();
    if let Some(bundles::plan::Op::Linear(linear)) = plan.head.last_mut() {
        linear.c_out = 1_000;
    }
    let larger = store::constant(&packed, "larger", &plan);
    let smaller: Vec<Vec<u8>> = (0..30).map(smaller).collect();
    let load = |runtime: &mut Runtime, i: usize| {
        let large = runtime.load_bytes("larger", &larger).unwrap();
        runtime.evict(large).unwrap();
        runtime.load_bytes("smaller", &smaller[i]).unwrap();
    };
    load(&mut runtime, 0);
    let before = (HELD.load(Ordering::Relaxed), runtime.resident_bytes());
    (1..30).for_each(|i| load(&mut runtime, i));
    let held = HELD.load(Ordering::Relaxed) - before.0;
    let counted = runtime.resident_bytes() - before.1;
    assert!(held < counted + counted / 8 + (1 << 20), "{held} bytes held, {counted} counted");
}

fn what_left_does_not_pile_up_where_the_loader_is_busy() {
    let packed = store::packed("cifar-resnet20-b", 12, 66);
    let directory = store::directory(&packed);
    let path = |name: &str| directory.path().join(name).with_extension("task");
    let backbone = Backbone::from_bytes("b", packed.backbone.clone(), &Options::default()).unwrap();
    let mut runtime = Runtime::new(backbone, 1);
    let digits = runtime.load(path("digits")).unwrap();
    runtime.switch(digits).unwrap();
    let signs = runtime.load(path("signs")).unwrap();
    let both = runtime.resident_bytes();
    runtime.set_budget(both);
    let gate = gate_before(&mut runtime, directory.path());
    let input = vec![0.25; 3 * 12 * 12];
    let before = HELD.load(Ordering::Relaxed);
    for _ in 0..200 {
        runtime.evict(signs).unwrap();
        runtime.load(path("signs")).unwrap();
    }
    // What one load keeps for the next, and one task the loader has yet to free.
    let held = HELD.load(Ordering::Relaxed).saturating_sub(before);
    assert!(held < 2 * both, "{held} bytes more than before, tasks of {both}");
    runtime.set_stream_from(0);
    runtime.set_budget(2 * both);
    for _ in 0..200 {
        let id = runtime.stream(path("digits")).unwrap();
        runtime.switch(id).unwrap();
        tensor(&mut runtime, &input);
    }
    let held = HELD.load(Ordering::Relaxed).saturating_sub(before);
    assert!(held < 3 * both, "{held} bytes more than before, tasks of {both}");
    gate.open(&mut runtime);
}

fn frames_and_warm_switches_allocate_nothing() {
    for (arch, size, threads) in
        [("cifar-resnet20-a", 16, 1), ("cifar-resnet20-b", 13, 2), ("resnet50-s1", 32, 2)]
    {
        let packed = store::packed(arch, size, 1);
        let int8 = pack_backbone("b", &packed.backbone, Packing::Int8, &[]).unwrap();
        let tasks = [0, 1, 2];
        for (precision, backbone, tasks) in [
            ("f32", &packed.backbone, tasks.map(|i| packed.tasks[i].1.clone())),
            ("int8", &int8, tasks.map(|i| rounded::task(&packed, i, |_, _| ()))),
        ] {
            for isa in Isa::available() {
                let options = Options { isa: Some(isa), ..Options::default() };
                let backbone = Backbone::from_bytes("b", backbone.clone(), &options).unwrap();
                assert_eq!(backbone.is_int8(), precision == "int8");
                let what = format!("{arch}, {precision}, {isa}");
                frames_of_tasks_that_came_in_any_way(&what, Runtime::new(backbone, threads), &tasks, size);
            }
        }
    }
}

/// Frames of a task that was prefetched, of one that was loaded, and of one that was streamed completely,
/// before and after the loader has reported it.
fn frames_of_tasks_that_came_in_any_way(what: &str, mut runtime: Runtime, tasks: &[Vec<u8>; 3], size: usize) {
    let directory = tempfile::tempdir().unwrap();
    let file = |i: usize| {
        let path = directory.path().join(format!("{i}.task"));
        std::fs::write(&path, &tasks[i]).unwrap();
        path
    };
    let input = vec![0.25; 3 * size * size];
    runtime.set_stream_from(0);
    let prefetched = runtime.prefetch(file(0)).unwrap();
    runtime.settle().unwrap();
    let gate = gate_before(&mut runtime, directory.path());
    assert_eq!(allocations(&mut runtime, prefetched, false, |runtime| tensor(runtime, &input)), 0, "{what}");
    let loaded = runtime.load_bytes("1.task", &tasks[1]).unwrap();
    assert_eq!(allocations(&mut runtime, loaded, false, |runtime| tensor(runtime, &input)), 0, "{what}");
    let streamed = runtime.stream(file(2)).unwrap();
    runtime.switch(streamed).unwrap();
    tensor(&mut runtime, &input);
    assert!(runtime.is_loading(streamed) && runtime.current().unwrap().1.is_complete());
    let ids = [loaded, prefetched, streamed];
    // The first image of a size sets up the resampler, and the loaded task takes grey images.
    let set_up = ids.map(|id| allocations(&mut runtime, id, false, image));
    assert!(set_up[0] > 0 && set_up[1] > 0, "{what}: {set_up:?}");
    frames_allocate_nothing(what, &mut runtime, &ids, &input);
    gate.open(&mut runtime);
    assert!(!runtime.is_loading(streamed));
    let gate = gate_before(&mut runtime, directory.path());
    frames_allocate_nothing(what, &mut runtime, &ids, &input);
    gate.open(&mut runtime);
    assert_eq!((runtime.stats().missed_deadlines, runtime.stats().failed_switches), (0, 0), "{what}");
}

fn frames_allocate_nothing(what: &str, runtime: &mut Runtime, ids: &[TaskId], input: &[f32]) {
    for deadline in [None, Some(Duration::from_secs(3600))] {
        runtime.set_deadline(deadline);
        for asks in [false, true] {
            for &id in ids.iter().cycle().take(2 * ids.len()) {
                let of_tensor = allocations(runtime, id, asks, |runtime| tensor(runtime, input));
                let of_image = allocations(runtime, id, asks, image);
                assert_eq!(
                    (of_tensor, of_image),
                    (0, 0),
                    "{what}: {id:?}, asks: {asks}, deadline: {deadline:?}"
                );
            }
        }
    }
}

/// Number of allocations made by a switch to `id` (requested by a switcher or not) and a frame.
fn allocations(runtime: &mut Runtime, id: TaskId, asks: bool, frame: impl Fn(&mut Runtime)) -> usize {
    let switcher = runtime.switcher();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    match asks {
        true => switcher.switch(id),
        false => runtime.switch(id).unwrap(),
    }
    frame(runtime);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    assert_eq!(runtime.current().unwrap().0, id);
    allocations
}

fn tensor(runtime: &mut Runtime, input: &[f32]) {
    runtime.tensor(input).unwrap();
}

fn image(runtime: &mut Runtime) {
    let frame = Frame { width: 40, height: 30, channels: 3, pixels: &[77; 40 * 30 * 3] };
    runtime.frame(frame).unwrap();
}
