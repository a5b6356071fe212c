//! Per-thread buffers that live as long as the thread: large short-lived allocations would be mapped and
//! page-faulted anew by every operation.

use std::cell::RefCell;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` with `n` floats of arbitrary content.
pub(crate) fn with<R>(n: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FREE.with(|free| free.borrow_mut().pop()).unwrap_or_default();
    if buffer.len() < n {
        buffer.resize(n, 0.);
    }
    let result = f(&mut buffer[..n]);
    FREE.with(|free| free.borrow_mut().push(buffer));
    result
}

/// Runs `f` with `n` zeros.
pub(crate) fn zeroed<R>(n: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    with(n, |buffer| {
        buffer.fill(0.);
        f(buffer)
    })
}
