//! Convolution kernels on random shapes, strides and paddings against a plain `f64` loop, at every level.

use super::{Rng, close};
use crate::ops::cpu::conv;
use crate::ops::cpu::level::Level;
use crate::ops::cpu::shape::ConvShape;
use crate::ops::cpu::winograd::{self, Room};

struct Reference {
    y: Vec<f32>,
    dx: Vec<f32>,
    dw: Vec<f32>,
}

fn reference(s: &ConvShape, x: &[f32], w: &[f32], g: &[f32]) -> Reference {
    let (mut y, mut dx, mut dw) =
        (vec![0f64; s.n * s.image_out()], vec![0f64; s.n * s.image_in()], vec![0f64; s.weights()]);
    for n in 0..s.n {
        for o in 0..s.c_out {
            for i in 0..s.oh {
                for j in 0..s.ow {
                    let at = ((n * s.c_out + o) * s.oh + i) * s.ow + j;
                    for c in 0..s.c_in {
                        for a in 0..s.k {
                            for b in 0..s.k {
                                let (r, q) = (i * s.stride + a, j * s.stride + b);
                                if r < s.pad || q < s.pad || r - s.pad >= s.h || q - s.pad >= s.w {
                                    continue;
                                }
                                let source = ((n * s.c_in + c) * s.h + r - s.pad) * s.w + q - s.pad;
                                let kernel = ((o * s.c_in + c) * s.k + a) * s.k + b;
                                y[at] += f64::from(x[source]) * f64::from(w[kernel]);
                                dx[source] += f64::from(g[at]) * f64::from(w[kernel]);
                                dw[kernel] += f64::from(g[at]) * f64::from(x[source]);
                            }
                        }
                    }
                }
            }
        }
    }
    let round = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect();
    Reference { y: round(y), dx: round(dx), dw: round(dw) }
}

fn check(s: &ConvShape, rng: &mut Rng) {
    let (x, w, g) =
        (rng.floats(s.n * s.image_in()), rng.floats(s.weights()), rng.floats(s.n * s.image_out()));
    let want = reference(s, &x, &w, &g);
    for level in Level::available() {
        close(&format!("{level:?} y {s:?}"), &conv::forward(level, s, &x, &w), &want.y, 1e-5);
        close(&format!("{level:?} dx {s:?}"), &conv::backward_data(level, s, &g, &w), &want.dx, 1e-5);
        close(&format!("{level:?} dw {s:?}"), &conv::backward_weights(level, s, &x, &g), &want.dw, 1e-5);
    }
}

#[test]
fn the_networks_own_shapes() {
    let mut rng = Rng::new(1);
    // n, c_in, size, c_out, k, stride, pad
    let cases = [
        [5, 3, 32, 16, 3, 1, 1],
        [3, 16, 32, 16, 3, 1, 1],
        [3, 16, 32, 32, 3, 2, 1],
        [9, 32, 8, 64, 1, 2, 0],
        [3, 16, 16, 32, 1, 1, 0],
        [9, 20, 8, 20, 3, 1, 1],
        [2, 3, 37, 16, 7, 2, 3],
        [5, 96, 7, 96, 3, 1, 1],
        [5, 16, 14, 32, 3, 2, 1],
    ];
    for [n, c_in, size, c_out, k, stride, pad] in cases {
        let s = ConvShape::new(&[n, c_in, size, size], &[c_out, c_in, k, k], stride, pad).unwrap();
        check(&s, &mut rng);
    }
}

#[test]
fn random_shapes() {
    let mut rng = Rng::new(2);
    let mut done = 0;
    while done < 150 {
        let k = 1 + rng.below(5);
        let x = [1 + rng.below(6), 1 + rng.below(9), 1 + rng.below(14), 1 + rng.below(40)];
        let w = [1 + rng.below(19), x[1], k, k];
        let stride = 1 + rng.below(3);
        let pad = rng.below(4);
        if let Ok(s) = ConvShape::new(&x, &w, stride, pad) {
            check(&s, &mut rng);
            done += 1;
        }
    }
}

#[test]
fn one_thread_or_three() {
    let mut rng = Rng::new(3);
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let shapes = [
        [13, 8, 9, 12, 3, 1],
        [6, 90, 9, 90, 3, 2],
        [7, 16, 8, 24, 1, 1],
        [9, 32, 12, 48, 3, 1],
        [5, 96, 7, 96, 3, 1],
    ];
    for [n, c_in, size, c_out, k, stride] in shapes {
        let s = ConvShape::new(&[n, c_in, size, size], &[c_out, c_in, k, k], stride, k / 2).unwrap();
        let (x, w, g) =
            (rng.floats(s.n * s.image_in()), rng.floats(s.weights()), rng.floats(s.n * s.image_out()));
        let run = || {
            let level = Level::best();
            let y = conv::forward(level, &s, &x, &w);
            (y, conv::backward_data(level, &s, &g, &w), conv::backward_weights(level, &s, &x, &g))
        };
        assert_eq!(pool(1).install(run), pool(3).install(run), "{s:?}");
    }
}

/// Every code path of the Winograd method: few and many weights, bands within and across images, several
/// rounds of images, maps smaller than a tile or a register, channels that do not fill a register.
#[test]
fn winograd_on_any_shape_and_in_any_room() {
    let mut rng = Rng::new(4);
    let rooms = [
        Room::USUAL,
        Room { weights: 0, ..Room::USUAL },
        Room { band: 1, ..Room::USUAL },
        Room { weights: 0, band: 1, shared: 1 },
    ];
    let mut done = 0;
    while done < 60 {
        let x = [1 + rng.below(6), 1 + rng.below(36), 1 + rng.below(12), 1 + rng.below(21)];
        let Ok(s) = ConvShape::new(&x, &[1 + rng.below(70), x[1], 3, 3], 1, rng.below(3)) else { continue };
        done += 1;
        let (x, w, g) =
            (rng.floats(s.n * s.image_in()), rng.floats(s.weights()), rng.floats(s.n * s.image_out()));
        let want = reference(&s, &x, &w, &g);
        for level in Level::available() {
            let (kernels, turned) =
                (conv::winograd_kernels(level, &s, &w), conv::turned_kernels(level, &s, &w));
            for room in rooms {
                let what = |of: &str| format!("{level:?} {of} {s:?} {room:?}");
                close(&what("y"), &winograd::forward(level, &s, &x, &kernels, room), &want.y, 2e-5);
                let dx = winograd::backward_data(level, &s, &g, &turned, room);
                close(&what("dx"), &dx, &want.dx, 2e-5);
                let dw = winograd::backward_weights(level, &s, &x, &g, room);
                close(&what("dw"), &dw, &want.dw, 2e-5);
            }
        }
    }
}

/// Shapes that are common in networks take the fast path; those it would slow down do not.
#[test]
fn winograd_takes_wide_layers_only() {
    let cases =
        [(16, 32, 16, true), (64, 8, 64, true), (512, 7, 512, true), (3, 32, 16, false), (16, 2, 16, false)];
    for (c_in, size, c_out, want) in cases {
        let s = ConvShape::new(&[8, c_in, size, size], &[c_out, c_in, 3, 3], 1, 1).unwrap();
        for level in Level::available().into_iter().filter(|level| *level != Level::Portable) {
            assert_eq!(winograd::handles(level, &s), want, "{level:?} {s:?}");
        }
    }
}
