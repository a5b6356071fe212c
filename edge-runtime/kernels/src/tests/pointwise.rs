//! Sums of 1x1 convolutions against their definition: any number of terms, every epilogue and size of tile.

use super::*;

/// What one call is given, as plain maps.
struct Case {
    y: Shape,
    /// Channels, weights `(c_out, channels)` and map of each term.
    terms: Vec<(usize, Vec<f32>, Vec<f32>)>,
    scale: Option<Vec<f32>>,
    shift: Option<Vec<f32>>,
    /// The residual and its coefficient.
    add: Option<(Vec<f32>, f32)>,
    /// What lies in the output before, where that is added to.
    before: Option<Vec<f32>>,
    relu: bool,
}

impl Case {
    /// A sum of `count` terms with the parts of an epilogue that `parts` has bits for.
    fn random(y: Shape, count: usize, parts: usize, random: &mut Random) -> Case {
        let has = |part: usize| parts >> part & 1 == 1;
        let mut term = || {
            let channels = random.within(1, 33);
            (channels, random.floats(y.c * channels), random.floats(channels * y.h * y.w))
        };
        let terms = (0..count).map(|_| term()).collect();
        Case {
            y,
            terms,
            scale: has(0).then(|| random.floats(y.c)),
            shift: has(1).then(|| random.floats(y.c)),
            add: has(2).then(|| (random.floats(y.len()), 0.5 + random.floats(1)[0])),
            before: has(3).then(|| random.floats(y.len())),
            relu: has(4),
        }
    }

    fn by_definition(&self) -> Vec<f32> {
        let pixels = self.y.h * self.y.w;
        let value = |i: usize| {
            let (channel, pixel) = (i / pixels, i % pixels);
            let mut sum = 0.0;
            for (channels, w, x) in &self.terms {
                for c in 0..*channels {
                    sum += f64::from(w[channel * channels + c]) * f64::from(x[c * pixels + pixel]);
                }
            }
            let mut t = sum * self.scale.as_ref().map_or(1.0, |v| f64::from(v[channel]));
            t += self.shift.as_ref().map_or(0.0, |v| f64::from(v[channel]));
            t += self.add.as_ref().map_or(0.0, |(v, coef)| f64::from(v[i]) * f64::from(*coef));
            t += self.before.as_ref().map_or(0.0, |v| f64::from(v[i]));
            (if self.relu { t.max(0.0) } else { t }) as f32
        };
        (0..self.y.len()).map(value).collect()
    }

    /// The kernel's answer on each pool, blocked.
    fn on(&self, isa: Isa, pools: &[Pool]) -> Vec<Vec<f32>> {
        let y = self.y;
        let pack_term = |(channels, w, x): &(usize, Vec<f32>, Vec<f32>)| {
            let s = ConvShape { h: y.h, w: y.w, ..shape(*channels, 1, y.c, 1, 1) };
            let mut packed = vec![f32::NAN; packed_len(isa, &s)];
            pack(isa, &s, w, &mut packed).unwrap();
            (*channels, packed, blocked(isa, Shape { c: *channels, ..y }, x))
        };
        let packed: Vec<_> = self.terms.iter().map(pack_term).collect();
        let terms: Vec<Term<'_>> = packed
            .iter()
            .map(|(channels, weights, input)| Term { channels: *channels, weights, input })
            .collect();
        let scale = self.scale.clone().map(|v| padded(isa, v));
        let shift = self.shift.clone().map(|v| padded(isa, v));
        let add = self.add.as_ref().map(|(v, coef)| (blocked(isa, y, v), *coef));
        let e = Epilogue {
            scale: scale.as_deref(),
            shift: shift.as_deref(),
            add: add.as_ref().map(|(v, coef)| (v.as_slice(), *coef)),
            accumulate: self.before.is_some(),
            relu: self.relu,
        };
        let run = |pool: &Pool| {
            let mut out = match &self.before {
                Some(before) => blocked(isa, y, before),
                None => vec![f32::NAN; blocked_len(isa, y)],
            };
            pointwise(isa, y, &terms, &e, &mut out, pool).unwrap();
            out
        };
        pools.iter().map(run).collect()
    }
}

#[test]
fn sums_of_pointwise_convolutions_agree_with_their_definition_on_any_number_of_threads() {
    let pools = [1, 2, 3].map(Pool::new);
    for isa in Isa::supported() {
        let mut random = Random(17);
        for (count, parts) in (1..=MAX_TERMS).flat_map(|count| (0..32).map(move |parts| (count, parts))) {
            // Whole blocks or not, and as many of them as are computed together, twice over, and some.
            let c =
                random.within(1, 10) * isa.block() - random.within(0, 1) * random.within(0, isa.block() - 1);
            // From one pixel to several parts of the work.
            let y = Shape::new(c, random.within(1, 9), random.within(1, 15));
            let case = Case::random(y, count, parts, &mut random);
            let outputs = case.on(isa, &pools);
            let far = distance(&plain(isa, y, &outputs[0]), &case.by_definition());
            let most = if isa.is_half() { 4e-3 } else { 1e-5 };
            assert!(far <= most, "{isa}, {y}, {count} terms, epilogue {parts:05b}: {far}");
            assert!(outputs.iter().all(|out| *out == outputs[0]), "{isa}, {y}, {count} terms: threads");
        }
    }
}
