//! The C ABI, declared in `include/edge_runtime.h`: open, load, switch, frame, last error, close.
//!
//! Build the library with `cargo rustc --release -p edge-runtime --lib --crate-type cdylib` (or `staticlib`).
//! No panic crosses this border: it becomes an error like any other.
#![allow(unsafe_code)]

use crate::{Backbone, Error, Frame, Options, Result, Runtime, TaskId};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes of a label in a result, the closing zero included; longer labels are cut.
pub const LABEL: usize = 64;

/// What C holds: an open backbone with its tasks.
#[derive(Debug)]
pub struct EdgeRuntime {
    runtime: Runtime,
    tasks: Vec<TaskId>,
}

/// The answer to a frame, as C sees it.
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
    /// 1 when the answer came after the deadline.
    pub late: i32,
    /// Label of the best class, UTF-8, ending in a zero.
    pub label: [u8; LABEL],
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Notes `error` for [`edge_runtime_last_error`] and returns its negative exit code.
fn note(error: &Error) -> c_int {
    let text = error.to_string().replace('\0', " ");
    // Without zeros inside, this cannot fail.
    let text = CString::new(text).unwrap_or_default();
    LAST_ERROR.with(|last| *last.borrow_mut() = text);
    -c_int::from(error.exit_code())
}

/// Runs `call`; what goes wrong, panics included, is noted and becomes a negative number.
fn guarded(call: impl FnOnce() -> Result<c_int>) -> c_int {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => note(&error),
        Err(_) => note(&Error::Internal { what: "a panic in the runtime".into() }),
    }
}

fn null(what: &str) -> Error {
    Error::Usage { got: format!("{what} is NULL"), want: "a valid pointer".into() }
}

/// # Safety
/// `text` is NULL or points to a string that ends in a zero and lives as long as the result is used.
unsafe fn string<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL, and the caller promises a string that ends in a zero.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map_err(|_| Error::Usage { got: format!("{what} is not UTF-8"), want: "a UTF-8 path".into() })
}

/// # Safety
/// `runtime` is NULL or came from [`edge_runtime_open`], was not closed, and nobody else uses it meanwhile.
unsafe fn borrowed<'a>(runtime: *mut EdgeRuntime) -> Result<&'a mut EdgeRuntime> {
    // SAFETY: not NULL after this check; alive and not shared, as the caller promises.
    unsafe { runtime.as_mut() }.ok_or_else(|| null("runtime"))
}

/// Opens the backbone at `backbone` for `threads` threads. NULL on failure.
///
/// # Safety
/// `backbone` is NULL or a string that ends in a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_open(backbone: *const c_char, threads: u32) -> *mut EdgeRuntime {
    let mut opened = std::ptr::null_mut();
    guarded(|| {
        // SAFETY: the caller's promise is this function's.
        let path = unsafe { string(backbone, "backbone") }?;
        let backbone = Backbone::open(path, &Options::default())?;
        let runtime = Runtime::new(backbone, threads.max(1) as usize);
        opened = Box::into_raw(Box::new(EdgeRuntime { runtime, tasks: Vec::new() }));
        Ok(0)
    });
    opened
}

/// Loads the task bundle at `path`: its number, from 0, or a negative exit code. The running task stays.
///
/// # Safety
/// `runtime` as returned by [`edge_runtime_open`], used by one thread at a time; `path` NULL or a string that
/// ends in a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_load(runtime: *mut EdgeRuntime, path: *const c_char) -> c_int {
    guarded(|| {
        // SAFETY: the caller's promises are this function's.
        let (this, path) = unsafe { (borrowed(runtime)?, string(path, "path")?) };
        let id = this.runtime.load(path)?;
        let known = this.tasks.iter().position(|task| *task == id).unwrap_or_else(|| {
            this.tasks.push(id);
            this.tasks.len() - 1
        });
        c_int::try_from(known).map_err(|_| Error::Internal { what: "too many tasks".into() })
    })
}

/// Makes `task` answer the frames to come: 0, or a negative exit code.
///
/// # Safety
/// `runtime` as returned by [`edge_runtime_open`], used by one thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_switch(runtime: *mut EdgeRuntime, task: c_int) -> c_int {
    guarded(|| {
        // SAFETY: the caller's promise is this function's.
        let this = unsafe { borrowed(runtime) }?;
        let id = usize::try_from(task).ok().and_then(|task| this.tasks.get(task));
        let id = id.ok_or_else(|| Error::NotResident { task: format!("number {task}") })?;
        this.runtime.switch(*id).map(|()| 0)
    })
}

/// Classifies one image, `height * width * channels` bytes (1 grey or 3 RGB), with the running task: 0 with
/// `result` filled, or a negative exit code with `result` as it was.
///
/// # Safety
/// `runtime` as returned by [`edge_runtime_open`], used by one thread at a time; `pixels` NULL or that many
/// readable bytes; `result` NULL or valid to write.
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
        // SAFETY: the caller's promise is this function's.
        let this = unsafe { borrowed(runtime) }?;
        if pixels.is_null() || result.is_null() {
            return Err(null("pixels or result"));
        }
        let size = width.checked_mul(height).and_then(|area| area.checked_mul(channels));
        let size = size.filter(|&size| isize::try_from(size).is_ok()).ok_or_else(|| Error::Input {
            got: format!("a frame of {width}x{height}x{channels}"),
            want: "one that fits into memory".into(),
        })?;
        // SAFETY: not NULL, and the caller promises `size` readable bytes; `size` is no more than isize::MAX.
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
        // SAFETY: not NULL, and the caller promises that it may be written.
        unsafe { result.write(answer) };
        Ok(0)
    })
}

/// What went wrong last on this thread; empty when nothing did. Valid until this thread's next call.
#[unsafe(no_mangle)]
pub extern "C" fn edge_runtime_last_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}

/// Frees everything. NULL is fine.
///
/// # Safety
/// `runtime` is NULL or as returned by [`edge_runtime_open`]; it is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_close(runtime: *mut EdgeRuntime) {
    guarded(|| {
        if !runtime.is_null() {
            // SAFETY: it came from `Box::into_raw` and the caller gives it up.
            drop(unsafe { Box::from_raw(runtime) });
        }
        Ok(0)
    });
}
