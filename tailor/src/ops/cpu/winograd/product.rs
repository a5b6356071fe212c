//! Register tiles of the two products: planes with transformed weights, and planes with planes.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]
// Constant bounds let the compiler keep register tiles in registers.
#![allow(clippy::needless_range_loop)]

use crate::ops::cpu::lanes::Lanes;

/// Addresses and strides of one plane's operands, in floats.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Values of the first tile and input block.
    pub x: *const f32,
    /// Weights of the first output block, `[c_in padded][N]`.
    pub w: *const f32,
    /// Products of the first output block.
    pub out: *mut f32,
    /// Number of input blocks.
    pub blocks: usize,
    /// Stride between input blocks of values.
    pub x_block: usize,
    /// Stride between output blocks of weights.
    pub w_block: usize,
    /// Stride between output blocks of products.
    pub out_block: usize,
}

/// Products of tiles `first..first + P` with `Q` output blocks.
///
/// # Safety
/// The CPU must support `V`; the pointers and strides of `at` must cover these tiles and blocks, with `out`
/// valid for writes.
#[inline(always)]
unsafe fn tile<V: Lanes, const P: usize, const Q: usize>(at: Place, first: usize) {
    let mut acc = [[V::zero(); Q]; P];
    let mut w = at.w;
    for block in 0..at.blocks {
        let x = at.x.add(block * at.x_block + first * V::N);
        for c in 0..V::N {
            let mut weights = [V::zero(); Q];
            for q in 0..Q {
                weights[q] = V::load(w.add(q * at.w_block));
            }
            for p in 0..P {
                let value = V::splat(*x.add(p * V::N + c));
                for q in 0..Q {
                    acc[p][q] = value.mul_add(weights[q], acc[p][q]);
                }
            }
            w = w.add(V::N);
        }
    }
    for q in 0..Q {
        for p in 0..P {
            acc[p][q].store(at.out.add(q * at.out_block + (first + p) * V::N));
        }
    }
}

/// Products of all `tiles` tiles with `Q` output blocks (1 or 2, or 4 if there are 32 registers).
///
/// # Safety
/// The CPU must support `V`; the pointers and strides of `at` must cover `tiles` tiles and `Q` output blocks,
/// with `out` valid for writes.
#[inline(always)]
pub(super) unsafe fn multiply<V: Lanes, const Q: usize>(at: Place, tiles: usize) {
    let most = if Q == 4 || (Q == 2 && V::REGISTERS < 32) { 6 } else { 12 };
    let mut first = 0;
    while first < tiles {
        let left = tiles - first;
        let take = match left {
            _ if left >= most => most,
            8.. => 8,
            6.. => 6,
            4.. => 4,
            _ => left,
        };
        match take {
            12 => tile::<V, 12, Q>(at, first),
            8 => tile::<V, 8, Q>(at, first),
            6 => tile::<V, 6, Q>(at, first),
            4 => tile::<V, 4, Q>(at, first),
            3 => tile::<V, 3, Q>(at, first),
            2 => tile::<V, 2, Q>(at, first),
            _ => tile::<V, 1, Q>(at, first),
        }
        first += take;
    }
}

/// `out[i][o] += sum_t x[t][i] * g[t][o]` for one block of `i` and one of `o`, over `tiles` tiles.
///
/// # Safety
/// The CPU must support `V`; `x` and `g` must be valid for reads of `tiles * N` floats, and `out` for reads
/// and writes of `N * N`.
#[inline(always)]
pub(super) unsafe fn correlate<V: Lanes>(x: *const f32, g: *const f32, tiles: usize, out: *mut f32) {
    match V::N {
        16 => outer::<V, 16>(x, g, tiles, out),
        8 => outer::<V, 8>(x, g, tiles, out),
        _ => outer::<V, 4>(x, g, tiles, out),
    }
}

/// [`correlate`] with the register width as a constant.
///
/// # Safety
/// As for [`correlate`]; `N` must be `V::N`.
#[inline(always)]
unsafe fn outer<V: Lanes, const N: usize>(x: *const f32, g: *const f32, tiles: usize, out: *mut f32) {
    let mut acc = [V::zero(); N];
    for t in 0..tiles {
        let g = V::load(g.add(t * N));
        let x = x.add(t * N);
        for i in 0..N {
            acc[i] = V::splat(*x.add(i)).mul_add(g, acc[i]);
        }
    }
    for i in 0..N {
        let row = out.add(i * N);
        acc[i].add(V::load(row)).store(row);
    }
}
