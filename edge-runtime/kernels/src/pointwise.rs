//! Sums of 1x1 convolutions over several maps: all proxies of a node as one matrix product with concatenated
//! inputs.
//!
//! The weights of each term are packed as for the plain kernel. The terms' channels are summed one after the
//! other, so that the output is written once and nothing is copied to concatenate the inputs. Maps are
//! treated as rows of pixels, regardless of height and width.
#![allow(unsafe_code)]
// Index loops over constant bounds unroll into registers; iterator chains do not always.
#![allow(clippy::needless_range_loop)]

use super::blocked::checked_len;
use super::conv::{Epilogue, direct_len};
use super::isa::{Isa, KernelError, take, take_mut};
use super::simd::{Simd, Work, run};
use super::tile::{Finish, MOST, Reach, kernel_sums, next_run, weight_at, with_pixels};
use crate::pool::Pool;
use bundles::plan::Shape;

/// Maximum number of terms in one sum.
pub const MAX_TERMS: usize = 8;

/// Pixels per part of the work: whole tiles on every instruction set. Parts of the same pixels are adjacent,
/// so a thread mostly reads pixels that it wrote itself.
const PIXELS: usize = 56;

/// Lanes of the instruction set (NEON) on which four blocks are computed together; no such code is generated
/// for others.
const NARROW: usize = 4;

/// One term: a map and the kernel applied to it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Term<'a> {
    /// Channels of the map (true count; the buffer is padded to whole blocks).
    pub channels: usize,
    /// `(c_out, channels, 1, 1)`, packed by [`pack`](super::pack).
    pub weights: &'a [f32],
    /// The map, blocked, with the output's height and width.
    pub input: &'a [f32],
}

/// `out = epilogue(sum of terms)`, a map of shape `y`.
///
/// # Errors
/// If there are no terms or more than [`MAX_TERMS`], or a slice is shorter than its shape requires.
pub fn pointwise(
    isa: Isa,
    y: Shape,
    terms: &[Term<'_>],
    e: &Epilogue<'_>,
    out: &mut [f32],
    pool: &Pool,
) -> Result<(), KernelError> {
    if !isa.runs_here() {
        return Err(KernelError::Isa { isa });
    }
    if terms.is_empty() || terms.len() > MAX_TERMS {
        return Err(KernelError::Shape { what: "no or too many 1x1 convolutions in a sum" });
    }
    let out = take_mut("output", out, checked_len(isa, y)?)?;
    let (cb, channels, pixels) = (isa.block(), isa.padded(y.c), y.h * y.w);
    let mut placed = [Placed { x: std::ptr::null(), w: std::ptr::null(), blocks: 0 }; MAX_TERMS];
    for (placed, term) in placed.iter_mut().zip(terms) {
        let input = take("input", term.input, checked_len(isa, Shape::new(term.channels, y.h, y.w))?)?;
        let len = direct_len(isa, channels.saturating_mul(isa.padded(term.channels)));
        let weights = take("packed weight", term.weights, len)?;
        *placed = Placed { x: input.as_ptr(), w: weights.as_ptr(), blocks: term.channels.div_ceil(cb) };
    }
    let e = Epilogue {
        scale: e.scale.map(|scale| take("scale", scale, channels)).transpose()?,
        shift: e.shift.map(|shift| take("shift", shift, channels)).transpose()?,
        add: match e.add {
            Some((add, coef)) => Some((take("added map", add, out.len())?, coef)),
            None => None,
        },
        ..*e
    };
    let blocks = channels / cb;
    let group = match blocks {
        4.. if isa == Isa::Neon => 4,
        2.. => 2,
        _ => 1,
    };
    let runs = pixels.div_ceil(PIXELS);
    let finish = Finish::new(&e, out);
    let work = Pointwise { terms: placed, count: terms.len(), pixels, blocks, group, finish };
    // SAFETY: the machine supports `isa`, and every slice has the length its shape requires.
    unsafe { run(isa, &work, blocks.div_ceil(group) * runs, pool) }
    Ok(())
}

/// A term as pointers and its number of channel blocks.
#[derive(Clone, Copy)]
struct Placed {
    x: *const f32,
    w: *const f32,
    blocks: usize,
}

struct Pointwise {
    terms: [Placed; MAX_TERMS],
    count: usize,
    pixels: usize,
    /// Output blocks, and how many are computed together.
    blocks: usize,
    group: usize,
    finish: Finish,
}

// SAFETY: the pointers come from slices borrowed for the whole run; parts read the inputs and write disjoint
// pixels of the output.
unsafe impl Sync for Pointwise {}

impl Work for Pointwise {
    #[inline(always)]
    unsafe fn part<V: Simd>(&self, part: usize) {
        let groups = self.blocks.div_ceil(self.group);
        let first = part % groups * self.group;
        let (mut block, mut left) = (first, self.group.min(self.blocks - first));
        let start = part / groups * PIXELS;
        let end = self.pixels.min(start + PIXELS);
        let map = self.pixels * V::LANES;
        // SAFETY: the caller guarantees the CPU features.
        let mut sums = unsafe { [V::splat(0.0); 4 * MOST] };
        while left > 0 {
            let (q, most) = match left {
                4.. if V::LANES == NARROW => (4, V::PIXELS[2]),
                2.. => (2, V::PIXELS[1]),
                _ => (1, V::PIXELS[0]),
            };
            let mut pixel = start;
            while pixel < end {
                let pixels = next_run(end - pixel, most);
                // SAFETY: the pixels and blocks lie inside the maps and belong to this part alone; the caller
                // guarantees the CPU features.
                unsafe {
                    let place = (self, block, pixel, &mut sums);
                    match q {
                        4 if V::LANES == NARROW => with_pixels!(pixels, V::PIXELS[2], tile::<V, 4>(place)),
                        2 => with_pixels!(pixels, V::PIXELS[1], tile::<V, 2>(place)),
                        _ => with_pixels!(pixels, V::PIXELS[0], tile::<V, 1>(place)),
                    }
                    for j in 0..q {
                        let factors = self.finish.factors::<V>((block + j) * V::LANES);
                        for p in 0..pixels {
                            let at = (block + j) * map + (pixel + p) * V::LANES;
                            self.finish.store(sums[j * MOST + p], factors, at);
                        }
                    }
                }
                pixel += pixels;
            }
            block += q;
            left -= q;
        }
    }
}

/// Sums of `P` pixels of `Q` blocks over all terms, into `out[q * MOST + p]`. Instantiated for every tile
/// size, so the epilogue is kept outside, where it is compiled only once.
#[inline(always)]
unsafe fn tile<V: Simd, const P: usize, const Q: usize>(
    (work, block, pixel, out): (&Pointwise, usize, usize, &mut [V; 4 * MOST]),
) {
    let map = work.pixels * V::LANES;
    let at = pixel * V::LANES;
    // SAFETY: the caller placed the tile inside the maps, and every term's weights cover its blocks.
    unsafe {
        let mut acc = [[V::splat(0.0); Q]; P];
        for term in &work.terms[..work.count] {
            let per_block = term.blocks * V::LANES * V::LANES;
            let reach = Reach {
                blocks: term.blocks,
                x_block: map,
                rows: 1,
                x_row: 0,
                inner: V::LANES,
                w_next: per_block,
                ahead: Q * per_block,
            };
            let w = weight_at::<V>(term.w, block * per_block);
            acc = kernel_sums::<V, P, Q, 1, false, true>(acc, term.x.add(at), w, &reach);
        }
        for q in 0..Q {
            for p in 0..P {
                out[q * MOST + p] = acc[p][q];
            }
        }
    }
}
