//! What every call from C goes through: errors become numbers and a text, panics errors, and pointers are looked at first.
#![allow(unsafe_code)]

use crate::{Error, Result};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What [`edge_runtime_frame`](super::edge_runtime_frame) answers when a deadline passed while the task was still being loaded.
pub const DEADLINE: c_int = -10;
/// What a call answers that needs a task in memory which is not there: not yet, not any more, or none was switched to.
pub const NOT_RESIDENT: c_int = -11;
/// What [`edge_runtime_frame`](super::edge_runtime_frame) answers for pixels that are no image which the running task takes.
pub const INPUT: c_int = -12;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Notes `error` for [`edge_runtime_last_error`] and returns its negative exit code.
fn note(error: &Error) -> c_int {
    let text = error.to_string().replace('\0', " ");
    // Without zeros inside, this cannot fail.
    let text = CString::new(text).unwrap_or_default();
    LAST_ERROR.with(|last| *last.borrow_mut() = text);
    match error {
        Error::Deadline { .. } => DEADLINE,
        Error::NotResident { .. } => NOT_RESIDENT,
        Error::Input { .. } => INPUT,
        _ => -c_int::from(error.exit_code()),
    }
}

/// Runs `call`; what goes wrong, panics included, is noted and becomes a negative number.
pub(super) fn guarded(call: impl FnOnce() -> Result<c_int>) -> c_int {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => value,
        Ok(Err(error)) => note(&error),
        Err(_) => note(&Error::Internal { what: "a panic in the runtime".into() }),
    }
}

pub(super) fn null(what: &str) -> Error {
    Error::Usage { got: format!("{what} is NULL"), want: "a valid pointer".into() }
}

/// # Safety
/// `text` is NULL or points to a string that ends in a zero and lives as long as the result is used.
pub(super) unsafe fn string<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL, and the caller promises a string that ends in a zero.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Error::Usage { got: format!("{what} is not UTF-8"), want: "UTF-8".into() })
}

/// Writes `from`, cut to fit and ending in a zero: the bytes of all of it without that zero.
///
/// # Safety
/// `text` is NULL or `size` bytes to write.
pub(super) unsafe fn put(from: &str, text: *mut c_char, size: usize) -> Result<c_int> {
    if !text.is_null() && size > 0 {
        let len = from.floor_char_boundary(size - 1);
        // SAFETY: not NULL, and the caller promises `size` bytes to write, of which `len + 1` are written.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr().cast(), text, len);
            text.add(len).write(0);
        }
    }
    c_int::try_from(from.len()).map_err(|_| Error::Internal { what: "a text of 2 GiB".into() })
}

/// The version of this library, as `EDGE_RUNTIME_VERSION` in its header.
#[unsafe(no_mangle)]
pub extern "C" fn edge_runtime_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// What went wrong last on this thread; empty when nothing did. Valid until this thread's next call.
#[unsafe(no_mangle)]
pub extern "C" fn edge_runtime_last_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}
