//! The end of every epilogue: what is added to scaled and shifted sums, and where they go.
#![allow(unsafe_code)]

use super::dot::Dot;
use super::{Finish, Out};

/// [`Finish`] and [`Out`] as pointers into whole maps, for kernels that write pieces of them from several
/// threads.
#[derive(Clone, Copy)]
pub(super) struct Store {
    shift: *const f32,
    add: *const u8,
    add_factor: f32,
    terms: *const f32,
    terms_factor: f32,
    bytes: *mut u8,
    floats: *mut f32,
}

impl Store {
    /// `e` and `out` must already be checked against the output's shape.
    pub(super) fn new(e: &Finish<'_>, out: &mut Out<'_>) -> Store {
        let mut store = Store {
            shift: e.shift.as_ptr(),
            add: e.add.map_or(std::ptr::null(), |(map, _)| map.as_ptr()),
            add_factor: e.add.map_or(0.0, |(_, factor)| factor),
            terms: e.terms.map_or(std::ptr::null(), |(map, _)| map.as_ptr()),
            terms_factor: e.terms.map_or(0.0, |(_, factor)| factor),
            bytes: std::ptr::null_mut(),
            floats: std::ptr::null_mut(),
        };
        match out {
            Out::Bytes(out) => store.bytes = out.as_mut_ptr(),
            Out::Floats(out) => store.floats = out.as_mut_ptr(),
            Out::Onto(out) => {
                store.floats = out.as_mut_ptr();
                store.terms = store.floats;
                store.terms_factor = 1.0;
            }
        }
        store
    }

    /// The shifts of the output block whose first channel is `channel`.
    ///
    /// # Safety
    /// The block belongs to the output.
    #[inline(always)]
    pub(super) unsafe fn shift(&self, channel: usize) -> *const f32 {
        // SAFETY: the slice holds all the output's channels, in whole blocks.
        unsafe { self.shift.add(channel) }
    }

    /// Adds what the epilogue adds to `t`, the scaled and shifted sums of one pixel of one block, and stores
    /// it at element `at` of the output.
    ///
    /// # Safety
    /// The CPU supports the features of `D`; `at + 16` lies inside the map; no other thread touches these
    /// elements.
    #[inline(always)]
    pub(super) unsafe fn store<D: Dot>(&self, mut t: D::Floats, at: usize) {
        // SAFETY: inside the output map; the added maps have the same size.
        unsafe {
            if !self.add.is_null() {
                t = D::add(t, D::mul(D::load_bytes(self.add.add(at)), D::splat(self.add_factor)));
            }
            if !self.terms.is_null() {
                t = D::add(t, D::mul(D::load(self.terms.add(at)), D::splat(self.terms_factor)));
            }
            if self.bytes.is_null() {
                D::store(t, self.floats.add(at));
            } else {
                D::store_bytes(t, self.bytes.add(at));
            }
        }
    }
}
