//! The C ABI, declared in `include/edge_runtime.h`: wraps [`Runtime`] and its error messages.
//!
//! `cargo build --release -p edge-runtime` builds `libedge_runtime.a`; `cargo rustc --release -p edge-runtime
//! --lib --crate-type cdylib` a shared library. No panic crosses this boundary: panics become errors.
#![allow(unsafe_code)]

mod border;
mod tasks;

pub use border::{DEADLINE, INPUT, NOT_RESIDENT, edge_runtime_last_error, edge_runtime_version};
pub use tasks::{
    edge_runtime_classes, edge_runtime_current, edge_runtime_find, edge_runtime_is_loading,
    edge_runtime_is_resident, edge_runtime_label, edge_runtime_self_test, edge_runtime_task_digest,
    edge_runtime_task_name,
};

use crate::{Backbone, Error, Frame, Options, Result, Runtime, Switcher, TaskId, trusted_key};
use border::{guarded, null, string};
use std::ffi::{c_char, c_int};
use std::time::Duration;

/// Size of a label in a result, including the NUL terminator; longer labels are truncated.
pub const LABEL: usize = 64;

/// The handle held by C: an open backbone with its tasks.
#[derive(Debug)]
pub struct EdgeRuntime {
    runtime: Runtime,
}

/// The answer to a frame, in C layout.
#[repr(C)]
#[derive(Debug)]
pub struct EdgeResult {
    /// Index of the best class.
    pub class: i32,
    /// Its probability.
    pub score: f32,
    /// All scores, before softmax; valid until the next call with this runtime.
    pub logits: *const f32,
    /// Number of scores.
    pub classes: usize,
    /// 1 if the answer came after the deadline.
    pub late: i32,
    /// Label of the best class, UTF-8, NUL-terminated.
    pub label: [u8; LABEL],
}

/// # Safety
/// `runtime` is NULL or came from [`edge_runtime_open`], has not been closed, and is not in use elsewhere.
unsafe fn borrowed<'a>(runtime: *mut EdgeRuntime) -> Result<&'a mut EdgeRuntime> {
    // SAFETY: not NULL after this check; alive and not shared, as the caller guarantees.
    unsafe { runtime.as_mut() }.ok_or_else(|| null("runtime"))
}

/// Opens the backbone at `backbone` for `threads` threads. NULL on failure.
///
/// # Safety
/// `backbone` is NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_open(backbone: *const c_char, threads: u32) -> *mut EdgeRuntime {
    let mut opened = std::ptr::null_mut();
    guarded(|| {
        // SAFETY: guaranteed by the caller.
        let path = unsafe { string(backbone, "backbone") }?;
        opened = open(path, threads, &Options::default())?;
        Ok(0)
    });
    opened
}

/// As [`edge_runtime_open`], for a backbone and tasks signed with one of `count` keys: `keys` are paths of
/// public key files. Any other file is refused.
///
/// # Safety
/// As [`edge_runtime_open`]; `keys` is NULL or `count` pointers, each NULL or a NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_open_trusted(
    backbone: *const c_char,
    threads: u32,
    keys: *const *const c_char,
    count: usize,
) -> *mut EdgeRuntime {
    let mut opened = std::ptr::null_mut();
    guarded(|| {
        // SAFETY: guaranteed by the caller.
        let path = unsafe { string(backbone, "backbone") }?;
        if keys.is_null() || count == 0 {
            return Err(Error::Usage { got: "no keys".into(), want: "paths of public key files".into() });
        }
        let key = |i| {
            // SAFETY: the caller guarantees `count` pointers, each NULL or a NUL-terminated string.
            let path = unsafe { string(*keys.add(i), "a key") }?;
            trusted_key(path)
        };
        let trusted = (0..count).map(key).collect::<Result<Vec<_>>>()?;
        opened = open(path, threads, &Options { trusted, ..Options::default() })?;
        Ok(0)
    });
    opened
}

fn open(path: &str, threads: u32, options: &Options) -> Result<*mut EdgeRuntime> {
    let runtime = Runtime::new(Backbone::open(path, options)?, threads.max(1) as usize);
    Ok(Box::into_raw(Box::new(EdgeRuntime { runtime })))
}

/// A task's number as a C int.
fn number(id: TaskId) -> Result<c_int> {
    c_int::try_from(id.0).map_err(|_| Error::Internal { what: "too many tasks".into() })
}

/// The task with a number. A negative number matches no task and is reported unchanged in errors.
fn task(number: c_int) -> TaskId {
    TaskId(usize::try_from(number).unwrap_or(usize::MAX - number.unsigned_abs() as usize))
}

/// Calls `act` with the runtime and a path or name. Returns the number of the resulting task, or a negative
/// exit code.
///
/// # Safety
/// `runtime` as returned by [`edge_runtime_open`], used by one thread at a time; `name` NULL or a
/// NUL-terminated string.
unsafe fn named(
    runtime: *mut EdgeRuntime,
    name: *const c_char,
    act: impl FnOnce(&mut Runtime, &str) -> Result<TaskId>,
) -> c_int {
    guarded(|| {
        // SAFETY: guaranteed by the caller.
        let (this, name) = unsafe { (borrowed(runtime)?, string(name, "path or name")?) };
        number(act(&mut this.runtime, name)?)
    })
}

/// Calls `act` with the runtime. Returns its result, or a negative exit code.
///
/// # Safety
/// `runtime` as returned by [`edge_runtime_open`], used by one thread at a time.
unsafe fn acted(runtime: *mut EdgeRuntime, act: impl FnOnce(&mut Runtime) -> Result<c_int>) -> c_int {
    guarded(|| {
        // SAFETY: guaranteed by the caller.
        act(&mut unsafe { borrowed(runtime) }?.runtime)
    })
}

/// Loads the task bundle at `path` on this thread ([`Runtime::load`]). Returns its number, from 0, or a
/// negative exit code. The running task does not change.
///
/// # Safety
/// `runtime` as returned by [`edge_runtime_open`], used by one thread at a time; `path` NULL or a
/// NUL-terminated string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_load(runtime: *mut EdgeRuntime, path: *const c_char) -> c_int {
    // SAFETY: guaranteed by the caller.
    unsafe { named(runtime, path, |runtime, path| runtime.load(path)) }
}

/// Loads a task bundle from memory ([`Runtime::load_bytes`]). Returns its number. `name` replaces the path in
/// messages.
///
/// # Safety
/// As [`edge_runtime_load`] for `runtime` and `name`; `bytes` NULL or `len` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_load_bytes(
    runtime: *mut EdgeRuntime,
    name: *const c_char,
    bytes: *const u8,
    len: usize,
) -> c_int {
    let load = |runtime: &mut Runtime, name: &str| {
        if bytes.is_null() || isize::try_from(len).is_err() {
            let got = format!("{len} bytes at {bytes:p}");
            return Err(Error::Usage { got, want: "a bundle in memory".into() });
        }
        // SAFETY: not NULL, and the caller guarantees `len` readable bytes; `len` is at most isize::MAX.
        runtime.load_bytes(name, unsafe { std::slice::from_raw_parts(bytes, len) })
    };
    // SAFETY: guaranteed by the caller.
    unsafe { named(runtime, name, load) }
}

/// Starts loading the task bundle at `path` on another thread ([`Runtime::prefetch`]). Returns its number.
///
/// # Safety
/// As [`edge_runtime_load`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_prefetch(runtime: *mut EdgeRuntime, path: *const c_char) -> c_int {
    // SAFETY: guaranteed by the caller.
    unsafe { named(runtime, path, |runtime, path| runtime.prefetch(path)) }
}

/// Makes the task bundle at `path` available for switching while it is still being decoded
/// ([`Runtime::stream`]). Returns its number.
///
/// # Safety
/// As [`edge_runtime_load`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_stream(runtime: *mut EdgeRuntime, path: *const c_char) -> c_int {
    // SAFETY: guaranteed by the caller.
    unsafe { named(runtime, path, |runtime, path| runtime.stream(path)) }
}

/// Makes `task` answer the following frames. Returns 0, or a negative exit code.
///
/// # Safety
/// `runtime` as returned by [`edge_runtime_open`], used by one thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_switch(runtime: *mut EdgeRuntime, number: c_int) -> c_int {
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, |runtime| runtime.switch(task(number)).map(|()| 0)) }
}

/// Removes a task from memory, or cancels its load ([`Runtime::evict`]). Returns 0, or a negative exit code.
///
/// # Safety
/// As [`edge_runtime_switch`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_evict(runtime: *mut EdgeRuntime, number: c_int) -> c_int {
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, |runtime| runtime.evict(task(number)).map(|()| 0)) }
}

/// Takes in finished loads without waiting ([`Runtime::poll`]). Returns 0, or the error of a failed one.
///
/// # Safety
/// As [`edge_runtime_switch`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_poll(runtime: *mut EdgeRuntime) -> c_int {
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, |runtime| runtime.poll().map(|()| 0)) }
}

/// Waits until nothing is being loaded ([`Runtime::settle`]). Returns 0, or the error of a failed load.
///
/// # Safety
/// As [`edge_runtime_switch`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_settle(runtime: *mut EdgeRuntime) -> c_int {
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, |runtime| runtime.settle().map(|()| 0)) }
}

/// Limits the bytes of resident tasks ([`Runtime::set_budget`]). Returns 0, or a negative exit code.
///
/// # Safety
/// As [`edge_runtime_switch`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_set_budget(runtime: *mut EdgeRuntime, bytes: usize) -> c_int {
    let set = |runtime: &mut Runtime| {
        runtime.set_budget(bytes);
        Ok(0)
    };
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, set) }
}

/// Sets the time limit of a frame in microseconds, 0 for none ([`Runtime::set_deadline`]). Returns 0, or a
/// negative exit code.
///
/// # Safety
/// As [`edge_runtime_switch`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_set_deadline(runtime: *mut EdgeRuntime, micros: u64) -> c_int {
    let set = |runtime: &mut Runtime| {
        runtime.set_deadline((micros > 0).then(|| Duration::from_micros(micros)));
        Ok(0)
    };
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, set) }
}

/// Writes counters and gauges as Prometheus text to the `size` bytes at `text`, truncated to fit and
/// NUL-terminated. Returns the length of the whole text without the NUL, or a negative exit code.
///
/// # Safety
/// As [`edge_runtime_switch`]; `text` NULL or `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_metrics(
    runtime: *mut EdgeRuntime,
    text: *mut c_char,
    size: usize,
) -> c_int {
    let write = |runtime: &mut Runtime| {
        // SAFETY: guaranteed by the caller.
        unsafe { border::put(&runtime.metrics(), text, size) }
    };
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, write) }
}

/// A [`Switcher`] of this runtime, for other threads. NULL on failure.
///
/// # Safety
/// As [`edge_runtime_switch`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_switcher(runtime: *mut EdgeRuntime) -> *mut Switcher {
    let mut made = std::ptr::null_mut();
    let make = |runtime: &mut Runtime| {
        made = Box::into_raw(Box::new(runtime.switcher()));
        Ok(0)
    };
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, make) };
    made
}

/// Requests a switch to `task` before the next frame. A single store; safe from any thread, even during a
/// frame.
///
/// # Safety
/// `switcher` is NULL or as returned by [`edge_runtime_switcher`] and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_switcher_switch(switcher: *const Switcher, number: c_int) {
    // SAFETY: NULL is handled; otherwise alive, as the caller guarantees, and only shared access is needed.
    if let Some(switcher) = unsafe { switcher.as_ref() } {
        switcher.switch(task(number));
    }
}

/// Frees a switcher. NULL is allowed.
///
/// # Safety
/// `switcher` is NULL or as returned by [`edge_runtime_switcher`]; it is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_switcher_free(switcher: *mut Switcher) {
    if !switcher.is_null() {
        // SAFETY: it came from `Box::into_raw` and the caller gives up ownership.
        drop(unsafe { Box::from_raw(switcher) });
    }
}

/// Classifies one image, `height * width * channels` bytes (1 grey or 3 RGB), with the running task. Returns
/// 0 and fills `result`, or returns a negative exit code and leaves it unchanged.
///
/// # Safety
/// `runtime` as returned by [`edge_runtime_open`], used by one thread at a time; `pixels` NULL or that many
/// readable bytes; `result` NULL or valid for writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_frame(
    runtime: *mut EdgeRuntime,
    pixels: *const u8,
    width: usize,
    height: usize,
    channels: usize,
    result: *mut EdgeResult,
) -> c_int {
    guarded(|| {
        // SAFETY: guaranteed by the caller.
        let this = unsafe { borrowed(runtime) }?;
        if pixels.is_null() || result.is_null() {
            return Err(null("pixels or result"));
        }
        let size = width.checked_mul(height).and_then(|area| area.checked_mul(channels));
        let size = size.filter(|&size| isize::try_from(size).is_ok()).ok_or_else(|| Error::Input {
            got: format!("a frame of {width}x{height}x{channels}"),
            want: "one that fits into memory".into(),
        })?;
        // SAFETY: not NULL, and the caller guarantees `size` readable bytes; `size` is at most isize::MAX.
        let pixels = unsafe { std::slice::from_raw_parts(pixels, size) };
        let scores = this.runtime.frame(Frame { width, height, channels, pixels })?;
        let mut label = [0; LABEL];
        let end = scores.label.floor_char_boundary(LABEL - 1);
        for (to, from) in label.iter_mut().zip(scores.label.as_bytes().iter().take(end)) {
            *to = *from;
        }
        let answer = EdgeResult {
            class: i32::try_from(scores.class).unwrap_or(i32::MAX),
            score: scores.score,
            logits: scores.logits.as_ptr(),
            classes: scores.logits.len(),
            late: i32::from(scores.late),
            label,
        };
        // SAFETY: not NULL, and the caller guarantees that it is valid for writes.
        unsafe { result.write(answer) };
        Ok(0)
    })
}

/// Frees everything. NULL is allowed.
///
/// # Safety
/// `runtime` is NULL or as returned by [`edge_runtime_open`]; it is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_close(runtime: *mut EdgeRuntime) {
    guarded(|| {
        if !runtime.is_null() {
            // SAFETY: it came from `Box::into_raw` and the caller gives up ownership.
            drop(unsafe { Box::from_raw(runtime) });
        }
        Ok(0)
    });
}
