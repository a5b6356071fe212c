//! Process-wide settings: candle's thread pool, the allocator's pages, and the thread that `main` runs on.
#![allow(unsafe_code)]

use libmimalloc_sys::{mi_option_set, mi_option_t, mi_option_use_numa_nodes};

/// mimalloc's `purge_delay`, which the bindings lack; option numbers never change.
const PURGE_DELAY: mi_option_t = mi_option_use_numa_nodes - 1;

/// Stack size of pool threads: candle traverses its graph recursively, and `main` runs on such a thread.
const STACK: usize = 16 << 20;

/// Applies all settings, then runs `main` on a thread of rayon's global pool, so that operations start at
/// once instead of waking another thread first.
///
/// Call it first in the program's `main`, with mimalloc as the global allocator.
pub fn run<R: Send>(main: impl FnOnce() -> R + Send) -> R {
    calm_candle();
    keep_pages();
    // Fails only if the pool has already been built; it is then left as it is.
    let _ = rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global();
    rayon::scope(|_| main())
}

/// A pool of `threads` threads for training next to other such pools.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the system cannot create threads.
pub fn pool(threads: usize) -> crate::Result<rayon::ThreadPool> {
    let built = rayon::ThreadPoolBuilder::new().stack_size(STACK).num_threads(threads).build();
    built.map_err(|error| crate::Error::io(std::path::Path::new("threads"))(std::io::Error::other(error)))
}

/// The command line of this process, for records.
pub(crate) fn command_line() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// Limits candle's own element-wise pool to the calling thread.
///
/// Its threads wait for each other by spinning. If anything else is running, a spinning thread occupies the
/// very core its partner waits for, and a step takes several times as long. The operations that matter have
/// their own kernels ([`ops`](crate::ops)) on rayon's threads, which sleep while they wait. A
/// `CANDLE_NUM_THREADS` set by the user is respected.
fn calm_candle() {
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: called first in `main`, before any other thread exists that could read the environment.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
}

/// Lets mimalloc keep freed pages: what one training step frees, the next one needs again. Returning them
/// costs a page fault each, a third of a student's step.
fn keep_pages() {
    // SAFETY: sets one number in mimalloc's table of options.
    unsafe { mi_option_set(PURGE_DELAY, -1) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number is right only if it belongs to the option whose default is one second.
    #[test]
    fn the_purge_delay_is_the_option_we_think_it_is() {
        // SAFETY: reads and writes one number in mimalloc's table of options.
        unsafe {
            assert_eq!(libmimalloc_sys::mi_option_get(PURGE_DELAY), 1000);
            keep_pages();
            assert_eq!(libmimalloc_sys::mi_option_get(PURGE_DELAY), -1);
        }
    }
}
