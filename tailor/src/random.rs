//! Keyed pseudo-random numbers: the same for every run, on every machine and in any order of use.

/// A stream of random numbers derived from a key such as `[seed, epoch, image]`.
///
/// SplitMix64 (Steele, Lea & Flood, OOPSLA 2014). For shuffles and augmentation, not for secrets.
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of `key`; it depends on every word.
    pub fn new(key: &[u64]) -> Random {
        let mut random = Random { state: 0 };
        for &word in key {
            random.state ^= word;
            random.state = random.bits();
        }
        random
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound` (0 when `bound` is 0), biased by less than `bound / 2^64`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// A number in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A sample from the standard normal distribution (Box & Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Shuffles `items` uniformly (Fisher & Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depends_on_every_word_of_the_key() {
        let first = |key: &[u64]| Random::new(key).bits();
        assert_eq!(first(&[1, 2, 3]), first(&[1, 2, 3]));
        let keys: [&[u64]; 6] = [&[1, 2, 3], &[1, 3, 2], &[2, 2, 3], &[1, 2], &[1, 2, 4], &[1, 2, 3, 0]];
        for (i, a) in keys.iter().enumerate() {
            for b in &keys[i + 1..] {
                assert_ne!(first(a), first(b), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn is_spread_as_promised() {
        let mut random = Random::new(&[7]);
        let n = 20_000;
        let mut counts = [0; 10];
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..n {
            counts[random.below(10)] += 1;
            let x = random.normal();
            sum += x;
            squares += x * x;
        }
        // Five standard deviations of each statistic.
        assert!(counts.iter().all(|&c: &i32| (c - 2000).abs() < 213), "{counts:?}");
        assert!((sum / f64::from(n)).abs() < 0.036, "mean {}", sum / f64::from(n));
        assert!((squares / f64::from(n) - 1.0).abs() < 0.05, "variance {}", squares / f64::from(n));
    }

    #[test]
    fn shuffles_into_a_permutation() {
        let mut items: Vec<usize> = (0..100).collect();
        Random::new(&[3]).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
