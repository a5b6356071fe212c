//! Pooling on the CPU: padded max-pool and average pool, forward and backward, over planes.

use rayon::prelude::*;

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
    let mut y = vec![0.; x.len() / size_in * size_out];
    y.par_chunks_mut(PLANES * size_out).zip(x.par_chunks(PLANES * size_in)).for_each(|(y, x)| {
        for (y, x) in y.chunks_exact_mut(size_out).zip(x.chunks_exact(size_in)) {
            f(x, y);
        }
    });
    y
}

/// Largest value of each window; padding never wins.
pub(crate) fn max(s: &PoolShape, x: &[f32]) -> Vec<f32> {
    map_planes(x, s.h * s.w, s.oh * s.ow, |x, y| {
        let mut tallest = vec![0f32; s.w];
        for (i, line) in y.chunks_exact_mut(s.ow).enumerate() {
            tallest.fill(f32::NEG_INFINITY);
            for r in s.window(i, s.h) {
                tallest.iter_mut().zip(&x[r * s.w..(r + 1) * s.w]).for_each(|(t, x)| *t = t.max(*x));
            }
            for (j, y) in line.iter_mut().enumerate() {
                *y = tallest[s.window(j, s.w)].iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            }
        }
    })
}

/// Gradient of [`max`]: each window's goes to its first largest element, as in PyTorch.
pub(crate) fn max_backward(s: &PoolShape, x: &[f32], g: &[f32]) -> Vec<f32> {
    let (size_in, size_out) = (s.h * s.w, s.oh * s.ow);
    let mut dx = vec![0.; x.len()];
    dx.par_chunks_mut(PLANES * size_in)
        .zip(x.par_chunks(PLANES * size_in).zip(g.par_chunks(PLANES * size_out)))
        .for_each(|(dx, (x, g))| {
            for ((dx, x), g) in
                dx.chunks_exact_mut(size_in).zip(x.chunks_exact(size_in)).zip(g.chunks_exact(size_out))
            {
                for i in 0..s.oh {
                    for j in 0..s.ow {
                        let (mut best, mut at) = (f32::NEG_INFINITY, None);
                        for r in s.window(i, s.h) {
                            for c in s.window(j, s.w) {
                                if at.is_none() || x[r * s.w + c] > best {
                                    best = x[r * s.w + c];
                                    at = Some(r * s.w + c);
                                }
                            }
                        }
                        if let Some(at) = at {
                            dx[at] += g[i * s.ow + j];
                        }
                    }
                }
            }
        });
    dx
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
