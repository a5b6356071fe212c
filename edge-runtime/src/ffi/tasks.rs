//! Task queries from C: the running task, residency, health, names, classes and labels.
#![allow(unsafe_code)]

use super::border::put;
use super::{EdgeRuntime, acted, named, number, task};
use crate::{Error, Result, Runtime, Task};
use bundles::container::hex;
use std::borrow::Cow;
use std::ffi::{c_char, c_int};

/// The number of the running task ([`Runtime::current`]), or a negative exit code:
/// [`NOT_RESIDENT`](super::NOT_RESIDENT) if there is none.
///
/// # Safety
/// As [`edge_runtime_switch`](super::edge_runtime_switch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_current(runtime: *mut EdgeRuntime) -> c_int {
    let running = |runtime: &mut Runtime| {
        let (id, _) = runtime.current().ok_or(Error::NotResident { task: None })?;
        number(id)
    };
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, running) }
}

/// The number of the task with that name, in memory or not ([`Runtime::find`]), or a negative exit code:
/// [`NOT_RESIDENT`](super::NOT_RESIDENT) if there is none.
///
/// # Safety
/// As [`edge_runtime_load`](super::edge_runtime_load).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_find(runtime: *mut EdgeRuntime, name: *const c_char) -> c_int {
    let find = |runtime: &mut Runtime, name: &str| {
        runtime.find(name).ok_or_else(|| Error::NotResident { task: Some(name.into()) })
    };
    // SAFETY: guaranteed by the caller.
    unsafe { named(runtime, name, find) }
}

/// Replays the golden vectors of a task in memory ([`Runtime::self_test`]). Returns 0, or a negative exit
/// code.
///
/// # Safety
/// As [`edge_runtime_switch`](super::edge_runtime_switch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_self_test(runtime: *mut EdgeRuntime, number: c_int) -> c_int {
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, |runtime| runtime.self_test(task(number), |_| ()).map(|()| 0)) }
}

/// 1 if `task` is in memory, 0 if not, or a negative exit code.
///
/// # Safety
/// As [`edge_runtime_switch`](super::edge_runtime_switch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_is_resident(runtime: *mut EdgeRuntime, number: c_int) -> c_int {
    let resident = |runtime: &mut Runtime| {
        let id = task(number);
        Ok(c_int::from(runtime.resident().any(|(resident, _)| resident == id)))
    };
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, resident) }
}

/// 1 if a task is still being loaded or streamed ([`Runtime::is_loading`]), 0 if not, or a negative exit
/// code.
///
/// # Safety
/// As [`edge_runtime_switch`](super::edge_runtime_switch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn edge_runtime_is_loading(runtime: *mut EdgeRuntime, number: c_int) -> c_int {
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, |runtime| Ok(c_int::from(runtime.is_loading(task(number))))) }
}

/// Writes the name of a task in memory to the `size` bytes at `text`, truncated to fit and NUL-terminated.
/// Returns the length of the whole name without the NUL, or a negative number.
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
    // SAFETY: guaranteed by the caller.
    unsafe { tell(runtime, number, text, size, |task| Ok(task.name().into())) }
}

/// As [`edge_runtime_task_name`], for the digest of a task's bundle ([`Task::digest`]): 64 hexadecimal
/// digits.
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
    // SAFETY: guaranteed by the caller.
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
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, count) }
}

/// As [`edge_runtime_task_name`], for the label of a class: empty for a task without labels.
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
    // SAFETY: guaranteed by the caller.
    unsafe { tell(runtime, number, text, size, |task| Ok(label(task)?.into())) }
}

/// Writes the text `of` returns for a task in memory to the `size` bytes at `text`, as [`put`] does.
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
        // SAFETY: guaranteed by the caller.
        unsafe { put(&said, text, size) }
    };
    // SAFETY: guaranteed by the caller.
    unsafe { acted(runtime, write) }
}

fn resident(runtime: &Runtime, number: c_int) -> Result<&Task> {
    let found = runtime.resident().find_map(|(id, found)| (id == task(number)).then_some(found));
    found.ok_or_else(|| Error::NotResident { task: Some(number.to_string()) })
}
