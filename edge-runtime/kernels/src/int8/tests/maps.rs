//! Everything on u8 maps other than convolution.

use super::*;
use crate::Window;
use bundles::plan::Op;

#[test]
fn maps_follow_their_definitions() {
    let pools = [Pool::single(), Pool::new(2)];
    let mut random = Random(9);
    for isa in Isa::available() {
        for round in 0..40 {
            let pool = &pools[round % 2];
            let x = Shape::new(random.within(1, 40), random.within(1, 12), random.within(1, 20));
            let data = bytes(&mut random, x.len());
            let input = map(x, BLOCK, &data, || 9);
            let at = |c: usize, i: usize, j: usize| data[(c * x.h + i) * x.w + j];
            let kernel = random.within(1, 3);
            let (stride, pad) = (random.within(1, 3), random.within(0, kernel / 2));
            let values = |pad: usize, c: usize, i: usize, j: usize| -> Vec<u8> {
                let inside = |o: usize, n: usize| {
                    let taps = o * stride..o * stride + kernel;
                    taps.filter_map(move |p| p.checked_sub(pad)).filter(move |&p| p < n)
                };
                inside(i, x.h).flat_map(|y| inside(j, x.w).map(move |column| at(c, y, column))).collect()
            };
            let each = |y: Shape, f: &dyn Fn(usize, usize, usize) -> u8| -> Vec<u8> {
                let place = |n: usize| (n / y.w / y.h, n / y.w % y.h, n % y.w);
                (0..y.len()).map(place).map(|(c, i, j)| f(c, i, j)).collect()
            };
            if let Ok(y) = (Op::MaxPool { kernel, stride, pad }).output(x) {
                let mut out = vec![1; map_len(y)];
                max_pool(x, Window { kernel, stride, pad }, &input, &mut out, pool).unwrap();
                let want = each(y, &|c, i, j| values(pad, c, i, j).into_iter().max().unwrap());
                assert_eq!(plain(y, &out), want, "max-pool of {x}");
            }
            if let Ok(y) = (Op::AvgPool { kernel, stride }).output(x) {
                let mut out = vec![1; map_len(y)];
                avg_pool(x, Window { kernel, stride, pad: 0 }, &input, &mut out, pool).unwrap();
                let want = each(y, &|c, i, j| {
                    let sum: u32 = values(0, c, i, j).into_iter().map(u32::from).sum();
                    to_byte(sum as f32 * (1.0 / (kernel * kernel) as f32))
                });
                assert_eq!(plain(y, &out), want, "average pool of {x}");
            }
            let y = Shape::new(x.c, x.h.div_ceil(stride), x.w.div_ceil(stride));
            let mut out = vec![1; map_len(y)];
            subsample(x, stride, &input, &mut out, pool).unwrap();
            assert_eq!(plain(y, &out), each(y, &|c, i, j| at(c, i * stride, j * stride)), "subsample of {x}");

            let (front, back) = (random.within(0, 20), random.within(0, 20));
            let y = Shape { c: x.c + front + back, ..x };
            let mut out = vec![1; map_len(y)];
            pad_channels(x, front, back, 77, &input, &mut out, pool).unwrap();
            let want =
                each(y, &|c, i, j| if c < front || c >= front + x.c { 77 } else { at(c - front, i, j) });
            assert_eq!(plain(y, &out), want, "channels around {x}");

            let of = Grid { scale: 0.25, zero: 3 };
            let mut out = vec![0.0; x.c];
            global_avg_pool(x, of, &input, &mut out, pool).unwrap();
            for (c, mean) in out.iter().enumerate() {
                let values = data[c * x.h * x.w..][..x.h * x.w].iter();
                let want = values.map(|&q| 0.25 * (f32::from(q) - 3.0)).sum::<f32>() / (x.h * x.w) as f32;
                assert!((mean - want).abs() < 1e-4, "mean of {x}: {mean} against {want}");
            }

            let scale: Vec<f32> = random.floats(padded(x.c));
            let shift: Vec<f32> = random.floats(padded(x.c)).iter().map(|x| x * 80.0).collect();
            let terms = random.floats(x.len());
            let e = Finish { shift: &shift, add: None, terms: None };
            let before = map(x, BLOCK, &terms, || 0.0);
            let with = Finish { terms: Some((&before, 30.0)), ..e };
            let pixels = x.h * x.w;
            let t = |i: usize| f32::from(data[i]) * scale[i / pixels] + shift[i / pixels];
            let mut out = vec![1; map_len(x)];
            remap(isa, x, &scale, &input, &with, &mut Out::Bytes(&mut out), pool).unwrap();
            let want: Vec<u8> = (0..x.len()).map(|i| to_byte(t(i) + terms[i] * 30.0)).collect();
            assert_eq!(plain(x, &out), want, "remap of {x} on {isa}");
            let mut out = before.clone();
            remap(isa, x, &scale, &input, &e, &mut Out::Onto(&mut out), pool).unwrap();
            let want: Vec<f32> = (0..x.len()).map(|i| t(i) + terms[i]).collect();
            assert_eq!(plain(x, &out), want, "remap of {x} onto floats on {isa}");
        }
    }
}

#[test]
fn images_and_maps_are_rounded_to_the_nearest_byte() {
    let mut random = Random(4);
    let to = Grid { scale: 0.0078, zero: 130 };
    for isa in Isa::available() {
        for (c, image) in [(1, true), (3, true), (4, true), (3, false), (20, false)] {
            let x = Shape::new(c, 7, 9);
            let input: Vec<f32> = random.floats(x.len()).iter().map(|x| 1.2 * x).collect();
            let want: Vec<u8> = input.iter().map(|v| to_byte(v * (1.0 / to.scale) + 130.0)).collect();
            let width = if image { IMAGE } else { BLOCK };
            let mut out = vec![1; map(x, width, &want, || 0).len()];
            quantise(isa, x, to, image, &input, &mut out, &Pool::new(2)).unwrap();
            for (p, pixel) in out.chunks(width).take(63).enumerate() {
                let channels = c.min(width);
                let want: Vec<u8> = (0..channels).map(|c| want[c * 63 + p]).collect();
                assert_eq!(pixel[..channels], want, "{isa}, {x}");
            }
        }
    }
}

#[test]
fn short_maps_and_impossible_shapes_are_refused() {
    let pool = Pool::single();
    for x in [Shape::new(usize::MAX, usize::MAX, 1), Shape::new(0, 4, 4), Shape::new(4, 4, 4)] {
        let window = Window { kernel: 3, stride: 2, pad: 1 };
        let e = Finish { shift: &[], add: None, terms: None };
        assert!(max_pool(x, window, &[], &mut [], &pool).is_err());
        assert!(avg_pool(x, Window { pad: 0, ..window }, &[], &mut [], &pool).is_err());
        assert!(subsample(x, 2, &[], &mut [], &pool).is_err());
        assert!(pad_channels(x, 1, usize::MAX, 0, &[], &mut [], &pool).is_err());
        let of = Grid { scale: 1.0, zero: 0 };
        assert!(global_avg_pool(x, of, &[], &mut [], &pool).is_err());
        assert!(quantise(Isa::Portable, x, of, false, &[], &mut [], &pool).is_err());
        assert!(remap(Isa::Portable, x, &[], &[], &e, &mut Out::Bytes(&mut []), &pool).is_err());
    }
}
