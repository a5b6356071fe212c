//! Convolutions, by every method, against their definition.

use super::*;
use crate::conv::Method;

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
    // A sum of products in half precision is exact to about three digits.
    let most = if isa.is_half() && method == Method::Direct { 4e-3 } else { 1e-4 };
    assert!(far <= most, "{isa}, {method:?}, {} threads, {s:?}, {e:?}: {far}", pool.threads());
}

#[test]
fn convolution_agrees_with_its_definition_on_random_shapes() {
    let pools = [Pool::single(), Pool::new(2), Pool::new(3)];
    for isa in Isa::supported() {
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
        // More weights than one pass may touch, in halves too.
        shape(264, 9, 24, 7, 1),
    ];
    for isa in Isa::supported() {
        for (index, s) in shapes.iter().enumerate() {
            check_conv(isa, s, &mut Random(index as u64), &pools[index % 2]);
        }
    }
}

#[test]
fn convolution_gives_the_same_bits_on_any_number_of_threads() {
    for isa in Isa::supported() {
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
