//! Sums of 1x1 convolutions against plain loops, bit for bit.

use super::super::pointwise::pointwise_on;
use super::*;
use crate::MAX_TERMS;

/// What one call is given: plain maps and weights, and factors padded to whole blocks.
struct Case {
    y: Shape,
    terms: Vec<Plain>,
    shift: Vec<f32>,
    add: Option<(Vec<u8>, f32)>,
    sum: Option<(Vec<f32>, f32)>,
}

struct Plain {
    channels: usize,
    weights: Vec<i8>,
    scale: Vec<f32>,
    map: Vec<u8>,
}

fn scaled(random: &mut Random, len: usize, size: f32) -> Vec<f32> {
    random.floats(len).iter().map(|x| x * size).collect()
}

impl Case {
    fn random(y: Shape, count: usize, random: &mut Random) -> Case {
        let terms = (0..count).map(|_| {
            let channels = random.within(1, 40);
            let size = 1.0 / (60.0 * ((channels * count) as f32).sqrt());
            Plain {
                channels,
                weights: weights(random, y.c * channels),
                scale: scaled(random, padded(y.c), size),
                map: bytes(random, channels * y.h * y.w),
            }
        });
        Case {
            y,
            terms: terms.collect(),
            shift: scaled(random, padded(y.c), 200.0),
            add: random.flag().then(|| (bytes(random, y.len()), random.floats(1)[0])),
            sum: random.flag().then(|| (random.floats(y.len()), 50.0 + random.floats(1)[0])),
        }
    }

    /// The output by definition, as floats; `before` is what it held, if it is added to.
    fn by_definition(&self, before: Option<&[f32]>) -> Vec<f32> {
        let pixels = self.y.h * self.y.w;
        let value = |i: usize| {
            let (channel, pixel) = (i / pixels, i % pixels);
            let mut t = None;
            for Plain { channels, weights, scale, map } in &self.terms {
                let products = (0..*channels)
                    .map(|c| i32::from(weights[channel * channels + c]) * i32::from(map[c * pixels + pixel]));
                let term = products.sum::<i32>() as f32 * scale[channel];
                t = Some(term + t.unwrap_or(self.shift[channel]));
            }
            let mut t = t.unwrap();
            if let Some((v, k)) = &self.add {
                t += f32::from(v[i]) * k;
            }
            match (before, &self.sum) {
                (Some(before), _) => t += before[i],
                (None, Some((v, k))) => t += v[i] * k,
                (None, None) => {}
            }
            t
        };
        (0..self.y.len()).map(value).collect()
    }

    /// Calls `run` with the terms and the epilogue as the kernel takes them.
    fn with<R>(&self, run: impl FnOnce(&[Term<'_>], &Finish<'_>) -> R) -> R {
        let y = self.y;
        let pack_term = |term: &Plain| {
            let s = shape(y, term.channels);
            let mut packed = vec![99; packed_len(&s)];
            pack(&s, &term.weights, &mut packed).unwrap();
            (packed, map(Shape { c: term.channels, ..y }, BLOCK, &term.map, || 201))
        };
        let packed: Vec<_> = self.terms.iter().map(pack_term).collect();
        let terms: Vec<Term<'_>> = self
            .terms
            .iter()
            .zip(&packed)
            .map(|(Plain { channels, scale, .. }, (weights, input))| Term {
                channels: *channels,
                weights,
                scale,
                input,
            })
            .collect();
        let add = self.add.as_ref().map(|(v, k)| (map(y, BLOCK, v, || 7), *k));
        let sum = self.sum.as_ref().map(|(v, k)| (map(y, BLOCK, v, || 0.5), *k));
        let e = Finish {
            shift: &self.shift,
            add: add.as_ref().map(|(v, k)| (v.as_slice(), *k)),
            terms: sum.as_ref().map(|(v, k)| (v.as_slice(), *k)),
        };
        run(&terms, &e)
    }

    fn check(&self, machine: Machine, pool: &Pool, random: &mut Random) {
        let y = self.y;
        let what = format!("{machine:?}, {} threads, {y}, {} terms", pool.threads(), self.terms.len());
        let before = scaled(random, y.len(), 90.0);
        self.with(|terms, e| {
            let run = |out: &mut Out<'_>| pointwise_on(machine, y, terms, e, out, pool).unwrap();

            let mut out = vec![1; map_len(y)];
            run(&mut Out::Bytes(&mut out));
            let want: Vec<u8> = self.by_definition(None).into_iter().map(to_byte).collect();
            assert_eq!(plain(y, &out), want, "{what}, to bytes");
            assert!(want.iter().any(|&q| q > 0 && q < 255) || want.len() < 9, "{what}: all is clamped");

            let mut out = vec![f32::NAN; map_len(y)];
            run(&mut Out::Floats(&mut out));
            assert_eq!(plain(y, &out), self.by_definition(None), "{what}, to floats");

            let mut out = map(y, BLOCK, &before, || 0.0);
            run(&mut Out::Onto(&mut out));
            assert_eq!(plain(y, &out), self.by_definition(Some(&before)), "{what}, onto floats");
        });
    }
}

/// The shape of one term's convolution.
fn shape(y: Shape, c_in: usize) -> ConvShape {
    let Shape { c: c_out, h, w } = y;
    ConvShape { c_in, h, w, c_out, kernel: 1, stride: 1, pad: 0, input_nchw: false }
}

#[test]
fn sums_match_their_definition_on_any_number_of_threads() {
    let pools = [1, 2, 3].map(Pool::new);
    for machine in Machine::available() {
        let mut random = Random(23);
        for (count, round) in (1..=MAX_TERMS).flat_map(|count| (0..15).map(move |round| (count, round))) {
            let y = Shape::new(random.within(1, 90), random.within(1, 9), random.within(1, 33));
            Case::random(y, count, &mut random).check(machine, &pools[round % 3], &mut random);
        }
    }
}

#[test]
fn a_single_term_is_a_convolution() {
    let (mut random, pool) = (Random(29), Pool::single());
    for machine in Machine::available() {
        for _ in 0..20 {
            let y = Shape::new(random.within(1, 70), random.within(1, 9), random.within(1, 20));
            Case::random(y, 1, &mut random).with(|terms, e| {
                let Term { channels, weights, scale, input } = terms[0];
                let (mut sum, mut conv) = (vec![1.0; map_len(y)], vec![2.0; map_len(y)]);
                pointwise_on(machine, y, terms, e, &mut Out::Floats(&mut sum), &pool).unwrap();
                let (s, out) = (shape(y, channels), &mut Out::Floats(&mut conv));
                conv_on(machine, &s, weights, scale, input, 77, e, out, &mut [], &pool).unwrap();
                assert_eq!(plain(y, &sum), plain(y, &conv), "{machine:?}, {y}, {channels} channels");
            });
        }
    }
}

#[test]
fn short_slices_and_wrong_numbers_of_terms_are_refused() {
    let pool = Pool::single();
    let y = Shape::new(24, 5, 6);
    let len = map_len(y);
    let packed = vec![0; packed_len(&shape(y, 20))];
    let (map, floats, channels) = (vec![0; 2 * 30 * BLOCK], vec![0.0; len], [0.0; 32]);
    let run = |isa: Isa, y: Shape, count: usize, channels_in: usize, cut: &str| {
        let less = |name: &str, len: usize| len - usize::from(cut == name);
        // Of several terms, the last one is short.
        let whole = Term { channels: channels_in, weights: &packed, scale: &channels, input: &map };
        let mut terms = vec![whole; count];
        if let Some(last) = terms.last_mut() {
            last.weights = &packed[..less("weights", packed.len())];
            last.scale = &channels[..less("scale", 32)];
            last.input = &map[..less("input", map.len())];
        }
        let e = Finish {
            shift: &channels[..less("shift", 32)],
            add: Some((&map[..less("add", len)], 1.0)),
            terms: Some((&floats[..less("terms", len)], 1.0)),
        };
        let mut out = vec![0; less("out", len)];
        pointwise(isa, y, &terms, &e, &mut Out::Bytes(&mut out), &pool)
    };
    for count in 1..=MAX_TERMS {
        assert_eq!(run(Isa::Portable, y, count, 20, ""), Ok(()));
    }
    for cut in ["weights", "scale", "input", "shift", "add", "terms", "out"] {
        for count in [1, 3] {
            let refused = run(Isa::Portable, y, count, 20, cut);
            assert!(matches!(refused, Err(KernelError::Short { .. })), "{cut} cut by one: {refused:?}");
        }
    }
    for count in [0, MAX_TERMS + 1] {
        let refused = run(Isa::Portable, y, count, 20, "");
        assert!(matches!(refused, Err(KernelError::Shape { .. })), "{count} terms: {refused:?}");
    }
    for channels in [0, (1 << 16) + 1, usize::MAX] {
        assert!(run(Isa::Portable, y, 2, channels, "").is_err(), "{channels} channels");
    }
    for bad in [Shape { c: 0, ..y }, Shape { h: 0, ..y }, Shape { w: usize::MAX, ..y }] {
        assert!(run(Isa::Portable, bad, 2, 20, "").is_err(), "{bad}");
    }
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.runs_here()) {
        assert_eq!(run(isa, y, 2, 20, ""), Err(KernelError::Isa { isa }));
    }
}
