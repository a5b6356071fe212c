//! The register tile: sums for a few pixels times a few output channel blocks, and storing them.
//!
//! Every fast convolution ends up here: direct ones with `rows` taps of `inner` contiguous floats, Winograd
//! products with one tap of one channel block.
#![allow(unsafe_code)]
// Index loops over constant bounds unroll into registers; iterator chains do not always.
#![allow(clippy::needless_range_loop)]

use super::conv::Epilogue;
use super::simd::Simd;

/// Where a tile's inputs and weights lie: distances in floats, or in halves between weights stored as such.
#[derive(Clone, Copy)]
pub(super) struct Reach {
    /// Input blocks summed over, and the distance between two of them.
    pub(super) blocks: usize,
    pub(super) x_block: usize,
    /// Kernel rows, and the distance between two input rows.
    pub(super) rows: usize,
    pub(super) x_row: usize,
    /// Contiguous input floats per kernel row: kernel width times channels of a block.
    pub(super) inner: usize,
    /// Distance between the weights of two output blocks. Within one block weights are contiguous:
    /// `[blocks][rows][inner][LANES]`.
    pub(super) w_next: usize,
    /// How many floats ahead weights are prefetched, if they are.
    pub(super) ahead: usize,
}

/// Floats of a cache line.
const LINE: usize = 16;

/// `acc[p][q] += sum x[p * step + ...] * w[q][...]` for `P` pixels and `Q` output blocks.
///
/// With `AHEAD`, the following weights are prefetched meanwhile: a large kernel then streams from memory
/// while all pixel tiles that share a part of it are computed, not only during the first of them.
///
/// # Safety
/// The CPU supports the features of `V`; `x` and `w` are valid for every offset that `reach` describes.
#[inline(always)]
pub(super) unsafe fn sums<
    V: Simd,
    const P: usize,
    const Q: usize,
    const STEP: usize,
    const PLAIN: bool,
    const AHEAD: bool,
>(
    mut acc: [[V; Q]; P],
    x: *const f32,
    w: *const f32,
    reach: &Reach,
) -> [[V; Q]; P] {
    let step = if PLAIN { STEP } else { STEP * V::LANES };
    let mut w = w;
    // SAFETY: the pointers stay inside what `reach` describes, which the caller guarantees to be valid.
    unsafe {
        for block in 0..reach.blocks {
            for row in 0..reach.rows {
                let x = x.add(block * reach.x_block + row * reach.x_row);
                for i in 0..reach.inner {
                    let mut weights = [V::splat(0.0); Q];
                    for q in 0..Q {
                        weights[q] = V::load(w.add(q * reach.w_next));
                        // With one block, loads already are the bottleneck.
                        if AHEAD && Q > 1 && i * V::LANES % LINE == 0 {
                            V::prefetch(w.wrapping_add(q * reach.w_next + reach.ahead));
                        }
                    }
                    for p in 0..P {
                        let v = V::spread(x.add(p * step + i));
                        for q in 0..Q {
                            acc[p][q] = acc[p][q].fma(v, weights[q]);
                        }
                    }
                    w = w.add(V::LANES);
                }
            }
        }
    }
    acc
}

/// [`sums`] for the kernel of a direct or pointwise convolution, which `V` may read as halves (these are not
/// prefetched).
///
/// # Safety
/// As for [`sums`].
#[inline(always)]
pub(super) unsafe fn kernel_sums<
    V: Simd,
    const P: usize,
    const Q: usize,
    const STEP: usize,
    const PLAIN: bool,
    const AHEAD: bool,
>(
    acc: [[V; Q]; P],
    x: *const f32,
    w: *const f32,
    reach: &Reach,
) -> [[V; Q]; P] {
    // SAFETY: guaranteed by the caller.
    unsafe {
        if V::HALVES {
            V::sums_of_halves::<P, Q, STEP, PLAIN>(acc, x, w.cast(), reach)
        } else {
            sums::<V, P, Q, STEP, PLAIN, AHEAD>(acc, x, w, reach)
        }
    }
}

/// The position of weight `at` in the kernel of a direct or pointwise convolution.
///
/// # Safety
/// The kernel has at least `at` weights.
#[inline(always)]
pub(super) unsafe fn weight_at<V: Simd>(w: *const f32, at: usize) -> *const f32 {
    // SAFETY: guaranteed by the caller.
    unsafe { if V::HALVES { w.cast::<u16>().add(at).cast() } else { w.add(at) } }
}

/// [`Epilogue`] as pointers into whole maps, for kernels that write pieces of them from several threads.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    scale: *const f32,
    shift: *const f32,
    add: *const f32,
    coef: f32,
    accumulate: bool,
    relu: bool,
    out: *mut f32,
}

impl Finish {
    /// `e`'s slices must cover all output blocks, and `out` must be the whole output map.
    pub(super) fn new(e: &Epilogue<'_>, out: &mut [f32]) -> Finish {
        let pointer = |v: Option<&[f32]>| v.map_or(std::ptr::null(), <[f32]>::as_ptr);
        Finish {
            scale: pointer(e.scale),
            shift: pointer(e.shift),
            add: pointer(e.add.map(|(map, _)| map)),
            coef: e.add.map_or(0.0, |(_, coef)| coef),
            accumulate: e.accumulate,
            relu: e.relu,
            out: out.as_mut_ptr(),
        }
    }

    /// Scale and shift of the output block whose first channel is `channel`.
    ///
    /// # Safety
    /// The CPU supports the features of `V`; the block belongs to the output.
    #[inline(always)]
    pub(super) unsafe fn factors<V: Simd>(&self, channel: usize) -> (V, V) {
        // SAFETY: a non-null pointer comes from a slice of all the output's channels, in whole blocks.
        unsafe {
            let scale = if self.scale.is_null() { V::splat(1.0) } else { V::load(self.scale.add(channel)) };
            let shift = if self.shift.is_null() { V::splat(0.0) } else { V::load(self.shift.add(channel)) };
            (scale, shift)
        }
    }

    /// Applies the epilogue to the sums of one pixel of one block and stores them at offset `at` of the map.
    ///
    /// # Safety
    /// The CPU supports the features of `V`; `at + LANES` lies inside the map; no other thread touches these
    /// floats.
    #[inline(always)]
    pub(super) unsafe fn store<V: Simd>(&self, sum: V, (scale, shift): (V, V), at: usize) {
        // SAFETY: inside the output map; the added map has the same size.
        unsafe {
            let mut t = shift.fma(sum, scale);
            if !self.add.is_null() {
                t = t.fma(V::load(self.add.add(at)), V::splat(self.coef));
            }
            if self.accumulate {
                t = t.add(V::load(self.out.add(at)));
            }
            if self.relu {
                t = t.max(V::splat(0.0));
            }
            t.store(self.out.add(at));
        }
    }
}

/// Pixel counts that tiles are built for. Few, because each one is compiled separately in every kernel.
const SIZES: [usize; 8] = [14, 8, 7, 6, 4, 3, 2, 1];

/// The largest of them.
pub(super) const MOST: usize = SIZES[0];

/// Calls `$f::<V, P, Q, …>` with the constant `P` equal to `$pixels`, one of [`SIZES`] up to `$most`.
macro_rules! with_pixels {
    ($pixels:expr, $most:expr, $f:ident :: <$v:ty, $q:literal $(, $rest:tt)*> $args:tt) => {
        match $pixels {
            1 if $most >= 1 => $f::<$v, 1, $q $(, $rest)*> $args,
            2 if $most >= 2 => $f::<$v, 2, $q $(, $rest)*> $args,
            3 if $most >= 3 => $f::<$v, 3, $q $(, $rest)*> $args,
            4 if $most >= 4 => $f::<$v, 4, $q $(, $rest)*> $args,
            6 if $most >= 6 => $f::<$v, 6, $q $(, $rest)*> $args,
            7 if $most >= 7 => $f::<$v, 7, $q $(, $rest)*> $args,
            8 if $most >= 8 => $f::<$v, 8, $q $(, $rest)*> $args,
            14 if $most >= 14 => $f::<$v, 14, $q $(, $rest)*> $args,
            _ => {}
        }
    };
}
pub(super) use with_pixels;

/// Number of pixels for the next tile when `left` remain and a tile may have at most `most`: splits `left`
/// about evenly.
///
/// No closures here or elsewhere around vector code: a closure is a function of its own, compiled without the
/// instruction set's features.
#[inline(always)]
pub(super) fn next_run(left: usize, most: usize) -> usize {
    let even = left.div_ceil(left.div_ceil(most.max(1)).max(1));
    let mut pick = 1;
    // From large to small: the smallest size that is at least `even`, else the largest that fits.
    for size in SIZES {
        if size <= most && size <= left && (size >= even || pick < size) {
            pick = size;
        }
    }
    pick
}

#[cfg(test)]
mod tests {
    use super::next_run;

    #[test]
    fn runs_are_even_and_complete() {
        let cases: &[(usize, usize, &[usize])] = &[
            (56, 14, &[14, 14, 14, 14]),
            (16, 14, &[8, 8]),
            (7, 6, &[4, 3]),
            (32, 14, &[14, 14, 4]),
            (49, 14, &[14, 14, 14, 7]),
            (5, 14, &[4, 1]),
            (10, 12, &[8, 2]),
            (1, 1, &[1]),
        ];
        for &(n, most, want) in cases {
            let mut left = n;
            let mut got = Vec::new();
            while left > 0 {
                got.push(next_run(left, most));
                left -= got[got.len() - 1];
            }
            assert_eq!(got, want, "{n} pixels in tiles of at most {most}");
        }
    }
}
