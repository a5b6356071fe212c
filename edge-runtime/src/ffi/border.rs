//! Common path of all calls from C: turns errors into codes and messages, panics into errors, and checks
//! pointers.
#![allow(unsafe_code)]

use crate::{Error, Result};
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Returned by [`edge_runtime_frame`](super::edge_runtime_frame) if the deadline passed while the task was
/// still loading.
pub const DEADLINE: c_int = -10;
/// Returned by calls that need a task in memory that is not there: not yet, not any more, or none was
/// switched to.
pub const NOT_RESIDENT: c_int = -11;
/// Returned by [`edge_runtime_frame`](super::edge_runtime_frame) for pixels that are not an image the running
/// task accepts.
pub const INPUT: c_int = -12;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Stores `error` for [`edge_runtime_last_error`] and returns its negative exit code.
fn note(error: &Error) -> c_int {
    let text = error.to_string().replace('\0', " ");
    // Cannot fail without interior NULs.
    let text = CString::new(text).unwrap_or_default();
    LAST_ERROR.with(|last| *last.borrow_mut() = text);
    match error {
        Error::Deadline { .. } => DEADLINE,
        Error::NotResident { .. } => NOT_RESIDENT,
        Error::Input { .. } => INPUT,
        _ => -c_int::from(error.exit_code()),
    }
}

/// Runs `call`; errors, including panics, are stored and become a negative number.
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
/// `text` is NULL or points to a NUL-terminated string that lives as long as the result is used.
pub(super) unsafe fn string<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL, and the caller guarantees a NUL-terminated string.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Error::Usage { got: format!("{what} is not UTF-8"), want: "UTF-8".into() })
}

/// Writes `from`, truncated to fit and NUL-terminated. Returns the length of all of it without the NUL.
///
/// # Safety
/// `text` is NULL or `size` writable bytes.
pub(super) unsafe fn put(from: &str, text: *mut c_char, size: usize) -> Result<c_int> {
    if !text.is_null() && size > 0 {
        let len = from.floor_char_boundary(size - 1);
        // SAFETY: not NULL, and the caller guarantees `size` writable bytes, of which `len + 1` are written.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr().cast(), text, len);
            text.add(len).write(0);
        }
    }
    c_int::try_from(from.len()).map_err(|_| Error::Internal { what: "a text of 2 GiB".into() })
}

/// The version of this library, to match `EDGE_RUNTIME_VERSION` in its header.
#[unsafe(no_mangle)]
pub extern "C" fn edge_runtime_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The last error of this thread; empty if there was none. Valid until this thread's next call.
#[unsafe(no_mangle)]
pub extern "C" fn edge_runtime_last_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}
