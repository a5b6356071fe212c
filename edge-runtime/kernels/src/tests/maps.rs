//! Everything but convolutions: pools, layout conversions, elementwise kernels, the classifier.

use super::*;
use bundles::plan::Op;

/// Maps every pixel of `y` through `f(channel, row, column)`.
fn each(y: Shape, f: impl Fn(usize, usize, usize) -> f32) -> Vec<f32> {
    let mut out = Vec::with_capacity(y.len());
    for c in 0..y.c {
        for (i, j) in (0..y.h).flat_map(|i| (0..y.w).map(move |j| (i, j))) {
            out.push(f(c, i, j));
        }
    }
    out
}

#[test]
fn pools_and_moves_agree_with_their_definitions() {
    let pool = Pool::new(2);
    let mut random = Random(11);
    for isa in Isa::supported() {
        for _ in 0..40 {
            let x = Shape::new(random.within(1, 40), random.within(1, 15), random.within(1, 15));
            let data = random.floats(x.len());
            let input = blocked(isa, x, &data);
            let at = |c: usize, i: usize, j: usize| data[(c * x.h + i) * x.w + j];
            let check = |what: &str, y: Shape, out: &[f32], want: Vec<f32>| {
                let far = distance(&plain(isa, y, out), &want);
                assert!(far < 1e-5, "{what} {x} -> {y} on {isa}: {far}");
            };

            let kernel = random.within(1, 4);
            let (stride, pad) = (random.within(1, 3), random.within(0, kernel / 2));
            let values = |c: usize, i: usize, j: usize, pad: usize| {
                let inside = |start: usize, n: usize| {
                    (start..start + kernel)
                        .filter_map(|p| p.checked_sub(pad))
                        .filter(|&p| p < n)
                        .collect::<Vec<_>>()
                };
                let (rows, columns) = (inside(i * stride, x.h), inside(j * stride, x.w));
                let pixels = rows.iter().flat_map(|&y| columns.iter().map(move |&column| (y, column)));
                pixels.map(|(y, column)| at(c, y, column)).collect::<Vec<_>>()
            };
            if let Ok(y) = (Op::MaxPool { kernel, stride, pad }).output(x) {
                let mut out = vec![f32::NAN; blocked_len(isa, y)];
                max_pool(isa, x, Window { kernel, stride, pad }, &input, &mut out, &pool).unwrap();
                let want =
                    each(y, |c, i, j| values(c, i, j, pad).into_iter().fold(f32::NEG_INFINITY, f32::max));
                check("max-pool", y, &out, want);
            }
            if let Ok(y) = (Op::AvgPool { kernel, stride }).output(x) {
                let mut out = vec![f32::NAN; blocked_len(isa, y)];
                avg_pool(isa, x, Window { kernel, stride, pad: 0 }, &input, &mut out, &pool).unwrap();
                let want =
                    each(y, |c, i, j| values(c, i, j, 0).iter().sum::<f32>() / (kernel * kernel) as f32);
                check("avg-pool", y, &out, want);
            }
            let y = Shape::new(x.c, 1, 1);
            let mut out = vec![f32::NAN; blocked_len(isa, y)];
            global_avg_pool(isa, x, &input, &mut out, &pool).unwrap();
            let channel = |c: usize| data[c * x.h * x.w..][..x.h * x.w].iter().sum::<f32>();
            check("global-avg-pool", y, &out, each(y, |c, _, _| channel(c) / (x.h * x.w) as f32));

            let y = (Op::Subsample { stride }).output(x).unwrap();
            let mut out = vec![f32::NAN; blocked_len(isa, y)];
            subsample(isa, x, stride, &input, &mut out, &pool).unwrap();
            check("subsample", y, &out, each(y, |c, i, j| at(c, i * stride, j * stride)));

            let front = [0, 3, 8, 16][random.within(0, 3)];
            let y = Shape::new(front + x.c + random.within(0, 9), x.h, x.w);
            let mut out = vec![f32::NAN; blocked_len(isa, y)];
            pad_channels(isa, x, front, y.c - x.c - front, &input, &mut out, &pool).unwrap();
            let inside = |c: usize| c.checked_sub(front).filter(|&c| c < x.c);
            check("pad-channels", y, &out, each(y, |c, i, j| inside(c).map_or(0.0, |c| at(c, i, j))));
        }
    }
}

#[test]
fn pixelwise_kernels_and_linear_agree_with_their_definitions() {
    let pool = Pool::new(2);
    let mut random = Random(13);
    for isa in Isa::supported() {
        for _ in 0..20 {
            let x = Shape::new(random.within(1, 40), random.within(1, 40), random.within(1, 40));
            let (a, b) = (random.floats(x.len()), random.floats(x.len()));
            let (scale, shift) = (random.floats(x.c), random.floats(x.c));
            let (rectify, accumulate) = (random.flag(), random.flag());
            let end = |t: f32| if rectify { t.max(0.0) } else { t };
            let (blocked_a, blocked_b) = (blocked(isa, x, &a), blocked(isa, x, &b));

            let mut out = vec![f32::NAN; blocked_len(isa, x)];
            let (full_scale, full_shift) = (padded(isa, scale.clone()), padded(isa, shift.clone()));
            affine(isa, x, &full_scale, &full_shift, rectify, &blocked_a, &mut out, &pool).unwrap();
            let at = |v: &[f32], c: usize, i: usize, j: usize| v[(c * x.h + i) * x.w + j];
            let want = each(x, |c, i, j| end(at(&a, c, i, j) * scale[c] + shift[c]));
            assert!(distance(&plain(isa, x, &out), &want) < 1e-5, "affine {x} on {isa}");

            let mut out = blocked_b.clone();
            let len = out.len();
            add_scaled(isa, len, &blocked_a, 0.7, accumulate, rectify, &mut out, &pool).unwrap();
            let before = |c, i, j| if accumulate { at(&b, c, i, j) } else { 0.0 };
            let want = each(x, |c, i, j| end(0.7 * at(&a, c, i, j) + before(c, i, j)));
            assert!(distance(&plain(isa, x, &out), &want) < 1e-5, "add_scaled {x} on {isa}");

            let (c_in, c_out) = (random.within(1, 150), random.within(1, 120));
            let (w, bias, v) = (random.floats(c_in * c_out), random.floats(c_out), random.floats(c_in));
            let mut out = vec![f32::NAN; c_out];
            linear(isa, c_in, c_out, &w, Some(&bias), &v, &mut out, &pool).unwrap();
            let rows = w.chunks(c_in).zip(&bias);
            let want: Vec<f32> =
                rows.map(|(row, b)| row.iter().zip(&v).map(|(w, v)| w * v).sum::<f32>() + b).collect();
            assert!(distance(&out, &want) < 1e-5, "linear {c_in} -> {c_out} on {isa}");
        }
    }
}
