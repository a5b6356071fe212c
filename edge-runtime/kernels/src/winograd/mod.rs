//! Winograd convolution: 3x3, stride 1, blocked input.
//!
//! Three steps over tiles of `M x M` output pixels: input tiles are transformed into `A * A` planes, each
//! plane is multiplied by its own `c_in x c_out` matrix with the register tile that direct convolution uses,
//! and the products are transformed back, run through the epilogue and stored.
//!
//! Weights: `[c_out / cb][A * A][c_in padded][cb]`. Planes: `[A * A][c_in / cb][tiles][cb]`; products
//! likewise with the output blocks of one group. If the weights are small, each thread takes bands of tile
//! rows through all three steps while they stay in its cache. If they are large, all tiles are transformed
//! first, so that every weight is read once.
#![allow(unsafe_code)]
// Index loops over constant bounds unroll into registers; iterator chains do not always.
#![allow(clippy::needless_range_loop)]

mod form;
mod weights;

pub(super) use form::{F2, F4, Form};
pub(super) use weights::{pack, packed_len};

use super::conv::{ConvShape, Epilogue};
use super::isa::Isa;
use super::simd::{Simd, Work, run};
use super::tile::{Finish, Reach, next_run, sums, with_pixels};
use crate::pool::{Pool, share};
use std::marker::PhantomData;
use std::ops::Range;

/// Weights up to this many floats stay in a 1 MiB L2 cache next to one band's planes.
const SMALL_WEIGHTS: usize = 160 * 1024;

/// Floats of one band's planes.
const BAND: usize = 40 * 1024;

/// How tiles are grouped, and the sizes that follow.
#[derive(Clone, Copy)]
struct Layout {
    /// Tile rows and columns of the map; tile rows per band.
    tiles_y: usize,
    tiles_x: usize,
    band: usize,
    /// Input and output channel blocks; output blocks multiplied together.
    blocks: usize,
    out_blocks: usize,
    group: usize,
    /// Whether all tiles are transformed, by all threads, before the first product.
    shared: bool,
}

impl Layout {
    fn new<F: Form>(isa: Isa, s: &ConvShape) -> Layout {
        let cb = isa.block();
        let (tiles_y, tiles_x) = (s.out_h().div_ceil(F::M), s.out_w().div_ceil(F::M));
        let (blocks, out_blocks) = (s.c_in.div_ceil(cb), s.c_out.div_ceil(cb));
        let shared = packed_len::<F>(isa, s) > SMALL_WEIGHTS;
        let row = F::A * F::A * tiles_x * blocks * cb;
        let band = if shared { tiles_y } else { (BAND / row.max(1)).clamp(1, tiles_y) };
        let group = match out_blocks {
            4.. if isa == Isa::Neon || (isa == Isa::Avx512 && band * tiles_x <= 7) => 4,
            2.. => 2,
            _ => 1,
        };
        Layout { tiles_y, tiles_x, band, blocks, out_blocks, group, shared }
    }

    /// Distance in floats between two planes of `n` vectors: an odd number of vectors, because the planes of
    /// one tile would otherwise compete for the same few lines of the L1 cache.
    fn pitch(n: usize, cb: usize) -> usize {
        (n | 1) * cb
    }

    fn planes_len<F: Form>(&self, cb: usize) -> usize {
        F::A * F::A * Layout::pitch(self.blocks * self.band * self.tiles_x, cb)
    }

    fn products_len<F: Form>(&self, cb: usize) -> usize {
        F::A * F::A * Layout::pitch(self.group * self.band * self.tiles_x, cb)
    }
}

/// Whether [`conv`] supports this shape.
pub(super) fn handles(s: &ConvShape) -> bool {
    s.kernel == 3 && s.stride == 1 && !s.input_nchw
}

/// Floats of scratch.
pub(super) fn scratch_len<F: Form>(isa: Isa, s: &ConvShape, threads: usize) -> usize {
    let (layout, cb) = (Layout::new::<F>(isa, s), isa.block());
    let planes = layout.planes_len::<F>(cb) * if layout.shared { 1 } else { threads };
    planes + layout.products_len::<F>(cb) * threads
}

/// Like [`super::conv`]; slices are already checked and have their exact length.
#[allow(clippy::too_many_arguments)]
pub(super) fn conv<F: Form>(
    isa: Isa,
    s: &ConvShape,
    weights: &[f32],
    input: &[f32],
    e: &Epilogue<'_>,
    out: &mut [f32],
    scratch: &mut [f32],
    pool: &Pool,
) {
    let (layout, cb, threads) = (Layout::new::<F>(isa, s), isa.block(), pool.threads());
    let each_planes = layout.planes_len::<F>(cb);
    let planes = each_planes * if layout.shared { 1 } else { threads };
    let (planes, products) = scratch.split_at_mut(planes);
    let mut work = Winograd::<F> {
        s: *s,
        layout,
        phase: Phase::Whole,
        threads,
        x: input.as_ptr(),
        w: weights.as_ptr(),
        planes: planes.as_mut_ptr(),
        planes_len: each_planes,
        products: products.as_mut_ptr(),
        products_len: layout.products_len::<F>(cb),
        finish: Finish::new(e, out),
        form: PhantomData,
    };
    // SAFETY: `super::conv` checked that the machine supports `isa` and that every slice has the length its
    // shape requires; `scratch` has `scratch_len` floats, split according to the lengths computed above.
    unsafe {
        if layout.shared {
            work.phase = Phase::Transform;
            run(isa, &work, threads, pool);
            work.phase = Phase::Multiply;
        }
        run(isa, &work, threads, pool);
    }
}

/// What a pass over the parts does.
#[derive(Clone, Copy)]
enum Phase {
    /// All three steps, band by band, each thread its own tile rows.
    Whole,
    /// Input transforms of the whole map, split by blocks and tile rows.
    Transform,
    /// Products and output transforms of the whole map, split by groups of output blocks.
    Multiply,
}

struct Winograd<F> {
    s: ConvShape,
    layout: Layout,
    phase: Phase,
    threads: usize,
    x: *const f32,
    w: *const f32,
    planes: *mut f32,
    /// Floats of one thread's planes (of the single set of planes when shared).
    planes_len: usize,
    products: *mut f32,
    products_len: usize,
    finish: Finish,
    form: PhantomData<F>,
}

// SAFETY: the pointers come from slices borrowed for the whole run; threads read the inputs and write
// disjoint rows or blocks of the output, their own products, and their own or disjoint planes.
unsafe impl<F> Sync for Winograd<F> {}

/// A band of tile rows and its intermediate buffers.
struct Band {
    rows: Range<usize>,
    tiles: usize,
    planes: *mut f32,
    products: *mut f32,
}

impl<F: Form> Work for Winograd<F> {
    const PORTABLE: bool = false;

    // Each step is called in one place only: everything is inlined here, and another call site would
    // duplicate it.
    #[inline(always)]
    unsafe fn part<V: Simd>(&self, part: usize) {
        let Layout { tiles_y, tiles_x, blocks, out_blocks, group, .. } = self.layout;
        let groups = out_blocks.div_ceil(group);
        // With separate phases, the band is the whole map and the planes are shared.
        let (mut rows, planes) = match self.phase {
            Phase::Whole => (share(tiles_y, part, self.threads), part * self.planes_len),
            Phase::Transform | Phase::Multiply => (0..tiles_y, 0),
        };
        while !rows.is_empty() {
            let end = rows.end.min(rows.start + self.layout.band);
            let count = end - rows.start;
            let band = Band {
                rows: rows.start..end,
                tiles: count * tiles_x,
                planes: self.planes.wrapping_add(planes),
                products: self.products.wrapping_add(part * self.products_len),
            };
            rows.start = end;
            let (transforms, products) = match self.phase {
                Phase::Whole => (0..blocks * count, 0..groups),
                Phase::Transform => (share(blocks * count, part, self.threads), 0..0),
                Phase::Multiply => (0..0, share(groups, part, self.threads)),
            };
            // SAFETY: guaranteed by the caller; bands, blocks and rows lie inside the map and belong to this
            // part alone.
            unsafe {
                for unit in transforms {
                    self.transform::<V>(&band, unit / count, band.rows.start + unit % count);
                }
                for unit in products {
                    let first = unit * group;
                    self.multiply::<V>(&band, first, group.min(out_blocks - first));
                }
            }
        }
    }
}

impl<F: Form> Winograd<F> {
    /// `B^T d B` for the tiles of one row and one input block.
    #[inline(always)]
    unsafe fn transform<V: Simd>(&self, band: &Band, block: usize, row: usize) {
        let ConvShape { h, w, pad, .. } = self.s;
        let pitch = Layout::pitch(self.layout.blocks * band.tiles, V::LANES);
        // SAFETY: an inner tile lies inside the input, a tile at the border is copied pixel by pixel; the
        // planes hold this band's tiles for every block.
        unsafe {
            let zero = V::splat(0.0);
            let map = self.x.add(block * h * w * V::LANES);
            for column in 0..self.layout.tiles_x {
                let (y, x) = (row * F::M, column * F::M);
                let inside = y >= pad && x >= pad && y - pad + F::A <= h && x - pad + F::A <= w;
                let mut half = [[zero; 6]; 6];
                for j in 0..F::A {
                    let mut d = [zero; 6];
                    if inside {
                        let from = map.add(((y - pad) * w + x - pad + j) * V::LANES);
                        for i in 0..F::A {
                            d[i] = V::load(from.add(i * w * V::LANES));
                        }
                    } else if x + j >= pad && x + j - pad < w {
                        for i in 0..F::A {
                            if y + i >= pad && y + i - pad < h {
                                d[i] = V::load(map.add(((y + i - pad) * w + x + j - pad) * V::LANES));
                            }
                        }
                    }
                    let d = F::input(d);
                    for i in 0..F::A {
                        half[i][j] = d[i];
                    }
                }
                let tile = (row - band.rows.start) * self.layout.tiles_x + column;
                let to = band.planes.add((block * band.tiles + tile) * V::LANES);
                for i in 0..F::A {
                    let d = F::input(half[i]);
                    for j in 0..F::A {
                        d[j].store(to.add((i * F::A + j) * pitch));
                    }
                }
            }
        }
    }

    /// Products and output transforms of `count` output blocks starting at block `first`.
    #[inline(always)]
    unsafe fn multiply<V: Simd>(&self, band: &Band, first: usize, count: usize) {
        let (mut block, mut left) = (first, count);
        while left > 0 {
            // SAFETY: guaranteed by the caller; `q` is at most `count`, and the products buffer is large
            // enough for that.
            unsafe {
                let q = match left {
                    4.. if V::PIXELS[2] > 0 => {
                        self.products::<V, 4>(band, block);
                        4
                    }
                    2.. => {
                        self.products::<V, 2>(band, block);
                        2
                    }
                    _ => {
                        self.products::<V, 1>(band, block);
                        1
                    }
                };
                for offset in 0..q {
                    self.restore::<V>(band, block + offset, offset, q);
                }
                block += q;
                left -= q;
            }
        }
    }

    /// All planes times their matrices, for `Q` output blocks.
    #[inline(always)]
    unsafe fn products<V: Simd, const Q: usize>(&self, band: &Band, block: usize) {
        let blocks = self.layout.blocks;
        let matrix = blocks * V::LANES * V::LANES;
        let from_pitch = Layout::pitch(blocks * band.tiles, V::LANES);
        let to_pitch = Layout::pitch(Q * band.tiles, V::LANES);
        let reach = Reach {
            blocks,
            x_block: band.tiles * V::LANES,
            rows: 1,
            x_row: 0,
            inner: V::LANES,
            w_next: F::A * F::A * matrix,
            ahead: matrix,
        };
        let most = V::PIXELS[Q / 2];
        for plane in 0..F::A * F::A {
            let mut tile = 0;
            while tile < band.tiles {
                let pixels = next_run(band.tiles - tile, most);
                // SAFETY: the lengths of the planes, weights and products cover these offsets.
                unsafe {
                    let place = (
                        band.planes.add(plane * from_pitch + tile * V::LANES).cast_const(),
                        self.w.add((block * F::A * F::A + plane) * matrix),
                        band.products.add(plane * to_pitch + tile * V::LANES),
                        &reach,
                    );
                    if Q == 4 {
                        with_pixels!(pixels, V::PIXELS[2], product::<V, 4, F>(place));
                    } else if Q == 2 {
                        with_pixels!(pixels, V::PIXELS[1], product::<V, 2, F>(place));
                    } else {
                        with_pixels!(pixels, V::PIXELS[0], product::<V, 1, F>(place));
                    }
                }
                tile += pixels;
            }
        }
    }

    /// `A^T m A` and the epilogue for every tile of output block `block`, the `offset`-th of `q` in the
    /// products.
    #[inline(always)]
    unsafe fn restore<V: Simd>(&self, band: &Band, block: usize, offset: usize, q: usize) {
        let pitch = Layout::pitch(q * band.tiles, V::LANES);
        let (oh, ow) = (self.s.out_h(), self.s.out_w());
        // SAFETY: reads stay inside the products; writes only touch pixels of the map, in rows or blocks of
        // this part.
        unsafe {
            let zero = V::splat(0.0);
            let factors = self.finish.factors::<V>(block * V::LANES);
            for tile in 0..band.tiles {
                let y = (band.rows.start + tile / self.layout.tiles_x) * F::M;
                let x = tile % self.layout.tiles_x * F::M;
                let from = band.products.add((offset * band.tiles + tile) * V::LANES);
                let mut half = [[zero; 6]; 4];
                for j in 0..F::A {
                    let mut m = [zero; 6];
                    for i in 0..F::A {
                        m[i] = V::load(from.add((i * F::A + j) * pitch));
                    }
                    let m = F::output(m);
                    for i in 0..F::M {
                        half[i][j] = m[i];
                    }
                }
                for i in 0..F::M {
                    if y + i < oh {
                        let out = F::output(half[i]);
                        let at = ((block * oh + y + i) * ow + x) * V::LANES;
                        for j in 0..F::M {
                            if x + j < ow {
                                self.finish.store(out[j], factors, at + j * V::LANES);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One register tile of one plane's product; `reach` covers the input blocks, `to` advances by tiles.
#[inline(always)]
unsafe fn product<V: Simd, const P: usize, const Q: usize, F: Form>(
    (x, w, to, reach): (*const f32, *const f32, *mut f32, &Reach),
) {
    // SAFETY: the caller placed the tile inside the planes, weights and products.
    unsafe {
        let acc = [[V::splat(0.0); Q]; P];
        let acc = if F::LARGE {
            sums::<V, P, Q, 1, false, true>(acc, x, w, reach)
        } else {
            sums::<V, P, Q, 1, false, false>(acc, x, w, reach)
        };
        for q in 0..Q {
            for p in 0..P {
                acc[p][q].store(to.add(q * reach.x_block + p * V::LANES));
            }
        }
    }
}
