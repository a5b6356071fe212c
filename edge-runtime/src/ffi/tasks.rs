//! What C asks about tasks: which one runs, whether they are there and in order, names, classes and labels.
#![allow(unsafe_code)]

use super::border::put;
use super::{EdgeRuntime, acted, named, number, task};
use crate::{Error, Result, Runtime, Task};
use bundles::container::hex;
use std::borrow::Cow;
use std::ffi::{c_char, c_int};

/// The number of the running task ([`Runtime::current`]), or a negative exit code:
/// [`NOT_RESIDENT`](super::NOT_RESIDENT) when there is none.
///
/// # Safety
/// As [`edge_runtime_switch`](super::edge_runtime_switch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_current(runtime: *mut EdgeRuntime) -> c_int {
    let running = |runtime: &mut Runtime| {
        let (id, _) = runtime.current().ok_or(Error::NotResident { task: None })?;
        number(id)
    };
    // SAFETY: the caller's promise is this function's.
    unsafe { acted(runtime, running) }
}

/// The number of the task of that name, in memory or not ([`Runtime::find`]), or a negative exit code:
/// [`NOT_RESIDENT`](super::NOT_RESIDENT) when none has it.
///
/// # Safety
/// As [`edge_runtime_load`](super::edge_runtime_load).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_find(runtime: *mut EdgeRuntime, name: *const c_char) -> c_int {
    let find = |runtime: &mut Runtime, name: &str| {
        runtime.find(name).ok_or_else(|| Error::NotResident { task: Some(name.into()) })
    };
    // SAFETY: the caller's promises are this function's.
    unsafe { named(runtime, name, find) }
}

/// Replays the golden vectors of a task in memory ([`Runtime::self_test`]): 0, or a negative exit code.
///
/// # Safety
/// As [`edge_runtime_switch`](super::edge_runtime_switch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_self_test(runtime: *mut EdgeRuntime, number: c_int) -> c_int {
    // SAFETY: the caller's promise is this function's.
    unsafe { acted(runtime, |runtime| runtime.self_test(task(number), |_| ()).map(|()| 0)) }
}

/// 1 when `task` is in memory, 0 when it is not, or a negative exit code.
///
/// # Safety
/// As [`edge_runtime_switch`](super::edge_runtime_switch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_is_resident(runtime: *mut EdgeRuntime, number: c_int) -> c_int {
    let resident = |runtime: &mut Runtime| {
        let id = task(number);
        Ok(c_int::from(runtime.resident().any(|(resident, _)| resident == id)))
    };
    // SAFETY: the caller's promise is this function's.
    unsafe { acted(runtime, resident) }
}

/// Whether a task is still being loaded or streamed in ([`Runtime::is_loading`]): 1 or 0, or a negative exit code.
///
/// # Safety
/// As [`edge_runtime_switch`](super::edge_runtime_switch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_is_loading(runtime: *mut EdgeRuntime, number: c_int) -> c_int {
    // SAFETY: the caller's promise is this function's.
    unsafe { acted(runtime, |runtime| Ok(c_int::from(runtime.is_loading(task(number))))) }
}

/// Writes the name of a task in memory, cut to fit and ending in a zero, to the `size` bytes at `text`: the bytes of the whole
/// name without that zero, or a negative number.
///
/// # Safety
/// As [`edge_runtime_metrics`](super::edge_runtime_metrics).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_task_name(
    runtime: *mut EdgeRuntime,
    number: c_int,
    text: *mut c_char,
    size: usize,
) -> c_int {
    // SAFETY: the caller's promise is this function's.
    unsafe { tell(runtime, number, text, size, |task| Ok(task.name().into())) }
}

/// The same of the digest of a task's bundle ([`Task::digest`]): 64 hexadecimal digits.
///
/// # Safety
/// As [`edge_runtime_metrics`](super::edge_runtime_metrics).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_task_digest(
    runtime: *mut EdgeRuntime,
    number: c_int,
    text: *mut c_char,
    size: usize,
) -> c_int {
    let digest = |task: &Task| task.digest().map_or(String::new(), |digest| hex(&digest));
    // SAFETY: the caller's promise is this function's.
    unsafe { tell(runtime, number, text, size, |task| Ok(digest(task).into())) }
}

/// The number of scores of a task in memory, or a negative number.
///
/// # Safety
/// As [`edge_runtime_switch`](super::edge_runtime_switch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_classes(runtime: *mut EdgeRuntime, number: c_int) -> c_int {
    let count = |runtime: &mut Runtime| {
        let found = resident(runtime, number)?;
        Ok(c_int::try_from(found.classes()).unwrap_or(c_int::MAX))
    };
    // SAFETY: the caller's promise is this function's.
    unsafe { acted(runtime, count) }
}

/// Writes a class's label, as [`edge_runtime_task_name`] writes the name: empty for a task without labels.
///
/// # Safety
/// As [`edge_runtime_metrics`](super::edge_runtime_metrics).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_label(
    runtime: *mut EdgeRuntime,
    number: c_int,
    class: usize,
    text: *mut c_char,
    size: usize,
) -> c_int {
    let label = |task: &Task| {
        if class >= task.classes() {
            return Err(Error::Usage {
                got: format!("class {class}"),
                want: format!("0 to {}", task.classes().saturating_sub(1)),
            });
        }
        Ok(task.labels().get(class).cloned().unwrap_or_default())
    };
    // SAFETY: the caller's promise is this function's.
    unsafe { tell(runtime, number, text, size, |task| Ok(label(task)?.into())) }
}

/// Writes what `of` says of a task in memory to the `size` bytes at `text`, as [`put`] does.
///
/// # Safety
/// As [`edge_runtime_metrics`](super::edge_runtime_metrics).
unsafe fn tell(
    runtime: *mut EdgeRuntime,
    number: c_int,
    text: *mut c_char,
    size: usize,
    of: impl Fn(&Task) -> Result<Cow<'_, str>>,
) -> c_int {
    let write = |runtime: &mut Runtime| {
        let said = of(resident(runtime, number)?)?;
        // SAFETY: the caller's promise is this function's.
        unsafe { put(&said, text, size) }
    };
    // SAFETY: the caller's promise is this function's.
    unsafe { acted(runtime, write) }
}

fn resident(runtime: &Runtime, number: c_int) -> Result<&Task> {
    let found = runtime.resident().find_map(|(id, found)| (id == task(number)).then_some(found));
    found.ok_or_else(|| Error::NotResident { task: Some(number.to_string()) })
}
