//! Every part runs exactly once, whatever panics.

use super::*;
use std::sync::atomic::AtomicU32;

#[test]
fn shares_cover_every_part_once() {
    for (parts, n) in [(0, 1), (1, 4), (7, 2), (8, 3), (100, 7)] {
        let all: Vec<usize> = (0..n).flat_map(|t| share(parts, t, n)).collect();
        assert_eq!(all, (0..parts).collect::<Vec<_>>(), "{parts} parts over {n} threads");
    }
}

#[test]
fn every_part_runs_once_in_every_run() {
    for threads in [1, 2, 5] {
        let pool = Pool::new(threads);
        assert_eq!(pool.threads(), threads);
        let counts: Vec<AtomicU32> = (0..13).map(|_| AtomicU32::new(0)).collect();
        for _ in 0..2_000 {
            pool.run(counts.len(), &|part| {
                counts[part].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 2_000), "{threads} threads");
    }
}

#[test]
fn a_worker_that_never_wakes_is_not_waited_for() {
    let (sender, gate) = std::sync::mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    // This pool's worker sleeps until the gate opens, like one that finds no free core.
    let pool = Pool::start(2, move |shared, index| {
        let _ = gate.lock().unwrap().recv();
        work(shared, index);
    });
    // Dropped before the pool, which waits for its worker.
    let _closed_until_the_end = sender;
    let count = AtomicU32::new(0);
    let caller = thread::current().id();
    for parts in [2, 3, 64] {
        pool.run(parts, &|_| {
            assert_eq!(thread::current().id(), caller);
            count.fetch_add(1, Ordering::Relaxed);
        });
    }
    assert_eq!(count.into_inner(), 2 + 3 + 64);
}

#[test]
fn chunks_are_disjoint_and_complete() {
    let pool = Pool::new(3);
    let mut data = vec![0.0; 103];
    pool.for_each_chunk(&mut data, 10, &|index, chunk| {
        for x in chunk {
            *x += 1.0 + index as f32;
        }
    });
    let want: Vec<f32> = (0..103).map(|i| 1.0 + (i / 10) as f32).collect();
    assert_eq!(data, want);
    pool.for_each_chunk(&mut data, 0, &|_, _| unreachable!("no chunk of no floats"));
}

#[test]
fn a_nested_or_concurrent_run_still_completes() {
    let pool = Pool::new(2);
    let count = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                pool.run(4, &|_| {
                    pool.run(5, &|_| {
                        count.fetch_add(1, Ordering::Relaxed);
                    });
                });
            });
        }
    });
    assert_eq!(count.into_inner(), 3 * 4 * 5);
}

#[test]
fn a_panicking_part_reaches_the_caller_and_leaves_the_pool_usable() {
    let pool = Pool::new(2);
    for bad in [0, 3] {
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.run(4, &|part| assert_ne!(part, bad, "asked to fail"));
        }));
        assert!(result.is_err(), "part {bad}");
    }
    let mut data = [0.0; 4];
    pool.for_each_chunk(&mut data, 1, &|_, x| x[0] = 1.0);
    assert_eq!(data, [1.0; 4]);
}

#[test]
fn a_payload_that_panics_on_drop_does_not_end_the_wait() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(thread::panicking(), "dropped");
        }
    }
    let pool = Pool::new(3);
    let (started, inside) = (AtomicBool::new(false), AtomicBool::new(false));
    for _ in 0..3 {
        started.store(false, Ordering::SeqCst);
        let part = |part| {
            if part == 2 {
                inside.store(true, Ordering::SeqCst);
                started.store(true, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(30));
                inside.store(false, Ordering::SeqCst);
                return;
            }
            while !started.load(Ordering::SeqCst) {
                thread::yield_now();
            }
            std::panic::panic_any(Bomb);
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(3, &part)));
        assert!(!inside.load(Ordering::SeqCst), "returned before a worker had left the closure");
        std::mem::forget(outcome.unwrap_err());
    }
}
