//! A buffer of floats aligned to a cache line, and views of floats as bytes.
#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};

/// Floats per cache line of 64 bytes.
const LINE: usize = 16;

/// Floats aligned to a cache line, so that no vector access straddles two lines.
///
/// Use it for activations, scratch and packed weights: the allocator aligns a `Vec<f32>` to 16 bytes at best,
/// and then every AVX-512 access touches two lines.
#[derive(Debug, Default)]
pub struct Floats {
    memory: Vec<f32>,
    skip: usize,
    len: usize,
}

impl Floats {
    /// `len` zeros.
    pub fn zeros(len: usize) -> Floats {
        Floats::of(vec![0.0; len + LINE - 1], len)
    }

    /// `len` zeros, or `None` if the allocation fails.
    pub fn try_zeros(len: usize) -> Option<Floats> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(len.checked_add(LINE - 1)?).ok()?;
        memory.resize(len + LINE - 1, 0.0);
        Some(Floats::of(memory, len))
    }

    fn of(memory: Vec<f32>, len: usize) -> Floats {
        // `align_offset` may give no answer; the buffer then works unaligned.
        let skip = Some(memory.as_ptr().align_offset(4 * LINE)).filter(|&skip| skip < LINE).unwrap_or(0);
        Floats { memory, skip, len }
    }

    /// Capacity: the most floats that [`resized`](Floats::resized) can yield, wherever the aligned start
    /// falls.
    pub fn room(&self) -> usize {
        self.memory.len().saturating_sub(LINE - 1)
    }

    /// The same memory as `len` floats, capped at its [`room`](Floats::room); contents are kept.
    pub fn resized(self, len: usize) -> Floats {
        let len = len.min(self.room());
        Floats { len, ..self }
    }
}

/// Memory for floats that has been allocated but not yet written.
///
/// The thread that reserves it determines the allocator's arena; another thread may fill it.
#[derive(Debug)]
pub struct Reserved {
    memory: Vec<f32>,
    len: usize,
}

impl Reserved {
    /// Reserves memory for `len` floats, or returns `None` if the allocation fails.
    pub fn new(len: usize) -> Option<Reserved> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(len.checked_add(LINE - 1)?).ok()?;
        Some(Reserved { memory, len })
    }

    /// Fills the memory with zeros.
    pub fn zeros(self) -> Floats {
        let Reserved { mut memory, len } = self;
        memory.resize(len + LINE - 1, 0.0);
        Floats::of(memory, len)
    }
}

impl From<&[f32]> for Floats {
    fn from(data: &[f32]) -> Floats {
        let mut floats = Floats::zeros(data.len());
        floats.copy_from_slice(data);
        floats
    }
}

impl Deref for Floats {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.memory[self.skip..][..self.len]
    }
}

impl DerefMut for Floats {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.memory[self.skip..][..self.len]
    }
}

/// The memory of `floats` as bytes, for use as a u8 map.
pub fn bytes(floats: &[f32]) -> &[u8] {
    // SAFETY: every float is four initialised bytes, borrowed for as long as the floats are; bytes need no
    // alignment.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) }
}

/// The memory of `floats` as mutable bytes, for use as a u8 map.
pub fn bytes_mut(floats: &mut [f32]) -> &mut [u8] {
    let len = size_of_val(floats);
    // SAFETY: as in `bytes`, borrowed mutably; any four bytes are a valid float.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), len) }
}

/// The memory of `floats` as mutable halves, two per float.
pub(crate) fn halves_mut(floats: &mut [f32]) -> &mut [u16] {
    // SAFETY: every float is two initialised u16, aligned at least as strictly, and borrowed mutably for as
    // long; any bit pattern is valid for either.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), 2 * floats.len()) }
}

/// Reinterprets bytes as signed.
pub fn signed(bytes: &[u8]) -> &[i8] {
    // SAFETY: both types are one byte in size, and every bit pattern is valid for either.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

/// Reinterprets mutable bytes as signed.
pub fn signed_mut(bytes: &mut [u8]) -> &mut [i8] {
    // SAFETY: both types are one byte in size, and every bit pattern is valid for either; borrowed mutably.
    unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_allocations_return_none() {
        for len in [usize::MAX, usize::MAX / 8] {
            assert!(Floats::try_zeros(len).is_none() && Reserved::new(len).is_none());
        }
    }

    #[test]
    fn buffers_are_line_aligned_and_hold_their_data() {
        for len in [0, 1, 15, 16, 17, 1000, 1 << 20] {
            let data: Vec<f32> = (0..len).map(|i| i as f32).collect();
            let floats = Floats::from(data.as_slice());
            assert_eq!(*floats, *data);
            assert_eq!(floats.as_ptr() as usize % 64, 0, "{len} floats");
            assert_eq!(*Floats::try_zeros(len).unwrap(), *vec![0.0; len]);
            let reserved = Reserved::new(len).unwrap();
            let at = reserved.memory.as_ptr();
            let zeros = reserved.zeros();
            assert_eq!((*zeros == *vec![0.0; len], zeros.memory.as_ptr()), (true, at));
            assert_eq!(zeros.as_ptr() as usize % 64, 0, "{len} floats");
        }
    }
}
