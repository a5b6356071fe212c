//! Pooling on the CPU: padded max-pool and average pool, forward and backward, plane by plane.

use super::level::Level;
use super::levels::levels;
use super::output::by_chunk;

/// Geometry of a pooling over planes of `h * w`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PoolShape {
    pub h: usize,
    pub w: usize,
    pub kernel: usize,
    pub stride: usize,
    pub pad: usize,
    pub oh: usize,
    pub ow: usize,
}

impl PoolShape {
    /// The input rows (or columns), out of `size`, that window `o` covers.
    fn window(&self, o: usize, size: usize) -> std::ops::Range<usize> {
        let start = o * self.stride;
        start.saturating_sub(self.pad)..(start + self.kernel).saturating_sub(self.pad).min(size)
    }
}

/// Planes per task: few enough that the output stays in the cache.
const PLANES: usize = 8;

fn map_planes(x: &[f32], size_in: usize, size_out: usize, f: impl Fn(&[f32], &mut [f32]) + Sync) -> Vec<f32> {
    by_chunk(x.len() / size_in * size_out, PLANES * size_out, |part, y| {
        let x = &x[part * PLANES * size_in..];
        for (y, x) in y.chunks_exact_mut(size_out).zip(x.chunks_exact(size_in)) {
            f(x, y);
        }
    })
}

levels! {
    /// Maximum of each window of one plane. `line` and `best` have room for a padded row.
    fn max_plane(s: &PoolShape, x: &[f32], y: &mut [f32], line: &mut [f32], best: &mut [f32]) {
        for (i, y) in y.chunks_exact_mut(s.ow).enumerate() {
            // The column-wise maximum of the window's rows, padded at both ends so that every window is
            // complete.
            line.fill(f32::NEG_INFINITY);
            let inner = &mut line[s.pad..][..s.w];
            for r in s.window(i, s.h) {
                inner.iter_mut().zip(&x[r * s.w..(r + 1) * s.w]).for_each(|(t, x)| *t = t.max(*x));
            }
            // Then the maximum from each column on; every stride-th one is a window's.
            let best = &mut best[..line.len() - s.kernel + 1];
            best.copy_from_slice(&line[..best.len()]);
            for k in 1..s.kernel {
                best.iter_mut().zip(&line[k..]).for_each(|(best, t)| *best = best.max(*t));
            }
            y.iter_mut().zip(best.iter().step_by(s.stride)).for_each(|(y, best)| *y = *best);
        }
    }
}

/// Maximum of each window; padding never wins.
pub(crate) fn max(level: Level, s: &PoolShape, x: &[f32]) -> Vec<f32> {
    let (size_in, size_out) = (s.h * s.w, s.oh * s.ow);
    by_chunk(x.len() / size_in * size_out, PLANES * size_out, |part, y| {
        let mut lines = vec![0.; 2 * (s.w + 2 * s.pad)];
        let (line, best) = lines.split_at_mut(s.w + 2 * s.pad);
        let x = x[part * PLANES * size_in..].chunks_exact(size_in);
        for (y, x) in y.chunks_exact_mut(size_out).zip(x) {
            max_plane(level, s, x, y, line, best);
        }
    })
}

/// Rows of a padded plane, with columns grouped by their remainder modulo the stride, so that the elements at
/// the same position in a row's windows are contiguous.
struct Phases {
    /// Columns per remainder.
    width: usize,
    cells: Vec<f32>,
}

impl Phases {
    fn new(s: &PoolShape) -> Phases {
        let width = (s.w + 2 * s.pad).div_ceil(s.stride);
        Phases { width, cells: vec![0.; s.h * s.stride * width] }
    }

    /// Index of column `c` of the unpadded row `r`.
    fn at(&self, s: &PoolShape, r: usize, c: usize) -> usize {
        let c = c + s.pad;
        (r * s.stride + c % s.stride) * self.width + c / s.stride
    }

    /// The first column of an unpadded row with remainder `phase`, and its position in that group.
    fn first(s: &PoolShape, phase: usize) -> (usize, usize) {
        let c = (phase + s.stride - s.pad % s.stride) % s.stride;
        (c, (c + s.pad) / s.stride)
    }

    /// Stores row `r`.
    fn put(&mut self, level: Level, s: &PoolShape, r: usize, x: &[f32]) {
        let size = s.stride * self.width;
        for (phase, cells) in self.cells[r * size..][..size].chunks_exact_mut(self.width).enumerate() {
            let (c, at) = Phases::first(s, phase);
            pick(level, x.get(c..).unwrap_or_default(), s.stride, &mut cells[at..]);
        }
    }

    /// Restores row `r` into `x`.
    fn get(&self, level: Level, s: &PoolShape, r: usize, x: &mut [f32]) {
        let size = s.stride * self.width;
        for (phase, cells) in self.cells[r * size..][..size].chunks_exact(self.width).enumerate() {
            let (c, at) = Phases::first(s, phase);
            place(level, &cells[at..], s.stride, x.get_mut(c..).unwrap_or_default());
        }
    }

    /// Indices of the `k`-th columns of row `r`'s windows.
    fn windows(&self, s: &PoolShape, r: usize, k: usize) -> std::ops::Range<usize> {
        let start = (r * s.stride + k % s.stride) * self.width + k / s.stride;
        start..start + s.ow
    }
}

/// Common strides as constants, for which strided moves compile to vector instructions.
macro_rules! by_stride {
    ($stride:expr, |$s:ident| $moves:expr) => {
        match $stride {
            2 => {
                let $s = 2;
                $moves
            }
            4 => {
                let $s = 4;
                $moves
            }
            $s => $moves,
        }
    };
}

levels! {
    /// Copies every `stride`-th element of `x`, starting with the first.
    fn pick(x: &[f32], stride: usize, to: &mut [f32]) {
        by_stride!(stride, |s| to.iter_mut().zip(x.chunks(s)).for_each(|(to, x)| *to = x[0]));
    }
}
levels! {
    /// The inverse of [`pick`].
    fn place(from: &[f32], stride: usize, x: &mut [f32]) {
        by_stride!(stride, |s| from.iter().zip(x.chunks_mut(s)).for_each(|(from, x)| x[0] = *from));
    }
}
levels! {
    /// Adds what is `left` of the windows' gradients to `d` where `x` equals their maximum `y`.
    fn claim(x: &[f32], y: &[f32], left: &mut [f32], d: &mut [f32]) {
        let windows = left.iter_mut().zip(d).zip(x.iter().zip(y));
        windows.for_each(|((left, d), (x, y))| {
            let is_largest = x == y;
            *d += if is_largest { *left } else { 0. };
            *left = if is_largest { 0. } else { *left };
        });
    }
}

/// Gradient of [`max`], whose result was `y`: each window's gradient goes to its first maximum, as in
/// PyTorch.
pub(crate) fn max_backward(level: Level, s: &PoolShape, x: &[f32], y: &[f32], g: &[f32]) -> Vec<f32> {
    let (size_in, size_out) = (s.h * s.w, s.oh * s.ow);
    by_chunk(x.len(), PLANES * size_in, |part, dx| {
        let (x, from) = (&x[part * PLANES * size_in..], part * PLANES * size_out);
        let outputs = y[from..].chunks_exact(size_out).zip(g[from..].chunks_exact(size_out));
        let (mut values, mut slopes) = (Phases::new(s), Phases::new(s));
        // Nothing compares equal to the padding.
        values.cells.fill(f32::NAN);
        let mut left = vec![0.; s.ow];
        for ((dx, x), (y, g)) in dx.chunks_exact_mut(size_in).zip(x.chunks_exact(size_in)).zip(outputs) {
            for (r, x) in x.chunks_exact(s.w).enumerate() {
                values.put(level, s, r, x);
            }
            slopes.cells.fill(0.);
            for (i, (y, g)) in y.chunks_exact(s.ow).zip(g.chunks_exact(s.ow)).enumerate() {
                left.copy_from_slice(g);
                for r in s.window(i, s.h) {
                    for k in 0..s.kernel {
                        let at = values.windows(s, r, k);
                        claim(level, &values.cells[at.clone()], y, &mut left, &mut slopes.cells[at]);
                    }
                }
                // Nothing compares equal to NaN, but the gradient of its window has to go somewhere.
                for (j, left) in left.iter().enumerate().filter(|(_, left)| **left != 0.) {
                    let at = slopes.at(s, s.window(i, s.h).start, s.window(j, s.w).start);
                    slopes.cells[at] += left;
                }
            }
            for (r, dx) in dx.chunks_exact_mut(s.w).enumerate() {
                slopes.get(level, s, r, dx);
            }
        }
    })
}

/// Mean of each window (no padding).
pub(crate) fn average(s: &PoolShape, x: &[f32]) -> Vec<f32> {
    let scale = 1. / (s.kernel * s.kernel) as f32;
    map_planes(x, s.h * s.w, s.oh * s.ow, |x, y| {
        for i in 0..s.oh {
            for j in 0..s.ow {
                let rows = s.window(i, s.h).map(|r| x[r * s.w..][s.window(j, s.w)].iter().sum::<f32>());
                y[i * s.ow + j] = rows.sum::<f32>() * scale;
            }
        }
    })
}

/// Gradient of [`average`].
pub(crate) fn average_backward(s: &PoolShape, g: &[f32]) -> Vec<f32> {
    let scale = 1. / (s.kernel * s.kernel) as f32;
    map_planes(g, s.oh * s.ow, s.h * s.w, |g, dx| {
        for i in 0..s.oh {
            for j in 0..s.ow {
                for r in s.window(i, s.h) {
                    for cell in &mut dx[r * s.w..][s.window(j, s.w)] {
                        *cell += g[i * s.ow + j] * scale;
                    }
                }
            }
        }
    })
}
