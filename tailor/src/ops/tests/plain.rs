//! Textbook forward passes of every operation in `f64`, from which finite differences are taken.

use super::Rng;

/// Row-major numbers.
#[derive(Debug, Clone)]
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    pub(super) fn new(shape: &[usize], values: Vec<f64>) -> Array {
        assert_eq!(values.len(), shape.iter().product::<usize>());
        Array { shape: shape.to_vec(), values }
    }

    /// Numbers in [-1, 1), exact in `f32`.
    pub(super) fn random(rng: &mut Rng, shape: &[usize]) -> Array {
        let count = shape.iter().product();
        Array::new(shape, rng.floats(count).into_iter().map(f64::from).collect())
    }

    fn four(&self) -> [usize; 4] {
        self.shape.as_slice().try_into().unwrap()
    }

    /// Element `(n, c, i, j)`, counted from the corner of a border of width `pad`; `outside` in the border.
    fn at(&self, [n, c, i, j]: [usize; 4], pad: usize, outside: f64) -> f64 {
        let [_, channels, h, w] = self.four();
        if i < pad || j < pad || i - pad >= h || j - pad >= w {
            return outside;
        }
        self.values[((n * channels + c) * h + i - pad) * w + j - pad]
    }

    fn relu(mut self, relu: bool) -> Array {
        self.values.iter_mut().filter(|_| relu).for_each(|v| *v = v.max(0.0));
        self
    }
}

/// An array of `shape (n, c, h, w)`, computed from each element's index.
fn build(shape: [usize; 4], mut f: impl FnMut([usize; 4]) -> f64) -> Array {
    let mut values = Vec::with_capacity(shape.iter().product());
    for n in 0..shape[0] {
        for c in 0..shape[1] {
            for i in 0..shape[2] {
                values.extend((0..shape[3]).map(|j| f([n, c, i, j])));
            }
        }
    }
    Array::new(&shape, values)
}

fn windows(size: usize, k: usize, stride: usize, pad: usize) -> usize {
    (size + 2 * pad - k) / stride + 1
}

pub(super) fn conv2d(x: &Array, w: &Array, stride: usize, pad: usize) -> Array {
    let ([n, c_in, h, width], [c_out, _, k, _]) = (x.four(), w.four());
    let out = [n, c_out, windows(h, k, stride, pad), windows(width, k, stride, pad)];
    build(out, |[n, o, i, j]| {
        let mut sum = 0.0;
        for c in 0..c_in {
            for a in 0..k {
                for b in 0..k {
                    let kernel = w.values[((o * c_in + c) * k + a) * k + b];
                    sum += kernel * x.at([n, c, i * stride + a, j * stride + b], pad, 0.0);
                }
            }
        }
        sum
    })
}

pub(super) fn affine(x: &Array, scale: &Array, shift: &Array, relu: bool) -> Array {
    build(x.four(), |at| x.at(at, 0, 0.0) * scale.values[at[1]] + shift.values[at[1]]).relu(relu)
}

pub(super) fn batch_norm(x: &Array, weight: &Array, bias: &Array, eps: f64, relu: bool) -> Array {
    let [n, c, h, w] = x.four();
    let count = (n * h * w) as f64;
    let sums = |f: &dyn Fn([usize; 4]) -> f64| {
        let mut sums = vec![0.0; c];
        build(x.four(), |at| {
            sums[at[1]] += f(at);
            0.0
        });
        sums.into_iter().map(|s| s / count).collect::<Vec<f64>>()
    };
    let mean = sums(&|at| x.at(at, 0, 0.0));
    let var = sums(&|at| (x.at(at, 0, 0.0) - mean[at[1]]).powi(2));
    build(x.four(), |at| {
        let c = at[1];
        (x.at(at, 0, 0.0) - mean[c]) / (var[c] + eps).sqrt() * weight.values[c] + bias.values[c]
    })
    .relu(relu)
}

pub(super) fn gated_sum(terms: &[Array], gates: &[Option<usize>], alpha: &Array, relu: bool) -> Array {
    let weight = |gate: &Option<usize>| gate.map_or(1.0, |gate| alpha.values[gate]);
    let sum =
        |i: usize| terms.iter().zip(gates).map(|(term, gate)| weight(gate) * term.values[i]).sum::<f64>();
    Array::new(&terms[0].shape, (0..terms[0].values.len()).map(sum).collect()).relu(relu)
}

pub(super) fn max_pool2d(x: &Array, k: usize, stride: usize, pad: usize) -> Array {
    let [n, c, h, w] = x.four();
    build([n, c, windows(h, k, stride, pad), windows(w, k, stride, pad)], |[n, c, i, j]| {
        let value = |t| x.at([n, c, i * stride + t / k, j * stride + t % k], pad, f64::NEG_INFINITY);
        (0..k * k).map(value).fold(f64::NEG_INFINITY, f64::max)
    })
}

pub(super) fn avg_pool2d(x: &Array, k: usize, stride: usize) -> Array {
    let [n, c, h, w] = x.four();
    build([n, c, windows(h, k, stride, 0), windows(w, k, stride, 0)], |[n, c, i, j]| {
        let value = |t| x.at([n, c, i * stride + t / k, j * stride + t % k], 0, 0.0);
        (0..k * k).map(value).sum::<f64>() / (k * k) as f64
    })
}

pub(super) fn subsample(x: &Array, stride: usize) -> Array {
    let [n, c, h, w] = x.four();
    let out = [n, c, h.div_ceil(stride), w.div_ceil(stride)];
    build(out, |[n, c, i, j]| x.at([n, c, i * stride, j * stride], 0, 0.0))
}

pub(super) fn pad_channels(x: &Array, front: usize, back: usize) -> Array {
    let [n, c, h, w] = x.four();
    build([n, front + c + back, h, w], |[n, o, i, j]| {
        if (front..front + c).contains(&o) { x.at([n, o - front, i, j], 0, 0.0) } else { 0.0 }
    })
}

pub(super) fn global_avg_pool(x: &Array) -> Array {
    let [n, c, h, w] = x.four();
    let means = x.values.chunks(h * w).map(|plane| plane.iter().sum::<f64>() / (h * w) as f64).collect();
    Array::new(&[n, c], means)
}

pub(super) fn cross_entropy(logits: &Array, labels: &[u32], smoothing: f64) -> Array {
    let classes = logits.shape[1];
    let of_row = |(row, label): (&[f64], &u32)| {
        let log_sum = row.iter().map(|v| v.exp()).sum::<f64>().ln();
        let target =
            |c: usize| smoothing / classes as f64 + if c == *label as usize { 1.0 - smoothing } else { 0.0 };
        row.iter().enumerate().map(|(c, v)| target(c) * (log_sum - v)).sum::<f64>()
    };
    let sum: f64 = logits.values.chunks(classes).zip(labels).map(of_row).sum();
    Array::new(&[], vec![sum / labels.len() as f64])
}

pub(super) fn soft_cross_entropy(logits: &Array, target: &Array, temperature: f64) -> Array {
    let classes = logits.shape[1];
    let rows = |x: &Array| -> Vec<Vec<f64>> {
        x.values.chunks(classes).map(|row| row.iter().map(|v| v / temperature).collect()).collect()
    };
    let log_sum = |row: &[f64]| row.iter().map(|v| v.exp()).sum::<f64>().ln();
    let of_row = |(x, t): (&Vec<f64>, &Vec<f64>)| {
        x.iter().zip(t).map(|(v, u)| (u - log_sum(t)).exp() * (log_sum(x) - v)).sum::<f64>()
    };
    let sum: f64 = rows(logits).iter().zip(&rows(target)).map(of_row).sum();
    Array::new(&[], vec![sum / logits.shape[0] as f64])
}

pub(super) fn mse(a: &Array, b: &Array) -> Array {
    let sum: f64 = a.values.iter().zip(&b.values).map(|(a, b)| (a - b) * (a - b)).sum();
    Array::new(&[], vec![sum / a.values.len() as f64])
}
