//! Per-thread buffers that live as long as the thread: short-lived large allocations would have to be mapped
//! and page-faulted by every operation.

use std::cell::RefCell;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Floats per cache line.
const LINE: usize = 16;

/// Calls `f` with `n` floats of arbitrary content, aligned to a cache line: a load across two lines costs
/// twice as much.
pub(crate) fn with<R>(n: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FREE.with(|free| free.borrow_mut().pop()).unwrap_or_default();
    if buffer.len() < n + LINE {
        buffer.resize(n + LINE, 0.);
    }
    let start = buffer.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let result = f(&mut buffer[start..start + n]);
    FREE.with(|free| free.borrow_mut().push(buffer));
    result
}

/// Calls `f` with `n` zeros.
pub(crate) fn zeroed<R>(n: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    with(n, |buffer| {
        buffer.fill(0.);
        f(buffer)
    })
}
