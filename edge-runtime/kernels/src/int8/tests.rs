//! Integer kernels against plain loops, on every `Machine` this one supports; results must be equal.

mod maps;
mod pointwise;

use super::conv::conv_on;
use super::dot::Machine;
use super::*;
use crate::pool::Pool;
use crate::tests::Random;
use crate::{ConvShape, Isa};
use bundles::plan::Shape;

fn bytes(random: &mut Random, len: usize) -> Vec<u8> {
    (0..len).map(|_| random.next() as u8).collect()
}

/// Bytes in the range of weights: -127..=127.
fn weights(random: &mut Random, len: usize) -> Vec<i8> {
    bytes(random, len).into_iter().map(|b| (b as i8).max(-127)).collect()
}

/// Blocks (or an image) from plain `(c, h, w)`; the padding is noise that must not affect any kernel.
fn map<T: Copy>(x: Shape, width: usize, plain: &[T], mut noise: impl FnMut() -> T) -> Vec<T> {
    let pixels = x.h * x.w;
    let mut out = Vec::new();
    for block in 0..x.c.div_ceil(width) {
        for pixel in 0..pixels {
            for c in block * width..(block + 1) * width {
                out.push(if c < x.c { plain[c * pixels + pixel] } else { noise() });
            }
        }
    }
    out
}

/// Plain `(c, h, w)` from blocks.
fn plain<T: Copy>(x: Shape, map: &[T]) -> Vec<T> {
    let pixels = x.h * x.w;
    (0..x.len())
        .map(|i| map[(i / pixels / BLOCK * pixels + i % pixels) * BLOCK + i / pixels % BLOCK])
        .collect()
}

/// The sums of products over plain maps; `zero` outside the input.
fn sums(s: &ConvShape, w: &[i8], x: &[u8], zero: u8) -> Vec<i32> {
    let (oh, ow) = (s.out_h(), s.out_w());
    let mut out = Vec::with_capacity(s.c_out * oh * ow);
    for co in 0..s.c_out {
        for (oy, ox) in (0..oh).flat_map(|oy| (0..ow).map(move |ox| (oy, ox))) {
            let mut sum = 0;
            for ci in 0..s.c_in {
                for (ky, kx) in (0..s.kernel).flat_map(|ky| (0..s.kernel).map(move |kx| (ky, kx))) {
                    let y = (oy * s.stride + ky).wrapping_sub(s.pad);
                    let column = (ox * s.stride + kx).wrapping_sub(s.pad);
                    let inside = y < s.h && column < s.w;
                    let q = if inside { x[(ci * s.h + y) * s.w + column] } else { zero };
                    let weight = w[((co * s.c_in + ci) * s.kernel + ky) * s.kernel + kx];
                    sum += i32::from(weight) * i32::from(q);
                }
            }
            out.push(sum);
        }
    }
    out
}

fn to_byte(t: f32) -> u8 {
    t.clamp(0.0, 255.0).round_ties_even() as u8
}

/// A random convolution on `machine` with everything that can be fused into it.
fn check_conv(machine: Machine, s: &ConvShape, random: &mut Random, pool: &Pool) {
    let (x, y) = (Shape::new(s.c_in, s.h, s.w), Shape::new(s.c_out, s.out_h(), s.out_w()));
    let w = weights(random, s.c_out * s.c_in * s.kernel * s.kernel);
    let input = bytes(random, x.len());
    let zero = if random.flag() { 0 } else { random.next() as u8 };
    let products = (s.c_in * s.kernel * s.kernel) as f32;
    let channels = |random: &mut Random, size: f32| -> Vec<f32> {
        random.floats(padded(s.c_out)).iter().map(|x| x * size).collect()
    };
    let scale = channels(random, 1.0 / (60.0 * products.sqrt()));
    let shift = channels(random, 200.0);
    let add = random.flag().then(|| (bytes(random, y.len()), random.floats(1)[0]));
    let terms = random.flag().then(|| (random.floats(y.len()), 50.0 + random.floats(1)[0]));
    let before: Vec<f32> = random.floats(y.len()).iter().map(|x| x * 90.0).collect();

    let mut packed = vec![99; packed_len(s)];
    pack(s, &w, &mut packed).unwrap();
    let width = if s.input_nchw { IMAGE } else { BLOCK };
    let blocked = map(x, width, &input, || random.next() as u8);
    let add_map = add.as_ref().map(|(v, k)| (map(y, BLOCK, v, || 7), *k));
    let terms_map = terms.as_ref().map(|(v, k)| (map(y, BLOCK, v, || 0.5), *k));
    let e = Finish {
        shift: &shift,
        add: add_map.as_ref().map(|(v, k)| (v.as_slice(), *k)),
        terms: terms_map.as_ref().map(|(v, k)| (v.as_slice(), *k)),
    };
    let pixels = y.h * y.w;
    let expect = |onto: bool| -> Vec<f32> {
        let sums = sums(s, &w, &input, zero).into_iter().enumerate();
        sums.map(|(i, sum)| {
            let mut t = sum as f32 * scale[i / pixels] + shift[i / pixels];
            if let Some((v, k)) = &add {
                t += f32::from(v[i]) * k;
            }
            match &terms {
                _ if onto => t += before[i],
                Some((v, k)) => t += v[i] * k,
                None => {}
            }
            t
        })
        .collect()
    };
    let mut scratch = vec![3; scratch_len(s)];
    let mut run = |out: &mut Out<'_>| {
        conv_on(machine, s, &packed, &scale, &blocked, zero, &e, out, &mut scratch, pool).unwrap();
    };
    let what = format!("{machine:?}, {} threads, {s:?}", pool.threads());

    let mut out = vec![1; map_len(y)];
    run(&mut Out::Bytes(&mut out));
    let want: Vec<u8> = expect(false).into_iter().map(to_byte).collect();
    assert_eq!(plain(y, &out), want, "{what}, to bytes");
    assert!(want.iter().any(|&q| q > 0 && q < 255) || want.len() < 9, "{what}: everything is clamped");

    let mut out = vec![f32::NAN; map_len(y)];
    run(&mut Out::Floats(&mut out));
    assert_eq!(plain(y, &out), expect(false), "{what}, to floats");

    let mut out = map(y, BLOCK, &before, || 0.0);
    run(&mut Out::Onto(&mut out));
    assert_eq!(plain(y, &out), expect(true), "{what}, onto floats");
}

#[test]
fn convolution_matches_its_definition_on_random_shapes() {
    let pools = [Pool::single(), Pool::new(2), Pool::new(3)];
    for machine in Machine::available() {
        let mut random = Random(5);
        for round in 0..120 {
            let kernel = [1, 1, 3, 3, 3, 2, 5, 7][random.within(0, 7)];
            let input_nchw = round % 5 == 0;
            let s = ConvShape {
                c_in: if input_nchw { random.within(1, 4) } else { random.within(1, 70) },
                h: random.within(kernel, 17),
                w: random.within(kernel, 33),
                c_out: random.within(1, 90),
                kernel,
                stride: random.within(1, 3),
                pad: random.within(0, kernel),
                input_nchw,
            };
            check_conv(machine, &s, &mut random, &pools[round % 3]);
        }
    }
}

#[test]
fn convolution_matches_its_definition_on_the_shapes_of_real_networks() {
    let shape = |c_in, size, c_out, kernel, stride| ConvShape {
        c_in,
        h: size,
        w: size,
        c_out,
        kernel,
        stride,
        pad: kernel / 2,
        input_nchw: c_in == 3,
    };
    let shapes = [
        shape(3, 32, 16, 3, 1),
        shape(3, 42, 64, 7, 2),
        shape(16, 32, 16, 3, 1),
        shape(16, 32, 32, 3, 2),
        shape(64, 28, 64, 3, 1),
        shape(128, 14, 64, 1, 2),
        shape(128, 7, 80, 3, 1),
    ];
    let pools = [Pool::single(), Pool::new(2)];
    for machine in Machine::available() {
        for (index, s) in shapes.iter().enumerate() {
            check_conv(machine, s, &mut Random(index as u64), &pools[index % 2]);
        }
    }
}

/// The largest possible sums: products of bytes, added in pairs, no longer fit 16 bits.
#[test]
fn the_largest_bytes_and_weights_do_not_saturate() {
    let s = ConvShape { c_in: 64, h: 5, w: 5, c_out: 16, kernel: 3, stride: 1, pad: 0, input_nchw: false };
    for machine in Machine::available() {
        for weight in [127i8, -127] {
            let mut packed = vec![0; packed_len(&s)];
            pack(&s, &vec![weight; 16 * 64 * 9], &mut packed).unwrap();
            let input = vec![255; map_len(Shape::new(64, 5, 5))];
            let mut out = vec![0.0; 9 * 16];
            let e = Finish { shift: &[0.0; 16], add: None, terms: None };
            let pool = Pool::single();
            let to = &mut Out::Floats(&mut out);
            conv_on(machine, &s, &packed, &[1.0; 16], &input, 0, &e, to, &mut [], &pool).unwrap();
            let want = 255.0 * 64.0 * 9.0 * f32::from(weight);
            assert!(out.iter().all(|&x| x == want), "{machine:?}: {out:?}, want {want}");
        }
    }
}

#[test]
fn rows_are_quantised_with_their_own_scales() {
    let w = [0.5, -1.0, 0.25, 0.0, 0.0, 0.0, 1e-42, -1e-42, 0.0, f32::MAX, -f32::MAX, 1.0];
    let (mut q, mut scales) = ([9; 12], [9.0; 4]);
    quantise_rows(&w, 4, Bits::ALL, &mut q, &mut scales).unwrap();
    assert_eq!(q, [63, -126, 32, 0, 0, 0, 0, 0, 0, 126, -126, 0]);
    assert_eq!([scales[1], scales[2]], [1.0; 2]);
    for (scale, most) in [(scales[0], 1.0), (scales[3], f32::MAX)] {
        assert!((1.0..1.0 + 1.0 / 128.0).contains(&(scale / (most / 127.0))), "{scale} for {most}");
        assert_eq!(scale.to_bits() & 0xffff, 0);
    }
    let six = Bits::new(6).unwrap();
    quantise_rows(&w, 4, six, &mut q, &mut scales).unwrap();
    assert_eq!(q, [15, -31, 8, 0, 0, 0, 0, 0, 0, 31, -31, 0]);
    assert!((1.0..1.0 + 1.0 / 128.0).contains(&(scales[0] * 31.0)), "{}", scales[0]);
    assert!(
        [0, 1, 9, 255].into_iter().all(|bits| Bits::new(bits).is_none()) && Bits::new(8) == Some(Bits::ALL)
    );
    assert!(quantise_rows(&w, 5, Bits::ALL, &mut q, &mut scales).is_err());
    assert!(quantise_rows(&w, 0, Bits::ALL, &mut q, &mut scales).is_err());
}

#[test]
fn row_sums_match_the_weights() {
    let s = ConvShape { c_in: 21, h: 5, w: 5, c_out: 19, kernel: 3, stride: 1, pad: 1, input_nchw: false };
    let w = weights(&mut Random(1), 19 * 21 * 9);
    let (mut packed, mut sums) = (vec![0; packed_len(&s)], vec![7; 32]);
    pack(&s, &w, &mut packed).unwrap();
    row_sums(&s, &packed, &mut sums).unwrap();
    let want: Vec<i32> = w.chunks(21 * 9).map(|row| row.iter().map(|&w| i32::from(w)).sum()).collect();
    assert_eq!(sums[..19], want);
    assert_eq!(sums[19..], [0; 13]);
}

#[test]
fn short_slices_and_impossible_shapes_are_refused() {
    let pool = Pool::single();
    let good = ConvShape { c_in: 20, h: 6, w: 6, c_out: 24, kernel: 3, stride: 1, pad: 1, input_nchw: false };
    let packed = vec![0; packed_len(&good)];
    let (input, floats) = (vec![0; 2 * 36 * 16], vec![0.0; 2 * 36 * 16]);
    let channels = [0.0; 32];
    let run = |s: &ConvShape, cut: &str| {
        let less = |name: &str, len: usize| len - usize::from(cut == name);
        let e = Finish {
            shift: &channels[..less("shift", 32)],
            add: Some((&input[..less("add", input.len())], 1.0)),
            terms: Some((&floats[..less("terms", floats.len())], 1.0)),
        };
        let mut out = vec![0; less("out", input.len())];
        let mut scratch = vec![0; less("scratch", scratch_len(&good))];
        conv(
            Isa::Portable,
            s,
            &packed[..less("weights", packed.len())],
            &channels[..less("scale", 32)],
            &input[..less("input", input.len())],
            0,
            &e,
            &mut Out::Bytes(&mut out),
            &mut scratch,
            &pool,
        )
    };
    assert_eq!(run(&good, ""), Ok(()));
    for cut in ["weights", "input", "out", "scale", "shift", "add", "terms", "scratch"] {
        assert!(matches!(run(&good, cut), Err(KernelError::Short { .. })), "{cut} cut by one");
    }
    let huge = usize::MAX / 2;
    for bad in [
        ConvShape { stride: 0, ..good },
        ConvShape { kernel: 0, ..good },
        ConvShape { kernel: 9, ..good },
        ConvShape { c_in: 0, ..good },
        ConvShape { c_out: huge, ..good },
        ConvShape { h: huge, w: huge, ..good },
        ConvShape { input_nchw: true, ..good },
        ConvShape { c_in: 1 << 16, kernel: 2, ..good },
    ] {
        assert!(run(&bad, "").is_err(), "{bad:?}");
        assert!(pack(&bad, &[0; 8], &mut [0; 8]).is_err(), "{bad:?}");
        assert_eq!(scratch_len(&bad), 0, "{bad:?}");
    }
}
