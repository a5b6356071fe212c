//! Elementwise and batch-norm kernels: every level agrees with plain Rust, for any number of threads.

use super::{Rng, close};
use crate::ops::cpu::level::Level;
use crate::ops::cpu::{norm, simple};

#[test]
fn levels_agree() {
    let mut rng = Rng::new(4);
    for pixels in [1, 7, 49, 64, 1000] {
        let (n, c) = (5, 6);
        let (x, g) = (rng.floats(n * c * pixels), rng.floats(n * c * pixels));
        let (weight, bias) = (rng.floats(c), rng.floats(c));
        for relu in [false, true] {
            let run = |level| {
                let (y, stats) = norm::forward(level, &x, pixels, &weight, &bias, 1e-5, relu);
                let d = norm::backward(level, &x, &g, pixels, &weight, &bias, &stats, 1e-5, relu);
                let a = norm::affine(level, &x, pixels, &weight, &bias, relu);
                let b = norm::affine_backward(level, &x, &g, pixels, &weight, &bias, relu);
                let sum = simple::weighted_sum(level, &[(&x, 0.5), (&g, -2.), (&y, 1.)], relu);
                let passed = simple::passed_all(level, &g, &y);
                let (scaled, dot) = simple::scaled_with_dot(level, &g, &x, 0.3);
                assert_eq!((&scaled, dot), (&simple::scaled(level, &g, 0.3), simple::dot_all(level, &g, &x)));
                let sums = vec![dot, simple::mse(level, &x, &g)];
                [y, d.dx, d.weight, d.bias, stats.mean, stats.var, a, b, sum, passed, scaled, sums]
            };
            let want = run(Level::Portable);
            for level in Level::available() {
                for (i, (got, want)) in run(level).iter().zip(&want).enumerate() {
                    close(&format!("{level:?} pixels {pixels} relu {relu} result {i}"), got, want, 2e-5);
                }
            }
        }
    }
}

#[test]
fn one_thread_or_three() {
    let mut rng = Rng::new(5);
    let (n, c, pixels) = (9, 5, 6000);
    let (x, g) = (rng.floats(n * c * pixels), rng.floats(n * c * pixels));
    let (weight, bias) = (rng.floats(c), rng.floats(c));
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let run = || {
        let level = Level::best();
        let (y, stats) = norm::forward(level, &x, pixels, &weight, &bias, 1e-5, true);
        let d = norm::backward(level, &x, &g, pixels, &weight, &bias, &stats, 1e-5, true);
        (y, d.dx, d.weight, simple::mse(level, &x, &g), simple::scaled_with_dot(level, &g, &x, 0.3))
    };
    assert_eq!(pool(1).install(run), pool(3).install(run));
}
