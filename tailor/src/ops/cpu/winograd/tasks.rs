//! Units of work for one thread: each task is plain data, and runs on registers of any width.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use super::RUN;
use super::form::PLANES;
use super::product::{self, Place};
use super::tiles::{Source, Tiling, restore, transform, transform_kernel};
#[cfg(target_arch = "x86_64")]
use crate::ops::cpu::lanes::{Avx2, Avx512};
use crate::ops::cpu::lanes::{Lanes, Portable};
use crate::ops::cpu::level::Level;
use crate::ops::cpu::scratch;
use std::ops::Range;

/// Tiles multiplied at a time if there are many weights.
const LONG_BAND: usize = 64;

/// A unit of work for one thread.
pub(super) trait Task {
    /// Floats of scratch space it needs with registers of `lanes` floats.
    fn scratch(&self, lanes: usize) -> usize;

    /// Does the work.
    ///
    /// # Safety
    /// The CPU must support `V`, and `scratch` must have [`Task::scratch`] floats for `V::N` lanes. The
    /// task's buffers must have the documented layouts and cover its rows and blocks, and nothing else may
    /// access the part it writes.
    unsafe fn work<V: Lanes>(&self, scratch: &mut [f32]);
}

/// Runs a task with the instructions of `level`.
pub(super) fn run<T: Task>(level: Level, task: &T) {
    /// # Safety
    /// The CPU must support AVX-512 F, AVX2 and FMA; otherwise as for [`Task::work`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn avx512(task: &impl Task, scratch: &mut [f32]) {
        task.work::<Avx512>(scratch);
    }
    /// # Safety
    /// The CPU must support AVX2 and FMA; otherwise as for [`Task::work`].
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(task: &impl Task, scratch: &mut [f32]) {
        task.work::<Avx2>(scratch);
    }
    scratch::with(task.scratch(level.lanes()), |scratch| {
        // SAFETY: levels come from `Level::available`, so the CPU supports their instructions; the sizes of a
        // task's buffers are checked where it is created.
        unsafe {
            match level {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => avx512(task, scratch),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => avx2(task, scratch),
                _ => task.work::<Portable>(scratch),
            }
        }
    });
}

/// Floats from one plane of `blocks * tiles` registers to the next: not a power of two, so that the planes of
/// a tile do not map to the same cache set.
pub(super) fn pitch(blocks: usize, tiles: usize, lanes: usize) -> usize {
    (blocks * tiles + 1) * lanes
}

/// A buffer that several tasks write to, each a separate part.
#[derive(Clone, Copy)]
pub(super) struct Target(*mut f32);

impl Target {
    pub(super) fn new(first: *mut f32) -> Target {
        Target(first)
    }

    /// Pointer to the first float.
    pub(super) fn first(self) -> *mut f32 {
        self.0
    }
}

// SAFETY: it is only an address; the tasks that write through it own disjoint images, rows or channels of the
// buffer.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// Location of a band's transformed tiles.
#[derive(Clone, Copy)]
struct Tiles {
    /// First tile of the band in plane 0, block 0.
    values: *const f32,
    /// Stride between blocks.
    block: usize,
    /// Stride between planes.
    plane: usize,
}

/// Transforms the kernels of one block of output channels.
pub(super) struct Kernel<'a> {
    /// `[c_in * 9][N]`.
    pub packed: &'a [f32],
    pub c_in: usize,
    /// Input channels, rounded up to whole blocks.
    pub padded: usize,
    /// `[plane][padded][N]`, zero in padded channels.
    pub u: Target,
}

impl Task for Kernel<'_> {
    fn scratch(&self, _: usize) -> usize {
        0
    }

    #[inline(always)]
    unsafe fn work<V: Lanes>(&self, _: &mut [f32]) {
        transform_kernel::<V>(self.packed.as_ptr(), self.c_in, self.padded, self.u.first());
    }
}

/// What the parts of a correlation share.
pub(super) struct Correlate<'a> {
    pub t: Tiling,
    pub source: Source<'a>,
    /// Transformed weights, `[output block][plane][padded][N]`.
    pub u: &'a [f32],
    /// `(n, c_out, oh, ow)`.
    pub y: Target,
    /// Input channels, rounded up to whole blocks.
    pub padded: usize,
    /// Number of output blocks.
    pub blocks: usize,
}

impl Correlate<'_> {
    /// Products and outputs of `blocks` for one band.
    ///
    /// # Safety
    /// The CPU must support `V`. `x` must point to the band's transformed tiles of all `padded` channels,
    /// `products` must have room for the products of up to four blocks and `map` for [`Tiling::map_len`]
    /// floats, and nothing else may access the band's pixels of these blocks in `y`.
    #[inline(always)]
    unsafe fn outputs<V: Lanes>(
        &self,
        x: Tiles,
        band: Range<usize>,
        blocks: Range<usize>,
        products: &mut [f32],
        map: &mut [f32],
    ) {
        let tiles = band.len() * self.t.columns;
        let mut block = blocks.start;
        while block < blocks.end {
            let left = blocks.end - block;
            let q = if left >= 4 && V::REGISTERS >= 32 { 4 } else { left.min(2) };
            let plane = pitch(q, tiles, V::N);
            debug_assert!(products.len() >= PLANES * plane);
            for f in 0..PLANES {
                let at = Place {
                    x: x.values.add(f * x.plane),
                    w: self.u.as_ptr().add((block * PLANES + f) * self.padded * V::N),
                    out: products.as_mut_ptr().add(f * plane),
                    blocks: self.padded / V::N,
                    x_block: x.block,
                    w_block: PLANES * self.padded * V::N,
                    out_block: tiles * V::N,
                };
                match q {
                    4 => product::multiply::<V, 4>(at, tiles),
                    2 => product::multiply::<V, 2>(at, tiles),
                    _ => product::multiply::<V, 1>(at, tiles),
                }
            }
            for i in 0..q {
                let from = products.as_ptr().add(i * tiles * V::N);
                restore::<V>(&self.t, block + i, band.clone(), from, plane, map.as_mut_ptr(), self.y.first());
            }
            block += q;
        }
    }
}

/// All steps for some images (tile rows `rows`), band by band; writes these images.
pub(super) struct Whole<'a> {
    pub job: &'a Correlate<'a>,
    pub rows: Range<usize>,
    /// Tile rows per band.
    pub band: usize,
}

impl Whole<'_> {
    /// Floats of the padded input map, the output map, the planes and the products.
    fn parts(&self, lanes: usize) -> [usize; 4] {
        let Correlate { t, padded, blocks, .. } = self.job;
        let rows = self.band.min(self.rows.len());
        let (map, tiles) = (t.map_len(rows, lanes), rows * t.columns);
        let planes = PLANES * pitch(padded / lanes, tiles, lanes);
        [map, map, planes, PLANES * pitch(RUN.min(*blocks), tiles, lanes)]
    }
}

impl Task for Whole<'_> {
    fn scratch(&self, lanes: usize) -> usize {
        self.parts(lanes).iter().sum()
    }

    #[inline(always)]
    unsafe fn work<V: Lanes>(&self, scratch: &mut [f32]) {
        let [map, _, planes, _] = self.parts(V::N);
        let (inputs, rest) = scratch.split_at_mut(map);
        let (outputs, rest) = rest.split_at_mut(map);
        let (planes, products) = rest.split_at_mut(planes);
        inputs.fill(0.);
        let Correlate { t, source, padded, blocks, .. } = self.job;
        let mut row = self.rows.start;
        while row < self.rows.end {
            let band = row..(row + self.band).min(self.rows.end);
            let tiles = band.len() * t.columns;
            let x = Tiles {
                values: planes.as_ptr(),
                block: tiles * V::N,
                plane: pitch(padded / V::N, tiles, V::N),
            };
            for block in 0..padded / V::N {
                let to = planes.as_mut_ptr().add(block * x.block);
                transform::<V, false>(t, source, block, band.clone(), inputs.as_mut_ptr(), to, x.plane);
            }
            self.job.outputs::<V>(x, band.clone(), 0..*blocks, products, outputs);
            row = band.end;
        }
    }
}

/// Transforms the tiles of some images into planes shared by all threads.
pub(super) struct Planes<'a> {
    pub t: Tiling,
    pub source: Source<'a>,
    /// Tile rows in the planes.
    pub all: Range<usize>,
    /// Tile rows of this task.
    pub rows: Range<usize>,
    pub planes: Target,
}

impl Task for Planes<'_> {
    fn scratch(&self, lanes: usize) -> usize {
        self.t.map_len(self.rows.len(), lanes)
    }

    #[inline(always)]
    unsafe fn work<V: Lanes>(&self, map: &mut [f32]) {
        map.fill(0.);
        let blocks = self.source.channels.div_ceil(V::N);
        let tiles = self.all.len() * self.t.columns;
        let first = (self.rows.start - self.all.start) * self.t.columns;
        for block in 0..blocks {
            let to = self.planes.first().add((block * tiles + first) * V::N);
            let plane = pitch(blocks, tiles, V::N);
            transform::<V, false>(
                &self.t,
                &self.source,
                block,
                self.rows.clone(),
                map.as_mut_ptr(),
                to,
                plane,
            );
        }
    }
}

/// Products and outputs of some output blocks from shared planes; writes these channels of the images in
/// `rows`.
pub(super) struct Outputs<'a> {
    pub job: &'a Correlate<'a>,
    pub planes: &'a [f32],
    pub rows: Range<usize>,
    pub blocks: Range<usize>,
}

impl Outputs<'_> {
    fn band(&self) -> usize {
        (LONG_BAND / self.job.t.columns).clamp(1, self.rows.len())
    }

    /// Floats of the output map and the products.
    fn parts(&self, lanes: usize) -> [usize; 2] {
        let t = &self.job.t;
        let products = PLANES * pitch(self.blocks.len(), self.band() * t.columns, lanes);
        [t.map_len(self.band(), lanes), products]
    }
}

impl Task for Outputs<'_> {
    fn scratch(&self, lanes: usize) -> usize {
        self.parts(lanes).iter().sum()
    }

    #[inline(always)]
    unsafe fn work<V: Lanes>(&self, scratch: &mut [f32]) {
        let (map, products) = scratch.split_at_mut(self.parts(V::N)[0]);
        let (t, blocks) = (&self.job.t, self.job.padded / V::N);
        let tiles = self.rows.len() * t.columns;
        let mut row = self.rows.start;
        while row < self.rows.end {
            let band = row..(row + self.band()).min(self.rows.end);
            let first = (row - self.rows.start) * t.columns;
            let x = Tiles {
                values: self.planes.as_ptr().add(first * V::N),
                block: tiles * V::N,
                plane: pitch(blocks, tiles, V::N),
            };
            self.job.outputs::<V>(x, band.clone(), self.blocks.clone(), products, map);
            row = band.end;
        }
    }
}
