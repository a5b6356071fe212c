//! Results of kernels, made without zeroing them in memory first.
#![allow(unsafe_code)]

use rayon::prelude::*;
use std::mem::MaybeUninit;

/// `out` as zeros. Meant for a piece that is about to be written, small enough to stay in the cache meanwhile.
pub(crate) fn zeroed(out: &mut [MaybeUninit<f32>]) -> &mut [f32] {
    out.fill(MaybeUninit::new(0.));
    // SAFETY: the line above wrote every element.
    unsafe { out.assume_init_mut() }
}

/// `len` floats made by `fill`, and what it returns.
///
/// # Safety
/// `fill` writes every element.
pub(crate) unsafe fn filled<R>(len: usize, fill: impl FnOnce(&mut [MaybeUninit<f32>]) -> R) -> (Vec<f32>, R) {
    let mut out = Vec::with_capacity(len);
    let result = fill(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: there is room for `len` elements, and the caller promises that they are written.
    unsafe { out.set_len(len) };
    (out, result)
}

/// `len` floats made in chunks of `chunk` by all threads: `make(i, out)` gets the zeroed chunk `i`.
pub(crate) fn by_chunk(len: usize, chunk: usize, make: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    by_chunk_with(len, chunk, make).0
}

/// The same, with what `make` returns of each chunk.
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
