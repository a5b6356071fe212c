//! Every kernel against loops over plain `(c, h, w)` maps, on every instruction set of this machine.

use super::conv::Method;
use super::*;
use crate::pool::Pool;
use bundles::plan::{Op, Shape};

/// A small deterministic generator (SplitMix64).
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `low..=high`.
    pub(crate) fn within(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.next() & 1 == 1
    }

    /// `len` floats, uniform in -1..1.
    pub(crate) fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }
}

fn blocked(isa: Isa, x: Shape, plain: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; blocked_len(isa, x)];
    to_blocked(isa, x, plain, &mut out, &Pool::single()).unwrap();
    out
}

/// Back to plain, after checking that padded channels are zero.
fn plain(isa: Isa, x: Shape, data: &[f32]) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len()];
    from_blocked(isa, x, data, &mut out, &Pool::single()).unwrap();
    assert_eq!(blocked(isa, x, &out), data, "padded channels of {x} on {isa} are zero");
    out
}

fn padded(isa: Isa, mut v: Vec<f32>) -> Vec<f32> {
    v.resize(isa.padded(v.len()), 0.0);
    v
}

/// Largest difference relative to the largest value.
fn distance(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    got.iter()
        .zip(want)
        .map(|(a, b)| if a.is_nan() { f32::INFINITY } else { (a - b).abs() / scale })
        .fold(0.0, f32::max)
}

/// Convolution in f64 over plain maps.
fn conv_by_definition(s: &ConvShape, w: &[f32], x: &[f32]) -> Vec<f64> {
    let (oh, ow) = (s.out_h(), s.out_w());
    let mut out = Vec::with_capacity(s.c_out * oh * ow);
    for co in 0..s.c_out {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            let mut sum = 0.0;
            for ci in 0..s.c_in {
                for (ky, kx) in (0..s.kernel).flat_map(|ky| (0..s.kernel).map(move |kx| (ky, kx))) {
                    let (y, x_) =
                        ((oy * s.stride + ky).wrapping_sub(s.pad), (ox * s.stride + kx).wrapping_sub(s.pad));
                    if y < s.h && x_ < s.w {
                        let weight = w[((co * s.c_in + ci) * s.kernel + ky) * s.kernel + kx];
                        sum += f64::from(weight) * f64::from(x[(ci * s.h + y) * s.w + x_]);
                    }
                }
            }
            out.push(sum);
        }
    }
    out
}

/// Runs `s` by every method with a random epilogue and compares with the definition.
fn check_conv(isa: Isa, s: &ConvShape, random: &mut Random, pool: &Pool) {
    let state = random.0;
    for method in Method::all(isa, s) {
        random.0 = state;
        check_method(method, isa, s, random, pool);
    }
}

fn check_method(method: Method, isa: Isa, s: &ConvShape, random: &mut Random, pool: &Pool) {
    let (x, y) = (Shape::new(s.c_in, s.h, s.w), Shape::new(s.c_out, s.out_h(), s.out_w()));
    let w = random.floats(s.c_out * s.c_in * s.kernel * s.kernel);
    let input = random.floats(x.len());
    let scale = random.flag().then(|| random.floats(s.c_out));
    let shift = random.flag().then(|| random.floats(s.c_out));
    let add = random.flag().then(|| (random.floats(y.len()), 0.5 + random.floats(1)[0]));
    let before = random.flag().then(|| random.floats(y.len()));
    let relu = random.flag();

    let pixels = y.h * y.w;
    let want: Vec<f32> = conv_by_definition(s, &w, &input)
        .into_iter()
        .enumerate()
        .map(|(i, sum)| {
            let mut t = sum * scale.as_ref().map_or(1.0, |v| f64::from(v[i / pixels]));
            t += shift.as_ref().map_or(0.0, |v| f64::from(v[i / pixels]));
            t += add.as_ref().map_or(0.0, |(v, coef)| f64::from(v[i]) * f64::from(*coef));
            t += before.as_ref().map_or(0.0, |v| f64::from(v[i]));
            (if relu { t.max(0.0) } else { t }) as f32
        })
        .collect();

    let mut packed = vec![f32::NAN; method.packed_len(isa, s)];
    method.pack(isa, s, &w, &mut packed).unwrap();
    let input = if s.input_nchw { input } else { blocked(isa, x, &input) };
    let scale = scale.map(|v| padded(isa, v));
    let shift = shift.map(|v| padded(isa, v));
    let add = add.map(|(v, coef)| (blocked(isa, y, &v), coef));
    let mut out = match &before {
        Some(before) => blocked(isa, y, before),
        None => vec![f32::NAN; blocked_len(isa, y)],
    };
    let mut scratch = vec![f32::NAN; method.scratch_len(isa, s, pool.threads())];
    let e = Epilogue {
        scale: scale.as_deref(),
        shift: shift.as_deref(),
        add: add.as_ref().map(|(v, coef)| (v.as_slice(), *coef)),
        accumulate: before.is_some(),
        relu,
    };
    method.conv(isa, s, &packed, &input, &e, &mut out, &mut scratch, pool).unwrap();
    let far = distance(&plain(isa, y, &out), &want);
    assert!(far <= 1e-4, "{isa}, {method:?}, {} threads, {s:?}, {e:?}: {far}", pool.threads());
}

fn shape(c_in: usize, size: usize, c_out: usize, kernel: usize, stride: usize) -> ConvShape {
    ConvShape { c_in, h: size, w: size, c_out, kernel, stride, pad: kernel / 2, input_nchw: false }
}

#[test]
fn convolution_agrees_with_its_definition_on_random_shapes() {
    let pools = [Pool::single(), Pool::new(2), Pool::new(3)];
    for isa in Isa::available() {
        let mut random = Random(7);
        for round in 0..160 {
            let kernel = [1, 1, 3, 3, 3, 2, 5, 7][random.within(0, 7)];
            let input_nchw = round % 5 == 0;
            let s = ConvShape {
                c_in: if input_nchw { random.within(1, 4) } else { random.within(1, 40) },
                h: random.within(kernel, 19),
                w: random.within(kernel, 33),
                c_out: random.within(1, 70),
                kernel,
                stride: random.within(1, 3),
                pad: random.within(0, kernel),
                input_nchw,
            };
            check_conv(isa, &s, &mut random, &pools[round % 3]);
        }
    }
}

#[test]
fn convolution_agrees_with_its_definition_on_the_shapes_of_real_networks() {
    let pools = [Pool::single(), Pool::new(2)];
    let stem =
        |size, c_out, kernel, stride| ConvShape { input_nchw: true, ..shape(3, size, c_out, kernel, stride) };
    let shapes = [
        stem(32, 16, 3, 1),
        stem(56, 64, 7, 2),
        shape(16, 32, 16, 3, 1),
        shape(16, 32, 32, 3, 2),
        shape(32, 16, 32, 3, 1),
        shape(32, 16, 64, 1, 2),
        shape(64, 8, 64, 3, 1),
        shape(64, 28, 64, 3, 1),
        shape(64, 56, 16, 3, 1),
        shape(128, 14, 128, 3, 1),
        shape(128, 14, 64, 3, 2),
        shape(256, 7, 256, 3, 1),
        shape(128, 14, 64, 1, 1),
    ];
    for isa in Isa::available() {
        for (index, s) in shapes.iter().enumerate() {
            check_conv(isa, s, &mut Random(index as u64), &pools[index % 2]);
        }
    }
}

#[test]
fn convolution_gives_the_same_bits_on_any_number_of_threads() {
    for isa in Isa::available() {
        for s in [
            shape(16, 32, 16, 3, 1),
            shape(48, 13, 40, 3, 2),
            shape(20, 9, 33, 1, 1),
            shape(96, 12, 96, 3, 1),
        ] {
            let mut random = Random(3);
            let w = random.floats(s.c_out * s.c_in * s.kernel * s.kernel);
            let x = Shape::new(s.c_in, s.h, s.w);
            let input = blocked(isa, x, &random.floats(x.len()));
            for method in Method::all(isa, &s) {
                let mut packed = vec![0.0; method.packed_len(isa, &s)];
                method.pack(isa, &s, &w, &mut packed).unwrap();
                let outputs = [1, 2, 3, 4].map(|threads| {
                    let pool = Pool::new(threads);
                    let mut out = vec![0.0; blocked_len(isa, Shape::new(s.c_out, s.out_h(), s.out_w()))];
                    let mut scratch = vec![0.0; method.scratch_len(isa, &s, threads)];
                    let e = Epilogue::default();
                    method.conv(isa, &s, &packed, &input, &e, &mut out, &mut scratch, &pool).unwrap();
                    out
                });
                assert!(outputs.iter().all(|out| *out == outputs[0]), "{isa}, {method:?}, {s:?}");
            }
        }
    }
}

#[test]
fn short_slices_and_impossible_shapes_are_refused() {
    let pool = Pool::single();
    let good = shape(20, 6, 24, 3, 1);
    for isa in Isa::available() {
        let y = Shape::new(24, 6, 6);
        let mut packed = vec![0.0; packed_len(isa, &good)];
        pack(isa, &good, &vec![0.0; 24 * 20 * 9], &mut packed).unwrap();
        let (input, mut out) =
            (vec![0.0; blocked_len(isa, Shape::new(20, 6, 6))], vec![0.0; blocked_len(isa, y)]);
        let mut scratch = vec![0.0; scratch_len(isa, &good, packed_len(isa, &good), 1)];
        let vector = vec![0.0; isa.padded(24)];
        let e = Epilogue::default();
        let mut run = |s: &ConvShape, cut: &str| {
            let less = |name: &str, len: usize| len - usize::from(cut == name && len > 0);
            let add = vec![0.0; less("add", out.len())];
            let e = Epilogue {
                scale: Some(&vector[..less("scale", vector.len())]),
                shift: Some(&vector[..less("shift", vector.len())]),
                add: Some((&add, 1.0)),
                ..e
            };
            let (out_len, scratch_len) = (less("out", out.len()), less("scratch", scratch.len()));
            conv(
                isa,
                s,
                &packed[..less("weights", packed.len())],
                &input[..less("input", input.len())],
                &e,
                &mut out[..out_len],
                &mut scratch[..scratch_len],
                &pool,
            )
        };
        assert_eq!(run(&good, ""), Ok(()));
        for cut in ["weights", "input", "out", "scale", "shift", "add"] {
            assert!(matches!(run(&good, cut), Err(KernelError::Short { .. })), "{isa}: {cut} cut by one");
        }
        if scratch_len(isa, &good, packed_len(isa, &good), 1) > 0 {
            assert!(matches!(run(&good, "scratch"), Err(KernelError::Short { .. })), "{isa}: scratch");
        }
        let huge = usize::MAX / 2;
        for bad in [
            ConvShape { stride: 0, ..good },
            ConvShape { kernel: 0, ..good },
            ConvShape { kernel: 9, ..good },
            ConvShape { c_in: 0, ..good },
            ConvShape { c_out: 0, ..good },
            ConvShape { c_out: huge, ..good },
            ConvShape { c_in: huge, kernel: 1, ..good },
            ConvShape { h: huge, w: huge, ..good },
            ConvShape { pad: huge, ..good },
            ConvShape { h: 1 << 24, w: 1 << 24, c_in: 1 << 24, ..good },
        ] {
            assert!(run(&bad, "").is_err(), "{isa}: {bad:?}");
            assert!(pack(isa, &bad, &[0.0; 8], &mut [0.0; 8]).is_err(), "{isa}: {bad:?}");
        }
    }
    let nothing = Shape::new(usize::MAX, usize::MAX, usize::MAX);
    let window = Window { kernel: 3, stride: 2, pad: 1 };
    for x in [nothing, Shape::new(0, 4, 4), Shape::new(4, 0, usize::MAX), Shape::new(4, 4, 4)] {
        assert!(max_pool(Isa::Portable, x, window, &[], &mut [], &pool).is_err());
        assert!(global_avg_pool(Isa::Portable, x, &[], &mut [], &pool).is_err());
        assert!(to_blocked(Isa::Portable, x, &[], &mut [], &pool).is_err());
        assert!(from_blocked(Isa::Portable, x, &[], &mut [], &pool).is_err());
        assert!(subsample(Isa::Portable, x, 2, &[], &mut [], &pool).is_err());
        assert!(pad_channels(Isa::Portable, x, 1, usize::MAX, &[], &mut [], &pool).is_err());
        assert!(affine(Isa::Portable, x, &[], &[], true, &[], &mut [], &pool).is_err());
    }
    assert!(linear(Isa::Portable, usize::MAX, 3, &[], None, &[], &mut [], &pool).is_err());
}

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
    for isa in Isa::available() {
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
    for isa in Isa::available() {
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

            let mut out = blocked_a.clone();
            relu(isa, &mut out, &pool).unwrap();
            assert_eq!(plain(isa, x, &out), a.iter().map(|x| x.max(0.0)).collect::<Vec<_>>());

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

#[test]
fn other_machines_kernels_are_refused() {
    let pool = Pool::single();
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.runs_here()) {
        let n = isa.block();
        let (one, mut out) = (vec![1.0; n], vec![0.0; n]);
        let shape = Shape::new(n, 1, 1);
        let done = affine(isa, shape, &one, &one, false, &one, &mut out, &pool);
        assert!(matches!(done, Err(KernelError::Isa { .. })), "{isa}");
        assert!(matches!(relu(isa, &mut out, &pool), Err(KernelError::Isa { .. })), "{isa}");
        assert!(
            matches!(global_avg_pool(isa, shape, &one, &mut out, &pool), Err(KernelError::Isa { .. })),
            "{isa}"
        );
    }
}
