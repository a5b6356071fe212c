//! A frame allocates nothing, and neither does a switch between resident tasks.
#![allow(unsafe_code)]

#[path = "runtime/naive.rs"]
mod naive;
#[path = "runtime/random.rs"]
#[allow(dead_code, reason = "the tests in `runtime` use the rest")]
mod random;
#[path = "runtime/store.rs"]
#[allow(dead_code, reason = "the tests in `runtime` use the rest")]
mod store;

use edge_runtime::{Backbone, Frame, Options, Runtime};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts every allocation of the process.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every method passes its arguments on to the system's allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` above with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// The only test of its binary: another one on a second thread would allocate, too.
#[test]
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
    }
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > 100, "nothing was counted at all");
}
