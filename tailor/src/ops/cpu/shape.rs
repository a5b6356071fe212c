//! Convolution geometry: images are laid out as flat padded planes in which every kernel tap is a fixed
//! offset.

use candle_core::{Result, bail};

/// Geometry of a 2-D convolution over `n` images, with a square kernel and symmetric padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConvShape {
    pub n: usize,
    pub c_in: usize,
    pub h: usize,
    pub w: usize,
    pub c_out: usize,
    pub k: usize,
    pub stride: usize,
    pub pad: usize,
    pub oh: usize,
    pub ow: usize,
}

impl ConvShape {
    /// Checks that `x (n, c_in, h, w)` and `w (c_out, c_in, k, k)` fit.
    pub(crate) fn new(x: &[usize], w: &[usize], stride: usize, pad: usize) -> Result<ConvShape> {
        let (&[n, c_in, h, width], &[c_out, w_in, k, k2]) = (x, w) else {
            bail!("conv2d: x {x:?} and w {w:?} must both have four axes")
        };
        if w_in != c_in || k != k2 || k == 0 || stride == 0 {
            bail!(
                "conv2d: kernel {w:?} does not fit x {x:?} (want (c_out, {c_in}, k, k), stride {stride} >= 1)"
            )
        }
        if n == 0 || c_in == 0 || c_out == 0 || h + 2 * pad < k || width + 2 * pad < k {
            bail!("conv2d: x {x:?} padded by {pad} is smaller than kernel {w:?} or empty")
        }
        let out = |size: usize| (size + 2 * pad - k) / stride + 1;
        Ok(ConvShape { n, c_in, h, w: width, c_out, k, stride, pad, oh: out(h), ow: out(width) })
    }

    /// Whether this is a 1x1 convolution with stride 1: planes need no padding and are used in place.
    pub(crate) fn pointwise(&self) -> bool {
        self.k == 1 && self.stride == 1 && self.pad == 0
    }

    /// Number of elements of the kernel.
    pub(crate) fn weights(&self) -> usize {
        self.c_out * self.c_in * self.k * self.k
    }

    /// Number of elements of an input image.
    pub(crate) fn image_in(&self) -> usize {
        self.c_in * self.h * self.w
    }

    /// Number of elements of an output image.
    pub(crate) fn image_out(&self) -> usize {
        self.c_out * self.oh * self.ow
    }

    /// Images processed together: enough pixels for long vector runs, but at least four groups if there are
    /// four images. Depends only on shapes, so that results never depend on the number of threads.
    pub(crate) fn group(&self) -> usize {
        if self.pointwise() { 1 } else { self.long_group().min(self.n.div_ceil(4)) }
    }

    /// Images processed together where threads do not split the images.
    pub(crate) fn long_group(&self) -> usize {
        if self.pointwise() { 1 } else { (1024 / (self.oh * self.ow)).clamp(1, self.n) }
    }
}

/// The planes of a group of images, one after the other, padded so that the input of tap `t` for output pixel
/// `p` is at `t + p`. With stride `s`, each plane is split into its `s * s` phases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    /// Floats from one row to the next.
    pub row: usize,
    /// Rows from one image to the next.
    pub rows: usize,
    /// Floats from one plane to the next.
    pub plane: usize,
    /// Outputs of a flat run over the group, including garbage between rows.
    pub run: usize,
    phases: usize,
    stride: usize,
    lead: usize,
}

impl Grid {
    /// The grid over `x` used by the forward convolution and the weight gradient.
    pub(crate) fn forward(s: &ConvShape, images: usize) -> Grid {
        let reach = (s.k - 1) / s.stride;
        // With stride 1, the zeros to the right of a row are those to the left of the next, and likewise for
        // images.
        let period = |size: usize, out: usize| if s.stride == 1 { size + s.pad } else { out + reach };
        let (row, rows) = (period(s.w, s.ow), period(s.h, s.oh));
        let run = ((images - 1) * rows + s.oh - 1) * row + s.ow;
        let phases = s.stride.min(s.k);
        Grid {
            row,
            rows,
            plane: odd_lines(run + reach * row + reach),
            run,
            phases,
            stride: s.stride,
            lead: s.pad,
        }
    }

    /// Floats of `channels` planes.
    pub(crate) fn len(&self, channels: usize) -> usize {
        channels * self.phases * self.phases * self.plane
    }

    /// Floats from one channel's flat run to the next, in whole cache lines.
    pub(crate) fn run_stride(&self) -> usize {
        self.run.next_multiple_of(16)
    }

    /// Offsets of all kernel taps, in the order of the kernel's memory: channel, row, column.
    pub(crate) fn taps(&self, channels: usize, k: usize) -> Vec<u32> {
        let mut taps = Vec::with_capacity(channels * k * k);
        for c in 0..channels {
            for i in 0..k {
                for j in 0..k {
                    let plane = (c * self.phases + i % self.stride) * self.phases + j % self.stride;
                    taps.push((plane * self.plane + i / self.stride * self.row + j / self.stride) as u32);
                }
            }
        }
        taps
    }

    /// Copies the images of `x (images, c, h, w)` into the zeroed grid.
    pub(crate) fn fill(&self, x: &[f32], s: &ConvShape, grid: &mut [f32]) {
        let images = x.len() / s.image_in();
        for (index, plane) in x.chunks_exact(s.h * s.w).enumerate() {
            let (b, c) = (index / s.c_in, index % s.c_in);
            debug_assert!(b < images);
            for (i, line) in plane.chunks_exact(s.w).enumerate() {
                let r = i + self.lead;
                if self.stride == 1 {
                    let to = c * self.plane + (b * self.rows + r) * self.row + self.lead;
                    grid[to..to + s.w].copy_from_slice(line);
                    continue;
                }
                let (phase, r) = (r % self.stride, r / self.stride);
                if phase >= self.phases || r >= self.rows {
                    continue;
                }
                for p in 0..self.phases {
                    let plane = (c * self.phases + phase) * self.phases + p;
                    let to = plane * self.plane + (b * self.rows + r) * self.row;
                    let first = (p + self.stride - self.lead % self.stride) % self.stride;
                    let at = to + (first + self.lead) / self.stride;
                    let end = to + self.row;
                    if first < s.w && at < end {
                        let source = line[first..].iter().step_by(self.stride);
                        for (cell, value) in grid[at..end].iter_mut().zip(source) {
                            *cell = *value;
                        }
                    }
                }
            }
        }
    }

    /// Copies channels `from..from + channels` of the output gradient `g (images, c_out, oh, ow)` into flat
    /// runs with the layout of the forward grid, `run_stride()` floats apart; the gaps between rows must
    /// already be zero.
    pub(crate) fn fill_runs(&self, g: &[f32], s: &ConvShape, from: usize, channels: usize, runs: &mut [f32]) {
        for (b, image) in g.chunks_exact(s.image_out()).enumerate() {
            let planes = image[from * s.oh * s.ow..].chunks_exact(s.oh * s.ow);
            for (c, plane) in planes.take(channels).enumerate() {
                for (i, line) in plane.chunks_exact(s.ow).enumerate() {
                    let to = c * self.run_stride() + (b * self.rows + i) * self.row;
                    runs[to..to + s.ow].copy_from_slice(line);
                }
            }
        }
    }
}

/// One axis of the input gradient at one phase: which inputs it produces, and from which taps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    /// First input index of this phase.
    pub first: usize,
    /// Number of inputs of this phase.
    pub count: usize,
    /// Output index (before subtracting the tap's number) that belongs to `first`.
    pub origin: usize,
    /// Number of taps: kernel positions `phase, phase + stride, …`.
    pub taps: usize,
}

/// Phases of the input gradient along an axis of `size` inputs.
pub(crate) fn phases(s: &ConvShape, size: usize) -> Vec<Phase> {
    (0..s.stride)
        .map(|phase| {
            let first = (phase + s.stride - s.pad % s.stride) % s.stride;
            let count = if first < size { (size - first).div_ceil(s.stride) } else { 0 };
            let taps = if phase < s.k { (s.k - phase).div_ceil(s.stride) } else { 0 };
            Phase { first, count, origin: (first + s.pad) / s.stride, taps }
        })
        .collect()
}

/// Padded planes of the output gradient, from which the input gradient is computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackGrid {
    pub row: usize,
    pub rows: usize,
    pub plane: usize,
    lead_row: usize,
    lead: usize,
}

impl BackGrid {
    pub(crate) fn new(s: &ConvShape, images: usize) -> BackGrid {
        let axis = |size: usize, out: usize| {
            let (mut lead, mut trail) = (0, 0);
            for p in phases(s, size).iter().filter(|p| p.count > 0 && p.taps > 0) {
                lead = lead.max((p.taps - 1).saturating_sub(p.origin));
                trail = trail.max((p.origin + p.count).saturating_sub(out));
            }
            (lead, out + lead.max(trail))
        };
        let ((lead, row), (lead_row, rows)) = (axis(s.w, s.ow), axis(s.h, s.oh));
        // One more row and the leading padding at the end: shared right padding is read from there.
        BackGrid { row, rows, plane: odd_lines((images * rows + lead_row + 1) * row + lead), lead_row, lead }
    }

    /// Copies the images of `g (images, c_out, oh, ow)` into the zeroed grid.
    pub(crate) fn fill(&self, g: &[f32], s: &ConvShape, grid: &mut [f32]) {
        for (index, plane) in g.chunks_exact(s.oh * s.ow).enumerate() {
            let (b, c) = (index / s.c_out, index % s.c_out);
            for (i, line) in plane.chunks_exact(s.ow).enumerate() {
                let to = c * self.plane + (b * self.rows + i + self.lead_row) * self.row + self.lead;
                grid[to..to + s.ow].copy_from_slice(line);
            }
        }
    }

    /// Offsets of the taps of phase `(v, h)` for all output channels, ordered by channel, row tap, column
    /// tap.
    pub(crate) fn taps(&self, c_out: usize, v: &Phase, h: &Phase) -> Vec<u32> {
        let mut taps = Vec::with_capacity(c_out * v.taps * h.taps);
        for c in 0..c_out {
            for i in 0..v.taps {
                for j in 0..h.taps {
                    let row = v.origin + self.lead_row - i;
                    taps.push((c * self.plane + row * self.row + h.origin + self.lead - j) as u32);
                }
            }
        }
        taps
    }
}

/// Rounds a plane up to an odd number of cache lines, so that planes do not map to the same cache sets.
fn odd_lines(floats: usize) -> usize {
    (floats.div_ceil(16) | 1) * 16
}
