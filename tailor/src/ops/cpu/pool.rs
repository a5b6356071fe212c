//! Pooling on the CPU: padded max-pool and average pool, forward and backward, over planes.

use super::output::by_chunk;

/// Extents of one pooling over planes of `h * w`.
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
    /// Input rows or columns (`size` of them) that window `o` covers.
    fn window(&self, o: usize, size: usize) -> std::ops::Range<usize> {
        let start = o * self.stride;
        start.saturating_sub(self.pad)..(start + self.kernel).saturating_sub(self.pad).min(size)
    }
}

/// Planes handled by one task.
const PLANES: usize = 32;

fn map_planes(x: &[f32], size_in: usize, size_out: usize, f: impl Fn(&[f32], &mut [f32]) + Sync) -> Vec<f32> {
    by_chunk(x.len() / size_in * size_out, PLANES * size_out, |part, y| {
        let x = &x[part * PLANES * size_in..];
        for (y, x) in y.chunks_exact_mut(size_out).zip(x.chunks_exact(size_in)) {
            f(x, y);
        }
    })
}

/// Largest value of each window; padding never wins.
pub(crate) fn max(s: &PoolShape, x: &[f32]) -> Vec<f32> {
    map_planes(x, s.h * s.w, s.oh * s.ow, |x, y| {
        // The column-wise largest of the window's rows, with the padding at both ends: every window is whole there.
        let mut tallest = vec![f32::NEG_INFINITY; s.w + 2 * s.pad];
        for (i, line) in y.chunks_exact_mut(s.ow).enumerate() {
            let inner = &mut tallest[s.pad..][..s.w];
            inner.fill(f32::NEG_INFINITY);
            for r in s.window(i, s.h) {
                inner.iter_mut().zip(&x[r * s.w..(r + 1) * s.w]).for_each(|(t, x)| *t = t.max(*x));
            }
            line.fill(f32::NEG_INFINITY);
            for k in 0..s.kernel {
                let column = tallest[k..].iter().step_by(s.stride);
                line.iter_mut().zip(column).for_each(|(y, t)| *y = y.max(*t));
            }
        }
    })
}

/// Gradient of [`max`], whose result was `y`: each window's goes to its first largest element, as in PyTorch.
pub(crate) fn max_backward(s: &PoolShape, x: &[f32], y: &[f32], g: &[f32]) -> Vec<f32> {
    let (size_in, size_out) = (s.h * s.w, s.oh * s.ow);
    by_chunk(x.len(), PLANES * size_in, |part, dx| {
        let (x, from) = (&x[part * PLANES * size_in..], part * PLANES * size_out);
        let outputs = y[from..].chunks_exact(size_out).zip(g[from..].chunks_exact(size_out));
        for ((dx, x), (y, g)) in dx.chunks_exact_mut(size_in).zip(x.chunks_exact(size_in)).zip(outputs) {
            for i in 0..s.oh {
                let rows = s.window(i, s.h);
                for j in 0..s.ow {
                    let (columns, largest) = (s.window(j, s.w), y[i * s.ow + j]);
                    let first = rows.clone().find_map(|r| {
                        let line = &x[r * s.w..][columns.clone()];
                        line.iter().position(|x| *x == largest).map(|c| r * s.w + columns.start + c)
                    });
                    // Nothing equals a NaN: its window's gradient has to go somewhere.
                    dx[first.unwrap_or(rows.start * s.w + columns.start)] += g[i * s.ow + j];
                }
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
