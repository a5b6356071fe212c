//! The two register-tile kernels behind every direct convolution, over flat (row after row) padded planes.
//!
//! [`correlate`]: `out[o][p] = sum_t w[t][o] * input[taps[t] + p]` for a block of output channels.
//!
//! [`dot`]: `acc[o][t] += sum_p g[o][p] * input[taps[t] + p]`, the gradient of the weights.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]
// Constant bounds let the compiler keep register tiles in registers.
#![allow(clippy::needless_range_loop, clippy::too_many_arguments)]

#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Lanes, Portable};
use super::level::Level;

/// One tile of [`correlate_all`]: `CO` channels of `NV` registers, the last with `tail` lanes unless `WHOLE`.
///
/// # Safety
/// The CPU must support `V`; `tail` must be at most `V::N`. With `len` lanes in the tile (`NV * V::N` if
/// `WHOLE`, else `(NV - 1) * V::N + tail`), `input` plus every tap must be valid for reads of `len` floats,
/// `w` for reads of `taps.len() * CO`, and `out + o * out_stride` for writes of `len` for every `o < CO`.
#[inline(always)]
unsafe fn correlate_tile<V: Lanes, const CO: usize, const NV: usize, const WHOLE: bool>(
    input: *const f32,
    taps: &[u32],
    w: *const f32,
    out: *mut f32,
    out_stride: usize,
    tail: usize,
) {
    let mut acc = [[V::zero(); NV]; CO];
    let mut wp = w;
    for &tap in taps {
        let p = input.add(tap as usize);
        let mut x = [V::zero(); NV];
        for v in 0..NV {
            x[v] = if WHOLE || v + 1 < NV {
                V::load(p.add(v * V::N))
            } else {
                V::load_first(p.add(v * V::N), tail)
            };
        }
        for o in 0..CO {
            let k = V::splat(*wp.add(o));
            for v in 0..NV {
                acc[o][v] = x[v].mul_add(k, acc[o][v]);
            }
        }
        wp = wp.add(CO);
    }
    for o in 0..CO {
        let row = out.add(o * out_stride);
        for v in 0..NV {
            if WHOLE || v + 1 < NV {
                acc[o][v].store(row.add(v * V::N));
            } else {
                acc[o][v].store_first(row.add(v * V::N), tail);
            }
        }
    }
}

/// [`correlate`] on raw pointers, for blocks of `CO` channels.
///
/// # Safety
/// The CPU must support `V`. `input` plus every tap must be valid for reads of `len` floats, `w` for reads of
/// `taps.len() * CO`, and `out + o * out_stride` for writes of `len` for every `o < CO`.
#[inline(always)]
unsafe fn correlate_all<V: Lanes, const CO: usize>(
    input: *const f32,
    taps: &[u32],
    w: *const f32,
    out: *mut f32,
    out_stride: usize,
    len: usize,
) {
    let mut vectors = len.div_ceil(V::N);
    let mut at = 0;
    while vectors > 0 {
        // 4 = 2 + 2 keeps more accumulators busy than 3 + 1.
        let take = if vectors == 4 { 2 } else { vectors.min(3) };
        let tail = (len - at).min(take * V::N) - (take - 1) * V::N;
        let (x, y) = (input.add(at), out.add(at));
        match (take, tail == V::N) {
            (3, true) => correlate_tile::<V, CO, 3, true>(x, taps, w, y, out_stride, tail),
            (3, false) => correlate_tile::<V, CO, 3, false>(x, taps, w, y, out_stride, tail),
            (2, true) => correlate_tile::<V, CO, 2, true>(x, taps, w, y, out_stride, tail),
            (2, false) => correlate_tile::<V, CO, 2, false>(x, taps, w, y, out_stride, tail),
            (_, true) => correlate_tile::<V, CO, 1, true>(x, taps, w, y, out_stride, tail),
            (_, false) => correlate_tile::<V, CO, 1, false>(x, taps, w, y, out_stride, tail),
        }
        at += take * V::N;
        vectors -= take;
    }
}

/// # Safety
/// The CPU must support AVX-512 F, AVX2 and FMA; otherwise as for [`correlate_all`] with `CO` = 8.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn correlate_avx512(i: *const f32, t: &[u32], w: *const f32, o: *mut f32, s: usize, len: usize) {
    correlate_all::<Avx512, 8>(i, t, w, o, s, len)
}

/// # Safety
/// The CPU must support AVX2 and FMA; otherwise as for [`correlate_all`] with `CO` = 4.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn correlate_avx2(i: *const f32, t: &[u32], w: *const f32, o: *mut f32, s: usize, len: usize) {
    correlate_all::<Avx2, 4>(i, t, w, o, s, len)
}

/// `out[o * out_stride + p] = sum_t w[t * block + o] * input[taps[t] + p]` for `p < len`, `o < block`,
/// with `block = level.co_block()`.
pub(crate) fn correlate(
    level: Level,
    input: &[f32],
    taps: &[u32],
    w: &[f32],
    out: &mut [f32],
    out_stride: usize,
    len: usize,
) {
    let block = level.co_block();
    let furthest = taps.iter().max().map_or(0, |t| *t as usize);
    assert!(len > 0 && furthest + len <= input.len() && w.len() >= taps.len() * block);
    assert!(out_stride >= len && (block - 1) * out_stride + len <= out.len());
    let (i, w, o) = (input.as_ptr(), w.as_ptr(), out.as_mut_ptr());
    // SAFETY: reads stay below `furthest + len` and writes below `(block - 1) * out_stride + len`, both
    // asserted; `level` comes from `Level::available`, so the CPU supports its instructions.
    unsafe {
        match level {
            Level::Portable => correlate_all::<Portable, 2>(i, taps, w, o, out_stride, len),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => correlate_avx2(i, taps, w, o, out_stride, len),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => correlate_avx512(i, taps, w, o, out_stride, len),
            #[cfg(not(target_arch = "x86_64"))]
            _ => correlate_all::<Portable, 2>(i, taps, w, o, out_stride, len),
        }
    }
}

/// `out[o * out_stride + t] += sum_{p < len} g[o][p] * x[t][p]` for all `o < CO`, `t < T`.
///
/// # Safety
/// The CPU must support `V`. All pointers in `g` and `x` must be valid for reads of `len` floats, and `out +
/// o * out_stride` for reads and writes of `T` floats for every `o < CO`.
#[inline(always)]
unsafe fn dot_tile<V: Lanes, const CO: usize, const T: usize>(
    g: [*const f32; CO],
    x: [*const f32; T],
    len: usize,
    out: *mut f32,
    out_stride: usize,
) {
    let mut acc = [[V::zero(); T]; CO];
    let mut at = 0;
    while at + V::N <= len {
        let mut gv = [V::zero(); CO];
        for o in 0..CO {
            gv[o] = V::load(g[o].add(at));
        }
        for t in 0..T {
            let xv = V::load(x[t].add(at));
            for o in 0..CO {
                acc[o][t] = gv[o].mul_add(xv, acc[o][t]);
            }
        }
        at += V::N;
    }
    if at < len {
        let n = len - at;
        for t in 0..T {
            let xv = V::load_first(x[t].add(at), n);
            for o in 0..CO {
                acc[o][t] = V::load_first(g[o].add(at), n).mul_add(xv, acc[o][t]);
            }
        }
    }
    for o in 0..CO {
        for t in 0..T {
            *out.add(o * out_stride + t) += acc[o][t].sum();
        }
    }
}

/// [`dot`] on raw pointers, for `CO` channels.
///
/// # Safety
/// The CPU must support `V`. `g + o * g_stride` must be valid for reads of `len` floats and `out + o *
/// out_stride` for reads and writes of `taps.len()` floats for every `o < CO`, and `x` plus every tap for
/// reads of `len` floats.
#[inline(always)]
unsafe fn dot_rows<V: Lanes, const CO: usize>(
    g: *const f32,
    g_stride: usize,
    x: *const f32,
    taps: &[u32],
    len: usize,
    out: *mut f32,
    out_stride: usize,
) {
    let rows: [*const f32; CO] = std::array::from_fn(|o| g.wrapping_add(o * g_stride));
    let mut t = 0;
    let at = |i: usize| x.wrapping_add(taps[i] as usize);
    while t + 6 <= taps.len() {
        dot_tile::<V, CO, 6>(rows, std::array::from_fn(|i| at(t + i)), len, out.add(t), out_stride);
        t += 6;
    }
    while t + 3 <= taps.len() {
        dot_tile::<V, CO, 3>(rows, std::array::from_fn(|i| at(t + i)), len, out.add(t), out_stride);
        t += 3;
    }
    while t < taps.len() {
        dot_tile::<V, CO, 1>(rows, [at(t)], len, out.add(t), out_stride);
        t += 1;
    }
}

/// [`dot`] on raw pointers, `CO` channels at a time.
///
/// # Safety
/// As for [`dot_rows`], for every `o < channels`.
#[inline(always)]
unsafe fn dot_all<V: Lanes, const CO: usize>(
    g: *const f32,
    g_stride: usize,
    channels: usize,
    x: *const f32,
    taps: &[u32],
    len: usize,
    out: *mut f32,
    out_stride: usize,
) {
    let mut o = 0;
    while o + CO <= channels {
        dot_rows::<V, CO>(g.add(o * g_stride), g_stride, x, taps, len, out.add(o * out_stride), out_stride);
        o += CO;
    }
    while o < channels {
        dot_rows::<V, 1>(g.add(o * g_stride), g_stride, x, taps, len, out.add(o * out_stride), out_stride);
        o += 1;
    }
}

/// # Safety
/// The CPU must support AVX-512 F, AVX2 and FMA; the slices must contain what [`dot_all`] reads and writes
/// for `c` channels.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn dot_avx512(
    g: &[f32],
    gs: usize,
    c: usize,
    x: &[f32],
    t: &[u32],
    len: usize,
    o: &mut [f32],
    os: usize,
) {
    dot_all::<Avx512, 4>(g.as_ptr(), gs, c, x.as_ptr(), t, len, o.as_mut_ptr(), os)
}

/// # Safety
/// The CPU must support AVX2 and FMA; the slices must contain what [`dot_all`] reads and writes for `c`
/// channels.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn dot_avx2(
    g: &[f32],
    gs: usize,
    c: usize,
    x: &[f32],
    t: &[u32],
    len: usize,
    o: &mut [f32],
    os: usize,
) {
    dot_all::<Avx2, 2>(g.as_ptr(), gs, c, x.as_ptr(), t, len, o.as_mut_ptr(), os)
}

/// `out[o * taps.len() + t] += sum_{p < len} g[o * g_stride + p] * x[taps[t] + p]` for `o < channels`.
pub(crate) fn dot(
    level: Level,
    g: &[f32],
    g_stride: usize,
    channels: usize,
    x: &[f32],
    taps: &[u32],
    len: usize,
    out: &mut [f32],
) {
    let furthest = taps.iter().max().map_or(0, |t| *t as usize);
    assert!(channels > 0 && furthest + len <= x.len() && (channels - 1) * g_stride + len <= g.len());
    assert!(out.len() >= channels * taps.len());
    let stride = taps.len();
    // SAFETY: the asserts above bound all reads and writes; `level` is available on this CPU.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => dot_avx2(g, g_stride, channels, x, taps, len, out, stride),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => dot_avx512(g, g_stride, channels, x, taps, len, out, stride),
            _ => dot_all::<Portable, 2>(
                g.as_ptr(),
                g_stride,
                channels,
                x.as_ptr(),
                taps,
                len,
                out.as_mut_ptr(),
                stride,
            ),
        }
    }
}
