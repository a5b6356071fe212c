//! A frame allocates nothing, and neither does a switch between resident tasks; ten thousand switches under a
//! tight budget keep no more memory than the first few.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

#[path = "runtime/gate.rs"]
mod gate;
#[path = "runtime/naive.rs"]
mod naive;
#[path = "runtime/random.rs"]
#[allow(dead_code, reason = "the tests in `runtime` use the rest")]
mod random;
#[path = "runtime/store.rs"]
#[allow(dead_code, reason = "the tests in `runtime` use the rest")]
mod store;

use edge_runtime::{Backbone, Frame, Options, Runtime};
use gate::Gate;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts every allocation of the process, and the bytes that are held.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every method passes its arguments on to the system's allocator unchanged; counting allocates
// nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `System.alloc` above with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// The only test of its binary: another one on a second thread would allocate, too.
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

/// Returns once the loader has nothing to do, has no room for it, or stands at a gate: its thread sleeps.
fn loader_waits() {
    let sleeps = |thread: std::io::Result<std::fs::DirEntry>| {
        // A thread that is just ending has no such file any more.
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap_or_default();
        stat.contains("(edge-loader) S ")
    };
    while !std::fs::read_dir("/proc/self/task").unwrap().any(sleeps) {
        std::thread::yield_now();
    }
}

/// Holds up the loader. What it allocates on its way there would count later.
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
        // The first hundred touch what is touched at all.
        if round == 100 {
            at_start = Some((HELD.load(Ordering::Relaxed), ALLOCATIONS.load(Ordering::Relaxed), pages()));
        }
        runtime.switch(ids[rng.below(3)]).unwrap();
        if round % 20 == 0 {
            runtime.tensor(&input).unwrap();
        }
    }
    let at_end = (HELD.load(Ordering::Relaxed), ALLOCATIONS.load(Ordering::Relaxed), pages());
    // Reading the pages allocates the text of a file and frees it again.
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
        runtime.tensor(&input).unwrap();
        assert!(runtime.resident_bytes() <= 2 * largest + largest / 2);
        held.push(HELD.load(Ordering::Relaxed));
    }
    assert!(runtime.stats().evictions > 30, "{:?}", runtime.stats());
    // When this thread and the loader first decode at the same time, and need two decoders from there on, is
    // chance: hence so many rounds. What the loader is to free may still be there: two tasks, a file's bytes.
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
    // Three beside the running one, one beyond, and what a load works with.
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
    // What one load leaves for the next, and one task that the loader is to free.
    let held = HELD.load(Ordering::Relaxed).saturating_sub(before);
    assert!(held < 2 * both, "{held} bytes more than before, tasks of {both}");
    runtime.set_stream_from(0);
    runtime.set_budget(2 * both);
    for _ in 0..200 {
        let id = runtime.stream(path("digits")).unwrap();
        runtime.switch(id).unwrap();
        runtime.tensor(&input).unwrap();
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
        let backbone = Backbone::from_bytes("b", packed.backbone.clone(), &Options::default()).unwrap();
        let mut runtime = Runtime::new(backbone, threads);
        let ids: Vec<_> =
            packed.tasks.iter().map(|(name, bytes, ..)| runtime.load_bytes(name, bytes).unwrap()).collect();
        let pixels = vec![77; 40 * 30 * 3];
        let frame = Frame { width: 40, height: 30, channels: 3, pixels: &pixels };
        let input = vec![0.25; 3 * size * size];
        let mut round = |count: bool| {
            for &id in &ids {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                runtime.switch(id).unwrap();
                runtime.tensor(&input).unwrap();
                let after = ALLOCATIONS.load(Ordering::Relaxed);
                assert!(!count || after == before, "{arch}: {} allocations in a frame", after - before);
            }
        };
        round(false);
        round(true);
        // Images: the first frame of a size sets the resampler up, the others reuse it.
        for &id in &[ids[0], ids[2]] {
            runtime.switch(id).unwrap();
            runtime.frame(frame).unwrap();
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            for _ in 0..5 {
                runtime.frame(frame).unwrap();
            }
            assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before, "{arch}");
        }
        // One of them wants grey images.
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for turn in 0..12 {
            if turn == 3 {
                // By now each has seen a frame.
                assert!(ALLOCATIONS.load(Ordering::Relaxed) > before, "{arch}");
            }
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            runtime.switch(ids[turn % 3]).unwrap();
            runtime.frame(frame).unwrap();
            assert!(turn < 3 || ALLOCATIONS.load(Ordering::Relaxed) == before, "{arch}: turn {turn}");
        }
    }
}
