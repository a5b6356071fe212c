//! Tasks for the gradient of the weights: summed products of input and gradient tiles, and the transform
//! back.
#![allow(unsafe_code, unsafe_op_in_unsafe_fn)]

use super::form::PLANES;
use super::product;
use super::tasks::{Target, Task, pitch};
use super::tiles::{Source, Tiling, restore_kernel, transform};
use crate::ops::cpu::lanes::Lanes;
use std::ops::Range;

/// Adds up the gradient of all transformed weights over some images, band by band.
pub(super) struct WeightsByImage<'a> {
    pub t: Tiling,
    pub x: Source<'a>,
    pub g: Source<'a>,
    pub rows: Range<usize>,
    pub band: usize,
    /// `[output block][plane][padded][N]`, owned by this task.
    pub du: Target,
}

impl WeightsByImage<'_> {
    /// Floats of two padded maps, and of the planes of inputs and gradients.
    fn parts(&self, lanes: usize) -> [usize; 4] {
        let rows = self.band.min(self.rows.len());
        let (map, tiles) = (self.t.map_len(rows, lanes), rows * self.t.columns);
        let planes = |channels: usize| PLANES * pitch(channels.div_ceil(lanes), tiles, lanes);
        [map, map, planes(self.t.c_in), planes(self.t.c_out)]
    }
}

impl Task for WeightsByImage<'_> {
    fn scratch(&self, lanes: usize) -> usize {
        self.parts(lanes).iter().sum()
    }

    #[inline(always)]
    unsafe fn work<V: Lanes>(&self, scratch: &mut [f32]) {
        let [map, _, x_len, _] = self.parts(V::N);
        let (maps, planes) = scratch.split_at_mut(2 * map);
        maps.fill(0.);
        let (x_map, g_map) = maps.split_at_mut(map);
        let (x_planes, g_planes) = planes.split_at_mut(x_len);
        let t = &self.t;
        let (blocks_in, blocks_out) = (t.c_in.div_ceil(V::N), t.c_out.div_ceil(V::N));
        let mut row = self.rows.start;
        while row < self.rows.end {
            let band = row..(row + self.band).min(self.rows.end);
            let tiles = band.len() * t.columns;
            let (x_plane, g_plane) = (pitch(blocks_in, tiles, V::N), pitch(blocks_out, tiles, V::N));
            for block in 0..blocks_in {
                let to = x_planes.as_mut_ptr().add(block * tiles * V::N);
                transform::<V, false>(t, &self.x, block, band.clone(), x_map.as_mut_ptr(), to, x_plane);
            }
            for block in 0..blocks_out {
                let to = g_planes.as_mut_ptr().add(block * tiles * V::N);
                transform::<V, true>(t, &self.g, block, band.clone(), g_map.as_mut_ptr(), to, g_plane);
            }
            for out in 0..blocks_out {
                for f in 0..PLANES {
                    let g = g_planes.as_ptr().add(f * g_plane + out * tiles * V::N);
                    for block in 0..blocks_in {
                        let x = x_planes.as_ptr().add(f * x_plane + block * tiles * V::N);
                        let at = ((out * PLANES + f) * blocks_in + block) * V::N * V::N;
                        product::correlate::<V>(x, g, tiles, self.du.first().add(at));
                    }
                }
            }
            row = band.end;
        }
    }
}

/// Adds up the gradient of one output block's transformed weights over the images of shared planes.
pub(super) struct WeightsByChannel<'a> {
    pub t: Tiling,
    pub g: Source<'a>,
    pub planes: &'a [f32],
    pub rows: Range<usize>,
    pub block: usize,
    /// `[plane][padded][N]`, owned by this task.
    pub du: Target,
}

impl Task for WeightsByChannel<'_> {
    fn scratch(&self, lanes: usize) -> usize {
        let tiles = self.rows.len() * self.t.columns;
        self.t.map_len(self.rows.len(), lanes) + PLANES * pitch(1, tiles, lanes)
    }

    #[inline(always)]
    unsafe fn work<V: Lanes>(&self, scratch: &mut [f32]) {
        let t = &self.t;
        let (map, planes) = scratch.split_at_mut(t.map_len(self.rows.len(), V::N));
        map.fill(0.);
        let tiles = self.rows.len() * t.columns;
        let blocks = t.c_in.div_ceil(V::N);
        let (x_plane, g_plane) = (pitch(blocks, tiles, V::N), pitch(1, tiles, V::N));
        let (to, rows) = (planes.as_mut_ptr(), self.rows.clone());
        transform::<V, true>(t, &self.g, self.block, rows, map.as_mut_ptr(), to, g_plane);
        for f in 0..PLANES {
            for block in 0..blocks {
                let x = self.planes.as_ptr().add(f * x_plane + block * tiles * V::N);
                let du = self.du.first().add((f * blocks + block) * V::N * V::N);
                product::correlate::<V>(x, planes.as_ptr().add(f * g_plane), tiles, du);
            }
        }
    }
}

/// The gradient of one output block's weights from partial gradients of their transform.
pub(super) struct KernelGradient<'a> {
    /// Partial sums, each `[plane][padded][N]`.
    pub du: Vec<&'a [f32]>,
    pub c_in: usize,
    /// Input channels, rounded up to whole blocks.
    pub padded: usize,
    /// Number of output channels in the block.
    pub present: usize,
    /// `(present, c_in, 3, 3)`, owned by this task.
    pub dw: Target,
}

impl Task for KernelGradient<'_> {
    fn scratch(&self, _: usize) -> usize {
        0
    }

    #[inline(always)]
    unsafe fn work<V: Lanes>(&self, _: &mut [f32]) {
        restore_kernel::<V>(&self.du, self.c_in, self.padded, self.present, self.dw.first());
    }
}
