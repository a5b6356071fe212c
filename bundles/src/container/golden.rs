//! Golden vectors: a seed defines an input that is bit-identical on every machine.

/// One replayable check: the network's scores for the input generated from `seed`.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// Seed for [`golden_input`].
    pub seed: u64,
    /// Expected class scores (before softmax), one per class.
    pub scores: Vec<f32>,
    /// Largest accepted `|got - expected| / max(1, max |expected|)`, positive.
    pub tolerance: f32,
}

impl Golden {
    /// Distance between `scores` and the expected ones, to be compared with [`Golden::tolerance`]:
    /// `max |got - expected| / max(1, max |expected|)`. Infinite if their number differs or one is not finite.
    pub fn distance(&self, scores: &[f32]) -> f32 {
        if scores.len() != self.scores.len() || scores.iter().any(|x| !x.is_finite()) {
            return f32::INFINITY;
        }
        let scale = self.scores.iter().fold(1.0f32, |m, x| m.max(x.abs()));
        let far = self.scores.iter().zip(scores).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        far / scale
    }
}

/// Fills `out` with the *preprocessed* network input (`(c, h, w)`, row-major) generated from `seed`.
///
/// SplitMix64 started at `seed`; each element is `(n - 2^23) / 2^23` for the upper 24 bits `n` of the next
/// output, which is exact in f32 and lies in `[-1, 1)`.
pub fn golden_input(seed: u64, out: &mut [f32]) {
    let mut state = seed;
    for x in out {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let n = (z >> 40) as i32 - (1 << 23);
        *x = n as f32 / (1 << 23) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SplitMix64's published outputs for seed 0 are e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f.
    #[test]
    fn first_values_never_change() {
        let mut out = [0.0; 3];
        golden_input(0, &mut out);
        let expected = [0xe220a8, 0x6e789e, 0x06c45d].map(|n: i32| (n - 0x80_0000) as f32 / 8_388_608.0);
        assert_eq!(out, expected);
        assert_eq!(out[0].to_bits(), 0x3f44_4150);
    }

    #[test]
    fn values_fill_exactly_the_interval() {
        let mut out = vec![0.0; 100_000];
        golden_input(42, &mut out);
        assert!(out.iter().all(|x| (-1.0..1.0).contains(x)));
        let mean = out.iter().sum::<f32>() / out.len() as f32;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!(out.iter().any(|&x| x > 0.99) && out.iter().any(|&x| x < -0.99));
    }

    #[test]
    fn distance_is_relative_to_the_largest_score() {
        let golden = Golden { seed: 0, scores: vec![10.0, -2.0], tolerance: 1e-4 };
        assert_eq!(golden.distance(&[10.0, -2.0]), 0.0);
        assert_eq!(golden.distance(&[9.0, -2.0]), 0.1);
        assert_eq!(golden.distance(&[10.0]), f32::INFINITY);
        assert_eq!(golden.distance(&[10.0, f32::NAN]), f32::INFINITY);
    }
}
