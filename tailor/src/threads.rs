//! How many threads each library may use, fixed before any of them starts.
#![allow(unsafe_code)]

/// Keeps candle's own element-wise pool to the calling thread.
///
/// Its threads wait for each other by spinning. Beside anything else that runs, the spinning thread holds the
/// very core its partner waits for, and a step takes several times as long. The operations that matter have
/// kernels of their own ([`ops`](crate::ops)) on rayon's threads, which sleep when they wait.
///
/// Call it first in `main`. An explicit `CANDLE_NUM_THREADS` of the user's stays.
pub fn calm_candle() {
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: called first in `main`, before any other thread exists that could read the environment.
        unsafe { std::env::set_var("CANDLE_NUM_THREADS", "1") };
    }
}
