//! Output buffers of kernels that are not zeroed in memory first.
#![allow(unsafe_code)]

use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Zeroes `out`. Meant for a piece that is about to be written and small enough to stay in the cache until
/// then.
pub(crate) fn zeroed(out: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    out.fill(MaybeUninit::new(0.));
    // SAFETY: the line above wrote every element.
    unsafe { out.assume_init_mut() }
}

/// Creates `len` floats with `fill`, and returns them with its result.
///
/// # Safety
/// `fill` must write every element.
pub(crate) unsafe fn filled<R>(len: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>]) -> R) -> (Vec<f32>, R) {
    let mut out = Vec::with_capacity(len);
    let result = fill(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: there is capacity for `len` elements, and the caller guarantees that they are written.
    unsafe { out.set_len(len) };
    (out, result)
}

/// Creates `len` floats in chunks of `chunk` on all threads: `make(i, out)` gets chunk `i`, zeroed.
pub(crate) fn by_chunk(len: usize, chunk: usize, make: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    by_chunk_with(len, chunk, make).0
}

/// Like [`by_chunk`], and returns the result of `make` for each chunk.
pub(crate) fn by_chunk_with<R: Send>(
    len: usize,
    chunk: usize,
    make: impl Fn(usize, &mut [f32]) -> R + Sync,
) -> (Vec<f32>, Vec<R>) {
    // SAFETY: every element belongs to a chunk, and every chunk is zeroed.
    unsafe {
        filled(len, |out| {
            out.par_chunks_mut(chunk).enumerate().map(|(i, out)| make(i, zeroed(out))).collect()
        })
    }
}
