//! Tiles: how images are cut into tiles, transformed into planes, and restored from products.
//!
//! Intermediate values are grouped by blocks of channels: `[plane][block of N channels][tile][N]`. Tile rows
//! are numbered across all images; a band is a range of them.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]
#![allow(clippy::needless_range_loop, clippy::too_many_arguments)]

use super::form::{self, A, M, PLANES};
use crate::ops::cpu::lanes::{Lanes, WIDEST};
use crate::ops::cpu::shape::ConvShape;
use std::ops::Range;

/// The source of rows for channels beyond the last.
static ZEROS: [f32; WIDEST] = [0.; WIDEST];

/// A stride-1 correlation with a 3x3 kernel, cut into tiles of 4x4 outputs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tiling {
    pub n: usize,
    pub c_in: usize,
    pub h: usize,
    pub w: usize,
    pub c_out: usize,
    pub pad: usize,
    pub oh: usize,
    pub ow: usize,
    /// Tile rows and columns of one image.
    pub rows: usize,
    pub columns: usize,
}

impl Tiling {
    /// The convolution itself.
    pub(super) fn forward(s: &ConvShape) -> Tiling {
        let ConvShape { n, c_in, h, w, c_out, pad, oh, ow, .. } = *s;
        Tiling { n, c_in, h, w, c_out, pad, oh, ow, rows: oh.div_ceil(M), columns: ow.div_ceil(M) }
    }

    /// The gradient of its input: a correlation of the output gradient with the rotated kernel.
    pub(super) fn backward(s: &ConvShape) -> Tiling {
        let t = Tiling::forward(s);
        let (rows, columns) = (s.h.div_ceil(M), s.w.div_ceil(M));
        Tiling {
            c_in: t.c_out,
            h: t.oh,
            w: t.ow,
            c_out: t.c_in,
            pad: 2 - s.pad,
            oh: t.h,
            ow: t.w,
            rows,
            columns,
            n: t.n,
        }
    }

    /// The image that contains tile row `at`, and its own tile rows from there to `end`.
    fn segment(&self, at: usize, end: usize) -> (usize, Range<usize>) {
        let image = at / self.rows;
        (image, at - image * self.rows..(end - image * self.rows).min(self.rows))
    }

    /// Pixels from one row of a padded map to the next.
    fn pitch(&self) -> usize {
        self.columns * M + A - M
    }

    /// Floats of the padded map for a band of `rows` tile rows, with lanes of `n`.
    pub(super) fn map_len(&self, rows: usize, n: usize) -> usize {
        (rows.min(self.rows) * M + A - M) * self.pitch() * n
    }
}

/// The images or gradients that tiles are taken from.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    /// `(n, channels, h, w)`.
    pub values: &'a [f32],
    pub channels: usize,
    pub h: usize,
    pub w: usize,
    /// Zero padding before the first row and column.
    pub pad: usize,
}

/// Transforms the tiles of `band` for one block of channels: `B^T d B` of 6x6 inputs or, if `BACK`, `A g A^T`
/// of 4x4 gradients. `planes` points to that block's first tile of the band; planes are `pitch` floats apart.
///
/// # Safety
/// The CPU must support `V`; `source` must cover the band, `planes` be valid for writes of its tiles, and
/// `map` have [`Tiling::map_len`] floats that are zero where this function has not written.
#[inline(always)]
pub(super) unsafe fn transform<V: Lanes, const BACK: bool>(
    t: &Tiling,
    source: &Source<'_>,
    block: usize,
    band: Range<usize>,
    map: *mut f32,
    planes: *mut f32,
    pitch: usize,
) {
    let side = if BACK { M } else { A };
    let (mut row, mut to) = (band.start, planes);
    while row < band.end {
        let (image, rows) = t.segment(row, band.end);
        let image = source.values.as_ptr().add(image * source.channels * source.h * source.w);
        spread::<V>(t, source, image, block, rows.start * M, rows.len() * M + side - M, map);
        for i in 0..rows.len() {
            for j in 0..t.columns {
                let from = map.add((i * M * t.pitch() + j * M) * V::N).cast_const();
                let at = |a: usize, b: usize| from.add((a * t.pitch() + b) * V::N);
                let mut half = [[V::zero(); A]; A];
                for b in 0..side {
                    let column: [V; A] = if BACK {
                        let mut g = [V::zero(); M];
                        for a in 0..M {
                            g[a] = V::load(at(a, b));
                        }
                        form::output_back(g)
                    } else {
                        let mut d = [V::zero(); A];
                        for a in 0..A {
                            d[a] = V::load(at(a, b));
                        }
                        form::input(d)
                    };
                    for a in 0..A {
                        half[a][b] = column[a];
                    }
                }
                for a in 0..A {
                    let h = half[a];
                    let line =
                        if BACK { form::output_back([h[0], h[1], h[2], h[3]]) } else { form::input(h) };
                    for b in 0..A {
                        line[b].store(to.add((a * A + b) * pitch));
                    }
                }
                to = to.add(V::N);
            }
        }
        row += rows.len();
    }
}

/// Copies lines `first - pad ..` of one block of an image's channels into the padded map, interleaved by
/// lanes.
///
/// # Safety
/// The CPU must support `V`; `image` must point to the source's `channels * h * w` floats, `block` must start
/// below `channels`, and `map` have room for `lines` lines of the padded map.
#[inline(always)]
unsafe fn spread<V: Lanes>(
    t: &Tiling,
    source: &Source<'_>,
    image: *const f32,
    block: usize,
    first: usize,
    lines: usize,
    map: *mut f32,
) {
    let Source { channels, h, w, pad, .. } = *source;
    let pitch = t.pitch();
    // The lines of the map that are lines of the image.
    let (top, bottom) = (pad.saturating_sub(first).min(lines), (h + pad).saturating_sub(first).min(lines));
    for line in (0..top).chain(bottom.max(top)..lines) {
        for q in 0..pitch {
            V::zero().store(map.add((line * pitch + q) * V::N));
        }
    }
    if bottom <= top {
        return;
    }
    let (begin, end) = ((top + first - pad) * w, (bottom + first - pad) * w);
    let present = V::N.min(channels - block * V::N);
    let plane = image.add(block * V::N * h * w);
    let (mut from, mut to) = ([ZEROS.as_ptr(); WIDEST], [map; WIDEST]);
    let mut p = begin;
    if end - begin < V::N {
        // Fewer pixels than lanes: copy one by one.
        for p in begin..end {
            let cell = map.add(((p / w + pad - first) * pitch + p % w + pad) * V::N);
            for c in 0..V::N {
                *cell.add(c) = if c < present { *plane.add(c * h * w + p) } else { 0. };
            }
        }
        return;
    }
    while p < end {
        // The last square may repeat pixels of the previous one.
        p = p.min(end - V::N);
        for c in 0..present {
            from[c] = plane.add(c * h * w + p);
        }
        let (mut line, mut q) = (p / w + pad - first, p % w);
        for i in 0..V::N {
            to[i] = map.add((line * pitch + q + pad) * V::N);
            q += 1;
            if q == w {
                (line, q) = (line + 1, 0);
            }
        }
        V::transpose(&from, &to);
        p += V::N;
    }
}

/// Transforms products back (`A^T m A`) for the tiles of `band` of one block of output channels, and writes
/// the images' planes. `products` points to that block's first tile of the band.
///
/// # Safety
/// The CPU must support `V`; `products` must be valid for reads of the band's tiles; `map` must have
/// [`Tiling::map_len`] floats, of any contents; `y` must be `(n, c_out, oh, ow)`, and nothing else may access
/// these channels and rows.
#[inline(always)]
pub(super) unsafe fn restore<V: Lanes>(
    t: &Tiling,
    block: usize,
    band: Range<usize>,
    products: *const f32,
    pitch: usize,
    map: *mut f32,
    y: *mut f32,
) {
    let width = t.columns * M;
    let (mut row, mut from) = (band.start, products);
    while row < band.end {
        let (image, rows) = t.segment(row, band.end);
        for i in 0..rows.len() {
            for j in 0..t.columns {
                let mut half = [[V::zero(); A]; M];
                for b in 0..A {
                    let mut m = [V::zero(); A];
                    for a in 0..A {
                        m[a] = V::load(from.add((a * A + b) * pitch));
                    }
                    let m = form::output(m);
                    for a in 0..M {
                        half[a][b] = m[a];
                    }
                }
                for a in 0..M {
                    let line = form::output(half[a]);
                    for b in 0..M {
                        line[b].store(map.add(((i * M + a) * width + j * M + b) * V::N));
                    }
                }
                from = from.add(V::N);
            }
        }
        let first = rows.start * M;
        let lines = (rows.end * M).min(t.oh) - first;
        gather::<V>(t, block, first, lines, map, y.add(image * t.c_out * t.oh * t.ow));
        row += rows.len();
    }
}

/// Copies `lines` lines of the map (interleaved by lanes) to an image's planes, starting at line `first`.
///
/// # Safety
/// The CPU must support `V`; `map` must hold `lines` lines of `columns * M` registers, `block` must start
/// below `c_out`, and `image` be valid for writes of `c_out * oh * ow` floats, with `first + lines` at most
/// `oh`.
#[inline(always)]
unsafe fn gather<V: Lanes>(
    t: &Tiling,
    block: usize,
    first: usize,
    lines: usize,
    map: *mut f32,
    image: *mut f32,
) {
    let (width, plane) = (t.columns * M, t.oh * t.ow);
    let present = V::N.min(t.c_out - block * V::N);
    let to_plane = image.add(block * V::N * plane + first * t.ow);
    let pixels = lines * t.ow;
    if pixels < V::N {
        for p in 0..pixels {
            for c in 0..present {
                *to_plane.add(c * plane + p) = *map.add((p / t.ow * width + p % t.ow) * V::N + c);
            }
        }
        return;
    }
    // Columns of channels beyond the last are discarded.
    let mut nowhere = [0f32; WIDEST];
    let (mut from, mut to) = ([map.cast_const(); WIDEST], [nowhere.as_mut_ptr(); WIDEST]);
    let mut p = 0;
    while p < pixels {
        p = p.min(pixels - V::N);
        let (mut line, mut q) = (p / t.ow, p % t.ow);
        for i in 0..V::N {
            from[i] = map.add((line * width + q) * V::N);
            q += 1;
            if q == t.ow {
                (line, q) = (line + 1, 0);
            }
        }
        for c in 0..present {
            to[c] = to_plane.add(c * plane + p);
        }
        V::transpose(&from, &to);
        p += V::N;
    }
}

/// Transforms a kernel of `c_in` channels packed as `[c][9][N]` into `[plane][c padded][N]`.
///
/// # Safety
/// The CPU must support `V`; `packed` and `u` must be as long as these layouts say, with `u` zero in padded
/// channels.
#[inline(always)]
pub(super) unsafe fn transform_kernel<V: Lanes>(packed: *const f32, c_in: usize, padded: usize, u: *mut f32) {
    for c in 0..c_in {
        let mut half = [[V::zero(); 3]; A];
        for b in 0..3 {
            let at = |a: usize| packed.add(((c * 3 + a) * 3 + b) * V::N);
            let column = form::kernel([V::load(at(0)), V::load(at(1)), V::load(at(2))]);
            for a in 0..A {
                half[a][b] = column[a];
            }
        }
        for a in 0..A {
            let line = form::kernel(half[a]);
            for b in 0..A {
                line[b].store(u.add(((a * A + b) * padded + c) * V::N));
            }
        }
    }
}

/// The gradient of one block of output channels' weights, `dw (present, c_in, 3, 3)`, from the sum of the
/// gradients `du` of their transform, each `[plane][c padded][N]`.
///
/// # Safety
/// The CPU must support `V`; the parts of `du` and `dw` must be as long as these layouts say, and `present`
/// at most `V::N`.
#[inline(always)]
pub(super) unsafe fn restore_kernel<V: Lanes>(
    du: &[&[f32]],
    c_in: usize,
    padded: usize,
    present: usize,
    dw: *mut f32,
) {
    let mut lanes = [0f32; 9 * WIDEST];
    for c in 0..c_in {
        let mut u = [V::zero(); PLANES];
        for part in du {
            for plane in 0..PLANES {
                u[plane] = u[plane].add(V::load(part.as_ptr().add((plane * padded + c) * V::N)));
            }
        }
        let mut half = [[V::zero(); A]; 3];
        for b in 0..A {
            let mut column = [V::zero(); A];
            for a in 0..A {
                column[a] = u[a * A + b];
            }
            let column = form::kernel_back(column);
            for a in 0..3 {
                half[a][b] = column[a];
            }
        }
        for a in 0..3 {
            let line = form::kernel_back(half[a]);
            for b in 0..3 {
                line[b].store(lanes.as_mut_ptr().add((a * 3 + b) * V::N));
            }
        }
        for o in 0..present {
            for tap in 0..9 {
                *dw.add((o * c_in + c) * 9 + tap) = lanes[tap * V::N + o];
            }
        }
    }
}
